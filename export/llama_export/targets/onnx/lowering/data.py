"""The external data file: tensors one after the other, each on a page border.

It knows bytes and offsets; it does not know graphs or quantisation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import torch
from torch import Tensor

PAGE_BYTES = 4096
CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class DataRegion:
    """Where a tensor lies in the data file."""

    offset: int
    length: int


class DataWriter:
    """Append tensors to an open file; each begins on a page border, so that it can be mapped."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._end = 0

    def append(self, tensors: Iterable[Tensor]) -> DataRegion:
        """Write tensors back to back as one region, without holding more than a chunk."""
        padding = -self._end % PAGE_BYTES
        self._file.write(bytes(padding))
        start = self._end + padding
        self._end = start
        for tensor in tensors:
            self._file.write(tensor.contiguous().view(torch.uint8).numpy().data)
            self._end += tensor.numel() * tensor.element_size()
        return DataRegion(start, self._end - start)


def row_chunks(tensor: Tensor) -> Iterator[Tensor]:
    """Cut `[N, ...]` into views of whole rows, about `CHUNK_BYTES` each."""
    row_bytes = max(1, tensor[:1].numel() * tensor.element_size())
    yield from tensor.split(max(1, CHUNK_BYTES // row_bytes))
