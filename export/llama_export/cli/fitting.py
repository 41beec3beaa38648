"""What does not fit a screen, made to fit: lines break between words, and a table becomes a list.

A word, a number or a name is never cut: one that is longer than a line has a line of its own, which
the terminal breaks and a user can still copy whole. The module knows widths, and nothing of what is
shown.
"""

from __future__ import annotations

import copy
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Column, Table
from rich.text import Text

from llama_quantize.printable import clipped, printable

_TAB_CELLS = 8
_INDENT = "  "
# A paragraph of longer lines is hard to read.
_MOST_PARAGRAPH = 100
# On a narrower screen a text stands below its term, and not in a column of a few words.
_BESIDE_COLUMNS = 64
# A figure stays with its unit, its error and the KL that it is; the mark is of those that no text
# has.
_FIGURE = re.compile(r"(?<=\d) (?=(?:[kMGT]?B|s|ms|min|h|dB)\b|±)|(?<=±) (?=\d)|(?<=\bKL) (?=\d)")
_TOGETHER = "\ue000"
# Line breaks, blanks, and runs of anything else.
_PARTS = re.compile(r"\n|[ \t]+|[^ \t\n]+")


class WordWrap:
    """Breaks a text that comes in pieces between its words.

    A word is held back until it has ended, for only then is it known where it fits. Scripts that
    write wide letters and no blanks are broken between letters.

    Args:
        indent: what every line begins with that is broken off another one.
    """

    def __init__(self, indent: str = "") -> None:
        self._indent = indent
        self._column = 0
        self._blanks = ""
        self._word = ""

    def push(self, text: str, width: int) -> str:
        """Take in text, and return what can be written now.

        Args:
            text: the next piece.
            width: columns of a line.
        """
        written = []
        for part in _PARTS.findall(text):
            if part == "\n":
                written.append(self._end_word(width) + "\n")
                self._column, self._blanks = 0, ""
            elif part[0] in " \t":
                written.append(self._end_word(width))
                self._blanks += part
            else:
                written += [self._add(letter, width) for letter in part]
        return "".join(written)

    def flush(self, width: int) -> str:
        """Return what is held back: the text ends or pauses here."""
        return self._end_word(width)

    def _add(self, letter: str, width: int) -> str:
        if cell_len(letter) < 2:
            self._word += letter
            return ""
        # Before a wide letter a line may end, and after it.
        before = self._end_word(width)
        self._word = letter
        return before + self._end_word(width)

    def _end_word(self, width: int) -> str:
        word, self._word = self._word, ""
        if not word:
            return ""
        blanks, self._blanks = self._blanks, ""
        gap = self._cells(blanks)
        if self._column and self._column + gap + cell_len(word) > width:
            self._column = len(self._indent) + cell_len(word)
            return f"\n{self._indent}{word}"
        self._column += gap + cell_len(word)
        return blanks + word

    def _cells(self, blanks: str) -> int:
        column = self._column
        for blank in blanks:
            column += 1 if blank == " " else _TAB_CELLS - column % _TAB_CELLS
        return column - self._column


def wrapped(text: str, width: int, indent: str = "") -> str:
    """Return a text whose lines are broken between words.

    Args:
        text: the text, whose own line breaks stay.
        width: columns of a line.
        indent: what every line begins with that is broken off another one.
    """
    wrap = WordWrap(indent)
    lines = wrap.push(_FIGURE.sub(_TOGETHER, text), width) + wrap.flush(width)
    return lines.replace(_TOGETHER, " ")


def print_text(
    console: Console,
    text: str,
    *,
    style: str = "",
    label: str = "",
    label_style: str = "bold",
    indent: str = "",
) -> None:
    """Print a text: on a terminal with lines that break between words, elsewhere as it is.

    Args:
        console: where it is printed.
        text: the text; its own line breaks stay.
        style: style of the text.
        label: words before it.
        label_style: their style.
        indent: what every line begins with that is broken off another one.
    """
    whole = printable(clipped(label + text), keep="\n\t")
    shown = Text(wrapped(whole, console.width, indent) if console.is_terminal else whole, style)
    if label:
        shown.stylize(label_style, 0, len(label))
    console.print(shown, soft_wrap=True)


def rows_of_terms(rows: Iterable[tuple[str, str]], width: int) -> str:
    """Lay terms out beside what they mean; on a narrow screen above it.

    Args:
        rows: terms, each with its text.
        width: columns of the screen.
    """
    rows = tuple(rows)
    column = max(len(term) for term, _ in rows) + len(_INDENT)
    beside = width >= _BESIDE_COLUMNS
    indent = " " * column if beside else _INDENT * 2
    lines = []
    for term, text in rows:
        meaning = wrapped(text, width - len(indent)).replace("\n", f"\n{indent}")
        lines.append(f"{term.ljust(column)}{meaning}" if beside else f"{term}\n{indent}{meaning}")
    return "\n".join(lines)


def table_parts(
    table: Table, width: int, plain: Callable[[RenderableType], str], overhead: int
) -> Iterator[tuple[str, str] | Table]:
    """Lay a table out for a width: as it is, in narrower columns, or as a list of its rows.

    A column of figures, which stands to the right, is never broken, and no other one inside a word.

    Args:
        table: a table whose cells are texts.
        width: columns of the screen.
        plain: function that returns the text of a cell, a heading or a title, as it is shown.
        overhead: columns of the table that its frame and its padding take.

    Yields:
        Texts, each with its style and its last line break, and the table unless it became a list.
    """
    paragraph = min(width, _MOST_PARAGRAPH)
    if table.title:
        yield wrapped(plain(table.title), width, _INDENT) + "\n", "table.title"
    narrowed = _narrowed(table, width - overhead, plain)
    if narrowed is None:
        yield _as_list(table, width, plain), ""
    else:
        yield narrowed
    if table.caption:
        yield wrapped(plain(table.caption), paragraph) + "\n", "table.caption"


def with_narrow_columns(table: Table) -> Table:
    """Return a table with columns of one letter, whose width is that of its frame and so many."""
    return _with_columns(table, [replace(column, width=1) for column in table.columns])


def _with_columns(table: Table, columns: list[Column]) -> Table:
    changed = copy.copy(table)
    changed.columns, changed.title, changed.caption = columns, None, None
    return changed


def _narrowed(table: Table, room: int, plain: Callable[[RenderableType], str]) -> Table | None:
    """Return a table whose columns have `room` together; None: there is no way without a cut."""
    least, widths = [], []
    for column in table.columns:
        texts = [plain(cell) for cell in (column.header, *column.cells)]
        lines = [line for text in texts for line in text.split("\n")]
        widths.append(max((cell_len(line) for line in lines), default=0))
        whole = column.justify == "right" or column.no_wrap
        words = lines if whole else [word for line in lines for word in _words(line)]
        least.append(max((cell_len(word) for word in words), default=0))
    if sum(least) > room:
        return None
    while sum(widths) > room:
        widest = max(
            (at for at in range(len(widths)) if widths[at] > least[at]), key=widths.__getitem__
        )
        widths[widest] -= 1
    columns = [
        replace(column, width=max(width, 1), overflow="fold", _cells=_broken(column, width))
        for column, width in zip(table.columns, widths, strict=True)
    ]
    return _with_columns(table, columns)


def _broken(column: Column, width: int) -> list[RenderableType]:
    """Break the cells of a column ourselves: rich would part a figure from its unit."""
    return [wrapped(cell, width) if isinstance(cell, str) else cell for cell in column.cells]


def _words(line: str) -> list[str]:
    return _FIGURE.sub(_TOGETHER, line).split()


def _as_list(table: Table, width: int, plain: Callable[[RenderableType], str]) -> str:
    headings = [plain(column.header).replace("\n", " ") for column in table.columns]
    longest = max(map(cell_len, headings[1:]), default=0)
    lines = []
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        name, *values = map(plain, cells)
        if not table.show_header:
            lines.append(wrapped(f"{name}: {'; '.join(values)}", width, _INDENT))
            continue
        lines.append(wrapped(name, width, _INDENT))
        for heading, value in zip(headings[1:], values, strict=True):
            if value:
                # A cell's second line stands below its first.
                below = "\n" + " " * (longest + 2)
                gap = " " * (longest - cell_len(heading))
                beside = width >= _BESIDE_COLUMNS
                term = f"{heading}{gap}  " if beside else f"{heading}: "
                text = f"{term}{value}".replace("\n", below if beside else " ")
                line = wrapped(text, width - len(_INDENT), _INDENT)
                lines.append(textwrap.indent(line, _INDENT))
    return "".join(f"{line}\n" for line in lines)
