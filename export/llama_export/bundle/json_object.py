"""Typed reads of parsed JSON that gather every fault, so that one message can name them all.

It knows types and patterns; it does not know what any key means.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

# A file has at most so many bytes.
LARGEST_SIZE = 2**63 - 1
_SANE = 1e9


class JsonObject:
    """Typed reads of one JSON object; each fault goes to a shared list, and reading goes on.

    Where a value is wrong, a harmless one of the right type is returned.

    Args:
        raw: the parsed object.
        where: path of the object in its file, with a dot at the end; empty at the top.
        faults: list that takes the faults.
    """

    def __init__(self, raw: Mapping[str, Any], where: str, faults: list[str]) -> None:
        self.raw = raw
        self._where = where
        self._faults = faults

    def fault(self, key: str, expected: str) -> None:
        """Add the fault of a key whose value is not what was expected."""
        found = "nothing" if key not in self.raw else f"{self.raw[key]!r:.80}"
        self._faults.append(f"{self._where}{key} must be {expected}, found {found}")

    def only(self, keys: Iterable[str]) -> None:
        """Refuse other keys than these."""
        for key in sorted(set(self.raw) - set(keys)):
            self._faults.append(f"{self._where}{key:.80} is not a key of this format")

    def text(self, key: str, pattern: re.Pattern[str], expected: str) -> str:
        """Return a string that matches a pattern as a whole."""
        value = self.raw.get(key)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self.fault(key, expected)
            return ""
        return value

    def is_null(self, key: str) -> bool:
        """Return whether the key is there and null."""
        return key in self.raw and self.raw[key] is None

    def integer(self, key: str, minimum: int = 0, maximum: int | None = None) -> int:
        """Return a whole number; without a maximum, it may be as large as a file's size."""
        value = self.raw.get(key)
        most = LARGEST_SIZE if maximum is None else maximum
        if not is_integer(value) or not minimum <= value <= most:
            up_to = "" if maximum is None else f" and at most {maximum}"
            self.fault(key, f"a whole number of at least {minimum}{up_to}")
            return minimum
        return value

    def boolean(self, key: str) -> bool:
        """Return true or false."""
        value = self.raw.get(key)
        if not isinstance(value, bool):
            self.fault(key, "true or false")
        return value is True

    def number(self, key: str, minimum: float = -_SANE, maximum: float = _SANE) -> None:
        """Refuse what is no number in a range; no figure of ours is near the ends of the usual."""
        value = self.raw.get(key)
        known = is_integer(value) or isinstance(value, float)
        if value is None or not known or not minimum <= value <= maximum:
            self.fault(key, f"a finite number from {minimum:g} to {maximum:g}")

    def child(self, key: str) -> JsonObject:
        """Return an object inside this one."""
        value = self.raw.get(key)
        if isinstance(value, dict):
            return JsonObject(value, f"{self._where}{key}.", self._faults)
        self.fault(key, "an object")
        return JsonObject({}, "", [])  # its own faults would only repeat this one

    def children(self, key: str, most: int) -> list[JsonObject]:
        """Return the objects of a list inside this one."""
        value = self.raw.get(key)
        if not isinstance(value, list) or len(value) > most:
            self.fault(key, f"a list of at most {most} objects")
            return []
        items: Mapping[str, Any] = {f"{key}[{index}]": item for index, item in enumerate(value)}
        listed = JsonObject(items, self._where, self._faults)
        return [listed.child(name) for name in items]


def is_integer(value: object) -> TypeGuard[int]:
    """Return whether a value is a whole number, which true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)
