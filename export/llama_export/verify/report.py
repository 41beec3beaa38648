"""A verification's result: rows in three sections, as JSON and as a table for the terminal.

A row's `passed` is None where nothing is judged: a figure for information, or a check that could
not be made; its note says which. It knows no bundle and measures nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

SECTIONS: Mapping[str, str] = {
    "structure": "Structure: the files, and the weights inside the artifact",
    "lowering": "Lowering error: artifact against eager, same quantised weights",
    "quantisation": "Quantisation error: quantised against the checkpoint, both eager float32",
}


@dataclass(frozen=True)
class Row:
    """One line of a report.

    Args:
        section: a key of `SECTIONS`.
        key: a stable name for programs.
        name: a name for people.
        value: what was measured; None when nothing was.
        threshold: the upper limit; None when nothing is judged.
        passed: None when nothing is judged.
        note: what was found, or what is not proved.
    """

    section: str
    key: str
    name: str
    value: float | None
    threshold: float | None
    passed: bool | None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the row's fields, but for its section."""
        value = self.value if self.value is None or math.isfinite(self.value) else None
        return {
            "key": self.key,
            "name": self.name,
            "value": value,
            "threshold": self.threshold,
            "passed": self.passed,
            "note": self.note,
        }


@dataclass(frozen=True)
class VerifyReport:
    """Everything that a verification found.

    Args:
        target: which target's bundle.
        model: the model's name.
        settings: how it was measured: positions, exact_steps, quick, text.
        rows: the report's lines.
        measurements: the figures in full, by comparison.
    """

    target: str
    model: str
    settings: Mapping[str, int | bool | str]
    rows: tuple[Row, ...]
    measurements: Mapping[str, Mapping[str, float | int | str | None]]

    @property
    def passed(self) -> bool:
        """Whether something was judged and nothing failed."""
        judged = [row.passed for row in self.rows if row.passed is not None]
        return bool(judged) and all(judged)

    @property
    def failures(self) -> tuple[Row, ...]:
        """The rows that failed."""
        return tuple(row for row in self.rows if row.passed is False)

    def row(self, key: str) -> Row:
        """Return the row of a key.

        Raises:
            KeyError: the report has no such row.
        """
        for row in self.rows:
            if row.key == key:
                return row
        raise KeyError(key)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values, always with the same keys in the same order."""
        return {
            "format_version": 1,
            "passed": self.passed,
            "target": self.target,
            "model": self.model,
            "settings": dict(self.settings),
            "sections": {
                section: [row.to_json() for row in self.rows if row.section == section]
                for section in SECTIONS
            },
            "measurements": {name: dict(value) for name, value in self.measurements.items()},
        }


def judged(
    section: str, key: str, name: str, value: float, threshold: float, note: str = ""
) -> Row:
    """Make a row that passes when the value is at most the threshold; a NaN does not pass."""
    return Row(section, key, name, value, threshold, bool(value <= threshold), note)


def informed(section: str, key: str, name: str, value: float, note: str = "") -> Row:
    """Make a row that is only for information."""
    return Row(section, key, name, value, None, None, note)


def unchecked(section: str, key: str, name: str, note: str) -> Row:
    """Make a row for a check that could not be made; the note says what is not proved."""
    return Row(section, key, name, None, None, None, f"{_UNCHECKED}{note}")


def report_table(report: VerifyReport) -> Group:
    """Lay the report out for a terminal: a table a section, and the verdict last."""
    from rich.console import Group
    from rich.text import Text

    sections = [[row for row in report.rows if row.section == section] for section in SECTIONS]
    tables = [
        _section_table(title, rows)
        for title, rows in zip(SECTIONS.values(), sections, strict=True)
        if rows
    ]
    failed = len(report.failures)
    verdict = Text(f"{report.model} for {report.target}: ", style="bold")
    if failed:
        verdict.append(f"FAILED ({failed} of the checks above)", style="red")
    else:
        verdict.append("passed", style="green")
    open_checks = sum(row.note.startswith(_UNCHECKED) for row in report.rows)
    if open_checks:
        verdict.append(
            f"; {open_checks} not made, see the notes: --checkpoint MODEL and --weights FOLDER "
            "name what a bundle is compared with",
            style="yellow",
        )
    return Group(*tables, *map(Text, plain_words(report)), verdict)


def plain_words(report: VerifyReport) -> list[str]:
    """Say in sentences what the two comparisons found, as far as they were made."""
    found = {row.key: row.value for row in report.rows if row.value is not None}
    positions = report.settings.get("positions", 0)
    sentences = []
    if "kl_exact" in found and "kl_shipped" in found:
        exact, shipped = format_value(found["kl_exact"]), format_value(found["kl_shipped"])
        sentences.append(
            f"The artifact against PyTorch with the same weights: KL {exact} in float32, "
            f"{shipped} as shipped."
        )
    if "top1_quantisation" in found:
        sentences.append(
            f"The quantised weights choose the original's next token at "
            f"{found['top1_quantisation']:.1%} of {positions} positions."
        )
    return sentences


def _section_table(title: str, rows: Sequence[Row]) -> Table:
    """Lay out one section so that nothing is lost on a narrow terminal: notes go below names."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("limit", justify="right", no_wrap=True)
    table.add_column("check", overflow="fold")
    for row in rows:
        # Text, so that a tensor's name in a note is never read as markup.
        check = Text(row.name)
        if row.note:
            check.append(f"\n{row.note}", style="dim")
        mark, value, limit = (
            Text(cell)
            for cell in (_MARKS[row.passed], format_value(row.value), format_value(row.threshold))
        )
        table.add_row(mark, value, limit, check, style="red" if row.passed is False else None)
    return table


def format_value(value: float | None) -> str:
    """Write a figure with at most four digits; nothing for None."""
    if value is None:
        return ""
    if value == int(value) if math.isfinite(value) else False:
        return str(int(value))
    return f"{value:.4g}" if abs(value) >= 1e-3 or not math.isfinite(value) else f"{value:.1e}"


_UNCHECKED = "not checked: "
_MARKS: Mapping[bool | None, str] = {True: "passed", False: "FAILED", None: ""}
