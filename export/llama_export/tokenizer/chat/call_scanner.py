"""Find the end of a call in text that arrives in pieces, and see early that it is none.

Every character is looked at once. A scanner answers alike however the text is cut, and is broken by
the first character that no call of an offered tool has there. What it lets through is parsed by
`call_payload`; so it need not refuse everything that is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from enum import Enum, auto
from typing import Protocol

BLANKS = " \t\r\n"
_MOST_LEVELS = 64
_CLOSERS = {"{": "}", "[": "]", "(": ")"}
_OPTIONAL = {"type": frozenset({"function"}), "id": None}
_ARGUMENTS = ("arguments", "parameters")
_KEYS = frozenset({"name", *_ARGUMENTS, *_OPTIONAL})
# Blanks, numbers and words between brackets, quotes, commas and colons.
_PLAIN = re.compile(r"[ \t\r\n0-9A-Za-z+\-.,:]+")
_PYTHON_PLAIN = re.compile(r"[ \t\r\n0-9A-Za-z_+\-.,:=]+")
_IN_STRING = {quote: re.compile(rf"[^{quote}\\\n]+") for quote in "\"'"}
_IN_JSON_STRING = re.compile(r'[^"\\]+')


class State(Enum):
    """How far a scanner is."""

    OPEN = auto()
    BROKEN = auto()
    WHOLE = auto()


class Scanner(Protocol):
    """Reads text to the end of a call."""

    state: State

    def feed(self, text: str) -> int:
        """Read on, and return how many characters were read: all of them while it is open."""


class AnyOf:
    """Reads with several scanners, of which at most one is open after a few characters."""

    def __init__(self, scanners: Sequence[Scanner]) -> None:
        self.state = State.OPEN
        self._scanners = list(scanners)

    def feed(self, text: str) -> int:
        """Read on, and return how many characters were read."""
        read = [(scanner, scanner.feed(text)) for scanner in self._scanners]
        for scanner, length in read:
            if scanner.state is State.WHOLE:
                self.state = State.WHOLE
                return length
        self._scanners = [scanner for scanner, _ in read if scanner.state is State.OPEN]
        if not self._scanners:
            self.state = State.BROKEN
        return max(length for _, length in read)


class _Watched:
    """A short text that must become one of several; each letter is held against them."""

    def __init__(self, allowed: Collection[str]) -> None:
        self.text = ""
        self._allowed = allowed

    def takes(self, letter: str) -> bool:
        self.text += letter
        return any(each.startswith(self.text) for each in self._allowed)

    @property
    def is_whole(self) -> bool:
        return self.text in self._allowed


class JsonScanner:
    """Reads a call as a JSON object, or a list of them.

    Args:
        names: names of the tools that may be called.
    """

    def __init__(self, names: Collection[str]) -> None:
        self.state = State.OPEN
        self._names = frozenset(names)
        self._closers: list[str] = []
        self._call_level = 1
        self._in_string = self._escaped = False
        self._watched: _Watched | None = None
        self._key = ""
        self._wanted = "{["  # the letters that may come next around and in a call's own object

    def feed(self, text: str) -> int:
        """Read on, and return how many characters were read."""
        at = 0
        while at < len(text) and self.state is State.OPEN:
            at = self._string(text, at) if self._in_string else self._outside(text, at)
        return at

    def _outside(self, text: str, at: int) -> int:
        if len(self._closers) > self._call_level:
            run = _PLAIN.match(text, at)
            return run.end() if run else self._bracket(text[at], at)
        letter = text[at]
        if letter in BLANKS:
            return at + 1
        if self._wanted == "value":
            self._begin_value(letter)
        elif letter not in self._wanted and not (
            "," in self._wanted and self._key == "scalar" and (letter.isalnum() or letter in "+-.")
        ):
            self.state = State.BROKEN
        else:
            self._punctuation(letter)
        return at + 1

    def _begin_value(self, letter: str) -> None:
        """Take the first letter of a value in a call's own object."""
        self._wanted = ",}"
        if letter == '"':
            allowed = {"name": self._names}.get(self._key, _OPTIONAL.get(self._key))
            self._begin_string(allowed)
        elif letter == "{" and self._key in _ARGUMENTS:
            self._closers.append("}")
        elif self._key in ("name", "type") or not (letter.isalnum() or letter == "-"):
            self.state = State.BROKEN
        else:
            self._key = "scalar"

    def _begin_string(self, allowed: Collection[str] | None) -> None:
        self._in_string = True
        self._watched = None if allowed is None else _Watched(allowed)

    def _punctuation(self, letter: str) -> None:
        """Take a letter around a call's object, or between its keys and values."""
        if letter == "[":
            self._closers.append("]")
            self._call_level, self._wanted = 2, "{"
        elif letter == "{":
            self._closers.append("}")
            self._wanted = '"'
        elif letter == '"':
            self._begin_string(_KEYS)
            self._wanted = ":"
        elif letter == ":":
            self._wanted = "value"
        elif letter == ",":
            self._wanted = '"' if len(self._closers) == self._call_level else "{"
        elif letter in "}]":
            self._closers.pop()
            self._wanted = ",]"
            if not self._closers:
                self.state = State.WHOLE

    def _bracket(self, letter: str, at: int) -> int:
        """Take a letter inside of arguments that is neither blank nor number nor word."""
        if letter == '"':
            self._begin_string(None)
        elif letter in "{[" and len(self._closers) < _MOST_LEVELS:
            self._closers.append(_CLOSERS[letter])
        elif letter == self._closers[-1]:
            self._closers.pop()
        else:
            self.state = State.BROKEN
        return at + 1

    def _string(self, text: str, at: int) -> int:
        if self._watched is not None:
            return self._watch(self._watched, text[at], at)
        if self._escaped:
            self._escaped = False
            return at + 1
        run = _IN_JSON_STRING.match(text, at)
        if run:
            return run.end()
        self._escaped = text[at] == "\\"
        self._in_string = self._escaped
        return at + 1

    def _watch(self, watched: _Watched, letter: str, at: int) -> int:
        if letter != '"':
            if not watched.takes(letter):
                self.state = State.BROKEN
            return at + 1
        if not watched.is_whole:
            self.state = State.BROKEN
        self._in_string = False
        if self._wanted == ":":
            self._key = watched.text
        return at + 1


class PythonScanner:
    """Reads calls as Python writes them: `[f(a=1), g()]`, or one alone.

    Args:
        names: names of the tools that may be called.
        method: what stands between a name and its arguments, such as ".call".
        is_list: whether calls stand in a list.
    """

    def __init__(self, names: Collection[str], *, method: str = "", is_list: bool = True) -> None:
        self.state = State.OPEN
        self._allowed = frozenset(f"{name}{method}(" for name in names)
        self._is_list = is_list
        self._name: _Watched | None = None if is_list else _Watched(self._allowed)
        self._wanted = "["
        self._closers: list[str] = []
        self._quote = ""
        self._escaped = False

    def feed(self, text: str) -> int:
        """Read on, and return how many characters were read."""
        at = 0
        while at < len(text) and self.state is State.OPEN:
            if self._quote:
                at = self._string(text, at)
            elif self._closers:
                run = _PYTHON_PLAIN.match(text, at)
                at = run.end() if run else self._bracket(text[at], at)
            else:
                at = self._around(text[at], at)
        return at

    def _around(self, letter: str, at: int) -> int:
        """Take a letter of a name, or between calls."""
        if letter in BLANKS and not (self._name and self._name.text):
            return at + 1
        if self._name is not None:
            self._spell(self._name, letter)
        elif letter not in self._wanted:
            self.state = State.BROKEN
        elif letter == "]":
            self.state = State.WHOLE
        else:
            self._name = _Watched(self._allowed)
        return at + 1

    def _spell(self, name: _Watched, letter: str) -> None:
        if not name.takes(letter):
            self.state = State.BROKEN
        elif letter == "(":
            self._name, self._wanted = None, ",]"
            self._closers.append(")")

    def _bracket(self, letter: str, at: int) -> int:
        if letter in _IN_STRING:
            self._quote = letter
        elif letter in "{[" and len(self._closers) < _MOST_LEVELS:
            self._closers.append(_CLOSERS[letter])
        elif letter == self._closers[-1]:
            self._closers.pop()
            if not self._closers and not self._is_list:
                self.state = State.WHOLE
        else:
            self.state = State.BROKEN
        return at + 1

    def _string(self, text: str, at: int) -> int:
        if self._escaped:
            self._escaped = False
            return at + 1
        run = _IN_STRING[self._quote].match(text, at)
        if run:
            return run.end()
        if text[at] == "\n":
            self.state = State.BROKEN
        elif text[at] == "\\":
            self._escaped = True
        else:
            self._quote = ""
        return at + 1
