"""How the program ends: each exception as a message, what to do, and an exit code.

An error of the input has its own code. What is left is a fault of ours: it is written down, and
never shown as a traceback unless that was asked for. The module knows no verb.
"""

from __future__ import annotations

import errno
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click

from llama_export.bundle.interrupts import notes_of
from llama_export.cli.signals import InterruptedBySignal
from llama_export.cli.tokens import without_tokens
from llama_export.errors import OUR_FAULT_EXIT_CODE, LlamaExportError, OutputError
from llama_export.system.memory_shortage import shortage
from llama_quantize.errors import QuantizationError
from llama_quantize.printable import clipped, printable

# 128 + SIGPIPE: what a shell reports of a program that writes to a pipe that nobody reads.
CLOSED_PIPE_EXIT_CODE = 141
_QUANTIZATION_EXIT_CODE = 9
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_MOST_QUOTED = 300


@dataclass(frozen=True)
class Ending:
    """The end of a run that did not come to its own.

    Args:
        exit_code: exit code of the process.
        message: what happened; empty: nothing is shown.
        hint: what to do next.
        details: lines that are shown before the message, such as a traceback.
    """

    exit_code: int
    message: str = ""
    hint: str = ""
    details: str = ""


def ending_of(error: BaseException, program: str, *, verbose: bool) -> Ending:
    """Return how a run ends that ended with an exception.

    Args:
        error: exception that nobody caught.
        program: name of the program, for hints.
        verbose: whether a fault of ours is shown with its traceback.
    """
    return _interrupted(error) or _refused(error, program) or fault(error, verbose=verbose)


def _interrupted(error: BaseException) -> Ending | None:
    if isinstance(error, BrokenPipeError):
        return Ending(CLOSED_PIPE_EXIT_CODE)
    # A library may have put Python's own handler back, and click has a class for it.
    if not isinstance(error, (InterruptedBySignal, KeyboardInterrupt, click.Abort)):
        return None
    code = error.exit_code if isinstance(error, InterruptedBySignal) else 128 + signal.SIGINT
    # Whatever the interrupt went through may have noted on it what became of the work.
    notes: list[str] = getattr(error, "__notes__", [])
    return Ending(code, f"interrupted; {'; '.join(notes) or 'nothing was left half written'}")


def _refused(error: BaseException, program: str) -> Ending | None:
    if (short := shortage(error)) is not None:
        return Ending(short.exit_code, short.message, short.hint)
    if isinstance(error, LlamaExportError | QuantizationError):
        code = getattr(error, "exit_code", _QUANTIZATION_EXIT_CODE)
        return Ending(code, "; ".join([error.message, *notes_of(error)]), error.hint)
    if isinstance(error, click.UsageError):
        path = program if error.ctx is None else error.ctx.command_path
        return Ending(error.exit_code, _plain(error), f"{path} --help shows how it is used")
    return _by_the_system(error) if isinstance(error, OSError) else None


def _by_the_system(error: OSError) -> Ending:
    """Name what no module expected: a name too long, a closed terminal, a device that is full."""
    code = OutputError.exit_code if error.errno in _FULL else LlamaExportError.exit_code
    try:
        Path.cwd()
    except OSError:
        return Ending(code, "the current folder does not exist any more", "go to one that does")
    return Ending(code, f"the system refused: {error}", "check the path and the disk")


def fault(error: BaseException, *, verbose: bool) -> Ending:
    """Write an exception down that should not have been, and return how to end with it."""
    from llama_export.cli.faults import shown_traceback, write_log

    named = clipped(f"{type(error).__name__}: {error}", _MOST_QUOTED)
    message = f"this is a fault of llama-export, not of what you gave it: {named}"
    try:
        log = f"report it with the log in {write_log(error)}"
    except (OSError, RuntimeError) as refused:
        log = f"report it; no log could be written: {refused}"
    return Ending(
        OUR_FAULT_EXIT_CODE,
        message,
        log if verbose else f"{log}; --verbose shows where it happened",
        shown_traceback(error) if verbose else "",
    )


def show(ending: Ending, label: str = "error: ") -> None:
    """Print how a run ended on stderr, as far as there is memory, and a stderr, for it.

    Args:
        ending: end of a run, or of a thread.
        label: words before the message.
    """
    if not ending.message:
        return
    try:
        from llama_export.cli.console import messages
        from llama_export.cli.terminal import show_error

        sys.stderr.write(ending.details)
        show_error(messages(), ending.message, ending.hint, label)
    except Exception:  # noqa: BLE001 - a message must not become a traceback
        with suppress(Exception):
            hint = f"what to do: {ending.hint}\n" if ending.hint else ""
            sys.stderr.write(without_tokens(printable(clipped(f"{label}{ending.message}\n{hint}"))))


def _plain(error: click.UsageError) -> str:
    """Write click's sentence as ours are written."""
    message = error.format_message()
    return f"{message[:1].lower()}{message[1:]}".rstrip(".")
