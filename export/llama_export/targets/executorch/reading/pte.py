"""Read a `.pte`: where its segments are, what its method calls, which constants its tensors use.

The format is ExecuTorch's: schema/program.fbs, and an extended header that says where the segments
begin. Only the first method is looked at beyond its name. It knows that layout; it does not know
what a Llama is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from llama_export.errors import BundleError
from llama_export.targets.executorch.reading.flatbuffer import Table, read_number
from llama_export.targets.executorch.reading.instructions import Call, read_instructions

# The first four bytes after the root offset name the schema.
IDENTIFIER = b"ET12"
_EXTENDED = b"eh00"
# Places in the extended header.
_PROGRAM_SIZE, _SEGMENTS_AT, SEGMENTS_SIZE = 16, 24, 32
_HEAD_BYTES = 64
# Fields of Program.
_PLANS, _SEGMENTS, _CONSTANTS, _NAMED = 1, 4, 5, 7
# Fields of ExecutionPlan.
_NAME, _VALUES, _INPUTS, _OUTPUTS, _CHAINS, _DELEGATES = 0, 2, 3, 4, 5, 7
_TYPE, _TABLE = 0, 1
_TENSOR = 5
# Fields of Tensor.
_SCALAR_TYPE, _SIZES, _DATA, _ALLOCATION, _EXTRA = 0, 2, 5, 6, 9
SCALAR_BYTES: Mapping[int, int] = {0: 1, 1: 1, 2: 2, 3: 4, 4: 8, 5: 2, 6: 4, 7: 8, 11: 1, 15: 2}
_HINT = "export the bundle again"


@dataclass(frozen=True)
class Segment:
    """A piece of the file behind the program; the offset counts from the segments' beginning."""

    offset: int
    size_bytes: int
    entry: Table


@dataclass(frozen=True)
class PteTensor:
    """A tensor among a method's values.

    Args:
        scalar_type: ExecuTorch's number of its dtype.
        sizes: its shape; the largest where it varies.
        sizes_at: offset of the shape's first number in the program.
        constant: index of the constant that it is; 0 for none.
        name: name of a buffer that the method changes; empty for all others.
        planned: block of memory that it lies in, and its place there; None: in none of them.
    """

    scalar_type: int
    sizes: tuple[int, ...]
    sizes_at: int
    constant: int
    name: str
    planned: tuple[int, int] | None

    @property
    def size_bytes(self) -> int:
        """Its length."""
        count = 1
        for size in self.sizes:
            count *= size
        return count * SCALAR_BYTES.get(self.scalar_type, 0)


@dataclass(frozen=True)
class Pte:
    """A program's own bytes, without its segments.

    Args:
        path: path of the file.
        program: the FlatBuffers file at its beginning.
        segments_at: offset of the segments in the file.
    """

    path: Path
    program: bytes | bytearray
    segments_at: int

    @classmethod
    def open(cls, path: Path) -> Pte:
        """Read a file's program and check that its segments are there.

        Raises:
            BundleError: no `.pte`, one of another schema, or one that is cut off.
        """
        try:
            with path.open("rb") as file:
                pte = cls.read(path, file)
            pte.check()
        except OSError as error:
            message = f"{path} cannot be read: {error.strerror or error}"
            raise BundleError(message, _HINT) from error
        except ValueError as error:
            message = f"{path} is damaged: {error}"
            raise BundleError(message, _HINT) from error
        return pte

    @classmethod
    def read(cls, path: Path, file: BinaryIO) -> Pte:
        """Read the header and the program.

        Raises:
            BundleError: another file, or another schema.
            ValueError: it is cut off.
        """
        head = file.read(_HEAD_BYTES)
        found = head[4:8]
        if len(head) < _HEAD_BYTES or found[:2] != IDENTIFIER[:2]:
            message = f"{path} is no ExecuTorch program: it begins with {head[:8]!r}"
            raise BundleError(message, "give a .pte, or export the bundle again")
        if found != IDENTIFIER:
            message = (
                f"{path} is of the schema {found.decode(errors='replace')}; this version reads "
                f"{IDENTIFIER.decode()}"
            )
            raise BundleError(message, "export it again, with executorch 1.4")
        if head[8:12] != _EXTENDED:
            message = f"{path} has no extended header, so its segments cannot be found"
            raise BundleError(message, "export it again, with executorch 1.4")
        size, start = (read_number(head, at, "Q") for at in (_PROGRAM_SIZE, _SEGMENTS_AT))
        if size > path.stat().st_size:
            message = f"the program should have {size} bytes, the file has {path.stat().st_size}"
            raise ValueError(message)
        rest = file.read(max(size - len(head), 0))
        program = (head + rest)[:size]
        if len(program) < size:
            message = f"the program should have {size} bytes, the file has {len(program)}"
            raise ValueError(message)
        return cls(path, program, start)

    def check(self) -> None:
        """Check that every segment is inside the file.

        Raises:
            ValueError: the file is cut off.
        """
        size_bytes = self.path.stat().st_size
        last = max((s.offset + s.size_bytes for s in self.segments), default=0)
        if self.segments_at + last > size_bytes:
            message = f"expected {self.segments_at + last} bytes, found {size_bytes}"
            raise ValueError(message)

    @cached_property
    def root(self) -> Table:
        """The program's root table."""
        return Table.root(self.program)

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """All segments."""
        return tuple(
            Segment(table.number(0, "Q"), table.number(1, "Q"), table)
            for table in self.root.tables(_SEGMENTS)
        )

    @cached_property
    def constant_segment(self) -> tuple[int, list[int], int]:
        """Which segment the constants are in, their offsets, and where those stand."""
        table = self.root.table(_CONSTANTS)
        if table is None:
            message = "it has no constants"
            raise ValueError(message)
        return table.number(0, "I"), table.numbers(1, "Q"), table.vector(1)[0]

    @cached_property
    def named(self) -> Mapping[str, int]:
        """The segment of each constant that has a key."""
        return {table.text(0): table.number(1, "I") for table in self.root.tables(_NAMED)}

    @cached_property
    def methods(self) -> tuple[Table, ...]:
        """The methods' tables."""
        return tuple(self.root.tables(_PLANS))

    def method(self, name: str) -> Table:
        """Return a method's table.

        Raises:
            ValueError: there is none of that name.
        """
        for table in self.methods:
            if table.text(_NAME) == name:
                return table
        message = f"it has no method {name!r}"
        raise ValueError(message)

    @cached_property
    def tensors(self) -> Mapping[int, PteTensor]:
        """The tensors among forward's values, by number."""
        found = {}
        for number, value in enumerate(self.values):
            tensor = value.table(_TABLE)
            if value.number(_TYPE, "B") == _TENSOR and tensor is not None:
                found[number] = _tensor(tensor)
        return found

    @cached_property
    def calls(self) -> tuple[Call, ...]:
        """Forward's calls of operators and delegates."""
        return tuple(call for call in self.instructions if call is not None)

    @cached_property
    def instructions(self) -> tuple[Call | None, ...]:
        """Forward's instructions; None for one that calls nothing, such as a jump."""
        return tuple(read_instructions(self.method("forward")))

    @cached_property
    def chain_at(self) -> int:
        """Where the places of forward's instructions stand; their count stands before them.

        Raises:
            ValueError: there is not one chain of instructions.
        """
        chains = list(self.method("forward").tables(_CHAINS))
        if len(chains) != 1:
            message = f"expected one chain of instructions, found {len(chains)}"
            raise ValueError(message)
        return chains[0].vector(2)[0]

    @cached_property
    def delegates_at(self) -> int:
        """Where the places of forward's delegates stand; their count stands before them."""
        return self.method("forward").vector(_DELEGATES)[0]

    @cached_property
    def inputs(self) -> tuple[int, ...]:
        """Numbers of forward's inputs among its values."""
        return tuple(self.method("forward").numbers(_INPUTS, "i"))

    @cached_property
    def outputs(self) -> tuple[int, ...]:
        """Numbers of forward's outputs among its values."""
        return tuple(self.method("forward").numbers(_OUTPUTS, "i"))

    @cached_property
    def outputs_at(self) -> int:
        """Where the outputs' numbers stand in the program; their count stands before them."""
        return self.method("forward").vector(_OUTPUTS)[0]

    @cached_property
    def values(self) -> tuple[Table, ...]:
        """Forward's values, as a type and a table each."""
        return tuple(self.method("forward").tables(_VALUES))

    @cached_property
    def delegates(self) -> tuple[tuple[str, int], ...]:
        """Forward's delegates: the backend, and the segment that holds the delegate."""
        found = []
        for table in self.method("forward").tables(_DELEGATES):
            place = table.table(1)
            found.append((table.text(0), place.number(1, "I") if place else -1))
        return tuple(found)

    def segment(self, number: int) -> bytes:
        """Read a segment.

        Raises:
            ValueError: there is no such segment, or the file is cut off.
        """
        if not 0 <= number < len(self.segments):
            message = f"it has no segment {number}"
            raise ValueError(message)
        segment = self.segments[number]
        return self.bytes_at(segment.offset, segment.size_bytes)

    def bytes_at(self, offset: int, size_bytes: int) -> bytes:
        """Read bytes behind the program; the offset counts from the segments' beginning.

        Raises:
            ValueError: the file is cut off.
        """
        begin, there = self.segments_at + offset, self.path.stat().st_size
        if min(offset, size_bytes) < 0 or begin + size_bytes > there:
            message = f"expected {size_bytes} bytes at {begin}, the file has {there}"
            raise ValueError(message)
        with self.path.open("rb") as file:
            file.seek(begin)
            return file.read(size_bytes)

    def constant_at(self, number: int) -> int:
        """Return the offset of a constant, counted from the segments' beginning.

        Raises:
            ValueError: there is no such constant.
        """
        segment, offsets, _ = self.constant_segment
        if not (0 <= number < len(offsets) and segment < len(self.segments)):
            message = f"it has no constant {number}"
            raise ValueError(message)
        return self.segments[segment].offset + offsets[number]

    def constant(self, tensor: PteTensor) -> bytes:
        """Read the bytes of a constant tensor."""
        return self.bytes_at(self.constant_at(tensor.constant), tensor.size_bytes)


def _tensor(table: Table) -> PteTensor:
    extra, place = table.table(_EXTRA), table.table(_ALLOCATION)
    # A tensor with a place in memory is not a constant, even when it is a buffer with a name.
    constant = 0 if place is not None else table.number(_DATA, "I")
    low, high = (0, 0) if place is None else (place.number(1, "I"), place.number(2, "I"))
    return PteTensor(
        scalar_type=table.number(_SCALAR_TYPE, "b"),
        sizes=tuple(table.numbers(_SIZES, "i")),
        sizes_at=table.vector(_SIZES)[0],
        constant=constant,
        name=extra.text(1) if extra else "",
        planned=None if place is None else (place.number(0, "I"), high << 32 | low),
    )
