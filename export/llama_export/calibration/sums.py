"""Running sums over the inputs of a weight: products in float32, sums in float64.

Shapes: T tokens of a chunk, K columns of a weight, N rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The float32 products that are added to a float64 sum at a time: 64 MB.
_BLOCK_PRODUCTS = 1 << 24


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


class DiagonalSum:
    """A running sum of the diagonal of `a bᵀ`, float64 `[A]`, where the whole is too large.

    Args:
        rows: A.
    """

    def __init__(self, rows: int) -> None:
        self._total = torch.zeros(rows, dtype=torch.float64)
        self.count = 0

    def add(self, left: Tensor, right: Tensor) -> None:
        """Add the products of rows `[..., A]` and `[..., A]`, element by element."""
        left, right = left.flatten(0, -2), right.flatten(0, -2)
        self._total += (left * right).sum(0, dtype=torch.float64)
        self.count += len(left)

    def total(self) -> Tensor:
        """Return the sum, float32."""
        return self._total.to(torch.float32)
