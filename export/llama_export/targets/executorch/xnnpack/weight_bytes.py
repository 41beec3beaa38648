"""The bytes that stand in the file: codes and scales of a weight, as the kernels read them.

XNNPACK keeps two 4-bit codes a byte, each plus 8, the even one in the low nibble, which is how our
codes are stored; its group scales are bfloat16, its row scales float32. So nothing is converted but
a row's scale, exactly. Bytes are read from the mapped checkpoint when they are written, a block of
rows at a time.

Shapes: N rows, K columns, G groups a row, D head_dim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from llama_export.targets.executorch.xnnpack.segment_module import FIRST_HALVES, WHOLE
from llama_quantize.tensor import QuantizedTensor, sha256_of

_BLOCK_ROWS = 4096
_SCALES_PREFIX = "scale_"


@dataclass(frozen=True)
class WeightBytes:
    """A run of bytes that is not in memory yet.

    Args:
        key: name under which the delegate finds it: the hash of the bytes, so that no two weights
            can be taken for each other, whatever is loaded beside them.
        size_bytes: number of bytes.
        chunks: function that returns the bytes, chunk by chunk.
    """

    key: str
    size_bytes: int
    chunks: Callable[[], Iterator[bytes]]


def codes_bytes(tensor: QuantizedTensor, rows: str, head_dim: int) -> WeightBytes:
    """Return the codes of some rows.

    Args:
        tensor: codes and scales of the weight.
        rows: which rows: `WHOLE`, or one half of each head's.
        head_dim: D, columns of a head.
    """
    return _weight_bytes(_rows(tensor.codes, rows, head_dim), "")


def scales_bytes(tensor: QuantizedTensor, rows: str, head_dim: int) -> WeightBytes:
    """Return the scales of some rows: bfloat16 `[N, G]` for 4 bits, float32 `[N]` for 8."""
    scales = _rows(tensor.scales, rows, head_dim)
    return _weight_bytes(scales if tensor.scheme.bits == 4 else scales.float(), _SCALES_PREFIX)


def lookup_scales_bytes(tensor: QuantizedTensor) -> WeightBytes:
    """Return the scales as a lookup takes them: float16 `[N, G]` for 4 bits, float32 `[N]` for 8.

    They are exact in float16. The lookup takes no bfloat16.
    """
    scales = tensor.scales
    return _weight_bytes(
        scales.half() if tensor.scheme.bits == 4 else scales.float(), _SCALES_PREFIX
    )


def float_bytes(tensor: Tensor, rows: str, head_dim: int) -> WeightBytes:
    """Return some rows of a bias `[N]` or a float matrix `[N, K]`, as float32."""
    return _weight_bytes(_rows(tensor, rows, head_dim).float(), "")


def kept_bytes(key: str, value: bytes) -> WeightBytes:
    """Return bytes that are in memory already, and stay as they are."""
    return WeightBytes(key, len(value), lambda: iter([value]))


def _rows(matrix: Tensor, rows: str, head_dim: int) -> Tensor:
    """Return `[N, columns]`, or of each head's D rows the first or the second half."""
    if rows == WHOLE:
        return matrix
    halves: Tensor = matrix.unflatten(0, (-1, 2, head_dim // 2))
    return halves[:, 0 if rows == FIRST_HALVES else 1].flatten(0, 1)


def _weight_bytes(matrix: Tensor, prefix: str) -> WeightBytes:
    def chunks() -> Iterator[bytes]:
        for block in matrix.split(_BLOCK_ROWS):
            yield block.contiguous().view(torch.uint8).numpy().tobytes()

    key = prefix + sha256_of(matrix.split(_BLOCK_ROWS))
    return WeightBytes(key, matrix.numel() * matrix.element_size(), chunks)
