"""What the user sees: progress bars on stderr, results on stdout, errors with their hint.

It knows rich and the shapes of our results; it decides nothing. `quieten` keeps other projects'
warnings off the screen.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from llama_export.pipeline import ExportResult
from llama_export.verify.report import VerifyReport, format_value

_MB = 1_000_000


def quieten() -> None:
    """Silence warnings and log lines of the libraries; our own words do not go that way."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


@dataclass(frozen=True)
class TerminalProgress:
    """Steps with a spinner, a bar where the length is known, and the time each took."""

    console: Console

    @contextmanager
    def step(self, label: str) -> Iterator[Callable[[int, int], None]]:
        """Show one step; its line stays when it is done."""
        columns = (
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console) as bars:
            task = bars.add_task(label, total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)
            bars.update(task, completed=1, total=1)


def format_bytes(size_bytes: int) -> str:
    """Write a size in decimal units, as file managers and phone shops do."""
    if size_bytes >= 1000 * _MB:
        return f"{size_bytes / _MB / 1000:.2f} GB"
    if size_bytes >= _MB:
        return f"{size_bytes / _MB:.1f} MB"
    return f"{size_bytes / 1000:.1f} kB"


def export_table(result: ExportResult) -> Table:
    """Summarise an export: one column a target."""
    table = Table(title=f"{result.output} in {result.elapsed_s:.1f} s", title_justify="left")
    table.add_column("")
    rows: dict[str, list[str]] = {}
    for exported in result.bundles:
        manifest = exported.bundle.manifest
        table.add_column(manifest.target, justify="right")
        size = sum(entry.size_bytes for entry in manifest.files.values())
        facts = {
            "bundle": str(exported.bundle.folder),
            "size": format_bytes(size),
            "recipe": str(manifest.quantization["recipe"]),
            "bits per weight": f"{manifest.quantization['bits_per_weight']:.2f}",
            "context": f"{manifest.graph['max_context']} tokens",
        }
        if exported.report is not None:
            facts |= headlines(exported.report)
        for key, value in facts.items():
            rows.setdefault(key, []).append(value)
    for key, values in rows.items():
        table.add_row(key, *values)
    return table


def headlines(report: VerifyReport) -> dict[str, str]:
    """Give the few figures of a verification that a user wants to see first."""
    labels = {
        "kl_exact": "lowering error, float32",
        "kl_shipped": "lowering error, as shipped",
        "kl_quantisation": "quantisation error",
    }
    found = {row.key: row for row in report.rows if row.value is not None}
    figures = {
        label: f"KL {format_value(found[key].value)}"
        for key, label in labels.items()
        if key in found
    }
    if "top1_quantisation" in found:
        figures["same likeliest token"] = f"{found['top1_quantisation'].value:.1%}"
    return figures | {"verified": "passed" if report.passed else "FAILED"}


def show_error(console: Console, message: str, hint: str) -> None:
    """Print an error and what to do next, without markup or wrapping surprises."""
    console.print("[bold red]error:[/] ", end="", highlight=False)
    console.print(message, markup=False, highlight=False)
    if hint:
        console.print("[bold]what to do:[/] ", end="", highlight=False)
        console.print(hint, markup=False, highlight=False)


def next_steps(console: Console, bundle: Path) -> None:
    """Say what a user may want to type after an export."""
    console.print("\nNext:", highlight=False)
    console.print(
        f'  llama-export generate {bundle} --prompt "Once upon a time"',
        markup=False,
        highlight=False,
    )
    console.print(f"  llama-export verify {bundle}", markup=False, highlight=False)
