"""Put a report into words: the verdict, the error terms, where it goes wrong, what is not proved.

The terminal and the page use the same sentences. This module knows the keys of the rows; it knows
nothing of layout, and measures nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from llama_export.verification.findings import Divergence
from llama_export.verification.rows import (
    NO_CHECKPOINT,
    NO_WEIGHTS,
    WARNING,
    Row,
    VerifyReport,
    format_value,
)


@dataclass(frozen=True)
class Term:
    """One of the errors that a verification keeps apart.

    Args:
        key: ending of the keys of its rows.
        name: name for people.
        brief: comparison in a few words.
        meaning: comparison in a sentence or two.
        measurement: key of its figures in `VerifyReport.measurements`.
    """

    key: str
    name: str
    brief: str
    meaning: str
    measurement: str


TERMS = (
    Term(
        "exact",
        "lowering",
        "same weights, same arithmetic",
        "The artifact in float32 against PyTorch with the same weights; where the runtime always "
        "rounds activations, PyTorch rounds alike. Only the order of sums may differ, so this is "
        "next to nothing; more is a bug.",
        "lowering_exact",
    ),
    Term(
        "activation",
        "activation rounding",
        "faster arithmetic or exact",
        "The runtime rounds what flows between the layers to multiply faster. A price, not a bug.",
        "activation",
    ),
    Term(
        "shipped",
        "both, as shipped",
        "same weights, as it is run",
        "The artifact as it is shipped against PyTorch with the same weights.",
        "lowering_shipped",
    ),
    Term(
        "quantisation",
        "quantisation",
        "these weights or the original",
        "The quantised weights against the checkpoint's, both in PyTorch: what fewer bits cost.",
        "quantisation",
    ),
    Term(
        "rounding",
        "plain rounding",
        "the same bits with no method",
        "The linears rounded to nearest into the same forms, in PyTorch: what the method of the "
        "quantised weights is measured against.",
        "rounding",
    ),
)


@dataclass(frozen=True)
class TermFigures:
    """The figures of a term.

    Args:
        term: term that they belong to.
        kl: mean KL in nats; None when that comparison was not made.
        same_token: share of positions with the same most likely token.
        positions: number of positions compared.
        passed: verdict of the KL's row; None when it is not judged.
    """

    term: Term
    kl: float | None
    same_token: float | None
    positions: int | None
    passed: bool | None


def found_terms(report: VerifyReport) -> tuple[TermFigures, ...]:
    """Return the figures of the terms that the report has a row for, in their order."""
    rows = {row.key: row for row in report.rows}
    found = []
    for term in TERMS:
        kl, same = rows.get(f"kl_{term.key}"), rows.get(f"top1_{term.key}")
        if kl is None:
            continue
        positions = report.measurements.get(term.measurement, {}).get("positions")
        count = positions if isinstance(positions, int) else None
        share = None if same is None else same.value
        found.append(TermFigures(term, kl.value, share, count, kl.passed))
    return tuple(found)


def verdict(report: VerifyReport) -> str:
    """Return the outcome in one line."""
    judged = sum(row.passed is not None for row in report.rows)
    if report.failures:
        return f"FAILED, {len(report.failures)} of {count(judged, 'check')}"
    if not judged:
        return "nothing was checked"
    checks = count(judged, "check")
    if report.settings.get("quick"):
        checks += " of the quick version"
    open_checks = len(report.unmade)
    if report.missing:
        return f"not proved: {checks} passed, {open_checks} could not be made"
    besides = f"; {count(open_checks, 'check')} could not be made" if open_checks else ""
    warned = f", {len(report.warnings)} with a warning" if report.warnings else ""
    return f"passed, {checks}{warned}{besides}"


def calibration(report: VerifyReport) -> str:
    """Return what the weights were calibrated on, or nothing where that is not known."""
    made = (row for row in report.rows if row.key == "calibration" and row.made)
    return next((f"{row.name}: {format_value(row.value)}; {row.note}" for row in made), "")


def warnings(report: VerifyReport) -> tuple[str, ...]:
    """List what passed and should be known."""
    return tuple(
        f"{row.name}: {format_value(row.value)}; {row.note.removeprefix(WARNING)}"
        for row in report.warnings
    )


def count(number: int, noun: str) -> str:
    """Format a number with its noun in the singular or plural."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_share(share: float | None) -> str:
    """Format a share as per cent, rounded down: only all of them are 100%."""
    if share is None or not math.isfinite(share):
        return ""
    return "100%" if share >= 1 else f"{math.floor(share * 1000) / 10:.1f}%"


def same_token(figures: TermFigures) -> str:
    """Format the share of positions where the most likely next token is the same."""
    share = format_share(figures.same_token)
    if not share or figures.positions is None:
        return share
    return f"{share} of {figures.positions}"


def format_kl(figures: TermFigures) -> str:
    """Format a term's KL, or that there is none."""
    return "not measured" if figures.kl is None else format_value(figures.kl)


def place(divergence: Divergence) -> str:
    """Name the operator as a reader counts: by layer, and then within it."""
    if divergence.layer is None:
        return divergence.operator
    within = divergence.operator.removeprefix(f"model.layers.{divergence.layer}.")
    return f"layer {divergence.layer}, {within}"


def not_located(report: VerifyReport) -> str:
    """Return why a failure is not located, or nothing where there is nothing to explain."""
    searched = [row for row in report.rows if row.key == "operators" and row.made]
    if report.divergence is not None or not report.failures or not searched:
        return ""
    return (
        f"Every operator is right {searched[0].note}: the fault is at a later position, or around "
        "the graph."
    )


def error_and_limit(divergence: Divergence) -> str:
    """Format the error where the artifact goes wrong, with its limit."""
    error, limit = format_value(divergence.error), format_value(divergence.limit)
    return f"relative error {error}, at most {limit} expected"


def not_proved(report: VerifyReport) -> tuple[str, ...]:
    """List why checks were not made, and what it would take to make them."""
    by_want: dict[str, list[str]] = {}
    for row in report.unmade:
        want, _, unproved = reason(row).partition("; ")
        if unproved.endswith(_NOT_PROVED):
            by_want.setdefault(want, []).append(unproved.removesuffix(_NOT_PROVED))
    said = [
        f"{row.name}: {reason(row)}"
        for row in report.unmade
        if reason(row).partition("; ")[0] not in by_want
    ]
    wants = [f"{want}, so it is not proved {', '.join(what)}" for want, what in by_want.items()]
    said = [*wants, *said]
    options = [option for lack, option in _OPTIONS.items() if lack in by_want]
    if options:
        said.append(f"{' and '.join(options)} would tell what this bundle is to be compared with")
    return tuple(said)


def reason(row: Row) -> str:
    """Return why a check was not made."""
    return row.note.removeprefix("not checked: ") or "not made"


_NOT_PROVED = " is not proved"
_OPTIONS: Mapping[str, str] = {
    NO_WEIGHTS: "--weights FOLDER",
    NO_CHECKPOINT: "--checkpoint MODEL",
}
