"""Weights that are indices into tables, and sparse weights.

It knows how both become values; it does not know the program.
"""

from __future__ import annotations

import torch

from coreml_evaluator.types import HELD
from coreml_evaluator.weights import Grid, Weight


class Palette(Weight):
    """Indices into tables; each block of indices, of any shape, shares a table.

    Args:
        indices: unsigned indices of entries.
        tables: tables `[*groups, entries, vector]`; an entry is a value, or a vector of values.
        grid: assignment of tables to indices.
        axis: axis of the result along which a vector's values lie.
    """

    def __init__(self, indices: Weight, tables: Weight, grid: Grid, axis: int) -> None:
        self._vector = tables.shape[-1]
        self._axis = axis
        shape = list(indices.shape)
        shape[axis] *= self._vector
        super().__init__(tables.dtype, tuple(shape))
        self._indices = indices
        self._tables = tables
        self._grid = grid
        # Rows of the result that one row of indices makes.
        self._row_vector = self._vector if axis == 0 else 1

    def rows(self, first: int, last: int) -> torch.Tensor:
        """Return rows."""
        begin, end = first // self._row_vector, -(-last // self._row_vector)
        values = self._looked_up(self._indices.rows(begin, end), torch.arange(begin, end))
        skipped = begin * self._row_vector
        return values[first - skipped : last - skipped]

    def pick(self, index: torch.Tensor) -> torch.Tensor:
        """Return the rows at an index."""
        if self._row_vector > 1:
            return super().pick(index)
        return self._looked_up(self._indices.pick(index), index)

    def _looked_up(self, codes: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Return the entries for some rows of indices, whose row numbers are given."""
        tables = self._tables.whole()
        groups, entries = tables.shape[:-2], tables.shape[-2]
        table = numbers // self._grid.blocks[0]
        for axis, (size, block) in enumerate(
            zip(codes.shape[1:], self._grid.blocks[1:], strict=True), start=1
        ):
            table = table.unsqueeze(-1) * groups[axis] + torch.arange(size) // block
        flat = table * entries + codes.to(torch.int64)
        values = tables.reshape(-1, self._vector)[flat]
        if self._vector == 1:
            return values.squeeze(-1)
        return values.movedim(-1, self._axis + 1).flatten(self._axis, self._axis + 1)


class Sparse(Weight):
    """Values where a mask is set, and zeros elsewhere.

    Args:
        values: values that are not zero, `[count]`, in the mask's order.
        mask: 1 where there is a value.
        shape: shape of the result.
    """

    def __init__(self, values: Weight, mask: Weight, shape: tuple[int, ...]) -> None:
        super().__init__(values.dtype, shape)
        self._values = values
        self._mask = mask

    def rows(self, first: int, last: int) -> torch.Tensor:
        """Return rows; the values of all rows before them are counted to find the first."""
        mask = self._mask.rows(0, last).to(torch.bool)
        skipped = int(mask[:first].sum())
        wanted = mask[first:]
        result = torch.zeros(wanted.shape, dtype=HELD[self.dtype])
        result[wanted] = self._values.rows(skipped, skipped + int(wanted.sum()))
        return result

    def pick(self, index: torch.Tensor) -> torch.Tensor:
        """Return the rows at an index."""
        return self.whole()[index]
