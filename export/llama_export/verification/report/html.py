"""Write a report as one HTML file that needs nothing else: no script, no request, no font.

The page reads on a phone, on light and dark screens, and on paper. What comes from outside, such as
the name of a model or a tensor, is escaped. `wording` has the sentences, `plots` the pictures; this
module measures and judges nothing. The same report makes the same bytes.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path

from llama_export.verification.findings import TensorFigure
from llama_export.verification.report.plots import Plot, draw_plots, format_size, tensor_order
from llama_export.verification.report.report_file import check_place, replace_file
from llama_export.verification.report.svg import require_matplotlib
from llama_export.verification.report.wording import (
    TermFigures,
    error_and_limit,
    format_kl,
    found_terms,
    not_located,
    not_proved,
    place,
    same_token,
    verdict,
)
from llama_export.verification.rows import SECTIONS, Row, VerifyReport, format_value
from llama_export.version import __version__
from llama_quantize.printable import printable

# The first line of every page, by which a page is known as ours.
FIRST_LINE = "<!doctype html><!-- a verification report of llama-export -->"

# No request can leave the page, even if something were not escaped.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"

# A result is a sign, a word and a colour, so that none of them is needed.
_RESULTS: Mapping[bool | None, tuple[str, str]] = {
    True: ("good", "✓ passed"),
    False: ("bad", "✗ FAILED"),
    None: ("", ""),
}
_NOT_MADE = ("open", "○ not made")
_WARNING = ("open", "△ warning")

_SETTINGS: Mapping[str, str] = {
    "positions": "Positions read",
    "exact_steps": "Single steps in exact arithmetic",
    "quick": "Short version",
    "strict": "Strict",
    "text": "Text",
    "text_tokens": "Tokens of the text",
    "longest_prefill": "Longest prefill",
    "max_context": "Context",
    "threads": "Threads",
    "llama_export": "llama-export",
    "torch": "PyTorch",
    "runtime": "Runtime",
}

_GLOSSARY = (
    "<b>KL</b> says how far one prediction of the next token is from another, in nats: 0 is equal, "
    "0.01 is hardly noticed, 1 is another model. <b>Same next token</b> is the share of positions "
    "where both find the same token the most likely. <b>SQNR</b> is the size of the weights over "
    "the size of their rounding, in decibels."
)


def render_html(report: VerifyReport) -> str:
    """Lay a report out as a page.

    Raises:
        BackendUnavailableError: there is something to plot, and matplotlib is not installed.
    """
    title = f"{report.model} for {report.target}"
    own_files = resources.files("llama_export.verification.report")
    style = own_files.joinpath("page.css").read_text("utf-8")
    state = "good" if report.passed else "bad" if report.failures else "open"
    sign = {"good": "✓ ", "bad": "✗ ", "open": "○ "}[state]
    parts = (
        FIRST_LINE,
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>{escape(title)}: {escape(verdict(report))}</title>",
        f"<style>\n{style}</style>",
        "</head>",
        "<body>",
        "<main>",
        "<header>",
        f"<h1>{escape(title)}</h1>",
        '<p class="muted">How far an exported model is from the PyTorch model that it was made '
        "from.</p>",
        f'<p class="verdict {state}">{sign}{escape(verdict(report))}</p>',
        "</header>",
        *_first_wrong(report),
        *_failures(report.failures),
        *_terms(report),
        *_not_proved(report),
        *_checks(report),
        *_pictures(report),
        *_settings(report),
        "</main>",
        f"<footer><p>{_GLOSSARY}</p>",
        f"<p>Written by llama-export {escape(__version__)}.</p></footer>",
        "</body>",
        "</html>",
    )
    return "\n".join(parts) + "\n"


def check_html(path: Path) -> None:
    """Refuse, before a verification, a page that could not be drawn or written.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        OutputError: the path is a folder, cannot be written, or is a file that is not ours.
    """
    require_matplotlib()
    check_place(path, FIRST_LINE)


def write_html(report: VerifyReport, path: Path) -> None:
    """Write a report as a page, in place of an earlier one.

    Raises:
        BackendUnavailableError: matplotlib is not installed.
        OutputError: the path is a folder, cannot be written, or is a file that is not ours.
    """
    check_html(path)
    # A name may hold bytes that no text has; better a question mark than no page.
    replace_file(path, render_html(report).encode("utf-8", errors="replace"))


def _first_wrong(report: VerifyReport) -> Iterator[str]:
    divergence = report.divergence
    if said := not_located(report):
        yield f'<section class="wrong"><p>{escape(said)}</p></section>'
    if divergence is None:
        return
    yield '<section class="wrong">'
    yield "<h2>Where it goes wrong first</h2>"
    yield f'<p class="place">{escape(place(divergence))}</p>'
    yield f"<p>{escape(divergence.detail)}</p>"
    value = f"<code>{escape(divergence.value)}</code>"
    yield f'<p class="muted">{escape(error_and_limit(divergence))}, in {value}.</p>'
    if divergence.others:
        yield "<p>Wrong on their own input too:</p>"
        yield from _list(divergence.others)
    yield "</section>"


def _failures(failures: Sequence[Row]) -> Iterator[str]:
    if failures:
        yield "<section>"
        yield "<h2>What failed</h2>"
        yield from _table(_CHECK_HEADS, map(_check, failures))
        yield "</section>"


def _terms(report: VerifyReport) -> Iterator[str]:
    found = [figures for figures in found_terms(report) if figures.kl is not None]
    if not found:
        return
    rows = [
        _row(
            f"<b>{escape(figures.term.name)}</b>{_note(figures.term.meaning)}",
            (escape(format_kl(figures)), _same_token(figures)),
        )
        for figures in found
    ]
    yield '<section class="terms">'
    yield "<h2>The errors, kept apart</h2>"
    yield from _table(("Error", "KL, nats", "Same next token"), rows)
    yield "</section>"


def _same_token(figures: TermFigures) -> str:
    share, _, positions = same_token(figures).partition(" ")
    return escape(share) + (_note(positions) if positions else "")


def _not_proved(report: VerifyReport) -> Iterator[str]:
    if lines := not_proved(report):
        yield "<section>"
        yield "<h2>Not proved, because not checked</h2>"
        yield from _list(lines)
        yield "</section>"


def _checks(report: VerifyReport) -> Iterator[str]:
    yield "<section>"
    yield "<h2>All checks</h2>"
    yield (
        "<p>A check passes when its value is at most the limit. A value without a limit is for "
        "information.</p>"
    )
    for section, title in SECTIONS.items():
        rows = [_check(row) for row in report.rows if row.section == section]
        if rows:
            yield f"<h3>{escape(title)}</h3>"
            yield from _table(_CHECK_HEADS, rows)
    yield "</section>"


def _check(row: Row) -> str:
    state, word = _RESULTS[row.passed] if row.made or row.passed is False else _NOT_MADE
    if row.warns:
        state, word = _WARNING
    result = f'<td role="cell" class="result {state}">{word}</td>'
    note = _note(row.note) if row.note else ""
    figures = (escape(format_value(row.value)), escape(format_value(row.threshold)))
    return _row(f"{escape(row.name)}{note}", figures, result)


def _pictures(report: VerifyReport) -> Iterator[str]:
    if report.plot_data is None:
        return
    plots = draw_plots(report.plot_data)
    if plots:
        yield "<section>"
        yield "<h2>In pictures</h2>"
        yield '<div class="plots">'
        for plot in plots:
            yield from _figure(plot)
        yield "</div>"
        yield "</section>"
    if report.plot_data.tensors:
        yield from _tensors(tensor_order(report.plot_data.tensors))


def _figure(plot: Plot) -> Iterator[str]:
    label = f"{plot.title}. {plot.description}"
    yield f'<figure aria-labelledby="{plot.key}-title">'
    yield f'<h3 id="{plot.key}-title">{escape(plot.title)}</h3>'
    yield f'<div class="plot" role="img" aria-label="{escape(label)}">'
    yield plot.svg
    yield "</div>"
    yield f"<figcaption>{escape(plot.reading)}</figcaption>"
    yield "</figure>"


def _tensors(tensors: Sequence[TensorFigure]) -> Iterator[str]:
    yield "<details>"
    yield f"<summary>All {len(tensors)} tensors in figures</summary>"
    rows = [
        _row(
            f"<code>{escape(tensor.name)}</code>",
            (
                str(tensor.bits),
                "exact" if tensor.sqnr_db is None else f"{tensor.sqnr_db:.1f}",
                format_size(tensor.size_bytes),
            ),
        )
        for tensor in tensors
    ]
    yield from _table(("Tensor", "Bits", "SQNR, dB", "Size"), rows)
    yield "</details>"


def _settings(report: VerifyReport) -> Iterator[str]:
    yield "<section>"
    yield "<h2>How it was measured</h2>"
    yield "<dl>"
    for key, value in report.settings.items():
        said = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
        yield f"<dt>{escape(_SETTINGS.get(key, key))}</dt><dd>{escape(said)}</dd>"
    yield "</dl>"
    yield "</section>"


def _table(heads: Sequence[str], rows: Iterable[str]) -> Iterator[str]:
    # The roles are said, because a phone's layout would take them from the elements.
    yield f'<table role="table" class="{"checks" if heads == _CHECK_HEADS else "figures"}">'
    cells = (
        f'<th role="columnheader" scope="col"{"" if head in _TEXT_COLUMNS else _NUMBER}>'
        f"{escape(head)}</th>"
        for head in heads
    )
    yield f'<thead role="rowgroup"><tr role="row">{"".join(cells)}</tr></thead>'
    yield '<tbody role="rowgroup">'
    yield from rows
    yield "</tbody>"
    yield "</table>"


_CHECK_HEADS = ("Check", "Result", "Value", "Limit")
_TEXT_COLUMNS = ("Error", "Check", "Result", "Tensor")
_NUMBER = ' class="number"'


def _row(head: str, figures: Iterable[str], between: str = "") -> str:
    """Build a row of cells that are HTML already."""
    cells = "".join(f'<td role="cell"{_NUMBER}>{figure}</td>' for figure in figures)
    head_cell = f'<th role="rowheader" scope="row">{head}</th>'
    return f'<tr role="row">{head_cell}{between}{cells}</tr>'


def escape(text: str) -> str:
    """Return a text of anybody's as HTML that shows it: no markup of its own, nothing hidden."""
    return html.escape(printable(text))


def _note(text: str) -> str:
    return f'<span class="note">{escape(text)}</span>'


def _list(lines: Iterable[str]) -> Iterator[str]:
    yield "<ul>"
    yield from (f"<li>{escape(line)}</li>" for line in lines)
    yield "</ul>"
