"""Lay out a report for a terminal of 80 columns, or less, and for a pipe.

First come the verdict, where the artifact goes wrong, the error terms and what is not proved; then
the checks, either a line for each section and the failures in full, or every row. It knows rich,
and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from llama_export.verification.findings import Divergence
from llama_export.verification.report.wording import (
    calibration,
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
    warnings,
)
from llama_export.verification.rows import (
    FAILED,
    NOT_PROVED,
    PASSED,
    SECTIONS,
    Row,
    VerifyReport,
    format_row_value,
    format_value,
)

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

_STYLES: Mapping[str, str] = {PASSED: "green", FAILED: "red", NOT_PROVED: "yellow"}
_MARKS: Mapping[bool | None, str] = {True: "passed", False: "FAILED", None: ""}


def report_table(report: VerifyReport, *, every_row: bool = False) -> Group:
    """Lay a report out for a terminal.

    Args:
        report: report to show.
        every_row: whether to show every check and figure with its note, not the failures alone.
    """
    from rich.console import Group

    return Group(*_summary(report), *_checks(report, every_row=every_row))


def _summary(report: VerifyReport) -> Iterator[RenderableType]:
    from rich.text import Text

    line = Text(f"{report.model} for {report.target}: ", style="bold")
    yield line.append(verdict(report), style=_STYLES[report.verdict])
    if report.divergence is not None:
        yield from _first_wrong(report.divergence)
    if said := not_located(report):
        yield Text(f"\n{said}")
    if terms := _terms_table(report):
        yield Text()
        yield terms
    yield from _identity(report)
    if known := warnings(report):
        yield Text("\nPassed with a warning:", style="yellow")
        yield _bullets(known)
    if missing := not_proved(report):
        yield Text("\nNot proved, because not checked:", style="yellow")
        yield _bullets(missing)


def _first_wrong(divergence: Divergence) -> Iterator[RenderableType]:
    from rich.padding import Padding
    from rich.text import Text

    place_line = Text("first wrong: ", style="bold red")
    yield Text()
    yield place_line.append(place(divergence))
    detail = f"{divergence.detail}\n{error_and_limit(divergence)}, in {divergence.value}"
    yield Padding(Text(detail), (0, 0, 0, 2))
    if divergence.others:
        yield Padding(Text(f"also wrong: {', '.join(divergence.others)}"), (0, 0, 0, 2))


def _terms_table(report: VerifyReport) -> Table | None:
    """Lay out the error terms; None when nothing was measured."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("error")
    for name in ("KL, nats", "90%", "99%", "max", "same token"):
        table.add_column(name, justify="right")
    found = found_terms(report)
    for figures in found:
        term = Text(figures.term.name).append(f"\n {figures.term.brief}", style="dim")
        # Text, so that nothing from a report is ever read as markup.
        cells = (format_kl(figures), *format_worst(figures), format_share(figures.same_token))
        style = "red" if figures.passed is False else None
        table.add_row(term, *map(Text, cells), style=style)
    return table if any(figures.kl is not None for figures in found) else None


def _identity(report: VerifyReport) -> Iterator[RenderableType]:
    """Say in short over what was measured, of which weights, and with what."""
    from rich.text import Text

    said = [measured_on(report), perplexities(report), calibration(report)]
    said += [] if report.identity is None else identity_lines(report.identity)
    if lines := [line for line in said if line]:
        yield Text()
        yield from (Text(line, style="dim") for line in lines)


def _bullets(lines: Sequence[str]) -> Table:
    """Lay out a list whose lines may be longer than the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for line in lines:
        table.add_row(Text("  -"), Text(line))
    return table


def _checks(report: VerifyReport, *, every_row: bool) -> Iterator[RenderableType]:
    from rich.text import Text

    by_section = {
        title: [row for row in report.rows if row.section == section]
        for section, title in SECTIONS.items()
    }
    by_section = {title: rows for title, rows in by_section.items() if rows}
    yield Text()
    if every_row:
        for title, rows in by_section.items():
            yield _section_table(title, rows)
        return
    yield _counts_table(by_section)
    for title, rows in by_section.items():
        if failures := [row for row in rows if row.passed is False]:
            yield Text()
            yield _section_table(title, failures)
    if not report.failures:
        yield Text("--verbose lists every check with its limit", style="dim")


def _counts_table(by_section: Mapping[str, Sequence[Row]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, justify="right")
    table.add_column(overflow="fold")
    for title, rows in by_section.items():
        judged = [row.passed for row in rows if row.passed is not None]
        failed = judged.count(False)
        counted = f"{failed or len(judged)} of {len(judged)} {_MARKS[not failed]}"
        cells = (counted if judged else "not judged", title)
        table.add_row(*map(Text, cells), style="red" if failed else None)
    return table


def _section_table(title: str, rows: Sequence[Row]) -> Table:
    """Lay out one section so that nothing is lost on a narrow terminal: notes go below names."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    # A figure breaks beside its ± where there is no room for all of it, and nowhere else.
    parts = [part for row in rows for part in format_row_value(row).split()]
    table.add_column("value", justify="right", min_width=max(map(len, parts), default=0))
    table.add_column("limit", justify="right", no_wrap=True)
    table.add_column("check", overflow="fold")
    for row in rows:
        check = Text(row.name)
        if row.note:
            check.append(f"\n{row.note}", style="dim")
        mark, value, limit = (
            Text(cell) for cell in (_mark(row), format_row_value(row), format_value(row.threshold))
        )
        style = "red" if row.passed is False else "yellow" if row.warns else None
        table.add_row(mark, value, limit, check, style=style)
    return table


def _mark(row: Row) -> str:
    return "warning" if row.warns else _MARKS[row.passed]
