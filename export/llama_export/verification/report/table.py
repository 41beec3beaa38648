"""Lay out a report for a terminal of 80 columns, or less, and for a pipe.

First come the verdict, where the artifact goes wrong, the error terms and what is not proved; then
the checks, either a line for each section and the failures in full, or every row. It knows rich,
and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_export.verification.findings import Divergence
from llama_export.verification.report.wording import (
    calibration,
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
    from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
    from rich.table import Table

    from llama_export.verification.report.wording import TermFigures

_STYLES: Mapping[str, str] = {PASSED: "green", FAILED: "red", NOT_PROVED: "yellow"}
# Columns of a terminal that has room for every figure of a term.
_WIDE = 72
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
    terms = found_terms(report)
    if any(figures.kl is not None for figures in terms):
        yield Text()
        yield _Terms(terms)
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


@dataclass(frozen=True)
class _Terms:
    """The error terms: in a table with a column for each figure, where there is room for it."""

    found: Sequence[TermFigures]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._narrow() if options.max_width < _WIDE else self._wide()

    def _wide(self) -> Table:
        table = self._table("KL, nats", "90%", "99%", "max", "same token")
        for figures in self.found:
            cells = (format_kl(figures), *format_worst(figures), format_share(figures.same_token))
            self._add(table, figures, *cells)
        return table

    def _narrow(self) -> Table:
        table = self._table("KL, same token")
        for figures in self.found:
            self._add(table, figures, f"{format_kl(figures)}\n{format_share(figures.same_token)}")
        return table

    def _table(self, *figures: str) -> Table:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
        table.add_column("error")
        for name in figures:
            table.add_column(name, justify="right", no_wrap=True)
        return table

    def _add(self, table: Table, figures: TermFigures, *cells: str) -> None:
        from rich.text import Text

        name = Text(figures.term.name).append(f"\n {figures.term.brief}", style="dim")
        # Text, so that nothing from a report is ever read as markup.
        table.add_row(name, *map(Text, cells), style="red" if figures.passed is False else None)


def _identity(report: VerifyReport) -> Iterator[RenderableType]:
    """Yield in short over what was measured, of which weights, and with what."""
    from rich.text import Text

    said = [clean_steps(report), measured_on(report), perplexities(report), calibration(report)]
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
    figures = [f"{format_row_value(row)} {_limit(row)}" for row in rows]
    most = max((len(part) for each in figures for part in each.split(" ")), default=0)
    table.add_column("value", justify="right", min_width=most)
    table.add_column("check", overflow="fold")
    for row in rows:
        check, value = Text(row.name), Text(format_row_value(row))
        if row.note:
            check.append(f"\n{row.note}", style="dim")
        if row.threshold is not None:
            value.append(f"\n{_limit(row)}", style="dim")
        style = "red" if row.passed is False else "yellow" if row.warns else None
        table.add_row(Text(_mark(row)), value, check, style=style)
    return table


def _limit(row: Row) -> str:
    return "" if row.threshold is None else f"≤{format_value(row.threshold)}"


def _mark(row: Row) -> str:
    return "warning" if row.warns else _MARKS[row.passed]
