"""A run from its first line to its exit code: whatever happens in between has an end.

The verbs are imported in here, so that what goes wrong with that has an end too.
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
from llama_export.system.memory_shortage import is_shortage


def run_to_an_end() -> int:
    """Run the command line; return an exit code, whatever happened."""
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
    return ending.exit_code


def _run() -> int:
    """Run a command until its output is written; return its exit code."""
    from llama_export.cli.app import app
    from llama_export.cli.completion import complete_if_asked

    if complete_if_asked(app):
        return 0
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
    except Exception as again:  # noqa: BLE001 - there may be no memory even for this
        if is_shortage(error) or is_shortage(again):
            return Ending(OutOfMemoryError.exit_code, "the system gave no more memory")
        return Ending(OUR_FAULT_EXIT_CODE, "this is a fault of llama-export; please report it")


def _watch_the_rest(*, verbose: bool) -> None:
    """Keep tracebacks off the screen that end no run: of threads, and of what is cleaned up."""

    def note(found: threading.ExceptHookArgs) -> None:
        if found.exc_value is not None:
            show(fault(found.exc_value, verbose=verbose), label="note: the run goes on, but ")

    threading.excepthook = note
    if not verbose:
        sys.unraisablehook = lambda _found: None
