"""Reads the property lists of Xcode's projects, which no module of Python's does.

It knows dictionaries, lists, texts and comments, and nothing of what a project means.
"""

from __future__ import annotations

import re
from typing import Final

_TOKEN: Final = re.compile(
    r'\s+|//[^\n]*|/\*[\s\S]*?\*/|(?P<mark>[{}()=;,])|"(?P<quoted>(?:\\.|[^"\\])*)"|(?P<bare>[\w./$:-]+)'
)
Value = str | list["Value"] | dict[str, "Value"]


def read_openstep(text: str) -> Value:
    """Return what a property list holds.

    Raises:
        ValueError: it is none.
    """
    tokens = _tokens(text)
    value, end = _value(tokens, 0)
    if end != len(tokens):
        msg = f"more follows the list: {tokens[end]}"
        raise ValueError(msg)
    return value


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            msg = f"no property list at {text[at : at + 40]!r}"
            raise ValueError(msg)
        at = match.end()
        if match.lastgroup == "mark":
            found.append(("mark", match["mark"]))
        elif match.lastgroup is not None:
            found.append(("text", re.sub(r"\\(.)", r"\1", match[match.lastgroup])))
    return found


def _value(tokens: list[tuple[str, str]], at: int) -> tuple[Value, int]:
    kind, text = tokens[at]
    if kind == "text":
        return text, at + 1
    if text == "{":
        return _dictionary(tokens, at + 1)
    if text == "(":
        return _list(tokens, at + 1)
    msg = f"expected a value, found {text}"
    raise ValueError(msg)


def _dictionary(tokens: list[tuple[str, str]], at: int) -> tuple[Value, int]:
    found: dict[str, Value] = {}
    while tokens[at] != ("mark", "}"):
        kind, key = tokens[at]
        if kind != "text" or key in found or tokens[at + 1] != ("mark", "="):
            msg = f"expected a key that is new, found {key}"
            raise ValueError(msg)
        found[key], at = _value(tokens, at + 2)
        if tokens[at] != ("mark", ";"):
            msg = f"{key}: expected ;"
            raise ValueError(msg)
        at += 1
    return found, at + 1


def _list(tokens: list[tuple[str, str]], at: int) -> tuple[Value, int]:
    found: list[Value] = []
    while tokens[at] != ("mark", ")"):
        value, at = _value(tokens, at)
        found.append(value)
        if tokens[at] == ("mark", ","):
            at += 1
    return found, at + 1
