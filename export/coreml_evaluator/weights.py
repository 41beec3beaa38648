"""Weights that stay in the file, and are read and dequantised a block of rows at a time.

A row is everything at one index of the first dimension. No weight is ever whole in memory unless a
caller asks for it. This module knows numbers; it does not know the program.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from coreml_evaluator.packing import nibbles, unpack
from coreml_evaluator.types import BITS, HELD

# Elements of a block of rows: 4 MB of float32, which the caches hold while it is used.
_BLOCK_ELEMENTS = 2**20


class Scratch:
    """Memory that is reused, because fresh memory costs more than the work done in it."""

    def __init__(self) -> None:
        self._buffers: dict[torch.dtype, torch.Tensor] = {}

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return a tensor of arbitrary content; the previous one of this dtype becomes invalid."""
        elements = math.prod(shape)
        buffer = self._buffers.get(dtype)
        if buffer is None or buffer.numel() < elements:
            buffer = self._buffers[dtype] = torch.empty(elements, dtype=dtype)
        return buffer[:elements].view(shape)


class Weight(ABC):
    """A constant tensor that is read by rows.

    Args:
        dtype: MIL name of the values' dtype.
        shape: shape of the values, of at least one dimension.
    """

    # Whether `block` gives a row's columns in the order 0, 2, ..., 1, 3, ...
    splits_columns = False

    def __init__(self, dtype: str, shape: tuple[int, ...]) -> None:
        self.dtype = dtype
        self.shape = shape

    @property
    def row_elements(self) -> int:
        """Number of elements of a row."""
        return math.prod(self.shape[1:])

    @abstractmethod
    def rows(self, first: int, last: int) -> torch.Tensor:
        """Return the rows first to last - 1, `[last - first, ...]`."""

    def pick(self, index: torch.Tensor) -> torch.Tensor:
        """Return the rows at an index, int64 `[n]`, as `[n, ...]`."""
        rows = [self.rows(number, number + 1) for number in index.tolist()]
        return torch.cat(rows) if rows else self.rows(0, 0)

    def block(self, first: int, last: int, scratch: Scratch) -> torch.Tensor:
        """Return the same rows as `rows`, possibly in the scratch memory.

        The result of an earlier call becomes invalid. The columns are in another order if
        `splits_columns` is true.
        """
        del scratch
        return self.rows(first, last)

    def whole(self) -> torch.Tensor:
        """Return all rows."""
        return self.rows(0, self.shape[0])

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield first and last + 1 of blocks of rows that fit the processor's caches."""
        step = max(1, _BLOCK_ELEMENTS // max(1, self.row_elements))
        for first in range(0, self.shape[0], step):
            yield first, min(first + step, self.shape[0])


class Stored(Weight):
    """Elements as they are stored in the file.

    Args:
        data: flat elements; packed as uint8 if an element is less than a byte.
        dtype: MIL name of the values' dtype.
        shape: shape of the values.
    """

    def __init__(self, data: torch.Tensor, dtype: str, shape: tuple[int, ...]) -> None:
        super().__init__(dtype, shape)
        self._data = data
        self._bits = BITS[dtype]
        self.is_packed = self._bits < 8

    def rows(self, first: int, last: int) -> torch.Tensor:
        """Return rows, as `types.HELD` holds the dtype."""
        if not self.is_packed:
            return self._data.view(self.shape)[first:last].to(HELD[self.dtype])
        start_bit, end_bit = (row * self.row_elements * self._bits for row in (first, last))
        if start_bit % 8:
            return self.whole()[first:last]
        return self._unpacked(self._data[start_bit // 8 : -(-end_bit // 8)], last - first)

    def pick(self, index: torch.Tensor) -> torch.Tensor:
        """Return the rows at an index."""
        if not self.is_packed:
            return self._data.view(self.shape)[index].to(HELD[self.dtype])
        if self.row_elements * self._bits % 8:
            return self.whole()[index]
        return self._unpacked(self._data.view(self.shape[0], -1)[index].flatten(), len(index))

    def block(self, first: int, last: int, scratch: Scratch) -> torch.Tensor:
        """Return rows, in the scratch memory if they are floats."""
        if not self._data.is_floating_point():
            return self.rows(first, last)
        rows = self._data.view(self.shape)[first:last]
        return scratch.take(tuple(rows.shape), HELD[self.dtype]).copy_(rows)

    def packed_rows(self, first: int, last: int) -> torch.Tensor:
        """Return the bytes of rows, `[last - first, bytes]`; a row must be whole bytes."""
        return self._data.view(self.shape[0], -1)[first:last]

    def _unpacked(self, packed: torch.Tensor, rows: int) -> torch.Tensor:
        codes = unpack(packed, self._bits, rows * self.row_elements, signed=self.dtype == "int4")
        return codes.view(rows, *self.shape[1:])


class Held(Weight):
    """A small tensor that is already in memory."""

    def __init__(self, data: torch.Tensor, dtype: str) -> None:
        super().__init__(dtype, tuple(data.shape))
        self._data = data

    def rows(self, first: int, last: int) -> torch.Tensor:
        """Return rows."""
        return self._data[first:last]

    def pick(self, index: torch.Tensor) -> torch.Tensor:
        """Return the rows at an index."""
        return self._data[index]


@dataclass(frozen=True)
class Grid:
    """The assignment of a small tensor's elements to blocks of a large tensor.

    Args:
        blocks: size of a block along each dimension of the large tensor.
    """

    blocks: tuple[int, ...]

    @classmethod
    def of(cls, shape: tuple[int, ...], small: tuple[int, ...]) -> Grid | None:
        """Return the grid, or None if the small shape does not divide the large one."""
        if len(shape) != len(small) or any(
            few < 1 or many % few for many, few in zip(shape, small, strict=True)
        ):
            return None
        return cls(tuple(many // few for many, few in zip(shape, small, strict=True)))

    def row_numbers(self, first: int, last: int) -> torch.Tensor:
        """Return the index of the small tensor's row for each large row."""
        return torch.arange(first, last) // self.blocks[0]

    def rows_of(self, small: Weight, first: int, last: int) -> torch.Tensor:
        """Return the small tensor's row for each large row."""
        if self.blocks[0] == 1:
            return small.rows(first, last)
        return small.pick(self.row_numbers(first, last))

    def split(self, rows: torch.Tensor) -> torch.Tensor:
        """View large rows `[n, a, b]` as `[n, a / block, block, b / block, block]`."""
        sizes = [
            part
            for size, block in zip(rows.shape[1:], self.blocks[1:], strict=True)
            for part in (size // block, block)
        ]
        return rows.view(rows.shape[0], *sizes)

    def spread(self, rows: torch.Tensor) -> torch.Tensor:
        """View small rows `[n, a, b]` as `[n, a, 1, b, 1]`."""
        return rows.reshape(rows.shape[0], *[part for size in rows.shape[1:] for part in (size, 1)])


class ShiftScale(Weight):
    """Codes minus an offset, times a scale; blocks of any shape share offset and scale.

    Args:
        codes: the quantised tensor.
        scale: scales, whose dtype is the result's.
        offset: offsets, or None if there are none.
        grid: assignment of scales to codes.
        rounds: true if values are rounded to their dtype.
    """

    def __init__(
        self, codes: Weight, scale: Weight, offset: Weight | None, grid: Grid, *, rounds: bool
    ) -> None:
        super().__init__(scale.dtype, codes.shape)
        self._codes = codes
        self._scale = scale
        self._offset = offset
        self._grid = grid
        self._rounds = rounds
        self.splits_columns = (
            isinstance(codes, Stored)
            and codes.dtype in ("int4", "uint4")
            and len(codes.shape) == 2
            and codes.shape[1] % 2 == 0
            and grid.blocks[1] % 2 == 0
        )

    def rows(self, first: int, last: int) -> torch.Tensor:
        """Return dequantised rows in float32."""
        values = self._codes.rows(first, last).to(torch.float32, copy=True)
        self._scale_rows(self._grid.split(values), first, last)
        return self._round(values, Scratch())

    def pick(self, index: torch.Tensor) -> torch.Tensor:
        """Return the dequantised rows at an index, in float32."""
        values = self._codes.pick(index).to(torch.float32, copy=True)
        few = index // self._grid.blocks[0]
        groups = self._grid.split(values)
        if self._offset:
            groups.sub_(self._grid.spread(self._offset.pick(few)))
        groups.mul_(self._grid.spread(self._scale.pick(few)))
        return self._round(values, Scratch())

    def block(self, first: int, last: int, scratch: Scratch) -> torch.Tensor:
        """Return dequantised rows in float32.

        The two nibbles of a byte are not interleaved: that would cost more than all the rest.
        """
        codes, count = self._codes, last - first
        values = scratch.take((count, *self.shape[1:]), torch.float32)
        if isinstance(codes, Stored) and self.splits_columns:
            both = values.view(count, 2, -1)
            packed = codes.packed_rows(first, last)
            for half, part in enumerate(nibbles(packed, signed=codes.dtype == "int4")):
                both[:, half].copy_(part)
            groups = values.view(count, 2, -1, self._grid.blocks[1] // 2)
        else:
            values.copy_(codes.rows(first, last))
            groups = self._grid.split(values)
        self._scale_rows(groups, first, last)
        return self._round(values, scratch)

    def _scale_rows(self, groups: torch.Tensor, first: int, last: int) -> None:
        """Dequantise rows in place; they are viewed as the grid splits them."""
        for small, apply in ((self._offset, groups.sub_), (self._scale, groups.mul_)):
            if small:
                rows = self._grid.spread(self._grid.rows_of(small, first, last))
                apply(rows.unsqueeze(1) if groups.ndim > rows.ndim else rows)

    def _round(self, values: torch.Tensor, scratch: Scratch) -> torch.Tensor:
        """Round to the dtype, in place."""
        if self._rounds and self.dtype == "fp16":
            rounded = scratch.take(tuple(values.shape), torch.float16)
            values.copy_(rounded.copy_(values))
        return values


class Cast(Weight):
    """Another weight's values, with another float dtype."""

    def __init__(self, source: Weight, dtype: str) -> None:
        super().__init__(dtype, source.shape)
        self._source = source

    def rows(self, first: int, last: int) -> torch.Tensor:
        """Return rows."""
        return self._source.rows(first, last)

    def pick(self, index: torch.Tensor) -> torch.Tensor:
        """Return the rows at an index."""
        return self._source.pick(index)


def joined_columns(rows: torch.Tensor) -> torch.Tensor:
    """Return rows whose columns 0, 2, ..., 1, 3, ... are in order again."""
    return rows.view(len(rows), 2, -1).transpose(1, 2).reshape(rows.shape)
