"""Put a report into words: the verdict, the error terms, where it goes wrong, what is not proved.

The terminal and the page use the same sentences. This module knows the keys of the rows; it knows
nothing of layout, and measures nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from llama_export.verification.estimate import Estimate
from llama_export.verification.findings import Divergence
from llama_export.verification.identity import Identity
from llama_export.verification.rows import (
    NO_CHECKPOINT,
    NO_WEIGHTS,
    WARNING,
    Row,
    VerifyReport,
    estimate_of,
    format_estimate,
    format_row_value,
    format_value,
)
from llama_quantize.recipe import quality_and_method


@dataclass(frozen=True)
class Term:
    """One of the errors that a verification keeps apart.

    Args:
        key: stable name.
        row: ending of the keys of its rows.
        name: name for people.
        brief: comparison in a few words.
        meaning: comparison in a sentence or two.
        measurement: key of its figures in `VerifyReport.measurements`.
    """

    key: str
    row: str
    name: str
    brief: str
    meaning: str
    measurement: str


_EXACT = Term(
    "exact",
    "exact",
    "lowering",
    "same arithmetic",
    "The artifact in float32 against PyTorch with the same weights. Only the order of sums may "
    "differ, so this is next to nothing; more is a bug.",
    "lowering_exact",
)
# Of a runtime that always rounds nothing else compares like with like: left to run freely, two that
# round alike tip different codes, and end as far apart as rounding itself puts them.
_STEPS = Term(
    "exact",
    "shipped_emulated",
    "lowering",
    "same arithmetic",
    "Each step of the artifact, after its own keys and values, against PyTorch that rounds alike: "
    "what differs began in that very step. Steps in which no rounding tips agree to float32; sums "
    "in another order tip some, and those cost a part of what rounding costs.",
    "lowering_shipped_emulated",
)
_OTHERS = (
    Term(
        "activation",
        "activation",
        "activation rounding",
        "faster or exact",
        "The runtime rounds what flows between the layers to multiply faster. A price, not a bug.",
        "activation",
    ),
    Term(
        "shipped",
        "shipped",
        "both, as shipped",
        "as it is run",
        "The artifact as it is shipped against PyTorch with the same weights.",
        "lowering_shipped",
    ),
    Term(
        "quantisation",
        "quantisation",
        "quantisation",
        "against the original",
        "The quantised weights against the checkpoint's, both in PyTorch: what fewer bits cost.",
        "quantisation",
    ),
    Term(
        "rounding",
        "rounding",
        "plain rounding",
        "with no method",
        "The linears rounded to nearest into the same forms, in PyTorch: what the method of the "
        "quantised weights is measured against.",
        "rounding",
    ),
)
# The percentiles of the KL that stand beside its mean.
_PERCENTILES = ("kl_p90", "kl_p99", "kl_max")


@dataclass(frozen=True)
class TermFigures:
    """The figures of a term.

    Args:
        term: term that they belong to.
        kl: mean KL in nats; None when that comparison was not made.
        worst: KL that 90 % and 99 % of the positions stay within, and the largest; None where it
            is not known.
        same_token: share of positions with the same most likely token; None as `kl`.
        positions: number of positions compared.
        passed: verdict of the KL's row; None when it is not judged.
    """

    term: Term
    kl: Estimate | None
    worst: tuple[float | None, ...]
    same_token: Estimate | None
    positions: int | None
    passed: bool | None


def found_terms(report: VerifyReport) -> tuple[TermFigures, ...]:
    """Return the figures of the terms that the report has a row for, in their order."""
    rows = {row.key: row for row in report.rows}
    # Steps are compared where the runtime always rounds, and nowhere else.
    lowering = _STEPS if "cache_steps" in rows else _EXACT
    found = []
    for term in (lowering, *_OTHERS):
        kl, same = rows.get(f"kl_{term.row}"), rows.get(f"top1_{term.row}")
        if kl is None:
            continue
        measured = report.measurements.get(term.measurement, {})
        positions = measured.get("positions")
        worst = (measured.get(name) for name in _PERCENTILES)
        found.append(
            TermFigures(
                term=term,
                kl=estimate_of(kl),
                worst=tuple(each if isinstance(each, float) else None for each in worst),
                same_token=None if same is None else estimate_of(same),
                positions=positions if isinstance(positions, int) else None,
                passed=kl.passed,
            )
        )
    return tuple(found)


def clean_steps(report: VerifyReport) -> str:
    """Return how well the better half of single steps agrees; nothing where none were compared."""
    measured = report.measurements.get(_STEPS.measurement, {})
    median, positions = measured.get("kl_p50"), measured.get("positions")
    if not isinstance(median, float) or not any(row.key == "cache_steps" for row in report.rows):
        return ""
    return f"lowering: half of the {positions} single steps agree to a KL of {median:.1e} or better"


def perplexities(report: VerifyReport) -> str:
    """Return the perplexities of the original and of its quantised weights, and their ratio."""
    rows = {row.key: row for row in report.rows if row.value is not None}
    keys = ("perplexity_checkpoint", "perplexity_quantised", "perplexity_ratio")
    if not all(key in rows for key in keys):
        return ""
    original, quantised, ratio = (format_row_value(rows[key]) for key in keys)
    return f"perplexity {original} of the original, {quantised} quantised: {ratio} times"


def measured_on(report: VerifyReport) -> str:
    """Return over what the means were taken; nothing where no text was read."""
    settings = report.settings
    if "text_sha256" not in settings:
        return ""
    others = sorted({figures.positions or 0 for figures in found_terms(report)})
    read = settings.get("positions", 0)
    fewer = [str(each) for each in others if each and each != read]
    besides = f" (lowering: {', '.join(fewer)})" if fewer else ""
    return (
        f"mean ± standard error over {read} positions{besides} of the text "
        f"{settings.get('text')}, sha256 {str(settings['text_sha256'])[:12]}"
    )


def identity_lines(identity: Identity) -> list[str]:
    """Return in two lines what was measured, and with what."""
    groups = f" in groups of {identity.group_size}" if identity.group_size else ""
    methods = f", {quality_and_method(', '.join(identity.methods))}" if identity.methods else ""
    commit = f" at {identity.commit[:12]}" if identity.commit else ""
    versions = ", ".join(f"{name} {version}" for name, version in identity.versions.items())
    return [
        f"{identity.recipe}{groups}{methods}, {identity.bits_per_weight:g} bits a weight, of "
        f"{identity.source}{commit}",
        f"{versions}; {identity.processor}",
    ]


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
    return next((f"{row.name}: {format_row_value(row)}; {row.note}" for row in made), "")


def warnings(report: VerifyReport) -> tuple[str, ...]:
    """List what passed and should be known."""
    return tuple(
        f"{row.name}: {format_row_value(row)}; {row.note.removeprefix(WARNING)}"
        for row in report.warnings
    )


def count(number: int, noun: str) -> str:
    """Format a number with its noun in the singular or plural."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_share(share: Estimate | None) -> str:
    """Format a share in percent with its error; only all of them are 100%."""
    if share is None or not math.isfinite(share.value):
        return ""
    if share.value >= 1:
        return "100%"
    if share.error > 0:
        return f"{share.shown(100)}%"
    return f"{math.floor(share.value * 1000) / 10:.1f}%"


def same_token(figures: TermFigures) -> str:
    """Format the share of positions where the most likely next token is the same."""
    share = format_share(figures.same_token)
    if not share or figures.positions is None:
        return share
    return f"{share} of {figures.positions}"


def format_kl(figures: TermFigures) -> str:
    """Format a term's KL, or that there is none."""
    return "not measured" if figures.kl is None else format_estimate(figures.kl)


def format_worst(figures: TermFigures) -> tuple[str, ...]:
    """Format the KL that 90 % and 99 % of the positions stay within, and the largest."""
    return tuple("" if each is None else f"{each:.2g}" for each in figures.worst)


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
