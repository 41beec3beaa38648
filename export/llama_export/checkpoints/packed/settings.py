"""Typed reads of `quantization_config`, whose errors name the file and the key.

It knows no method: which keys there are and what they mean is theirs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from llama_export.errors import ConfigError, UnsupportedModelError
from llama_export.llama.config_keys import shown

ORIGINAL = "take the model that it was quantised from, or dequantise it with its own library"
"""What to do about weights that cannot be read."""
_MOST_GROUP = 2**20


@dataclass(frozen=True)
class Settings:
    """The keys of `quantization_config`, or of an object in it.

    Args:
        raw: parsed object.
        where: name of the file and of the object in it, for messages.
    """

    raw: Mapping[str, Any]
    where: str

    def text(self, key: str, default: str) -> str:
        """Read a string; null is the default."""
        value = self.raw.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self._wrong(key, "a string", value)
        return value.lower()

    def flag(self, key: str, *, default: bool) -> bool:
        """Read true or false; null is the default."""
        value = self.raw.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def integer(self, key: str) -> int | None:
        """Read a whole number; null or absent: None."""
        value = self.raw.get(key)
        if value is not None and type(value) is not int:
            raise self._wrong(key, "a whole number", value)
        return value

    def group_size(self) -> int | None:
        """Read the number of columns that share a scale; -1, null or absent: None, a whole row."""
        key = "group_size"
        value = self.integer(key)
        if value in (None, -1):
            return None
        if not 1 <= value <= _MOST_GROUP:
            raise self._wrong(key, f"-1, or 1 to {_MOST_GROUP}", value)
        return value

    def bits(self, key: str, read: Collection[int]) -> int:
        """Read a width of codes, one of those that are read.

        Raises:
            UnsupportedModelError: it is another one.
        """
        value = self.integer(key)
        if value is None:
            raise self._wrong(key, "a whole number", value)
        if value not in read:
            expected = " or ".join(map(str, sorted(read)))
            message = f"{self.where}: {key} is {value}; codes of {expected} bits are read"
            raise UnsupportedModelError(message, ORIGINAL)
        return value

    def nested(self, key: str) -> Settings | None:
        """Read an object; null or absent: None."""
        value = self.raw.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._wrong(key, "an object", value)
        return Settings(value, f"{self.where}: {key}")

    def refuse_other(self, key: str, value: object, read: Collection[object]) -> None:
        """Refuse a value that is none of those that are read.

        Raises:
            UnsupportedModelError: it is another one.
        """
        if value not in read:
            expected = ", ".join(map(str, read))
            message = f"{self.where}: {key} {shown(value)} is not read; {expected} is"
            raise UnsupportedModelError(message, ORIGINAL)

    def refuse_set(self, *keys: str) -> None:
        """Refuse keys that change what the weights mean, unless they are empty or false.

        Raises:
            UnsupportedModelError: one is set.
        """
        for key in keys:
            if self.raw.get(key):
                message = f"{self.where}: {key} = {shown(self.raw[key])} is not read"
                raise UnsupportedModelError(message, ORIGINAL)

    def _wrong(self, key: str, expected: str, found: object) -> ConfigError:
        message = f"{self.where}: {key} must be {expected}, found {shown(found)}"
        return ConfigError(message, "take config.json from the model's repository")
