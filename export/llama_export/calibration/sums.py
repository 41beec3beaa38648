"""Running sums over the inputs of a weight: products in float32, sums in float64.

Shapes: T tokens of a chunk, K columns of a weight, N rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The float32 products that are added to a float64 sum at a time: 64 MB.
_BLOCK_PRODUCTS = 1 << 24
# Columns that are multiplied with all those from them on: few enough to leave out nearly half.
_SQUARE_BLOCK = 1024


class OuterSum:
    """A running sum of `a bᵀ`, float64 `[A, B]`.

    Args:
        rows: A.
        columns: B.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self._total = torch.zeros(rows, columns, dtype=torch.float64)
        self.count = 0

    def add(self, left: Tensor, right: Tensor) -> None:
        """Add the products of rows `[..., A]` and `[..., B]`."""
        left, right = left.flatten(0, -2), right.flatten(0, -2)
        step = max(1, _BLOCK_PRODUCTS // right.shape[1])
        for start in range(0, left.shape[1], step):
            block = slice(start, start + step)
            self._total[block] += left[:, block].t() @ right
        self.count += len(left)

    def total(self) -> Tensor:
        """Return the sum, float32."""
        return self._total.to(torch.float32)


class SquareSum:
    """A running sum of `a aᵀ`, float64 `[A, A]`, of which only half is computed.

    Args:
        rows: A.
    """

    def __init__(self, rows: int) -> None:
        self._upper = torch.zeros(rows, rows, dtype=torch.float64)
        self.count = 0

    def add(self, rows: Tensor) -> None:
        """Add the products of rows `[..., A]` with themselves."""
        rows = rows.flatten(0, -2)
        width = rows.shape[1]
        for start in range(0, width, _SQUARE_BLOCK):
            block = slice(start, start + _SQUARE_BLOCK)
            self._upper[block, start:] += rows[:, block].t() @ rows[:, start:]
        self.count += len(rows)

    def total(self) -> Tensor:
        """Return the sum, float32."""
        total = self._upper.to(torch.float32)
        width = len(total)
        for start in range(0, width, _SQUARE_BLOCK):
            end = min(start + _SQUARE_BLOCK, width)
            # A block on the diagonal is whole, but for the order of two factors.
            total[start:end, start:end].copy_(_mirrored(total[start:end, start:end]))
            total[end:, start:end].copy_(total[start:end, end:].t())
        return total


def _mirrored(block: Tensor) -> Tensor:
    """Return a square with its upper triangle below the diagonal as well."""
    upper = block.triu()
    return upper + upper.triu(1).t()


class HalvedSum:
    """A running sum of `a aᵀ`, float64 `[A, A]`, that knows how much of it is chance.

    Args:
        rows: A.
    """

    def __init__(self, rows: int) -> None:
        self._halves = (SquareSum(rows), SquareSum(rows))

    @property
    def count(self) -> int:
        """Number of rows that were added."""
        return sum(half.count for half in self._halves)

    def add(self, rows: Tensor) -> None:
        """Add the products of rows `[..., A]` with themselves, half of them to each of two sums."""
        rows = rows.flatten(0, -2)
        middle = (len(rows) + 1) // 2
        for half, part in zip(self._halves, (rows[:middle], rows[middle:]), strict=True):
            half.add(part)

    def total(self) -> Tensor:
        """Return the sum, float32."""
        return self._halves[0].total() + self._halves[1].total()

    def agreement(self) -> float:
        """Return what two halves have in common off the diagonal, from 0 to 1.

        It is the factor that brings the sum's off-diagonal elements closest, by squares, to those
        of a sum over endless tokens: the halves' common part is not chance, the rest of their mean
        is.
        """
        first, second = (half.total() / max(1, half.count) for half in self._halves)
        for half in (first, second):
            half.fill_diagonal_(0.0)
        common = float((first * second).sum(dtype=torch.float64))
        whole = float(((first + second) / 2).square_().sum(dtype=torch.float64))
        return min(1.0, max(0.0, common / whole)) if whole > 0 else 0.0


class DiagonalSum:
    """A running sum of the diagonal of `a aᵀ`, float64 `[A]`, where the whole is too large.

    Args:
        rows: A.
    """

    def __init__(self, rows: int) -> None:
        self._total = torch.zeros(rows, dtype=torch.float64)
        self.count = 0

    def add(self, rows: Tensor) -> None:
        """Add the squares of rows `[..., A]`."""
        rows = rows.flatten(0, -2)
        self._total += rows.square().sum(0, dtype=torch.float64)
        self.count += len(rows)

    def total(self) -> Tensor:
        """Return the sum, float32."""
        return self._total.to(torch.float32)

    def agreement(self) -> float:
        """Return 0: there is nothing off the diagonal."""
        return 0.0
