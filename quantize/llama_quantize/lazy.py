"""A tensor of floats that a source computes row by row, such as one that its file holds packed.

It knows nothing of names, files or what the rows are computed from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LazyTensor:
    """Floats `[N, ...]`, of which only the rows that are read are ever in memory.

    Args:
        shape: sizes of its dimensions.
        dtype: type of what `read` returns.
        row_bytes: what a row takes in the source, by which progress is counted.
        read: function that computes rows, given a slice of them or their numbers, int64 `[n]`;
            several threads call it at once.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    row_bytes: int
    read: Callable[[slice | Tensor], Tensor]

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """Compute some rows `[n, ...]`."""
        return self.read(rows)

    def whole(self) -> Tensor:
        """Compute all rows."""
        return self.read(slice(0, self.shape[0]))
