"""The metadata of a GGUF file, asked for by key and type.

It knows what a value may be, not what it means.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_export.checkpoints.gguf.stored import StoredArray, Value
from llama_export.errors import ConfigError
from llama_quantize.printable import shown_name

_HINT = "convert the model again with today's llama.cpp"


@dataclass(frozen=True)
class Metadata:
    """Values by key, each of the type that is asked for.

    Args:
        path: file that they are from.
        values: values by key.
    """

    path: Path
    values: Mapping[str, Value]

    def __contains__(self, key: str) -> bool:
        """Whether a key is there."""
        return key in self.values

    def integer(self, key: str) -> int:
        """Return a whole number.

        Raises:
            ConfigError: it is missing or another kind of value.
        """
        value = self._required(key, "a whole number")
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fault(key, value, "a whole number")
        return value

    def integer_or_none(self, key: str) -> int | None:
        """Return a whole number, or None where the key is absent."""
        return self.integer(key) if key in self.values else None

    def number(self, key: str) -> float:
        """Return a number; of one stored as float32, the shortest decimal that means it.

        Raises:
            ConfigError: it is missing, not a number, or not finite.
        """
        value = self._required(key, "a number")
        if isinstance(value, (bool, str, StoredArray)) or not math.isfinite(value):
            raise self.fault(key, value, "a finite number")
        return _shortest(float(value))

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false.

        Raises:
            ConfigError: it is another kind of value.
        """
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self.fault(key, value, "true or false")
        return value

    def text(self, key: str) -> str | None:
        """Return a text, or None where the key is absent.

        Raises:
            ConfigError: it is another kind of value.
        """
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise self.fault(key, value, "a text")
        return value

    def texts(self, key: str) -> list[str] | None:
        """Read a list of texts, or return None where the key is absent.

        Raises:
            ConfigError: it is another kind of value.
            CheckpointError: one of them is damaged.
        """
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, StoredArray) or not value.is_text:
            raise self.fault(key, value, "a list of texts")
        return value.texts()

    def numbers(self, key: str) -> list[float] | None:
        """Read a list of numbers, or return None where the key is absent.

        Raises:
            ConfigError: it is another kind of value.
            CheckpointError: the file cannot be read.
        """
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, StoredArray) or value.is_text:
            raise self.fault(key, value, "a list of numbers")
        return value.numbers()

    def length(self, key: str) -> int | None:
        """Return the length of a list without reading it; None: there is no such list."""
        value = self.values.get(key)
        return value.count if isinstance(value, StoredArray) else None

    def size_bytes(self, key: str) -> int:
        """Return the bytes that a list takes in the file; 0: there is no such list."""
        value = self.values.get(key)
        return value.end - value.start if isinstance(value, StoredArray) else 0

    def fault(self, key: str, value: Value, expected: str) -> ConfigError:
        """Make the error about a value that is not what was expected."""
        shown = "a list" if isinstance(value, StoredArray) else repr(value)
        message = f"{self.path}: {key} must be {expected}, found {shown_name(shown)}"
        return ConfigError(message, _HINT)

    def _required(self, key: str, expected: str) -> Value:
        if key not in self.values:
            message = f"{self.path}: {key} is missing, expected {expected}"
            raise ConfigError(message, _HINT)
        return self.values[key]


def _shortest(value: float) -> float:
    """Return the shortest decimal that float32 rounds to the same value: 1e-05, not 9.99...e-06."""
    try:
        stored = struct.pack("<f", value)
    except OverflowError:
        return value
    if struct.unpack("<f", stored)[0] != value:
        return value  # it came as float64
    for digits in range(1, 9):
        short = float(f"{value:.{digits}g}")
        if struct.pack("<f", short) == stored:
            return short
    return value
