"""Typed reads of the parameters of a request; the first wrong one ends the reading.

null is as good as nothing, as OpenAI has it. It knows types and ranges; it does not know what a
parameter means.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from llama_export.serving.refusals import ApiError, shown


class Fields:
    """The parameters of a request, or of an object in it.

    Args:
        raw: the parsed object.
        where: path of the object, with a dot at the end; empty at the top.
    """

    def __init__(self, raw: Mapping[str, Any], where: str = "") -> None:
        self.raw = {key: value for key, value in raw.items() if value is not None}
        self._where = where

    def name(self, key: str) -> str:
        """Return the path of a parameter."""
        return f"{self._where}{key}"

    def only(self, known: Collection[str]) -> None:
        """Refuse parameters of other names.

        Raises:
            ApiError: there is one.
        """
        for key in self.raw:
            if key not in known:
                message = f"{self.name(key):.80} is no parameter that this server knows; leave it "
                raise ApiError(
                    400, f"{message}out", param=self.name(key)[:80], code="unknown_parameter"
                )

    def has(self, key: str) -> bool:
        """Return whether a parameter was given."""
        return key in self.raw

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text.

        Raises:
            ApiError: it is something else, or missing without a default.
        """
        value = self.raw.get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, "a text")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false.

        Raises:
            ApiError: it is something else.
        """
        value = self.raw.get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def whole(self, key: str, least: int, most: int) -> int | None:
        """Return a whole number in a range; None: it was not given.

        Raises:
            ApiError: it is something else.
        """
        value = self.raw.get(key)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # JSON has one kind of number
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self._wrong(key, f"a whole number from {least} to {most}")
        return value

    def number(self, key: str, least: float, most: float) -> float | None:
        """Return a number in a range; None: it was not given.

        Raises:
            ApiError: it is something else.
        """
        value = self.raw.get(key)
        if value is None:
            return None
        known = isinstance(value, int | float) and not isinstance(value, bool)
        if not known or not math.isfinite(value) or not least <= value <= most:
            raise self._wrong(key, f"a number from {least:g} to {most:g}")
        return float(value)

    def child(self, key: str) -> Fields:
        """Return an object, empty where it was not given.

        Raises:
            ApiError: it is something else.
        """
        value = self.raw.get(key, {})
        if not isinstance(value, dict):
            raise self._wrong(key, "an object")
        return Fields(value, f"{self.name(key)}.")

    def items(self, key: str, most: int) -> list[Any]:
        """Return a list, empty where it was not given.

        Raises:
            ApiError: it is something else, or longer.
        """
        value = self.raw.get(key, [])
        if not isinstance(value, list) or len(value) > most:
            raise self._wrong(key, f"a list of at most {most}")
        return value

    def texts(self, key: str, most: int) -> tuple[str, ...]:
        """Return a text or a list of texts as a tuple, empty where none was given.

        Raises:
            ApiError: it is something else, or longer, or a text is empty.
        """
        value = self.raw.get(key, [])
        found = [value] if isinstance(value, str) else value
        sound = isinstance(found, list) and len(found) <= most
        if not sound or not all(isinstance(each, str) and each for each in found):
            raise self._wrong(key, f"a text, or a list of at most {most} texts, none of them empty")
        return tuple(found)

    def _wrong(self, key: str, expected: str) -> ApiError:
        if key not in self.raw:
            message = f"{self.name(key)} is missing: expected {expected}"
            return ApiError(400, message, param=self.name(key), code="missing_parameter")
        name = self.name(key)
        message = f"{name}: expected {expected}, found {shown(self.raw[key])}"
        return ApiError(400, message, param=name, code="invalid_value")
