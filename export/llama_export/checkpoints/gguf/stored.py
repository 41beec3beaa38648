"""What a GGUF file holds: arrays and tensors in their places, and the numbers of types of values.

It reads an array when somebody asks for it; it knows no key and no form of a tensor.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from llama_export.checkpoints.gguf.types import TensorType
from llama_export.errors import CheckpointError

STRING, ARRAY = 8, 9
# Of the types of values that are numbers: struct's letter.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
BOOLEAN = 7
LETTERS = {**NUMBERS, BOOLEAN: "B"}
_DAMAGED = "download or convert the file again"

Scalar = bool | int | float | str


@dataclass(frozen=True)
class StoredArray:
    """An array that was left in the file.

    Args:
        path: file that holds it.
        kind: number of its elements' type, as GGUF has it.
        count: number of elements.
        start: first byte of the first element.
        end: byte after the last.
    """

    path: Path
    kind: int
    count: int
    start: int
    end: int

    @property
    def is_text(self) -> bool:
        """Whether its elements are strings."""
        return self.kind == STRING

    def texts(self) -> list[str]:
        """Read an array of strings.

        Raises:
            CheckpointError: one is not UTF-8, or the file cannot be read.
        """
        content, found, place = self._bytes(), [], 0
        for _ in range(self.count):
            start = place + 8
            place = start + int.from_bytes(content[place:start], "little")
            found.append(content[start:place])
        try:
            return [each.decode("utf-8") for each in found]
        except UnicodeDecodeError as error:
            message = f"{self.path}: a string of an array is not UTF-8: {error.object[:40]!r}"
            raise CheckpointError(message, _DAMAGED) from None

    def numbers(self) -> list[float]:
        """Read an array of numbers.

        Raises:
            CheckpointError: the file cannot be read.
        """
        return list(struct.unpack(f"<{self.count}{LETTERS[self.kind]}", self._bytes()))

    def _bytes(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                content = file.read(self.end - self.start)
        except OSError as error:
            message = f"{self.path} cannot be read: {error.strerror or error}"
            raise CheckpointError(message) from None
        if len(content) != self.end - self.start:
            message = f"{self.path} was cut off while it was read"
            raise CheckpointError(message, _DAMAGED)
        return content


Value = Scalar | StoredArray


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file.

    Args:
        path: file that holds it.
        type: form of its numbers.
        shape: sizes of its dimensions, the rows first; the file has them the other way round.
        start: its first byte in the file.
        size_bytes: number of its bytes.
    """

    path: Path
    type: TensorType
    shape: tuple[int, ...]
    start: int
    size_bytes: int
