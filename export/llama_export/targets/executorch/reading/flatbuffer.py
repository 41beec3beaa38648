"""Find the numbers, strings and tables in a FlatBuffers file, and overwrite numbers in place.

As much of the format as reading a `.pte` needs: https://flatbuffers.dev/internals. A field is named
by its place in the schema. Every offset is checked against the file, so that a damaged file ends in
`ValueError` and not elsewhere. It knows no schema.

The package `flatbuffers` is not taken for it: it believes each length, so it cuts a text short
without a word, and offers four billion elements where a file has none. A test reads every table of
a real `.pte` by both.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

_Buffer = bytes | bytearray | memoryview
# A program of two layers has 420, and so one of 80 layers some 20,000; each is read a few times.
_MOST_ELEMENTS = 1_000_000


def read_number(data: _Buffer, at: int, form: str) -> int:
    """Read a little-endian number of `struct`'s form at a place.

    Raises:
        ValueError: it is outside the file.
    """
    try:
        (value,) = struct.unpack_from(f"<{form}", data, at)
    except struct.error as error:
        message = f"offset {at} is outside the {len(data)} bytes"
        raise ValueError(message) from error
    if at < 0:
        message = f"offset {at} is before the beginning"
        raise ValueError(message)
    return int(value)


class Work:
    """How many elements of lists were read, of how many.

    Lists may share their bytes: a small file can have as many elements as the square of its size.
    """

    def __init__(self) -> None:
        self._left = _MOST_ELEMENTS

    def spend(self, elements: int) -> None:
        """Count elements before they are read.

        Raises:
            ValueError: no file of ours has so many.
        """
        self._left -= elements
        if self._left < 0:
            message = f"its lists have more than {_MOST_ELEMENTS} elements together"
            raise ValueError(message)


@dataclass(frozen=True)
class Table:
    """One table of the file.

    Args:
        data: bytes of the whole FlatBuffers file.
        at: offset at which the table begins.
        work: what reading the file has cost so far.
    """

    data: _Buffer
    at: int
    work: Work = field(default_factory=Work, compare=False, repr=False)

    @classmethod
    def root(cls, data: _Buffer, start: int = 0) -> Table:
        """Return the root table of a file that begins at `start`."""
        return cls(data, start + read_number(data, start, "I"))

    def place(self, field: int) -> int | None:
        """Return where a field's value is, or its offset to the value; None: not stored."""
        vtable = self.at - read_number(self.data, self.at, "i")
        if 4 + 2 * field >= read_number(self.data, vtable, "H"):
            return None
        offset = read_number(self.data, vtable + 4 + 2 * field, "H")
        return self.at + offset if offset else None

    def number(self, field: int, form: str, default: int = 0) -> int:
        """Return a number, or the schema's default if it is not stored."""
        at = self.place(field)
        return default if at is None else read_number(self.data, at, form)

    def table(self, field: int) -> Table | None:
        """Return the table that a field points to."""
        at = self.place(field)
        if at is None:
            return None
        return Table(self.data, at + read_number(self.data, at, "I"), self.work)

    def text(self, field: int) -> str:
        """Return a string; empty if it is not stored."""
        at = self.text_place(field)
        if at is None:
            return ""
        size_bytes = read_number(self.data, at - 4, "I")
        if at + size_bytes > len(self.data):
            message = f"a text of {size_bytes} bytes at {at} does not fit into the file"
            raise ValueError(message)
        return bytes(self.data[at : at + size_bytes]).decode()

    def text_place(self, field: int) -> int | None:
        """Return where a string's first byte is."""
        at = self.place(field)
        return None if at is None else at + read_number(self.data, at, "I") + 4

    def vector(self, field: int) -> tuple[int, int]:
        """Return where a vector's first element is, and how many there are."""
        at = self.place(field)
        if at is None:
            return 0, 0
        start = at + read_number(self.data, at, "I")
        count = read_number(self.data, start, "I")
        if start + 4 + count > len(self.data):
            message = f"a list of {count} elements at {start} does not fit into the file"
            raise ValueError(message)
        return start + 4, count

    def tables(self, field: int) -> Iterator[Table]:
        """Return the tables of a vector."""
        start, count = self.vector(field)
        self.work.spend(count)
        for at in range(start, start + 4 * count, 4):
            yield Table(self.data, at + read_number(self.data, at, "I"), self.work)

    def numbers(self, field: int, form: str) -> list[int]:
        """Return a vector's numbers."""
        start, count = self.vector(field)
        self.work.spend(count)
        size = struct.calcsize(f"<{form}")
        return [read_number(self.data, start + size * i, form) for i in range(count)]


def write_number(data: bytearray, at: int, form: str, value: int) -> None:
    """Overwrite a number in place."""
    struct.pack_into(f"<{form}", data, at, value)
