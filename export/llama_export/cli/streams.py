"""The three streams that a process begins with: open from the start, bounded in, empty at the end.

A closed stdin or stderr is stood in for, a closed stdout is refused, and what cannot be written at
the end is dropped, because Python would complain of it with an exit code of its own. The module
knows no verb.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

from llama_export.errors import OutputError, PromptError

# A token is at most 128 bytes of text, and no context has more than 131,072 of them.
MOST_TEXT_BYTES = 128 * 131_072
_WIDEST_COLUMNS = 1000


def open_streams() -> None:
    """Make stdin, stdout and stderr safe to use, whatever the caller did to them.

    Raises:
        OutputError: stdout is closed.
    """
    for number in range(3):
        # A number that is free would be given to the next file, a library's messages with it.
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - the process's
    for stream in (sys.stdout, sys.stderr):
        # A terminal or a pipe that is not UTF-8 shows '?', and does not end the story.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    for name in ("COLUMNS", "LINES"):
        if not _is_size(os.environ.get(name, "80")):
            del os.environ[name]  # click and rich would take it as it is
    if sys.stdout is None:
        message = "stdout is closed, and that is where results go"
        raise OutputError(message, "send it to a file, or to /dev/null")


def _is_size(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 6 and 0 < int(text) <= _WIDEST_COLUMNS


def stdin_bytes() -> BinaryIO:
    """Return stdin, to be read as bytes.

    Raises:
        PromptError: it is closed.
    """
    if sys.stdin is None:
        message = "stdin is closed, and a text was to be read from it"
        raise PromptError(message, "give --prompt or --file, or pipe a text in")
    return sys.stdin.buffer


def somebody_types() -> bool:
    """Whether stdin is a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def stdin_is_fed() -> bool:
    """Whether a pipe or a file stands at stdin, so that all of it can be read."""
    return sys.stdin is not None and not sys.stdin.isatty()


def read_bounded(read: Callable[[int], bytes], name: str) -> str:
    """Return what is read as text; no more is read than a context could hold.

    Args:
        read: function that takes the most bytes to read, such as a file's `read` or `readline`.
        name: name for messages.

    Raises:
        PromptError: it cannot be read, is too long, or is not UTF-8.
    """
    try:
        raw = read(MOST_TEXT_BYTES + 1)
    except OSError as error:
        message = f"{name} cannot be read: {error.strerror or error}"
        raise PromptError(message, "give a text file, or '-' for stdin") from None
    if len(raw) > MOST_TEXT_BYTES:
        message = f"{name} is longer than {MOST_TEXT_BYTES} bytes, which no context can hold"
        raise PromptError(message, "give a shorter text")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"{name} is not UTF-8: byte {raw[error.start]:#04x} at position {error.start}"
        raise PromptError(message, "convert the text to UTF-8 first") from None


def require_utf8(text: str, name: str) -> str:
    """Return a text that was typed, if it is one: Python keeps a byte that is not as half a pair.

    Raises:
        PromptError: it holds a byte that is not UTF-8.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        message = f"{name} is not UTF-8 at position {error.start}"
        raise PromptError(message, "set the terminal to UTF-8") from None
    return text


def drop_output() -> None:
    """Send what is still in the buffers nowhere if it cannot be written."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
                stream.flush()
