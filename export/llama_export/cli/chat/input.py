"""A user's messages, line by line: from a terminal with a prompt and a history, or from a pipe.

A line that ends in a backslash goes on in the next one, and three quotes begin and end a message
of several lines. It does not know what a message means.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from llama_export.cli.streams import read_bounded, require_utf8
from llama_export.errors import PromptError

# Takes the prompt to show, and returns a line without its end, or None at the end of the input.
ReadLine = Callable[[str], str | None]

PROMPT = "> "
_MORE = ". "
_QUOTES = '"""'


def read_message(read_line: ReadLine) -> str | None:
    """Return the next message that is not blank, or None at the end of the input.

    Args:
        read_line: source of the lines.

    Raises:
        PromptError: a line is not UTF-8.
    """
    while True:
        line = read_line(PROMPT)
        if line is None:
            return None
        if line.lstrip().startswith(_QUOTES):
            text = _quoted(read_line, line.lstrip()[len(_QUOTES) :])
        else:
            text = _continued(read_line, line)
        if text.strip():
            return text


def _continued(read_line: ReadLine, line: str) -> str:
    lines = [line]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        following = read_line(_MORE)
        if following is None:
            break
        lines.append(following)
    return "\n".join(lines)


def _quoted(read_line: ReadLine, first: str) -> str:
    lines, line = [], first
    while _QUOTES not in line:
        lines.append(line)
        following = read_line(_MORE)
        if following is None:  # the input ended before the quotes did
            return "\n".join(lines)
        line = following
    return "\n".join([*lines, line[: line.index(_QUOTES)]])


def pipe_lines(stream: BinaryIO) -> ReadLine:
    """Read lines from a pipe; no prompt is shown."""
    count = 0

    def read_line(_prompt: str) -> str | None:
        nonlocal count
        line = read_bounded(stream.readline, f"line {count + 1} of stdin")
        count += 1
        return line.rstrip("\r\n") if line else None

    return read_line


@contextmanager
def typed_ahead_kept() -> Iterator[None]:
    """Let Ctrl-C leave what was typed already: a terminal would drop it with the answer."""
    try:
        import termios
    except ImportError:  # not a system with such terminals
        yield
        return
    try:
        number = sys.stdin.fileno()
        before = termios.tcgetattr(number)
    except (OSError, ValueError, termios.error):  # something else than a terminal stands there
        yield
        return
    changed = [*before]
    changed[3] |= termios.NOFLSH
    termios.tcsetattr(number, termios.TCSANOW, changed)
    try:
        yield
    finally:
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(number, termios.TCSANOW, before)


def terminal_lines() -> ReadLine:
    """Read lines from a terminal, with editing and a history where Python has readline."""
    with suppress(ImportError):
        import readline

        readline.set_auto_history(True)
        # A tab is a tab: there are no file names to complete in a conversation.
        readline.parse_and_bind("tab: self-insert")

    def read_line(prompt: str) -> str | None:
        # `input` would write the prompt to stdout where that is a file: answers only go there.
        if not sys.stdout.isatty():
            sys.stderr.write(prompt)
            sys.stderr.flush()
            prompt = ""
        try:
            return require_utf8(input(prompt), "the line")
        except EOFError:
            return None
        except UnicodeDecodeError as error:
            message = f"the line is not UTF-8: {error.reason} at position {error.start}"
            raise PromptError(message, "set the terminal to UTF-8") from None

    return read_line
