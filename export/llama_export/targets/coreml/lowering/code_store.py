"""Keep unpacked int4 codes in a temporary file, mapped, so that memory does not grow with a model.

coremltools takes a weight's codes one a byte and packs them itself when it writes; 1B of them are a
gigabyte, which lies on the disk and not in memory. It knows bytes; it knows no names and no graph.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from llama_quantize.packing import unpack_int4

# Rows of so many weights are unpacked at a time.
_BLOCK_WEIGHTS = 4 << 20


class CodeStore:
    """Codes one a byte, in an open file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._end = 0

    def unpacked(self, packed: Tensor) -> NDArray[np.int8]:
        """Unpack uint8 `[N, K/2]` into the file; return it mapped, int8 `[N, K]`, -8..7.

        Raises:
            OSError: the disk is full.
        """
        rows, half = packed.shape
        start = self._end
        for block in packed.split(max(1, _BLOCK_WEIGHTS // (2 * half))):
            self._file.write(unpack_int4(block).numpy().data)
            self._end += 2 * block.numel()
        self._file.flush()
        return np.memmap(self._file, dtype=np.int8, mode="r", offset=start, shape=(rows, 2 * half))


@contextmanager
def code_store(folder: Path) -> Iterator[CodeStore]:
    """Open a store in a folder; its file is gone afterwards."""
    with tempfile.TemporaryFile(dir=folder) as file:
        yield CodeStore(file)
