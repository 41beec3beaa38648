"""Write a safetensors file piece by piece: the header first, then bytes at their final offsets.

The library's own writer wants every tensor in memory at once. Here types and shapes are known
before the first byte, so memory does not grow with a tensor and threads may write in any order.
It knows nothing of what the tensors mean.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from llama_quantize.errors import QuantizationError
from llama_quantize.tensor import Form

DATA_ALIGNMENT = 4096
_TYPE_NAMES = {
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.float32: "F32",
    torch.int32: "I32",
}


class SafetensorsWriter:
    """Create a new file and fill it; on an exception the file is removed.

    Two-byte types come first, then one-byte types, each in the order given: every tensor is aligned
    to its type and there are no holes, which the format forbids.

    Args:
        path: file to create; it must not exist.
        tensors: type and shape of each tensor.
        metadata: strings for the header.

    Raises:
        OSError: the file exists, or cannot be written (a full disk among others).
    """

    def __init__(
        self, path: Path, tensors: Mapping[str, Form], metadata: Mapping[str, str]
    ) -> None:
        header, self._spans, size = _layout(tensors, metadata)
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            os.ftruncate(self._file, size)
            self._write_at(0, memoryview(header))
        except OSError:
            self._discard()
            raise

    def __enter__(self) -> SafetensorsWriter:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file, or remove it after an exception."""
        if kind is None:
            os.close(self._file)
        else:
            self._discard()

    def write(self, name: str, first_row: int, rows: Tensor) -> None:
        """Write consecutive rows of the tensor `name`; safe from several threads at once.

        Raises:
            QuantizationError: the rows are not a part of that tensor.
            OSError: the disk is full, or the file cannot be written.
        """
        start, (dtype, shape) = self._spans[name]
        fits = rows.dtype == dtype and tuple(rows.shape[1:]) == shape[1:]
        if not fits or not 0 <= first_row <= shape[0] - rows.shape[0]:
            found = f"{rows.dtype} {list(rows.shape)} at row {first_row}"
            message = f"{name}: {found} is no part of {dtype} {list(shape)}"
            raise QuantizationError(message)
        if rows.numel():
            offset = start + first_row * math.prod(shape[1:]) * dtype.itemsize
            flat = rows.contiguous().view(-1).view(torch.uint8)
            self._write_at(offset, flat.numpy().data)

    def _write_at(self, offset: int, data: memoryview) -> None:
        while data:
            written = os.pwrite(self._file, data, offset)
            data, offset = data[written:], offset + written

    def _discard(self) -> None:
        os.close(self._file)
        with suppress(OSError):
            self._path.unlink()


def _layout(
    tensors: Mapping[str, Form], metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, tuple[int, Form]], int]:
    """Return the header's bytes, where each tensor starts in the file, and the file's size."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    starts: dict[str, int] = {}
    end = 0
    # Sorting is stable: within a width the order given stays.
    for name, (dtype, shape) in sorted(tensors.items(), key=lambda item: -item[1][0].itemsize):
        starts[name], end = end, end + math.prod(shape) * dtype.itemsize
        offsets = [starts[name], end]
        kind = _TYPE_NAMES[dtype]
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    length = -(-(8 + len(text)) // DATA_ALIGNMENT) * DATA_ALIGNMENT
    data = (length - 8).to_bytes(8, "little") + text.ljust(length - 8)
    return data, {name: (length + starts[name], tensors[name]) for name in tensors}, length + end
