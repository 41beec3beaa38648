"""The command line: puts the verbs together, and ends every error with its own exit code.

Heavy modules are imported inside the verbs, so that `--help` answers at once. Results go to
stdout, progress and messages to stderr.
"""

from __future__ import annotations

import io
import os
import sys
from typing import NoReturn

import click

from llama_export.cli.bench import BENCH
from llama_export.cli.chat.chat import CHAT
from llama_export.cli.export import EXPORT_SECTIONS, export
from llama_export.cli.generate import GENERATE
from llama_export.cli.inspect import INSPECT
from llama_export.cli.list import LIST
from llama_export.cli.program import NAME, Program
from llama_export.cli.signals import InterruptedBySignal, raise_on_signals
from llama_export.cli.target_options import TARGET_OPTIONS
from llama_export.cli.verify import VERIFY
from llama_export.errors import LlamaExportError

# 128 + SIGPIPE: what a shell reports of a program that writes to a pipe that nobody reads.
CLOSED_PIPE_EXIT_CODE = 141

app = Program(
    export,
    EXPORT_SECTIONS,
    (GENERATE, CHAT, VERIFY, BENCH, INSPECT, LIST),
    gathered={"target_options": TARGET_OPTIONS},
    examples=(
        f"{NAME} --target onnx --model 3.2-1B",
        f"{NAME} --target all --model demo --output bundles",
    ),
)


def main() -> None:
    """Run the command line; every user's mistake becomes a message, a hint and an exit code."""
    raise_on_signals()
    for stream in (sys.stdout, sys.stderr):
        # A terminal or a pipe that is not UTF-8 shows '?', and does not end the story.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        sys.exit(_run())
    except click.UsageError as error:
        path = NAME if error.ctx is None else error.ctx.command_path
        _fail(_plain(error), f"{path} --help shows how it is used", error.exit_code)
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


def _run() -> int:
    """Run a command until its output is written, or until nobody reads it, as after `| head`."""
    try:
        try:
            with app.make_context(NAME, sys.argv[1:]) as context:
                app.invoke(context)
        except click.exceptions.Exit as ended:
            return ended.exit_code
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return CLOSED_PIPE_EXIT_CODE
    except SystemExit as stopped:
        # rich makes exit code 1 of it, which is a failed verification here.
        if not isinstance(stopped.__context__, BrokenPipeError):
            raise
        _drop_output()
        return CLOSED_PIPE_EXIT_CODE
    return 0


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


def _plain(error: click.UsageError) -> str:
    """Write click's sentence as ours are written."""
    message = error.format_message()
    return f"{message[:1].lower()}{message[1:]}".rstrip(".")


def _fail(message: str, hint: str, exit_code: int) -> NoReturn:
    from rich.console import Console

    from llama_export.cli.terminal import show_error

    show_error(Console(stderr=True), message, hint)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
