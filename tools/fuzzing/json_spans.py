"""Where each value of a JSON text begins and ends, so that one can be replaced in place.

The text must be JSON; it is looked at as Latin-1, so that an offset is an offset in bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_PLAIN = re.compile(r"[^\s,\]}]+")


@dataclass(frozen=True)
class Span:
    """One value.

    Args:
        kind: "object", "array", "string" or "plain", which is a number, true, false or null.
        start: offset of its first byte.
        end: offset after its last byte.
        key_start: offset of its key; -1 in an array and at the top.
        owner: index of the span that holds it; -1 at the top.
    """

    kind: str
    start: int
    end: int
    key_start: int
    owner: int


@lru_cache(maxsize=64)
def find_spans(content: bytes) -> tuple[Span, ...]:
    """Return the values of a text, each after the one that holds it.

    Raises:
        ValueError: it is no JSON.
    """
    found: list[Span] = []
    text = content.decode("latin-1")
    _value(text, _skip(text, 0), -1, -1, found)
    return tuple(found)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _value(text: str, at: int, key_start: int, owner: int, found: list[Span]) -> int:
    """Read one value, add it and what it holds, and return the offset after it."""
    opened = text[at : at + 1]
    if opened in ("{", "["):
        kind = "object" if opened == "{" else "array"
        index = len(found)
        found.append(Span(kind, at, at, key_start, owner))
        end = _members(text, at + 1, index, found, keyed=opened == "{")
        found[index] = Span(kind, at, end, key_start, owner)
        return end
    pattern = _STRING if opened == '"' else _PLAIN
    match = pattern.match(text, at)
    if match is None:
        message = f"no JSON at {at}"
        raise ValueError(message)
    kind = "string" if opened == '"' else "plain"
    found.append(Span(kind, at, match.end(), key_start, owner))
    return match.end()


def _members(text: str, at: int, owner: int, found: list[Span], *, keyed: bool) -> int:
    closing = "}" if keyed else "]"
    at = _skip(text, at)
    while text[at : at + 1] != closing:
        key_start = -1
        if keyed:
            key_start = at
            match = _STRING.match(text, at)
            if match is None:
                message = f"no key at {at}"
                raise ValueError(message)
            at = _skip(text, _skip(text, match.end()) + 1)
        at = _skip(text, _value(text, at, key_start, owner, found))
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != closing:
            message = f"no end of the value before {at}"
            raise ValueError(message)
    return at + 1
