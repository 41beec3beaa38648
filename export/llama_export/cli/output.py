"""What goes to stdout without a table: pieces of a text, and JSON.

Together with `console` it is the only place through which the program prints; a test keeps it so.
"""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

from llama_quantize.printable import printable

if TYPE_CHECKING:
    # rich comes with it, which a page of help does without.
    from llama_export.cli.fitting import WordWrap


def write_text(text: str) -> None:
    """Write a piece of a streamed text to stdout at once.

    A pipe or a file gets it as it is. A terminal gets every control character, mark of direction
    and escape by name, so that what a model says cannot steer it; as each character is judged by
    itself, a sequence that comes in pieces does not get through either.

    Args:
        text: a piece of any text.
    """
    sys.stdout.write(printable(text, keep="\n\t") if sys.stdout.isatty() else text)
    sys.stdout.flush()


class StreamedText:
    """A text that is written to stdout while it comes: on a terminal its lines end between words.

    A word waits there until it has ended, so `end` writes the last one; a pipe or a file gets each
    piece at once, as it is.
    """

    def __init__(self) -> None:
        self._wrap: WordWrap | None = None
        if sys.stdout.isatty():
            from llama_export.cli.fitting import WordWrap

            self._wrap = WordWrap()

    def write(self, piece: str) -> None:
        """Write a piece, as `write_text` does."""
        if self._wrap is not None:
            piece = self._wrap.push(printable(piece, keep="\n\t"), _columns())
        write_text(piece)

    def end(self) -> None:
        """Write what waits."""
        if self._wrap is not None:
            write_text(self._wrap.flush(_columns()))


def _columns() -> int:
    return shutil.get_terminal_size().columns


def write_json(value: object, *, indent: int | None = 2) -> None:
    """Write a value to stdout as JSON, in which every character that is not ASCII is escaped.

    Args:
        value: anything that JSON can hold.
        indent: columns of a level; None: all on one line.
    """
    write_json_text(json.dumps(value, indent=indent) + "\n")


def write_json_text(text: str) -> None:
    """Write JSON in ASCII to stdout; the one control character that it may hold is escaped too."""
    sys.stdout.write(text.replace("\x7f", "\\u007f"))
    sys.stdout.flush()
