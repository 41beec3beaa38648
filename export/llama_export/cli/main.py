"""The program from its first line to its exit code: whatever happens in between has an end.

Exit code 1 is a verification that failed, and nothing else; Python's own way to end with an
exception has the same number, so nothing is left to it. The verbs are imported in here for the same
reason, and so that `--help` answers at once.
"""

from __future__ import annotations

import sys
import threading

import click

from llama_export.cli.endings import Ending, ending_of, fault, show
from llama_export.cli.program import NAME
from llama_export.cli.signals import raise_on_signals, restore_signals
from llama_export.cli.streams import drop_output, open_streams
from llama_export.errors import OUR_FAULT_EXIT_CODE, OutOfMemoryError


def main() -> None:
    """Run the command line; every end that is not its own becomes a message and an exit code."""
    # Not asked of the parser: what fails may be the parser.
    verbose = "--verbose" in sys.argv
    try:
        raise_on_signals()
        open_streams()
        _watch_the_rest(verbose=verbose)
        ending = Ending(_run())
    except BaseException as error:  # noqa: BLE001 - this is the last boundary
        restore_signals()
        ending = _ending(error, verbose=verbose)
    # Out here the exception is gone, and what its frames held in memory with it.
    show(ending)
    drop_output()
    restore_signals()
    sys.exit(ending.exit_code)


def _run() -> int:
    """Run a command until its output is written; return its exit code."""
    from llama_export.cli.app import app

    exit_code = 0
    try:
        with app.make_context(NAME, sys.argv[1:]) as context:
            app.invoke(context)
    except click.exceptions.Exit as ended:
        exit_code = ended.exit_code
    sys.stdout.flush()
    return exit_code


def _ending(error: BaseException, *, verbose: bool) -> Ending:
    try:
        return ending_of(error, NAME, verbose=verbose)
    except Exception:  # noqa: BLE001 - there may be no memory even for this
        if isinstance(error, MemoryError):
            return Ending(OutOfMemoryError.exit_code, "the system gave no more memory")
        return Ending(OUR_FAULT_EXIT_CODE, "this is a fault of llama-export; please report it")


def _watch_the_rest(*, verbose: bool) -> None:
    """Keep tracebacks off the screen that end no run: of threads, and of what is cleaned up."""

    def note(found: threading.ExceptHookArgs) -> None:
        if found.exc_value is not None:
            ending = fault(found.exc_value, verbose=verbose)
            show(Ending(0, f"the run goes on, but {ending.message}", ending.hint, ending.details))

    threading.excepthook = note
    if not verbose:
        sys.unraisablehook = lambda _found: None
