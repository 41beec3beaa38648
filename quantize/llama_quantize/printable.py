"""Make text of others fit to be shown: no escapes, no hidden directions, no endless lines.

What a file, a hub or a model says may end on a terminal, where control characters move the cursor,
set the window's title or fill the clipboard, and where marks of direction make a name read as
another one. It knows letters alone, not who shows them.
"""

from __future__ import annotations

import unicodedata

# Control characters, marks of direction, halves of pairs, and line and paragraph separators.
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
# Characters of the group Cf that spell words and emoji: the joiners.
_JOINERS = "\u200c\u200d"
MOST_CHARACTERS = 2000


def printable(text: str, *, keep: str = "\n") -> str:
    r"""Return a text in which every character is visible; a hidden one is written as `\x1b`.

    Args:
        text: text from anywhere.
        keep: control characters that may stay, such as a line break in a text of many lines;
            "" for a name.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        letter if letter in keep or letter in _JOINERS or not _is_hidden(letter) else _named(letter)
        for letter in text
    )


def clipped(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return a text of at most `most` characters: its beginning and its end, with dots between."""
    if len(text) <= most:
        return text
    dots = f" [... {len(text) - most} characters more ...] " if most > 200 else "..."
    tail = most // 4
    return f"{text[: most - tail - len(dots)]}{dots}{text[len(text) - tail :]}"


def shown_name(text: str, most: int = 80) -> str:
    """Return a name of a file, key or tensor in one short line."""
    return clipped(printable(text, keep=""), most)


def _is_hidden(letter: str) -> bool:
    return unicodedata.category(letter) in _HIDDEN


def _named(letter: str) -> str:
    code = ord(letter)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
