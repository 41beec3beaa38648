"""The numbers of a GGUF file's tensors, read from mapped pages a block of rows at a time.

llama.cpp stores the rows of q_proj and k_proj in Meta's order, where the two numbers that are
rotated together stand side by side; Hugging Face has them half a head apart. Rows of codes and
scales move as those of weights do. It knows forms and rows, not which tensor means what.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from llama_export.checkpoints.gguf.stored import StoredTensor
from llama_export.checkpoints.gguf.types import TensorType
from llama_export.errors import CheckpointError
from llama_quantize.lazy import LazyTensor
from llama_quantize.scheme import GroupedInt

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llama_quantize.tensor import QuantizedTensor

_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_Q8_0 = GroupedInt(8, 32)
_SCALE_BYTES = 2
_LEAST_CODE = -127  # ggml's quantiser writes no other, and half of the runtimes hold no other


class MappedTensors:
    """Reads tensors; a file is mapped when it is first read."""

    def __init__(self) -> None:
        self._maps: dict[Path, NDArray[np.uint8]] = {}

    def read(self, stored: StoredTensor, heads: int | None = None) -> Tensor | LazyTensor:
        """Read a vector, or make a matrix whose rows are dequantised when they are read.

        Args:
            stored: place and form.
            heads: number of heads whose rows are in Meta's order; None: the rows stay in order.
        """
        form, rows = stored.type, stored.shape[0]
        order = None if heads is None else _rows_in_file(rows, heads)
        if len(stored.shape) == 1:  # a norm or a bias, which is floats
            values = _decoded(self._rows(stored).copy(), form).reshape(rows)
            return values if order is None else values[torch.from_numpy(order)]
        read = partial(self._block, stored, order)
        dtype = _FLOATS.get(form.name, torch.float32)
        return LazyTensor(stored.shape, dtype, stored.size_bytes // rows, read)

    def kept(self, stored: StoredTensor, heads: int | None = None) -> QuantizedTensor:
        """Read codes and scales of a matrix in Q8_0; the scales are rounded to bfloat16.

        Raises:
            CheckpointError: a code is out of range.
            QuantizationError: a scale is negative, NaN or too large.
        """
        from llama_quantize.keep import keep_codes

        rows = self._rows(stored)
        if heads is not None:
            rows = rows[_rows_in_file(stored.shape[0], heads)]
        blocks = rows.reshape(stored.shape[0], -1, stored.type.block_bytes)
        scales = blocks[..., :_SCALE_BYTES].copy().view(np.float16)[..., 0]
        codes = blocks[..., _SCALE_BYTES:].reshape(stored.shape).view(np.int8)
        if codes.min() < _LEAST_CODE:
            row = int((codes < _LEAST_CODE).any(1).argmax())
            message = f"{stored.path}: a code of row {row} of a Q8_0 tensor is {codes.min()}"
            raise CheckpointError(message, f"codes are {_LEAST_CODE} to 127: the file is damaged")
        return keep_codes(torch.from_numpy(codes), torch.from_numpy(scales), _Q8_0)

    def release(self) -> None:
        """Return the mapped pages to the system; a later read maps the files again."""
        self._maps.clear()

    def _rows(self, stored: StoredTensor) -> NDArray[np.uint8]:
        """Map the bytes of a tensor, one row of it a row; of a vector all is one row."""
        content = self._maps.get(stored.path)
        if content is None:
            content = np.memmap(stored.path, dtype=np.uint8, mode="r")
            self._maps[stored.path] = content
        part = content[stored.start : stored.start + stored.size_bytes]
        if part.nbytes != stored.size_bytes:
            message = f"{stored.path} was cut off after its header had been read"
            raise CheckpointError(message, "download or convert the file again")
        return part.reshape(stored.shape[0] if len(stored.shape) > 1 else 1, -1)

    def _block(
        self,
        stored: StoredTensor,
        order: NDArray[np.int64] | None,
        rows: slice | Tensor,
    ) -> Tensor:
        wanted: Any = rows if isinstance(rows, slice) else rows.numpy()
        content = self._rows(stored)
        raw = content[wanted] if order is None else content[order[wanted]]
        # A copy, because torch has no tensor that may not be written to.
        values = _decoded(np.array(raw, dtype=np.uint8), stored.type)
        return values.reshape(-1, *stored.shape[1:])


def _rows_in_file(rows: int, heads: int) -> NDArray[np.int64]:
    """Return for each row in Hugging Face's order its number in the file."""
    return np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).reshape(rows)


def _decoded(raw: NDArray[np.uint8], form: TensorType) -> Tensor:
    """Turn rows of bytes into rows of numbers."""
    if form.name in _FLOATS:
        return torch.from_numpy(raw).view(_FLOATS[form.name])
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    # A damaged scale may be anything; what comes of it is refused with its place, by the quantiser.
    with np.errstate(all="ignore"):
        return torch.from_numpy(dequantize(raw, GGMLQuantizationType(form.number)))
