"""What the user sees: progress bars on stderr, results on stdout, errors with their hint.

It knows rich and the shapes of our results, and decides nothing. `quieten` keeps the libraries'
warnings off the screen.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text
from typing_extensions import override

from llama_export.cli.console import results
from llama_export.cli.durations import shown_duration
from llama_export.cli.fitting import print_text
from llama_export.cli.output import write_json_text
from llama_export.cli.tokens import without_tokens
from llama_export.errors import NOTICE
from llama_quantize.printable import clipped, printable, shown_name

_MOST_OF_A_LABEL = 200
# A step that took so long is worth a guess when it ends. It is made by its speed over minutes: the
# largest weight of a calibrated layer takes one.
_LASTS_S, _SPEED_PERIOD_S = 5.0, 900.0
# How often a log without bars says how far a step is.
_REPORTED_S = 60.0
# Characters of an error on the screen; both together are still read to their end.
_MOST_OF_A_MESSAGE, _MOST_OF_A_HINT = 1500, 400

if TYPE_CHECKING:
    # It imports torch, which `generate` does without.
    from llama_export.verification.rows import VerifyReport


def quieten() -> None:
    """Silence warnings and log lines of the libraries; our own notices have a level above them."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


class _TimeLeft(ProgressColumn):
    """What is left of a step that lasts, as far as its bar tells; else nothing."""

    max_refresh = 0.5

    @override
    def render(self, task: Task) -> Text:
        lasts = not task.finished and (task.elapsed or 0.0) >= _LASTS_S
        left = task.time_remaining if lasts else None
        return Text("" if left is None else f"{shown_duration(left)} left", "progress.remaining")


@dataclass(frozen=True)
class TerminalProgress:
    """Steps with a spinner, a bar where the length is known, and the time each took.

    Where no terminal shows them, a step is a line of words when it is done, and on the way one a
    minute where its length is known.

    Args:
        console: where they are shown.
        clock: seconds that pass.
    """

    console: Console
    clock: Callable[[], float] = time.monotonic

    @contextmanager
    def step(self, label: str) -> Iterator[Callable[[int, int], None]]:
        """Show one step; its line stays when it is done.

        Args:
            label: name of the step.

        Yields:
            A function that takes how much is done, and of how much.
        """
        if not self.console.is_terminal:
            with self._plain_step(shown_name(label, _MOST_OF_A_LABEL)) as advance:
                yield advance
            return
        columns = (
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            _TimeLeft(),
        )
        bars = Progress(*columns, console=self.console, speed_estimate_period=_SPEED_PERIOD_S)
        with bars:
            task = bars.add_task(shown_name(label, _MOST_OF_A_LABEL), total=None)
            try:
                yield lambda done, total: bars.update(task, completed=done, total=total)
            except BaseException:
                bars.remove_task(task)  # a spinner that stands still looks like one that waits
                raise
            bars.update(task, completed=1, total=1)

    @contextmanager
    def _plain_step(self, label: str) -> Iterator[Callable[[int, int], None]]:
        begun = last = self.clock()

        def advance(done: int, total: int) -> None:
            nonlocal last
            now = self.clock()
            if 0 < done < total and now - last >= _REPORTED_S:
                last = now
                self._line(f"{label}: {done / total:.0%} after {shown_duration(now - begun)}")

        yield advance
        self._line(f"{label}: done in {shown_duration(self.clock() - begun)}")

    def _line(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)


def where_it_runs(*, runs_here: bool) -> str:
    """Return in words whether this machine's runtime can run an artifact."""
    return "runs in this machine's runtime" if runs_here else "lowered, not run here"


def headlines(report: VerifyReport) -> dict[str, str]:
    """Return the few figures of a verification that a user wants to see first."""
    from llama_export.verification.report.wording import format_kl, found_terms, same_token

    labels = {
        "exact": "lowering error, same arithmetic",
        "shipped": "lowering error, as shipped",
        "quantisation": "quantisation error",
    }
    measured = {found.term.key: found for found in found_terms(report) if found.kl is not None}
    figures = {
        label: f"KL {format_kl(measured[key])}" for key, label in labels.items() if key in measured
    }
    if "quantisation" in measured:
        figures["same next token as original"] = same_token(measured["quantisation"])
    lacking = f"not proved: no {' and '.join(report.missing)}" if report.missing else "passed"
    return figures | {"verified": "FAILED" if report.failures else lacking}


def show_report(report: VerifyReport, *, as_json: bool, every_row: bool = False) -> None:
    """Print a verification on stdout.

    Args:
        report: the verification.
        as_json: print it as JSON.
        every_row: print every check, and not the summary and the failures alone.
    """
    from llama_export.verification.report.table import report_table
    from llama_export.verification.rows import report_text

    if as_json:
        write_json_text(report_text(report))
    else:
        results().print(report_table(report, every_row=every_row))


def show_error(console: Console, message: str, hint: str, label: str = "error: ") -> None:
    """Print an error and what to do next."""
    _say(console, label, _short(message, _MOST_OF_A_MESSAGE), "bold red")
    if hint:
        _say(console, "what to do: ", _short(hint, _MOST_OF_A_HINT))


def _short(text: str, most: int) -> str:
    # Cut before it is cleaned, which takes time, and after, which makes it longer.
    return clipped(printable(clipped(text)), most)


def show_note(console: Console, text: str) -> None:
    """Print what a user should know although nothing failed."""
    _say(console, "note: ", text)


def show_notices(console: Console) -> None:
    """Let what our own modules want the user to know appear on the console."""
    handler = _NoticeHandler(NOTICE)
    handler.console = console
    logger = logging.getLogger("llama_export")
    logger.handlers = [handler]
    logger.propagate = False


class _NoticeHandler(logging.Handler):
    console: Console

    def emit(self, record: logging.LogRecord) -> None:
        show_note(self.console, record.getMessage())


def _say(console: Console, label: str, text: str, style: str = "bold") -> None:
    """Print a label and a text that may hold anything, a path above all.

    What follows a line break is indented: none in a name begins a line that looks like ours.
    """
    shown = without_tokens(text).replace("\n", "\n  ")
    print_text(console, shown, label=label, label_style=style, indent="  ")
