"""Write a report as one HTML file that needs nothing else: no script, no request, no font.

The page reads on a phone, on light and dark screens, and on paper. `page.html.jinja` has its
layout, which escapes whatever comes from outside, such as the name of a model or a tensor;
`wording` has the sentences, `plots` the pictures. This module measures and judges nothing. The same
report makes the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_export.verification.findings import TensorFigure
from llama_export.verification.identity import Identity
from llama_export.verification.report.layout import check_page, fill_page, write_page
from llama_export.verification.report.plots import draw_plots, format_size, tensor_order
from llama_export.verification.report.wording import (
    clean_steps,
    error_and_limit,
    format_kl,
    format_share,
    format_worst,
    found_terms,
    identity_lines,
    measured_on,
    not_located,
    not_proved,
    perplexities,
    place,
    verdict,
)
from llama_export.verification.rows import (
    SECTIONS,
    Row,
    VerifyReport,
    format_row_value,
    format_value,
)
from llama_export.version import __version__
from llama_quantize.recipe import quality_and_method

# The first line of every page, by which a page is known as ours.
FIRST_LINE = "<!doctype html><!-- a verification report of llama-export -->"

# A result is a sign, a word and a colour, so that none of them is needed.
_RESULTS: Mapping[bool | None, tuple[str, str]] = {
    True: ("good", "✓ passed"),
    False: ("bad", "✗ FAILED"),
    None: ("", ""),
}
_NOT_MADE = ("open", "○ not made")
_WARNING = ("open", "△ warning")
_SIGNS = {"good": "✓", "bad": "✗", "open": "○"}

_SETTINGS: Mapping[str, str] = {
    "positions": "Positions read",
    "exact_steps": "Single steps in exact arithmetic",
    "quick": "Short version",
    "strict": "Strict",
    "text": "Text",
    "text_sha256": "SHA-256 of the text",
    "text_tokens": "Tokens of the text",
    "longest_prefill": "Longest prefill",
    "max_context": "Context",
    "threads": "Threads",
    "runtime": "Runtime",
}


@dataclass(frozen=True)
class _Check:
    """A row of a table of checks, in words."""

    name: str
    note: str
    state: str
    word: str
    value: str
    limit: str


@dataclass(frozen=True)
class _Term:
    """A row of the table of errors, in words."""

    name: str
    meaning: str
    kl: str
    worst: tuple[tuple[str, str], ...]
    same_token: str
    positions: str


@dataclass(frozen=True)
class _Section:
    title: str
    rows: tuple[_Check, ...]


@dataclass(frozen=True)
class _Tensor:
    name: str
    bits: int
    sqnr: str
    size: str


@dataclass(frozen=True)
class _Identity:
    headline: str
    facts: tuple[tuple[str, str], ...]


def render_html(report: VerifyReport) -> str:
    """Lay a report out as a page.

    Raises:
        BackendUnavailableError: there is something to plot, and matplotlib is not installed.
    """
    plots = () if report.plot_data is None else draw_plots(report.plot_data)
    words = _words(report)
    return fill_page(
        __name__.rpartition(".")[0],
        {**words, "first_line": FIRST_LINE, "plots": plots, "version": __version__},
    )


def check_html(path: Path) -> None:
    """Refuse, before a verification, a page that could not be drawn or written.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        OutputError: the path is a folder, cannot be written, or is a file that is not ours.
    """
    check_page(path, FIRST_LINE)


def write_html(report: VerifyReport, path: Path) -> None:
    """Write a report as a page, in place of an earlier one.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        OutputError: the path is a folder, cannot be written, or is a file that is not ours.
    """
    check_html(path)
    write_page(render_html(report), path, FIRST_LINE)


def _words(report: VerifyReport) -> dict[str, Any]:
    """Put everything but the pictures into words, by the names that the layout has for them."""
    divergence = report.divergence
    state = "good" if report.passed else "bad" if report.failures else "open"
    tensors = () if report.plot_data is None else report.plot_data.tensors
    sections = (
        _Section(title, tuple(_check(row) for row in report.rows if row.section == section))
        for section, title in SECTIONS.items()
    )
    return {
        "title": f"{report.model} for {report.target}",
        "verdict": verdict(report),
        "state": state,
        "sign": _SIGNS[state],
        "not_located": not_located(report),
        "divergence": divergence,
        "place": "" if divergence is None else place(divergence),
        "error_and_limit": "" if divergence is None else error_and_limit(divergence),
        "failures": [_check(row) for row in report.failures],
        "terms": _terms(report),
        "remarks": [
            f"{line[0].upper()}{line[1:]}."
            for line in (clean_steps(report), measured_on(report), perplexities(report))
            if line
        ],
        "not_proved": not_proved(report),
        "sections": [section for section in sections if section.rows],
        "tensors": _tensors(tensors),
        "identity": None if report.identity is None else _identity(report.identity),
        "settings": [(_SETTINGS.get(key, key), _said(v)) for key, v in report.settings.items()],
    }


def _terms(report: VerifyReport) -> list[_Term]:
    labels = ("90 %", "99 %", "largest")
    return [
        _Term(
            name=figures.term.name,
            meaning=figures.term.meaning,
            kl=format_kl(figures),
            worst=tuple(zip(labels, format_worst(figures), strict=True)),
            same_token=format_share(figures.same_token),
            positions="" if figures.positions is None else f"of {figures.positions}",
        )
        for figures in found_terms(report)
        if figures.kl is not None
    ]


def _check(row: Row) -> _Check:
    state, word = _RESULTS[row.passed] if row.made or row.passed is False else _NOT_MADE
    if row.warns:
        state, word = _WARNING
    value, limit = format_row_value(row), format_value(row.threshold)
    return _Check(row.name, row.note, state, word, value, limit)


def _tensors(tensors: Sequence[TensorFigure]) -> list[_Tensor]:
    return [
        _Tensor(
            name=tensor.name,
            bits=tensor.bits,
            sqnr="exact" if tensor.sqnr_db is None else f"{tensor.sqnr_db:.1f}",
            size=format_size(tensor.size_bytes),
        )
        for tensor in tensor_order(tensors)
    ]


def _identity(identity: Identity) -> _Identity:
    """List everything that a reader needs to believe the figures, and to measure them again."""
    read = {key: value for key, value in identity.calibration.items() if key != "method"}
    calibration = ", ".join(f"{key} {value}" for key, value in read.items())
    facts = {
        "Recipe": identity.recipe,
        "Group size": "" if identity.group_size is None else str(identity.group_size),
        "Bits a weight": f"{identity.bits_per_weight:g}",
        "Quality": quality_and_method(", ".join(identity.methods)),
        "Calibration": calibration or "none",
        "Source": identity.source,
        "Commit": identity.commit or "a local model",
        **{f"{name}, here": version for name, version in identity.versions.items()},
        "Exported with": ", ".join(
            f"{name} {version}" for name, version in identity.exported_with.items()
        ),
        "System": identity.system,
        "Processor": identity.processor,
        "Date": identity.date or "SOURCE_DATE_EPOCH is not set",
        "Command": identity.command,
    }
    headline = identity_lines(identity)[0]
    return _Identity(headline, tuple((name, value) for name, value in facts.items() if value))


def _said(value: bool | int | str) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
