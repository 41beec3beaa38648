"""The command line: puts the commands together, and ends every error with its own exit code.

Heavy modules are imported inside the commands, so that `--help` answers at once. Results go to
stdout, progress and messages to stderr.
"""

from __future__ import annotations

import io
import os
import sys
from typing import NoReturn

import typer

from llama_export.cli.bench import bench
from llama_export.cli.chat.chat import chat
from llama_export.cli.export import export
from llama_export.cli.generate import generate
from llama_export.cli.inspect import inspect
from llama_export.cli.interrupts import InterruptedBySignal, raise_on_signals
from llama_export.cli.list import list_models
from llama_export.cli.verify import verify
from llama_export.errors import LlamaExportError

# 128 + SIGPIPE: what a shell reports of a program that writes to a pipe that nobody reads.
CLOSED_PIPE_EXIT_CODE = 141

app = typer.Typer(
    name="llama-export",
    help="Turn a Llama checkpoint into a small quantised model that runs elsewhere, and prove it.",
    epilog="Example: llama-export --target onnx --model 3.2-1B",
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback(invoke_without_command=True)(export)
app.command()(generate)
app.command()(chat)
app.command()(verify)
app.command()(bench)
app.command()(inspect)
app.command("list")(list_models)


def main() -> None:
    """Run the command line; every user's mistake becomes a message, a hint and an exit code."""
    raise_on_signals()
    for stream in (sys.stdout, sys.stderr):
        # A terminal or a pipe that is not UTF-8 shows '?', and does not end the story.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        _run()
    except LlamaExportError as error:
        _fail(error.message, error.hint, error.exit_code)
    except InterruptedBySignal as interrupted:
        _fail("interrupted; nothing was left half written", "", interrupted.exit_code)
    except OSError as error:
        # What no module expected: a name too long, a closed terminal, a device that is full.
        _fail(f"the system refused: {error}", "check the path and the disk", 10)
    except ValueError as error:
        from llama_quantize.errors import QuantizationError

        if not isinstance(error, QuantizationError):
            raise
        _fail(error.message, error.hint, 9)


def _run() -> None:
    """Run a command until its output is written, or until nobody reads it, as after `| head`."""
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        sys.exit(CLOSED_PIPE_EXIT_CODE)
    except SystemExit as stopped:
        # typer and rich make exit code 1 of it, which is a failed verification here.
        if not isinstance(stopped.__context__, BrokenPipeError):
            raise
        _drop_output()
        sys.exit(CLOSED_PIPE_EXIT_CODE)


def _drop_output() -> None:
    """Send what is still in the buffers nowhere: at its end Python would complain of the pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())


def _fail(message: str, hint: str, exit_code: int) -> NoReturn:
    from rich.console import Console

    from llama_export.cli.terminal import show_error

    show_error(Console(stderr=True), message, hint)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
