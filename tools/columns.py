"""Set texts beside each other in columns, or below each other where the terminal is narrow.

It counts characters and knows nothing of models; whatever is not printable becomes a question mark.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import zip_longest

NARROWEST = 34
GAP = "   "


def in_columns(texts: Sequence[tuple[str, str]], width: int) -> str:
    """Lay titled texts out, as many side by side as have room for 34 characters each.

    Args:
        texts: (title, text) of each; the white space of a text is not kept.
        width: columns of the terminal, in characters.

    Returns:
        lines without trailing blanks, at most `width` long where a column has room for a letter.
    """
    in_a_row = max(1, (width + len(GAP)) // (NARROWEST + len(GAP)))
    if in_a_row < len(texts):  # three and one would look like a mistake: two and two
        in_a_row = -(-len(texts) // -(-len(texts) // in_a_row))
    else:
        in_a_row = max(1, len(texts))
    column = max(1, (width - len(GAP) * (in_a_row - 1)) // in_a_row)
    blocks = [
        _row(texts[first : first + in_a_row], column) for first in range(0, len(texts), in_a_row)
    ]
    return "\n\n".join(blocks)


def _row(texts: Sequence[tuple[str, str]], column: int) -> str:
    cells = []
    for title, text in texts:
        lines = textwrap.wrap(_printable(text), column)
        cells.append([*textwrap.wrap(title, column), "-" * min(column, len(title)), *lines])
    rows = zip_longest(*cells, fillvalue="")
    return "\n".join(GAP.join(cell.ljust(column) for cell in row).rstrip() for row in rows)


def _printable(text: str) -> str:
    words = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "?" for letter in words)
