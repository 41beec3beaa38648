"""The arithmetic of group-wise quantisation that all methods share, and no choice of a scale.

Symmetric, no zero point. A scale is a positive bf16 value in [2**-17, 65280], hence exact in bf16,
fp16 and fp32; every error is measured with that rounded scale. This module knows no method, no
names, no files and no packing.

Shapes: N rows, K columns, G groups in a row, n groups in a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from llama_quantize.errors import QuantizationError
from llama_quantize.lazy import LazyTensor
from llama_quantize.scheme import GroupedInt
from llama_quantize.workers import worker_pool

MIN_SCALE = 2.0**-17
MAX_SCALE = 65280.0  # the largest bf16 value that fp16 also holds
CHUNK_WEIGHTS = 3 << 15  # three float32 buffers of it about fill a 1 MB L2 cache
BLOCK_WEIGHTS = 1 << 20  # what one thread takes at a time
FLOAT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Workspace:
    """Buffers for one chunk, allocated once per block.

    Args:
        size: number of weights in a chunk.
    """

    def __init__(self, size: int) -> None:
        self.weight = torch.empty(size)
        self.scaled = torch.empty(size)
        self.rounded = torch.empty(size)
        self.codes = torch.empty(size, dtype=torch.int8)


QuantizeChunk = Callable[[Tensor, GroupedInt, Workspace, Tensor, Tensor], None]
"""Fills codes `[n, group]` and scales `[n]`, the last two arguments, from groups `[n, group]`."""


def row_blocks(rows: int, columns: int, weights: int) -> Iterator[slice]:
    """Split `rows` into slices of at most `weights` weights each, one row at least."""
    step = max(1, weights // max(1, columns))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def quantize_in_chunks(
    weight: Tensor, scheme: GroupedInt, quantize_chunk: QuantizeChunk
) -> tuple[Tensor, Tensor]:
    """Quantise a matrix whose groups do not depend on each other, rows in parallel.

    Args:
        weight: float32, bfloat16 or float16 `[N, K]`.
        scheme: storage form.
        quantize_chunk: work on one chunk of groups; called on the threads that torch may use.

    Returns:
        Codes int8 `[N, K]` and scales bfloat16 `[N, G]`.

    Raises:
        QuantizationError: not a float matrix, a group that does not divide K, a value that is NaN
            or infinite (its row and column are named) or too large for a scale.
    """
    if weight.ndim != 2 or weight.dtype not in FLOAT_DTYPES:
        message = f"cannot quantise {weight.dtype} {list(weight.shape)}: expected a float matrix"
        raise QuantizationError(message)
    rows, columns = weight.shape
    codes = torch.empty(rows, columns, dtype=torch.int8)
    scales = torch.empty(rows, scheme.groups(columns), dtype=torch.bfloat16)

    def block(part: slice) -> None:
        try:
            _quantize_block(weight[part], scheme, quantize_chunk, codes[part], scales[part])
        except QuantizationError:
            # Locate the value in the whole matrix, not in the block.
            check_range(weight, scheme)
            raise

    parts = list(row_blocks(rows, columns, BLOCK_WEIGHTS))
    if len(parts) == 1:
        block(parts[0])
    else:
        with worker_pool() as pool:
            list(pool.map(block, parts))
    return codes, scales


def dequantize_groups(codes: Tensor, scales: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Multiply int8 codes `[N, K]` by their scales `[N, G]`; exact in float32.

    Raises:
        QuantizationError: the shapes do not belong together.
    """
    fits = codes.ndim == scales.ndim == 2 and codes.shape[0] == scales.shape[0]
    if not fits or not scales.shape[1] or codes.shape[1] % scales.shape[1]:
        message = f"codes {list(codes.shape)} and scales {list(scales.shape)} do not match"
        raise QuantizationError(message)
    rows, columns = codes.shape
    groups = scales.shape[1]
    values = codes.to(torch.float32).view(rows, groups, columns // groups)
    values *= scales.to(torch.float32).unsqueeze(2)
    return values.view(rows, columns).to(dtype)


def check_range(weight: Tensor | LazyTensor, scheme: GroupedInt) -> None:
    """Refuse the first value `[row, column]` that no code and scale can stand for.

    Raises:
        QuantizationError: a value is NaN, infinite or beyond the largest scale.
    """
    limit = MAX_SCALE * scheme.code_range[1]
    rows, columns = weight.shape
    for part in row_blocks(rows, columns, CHUNK_WEIGHTS):
        bad = (weight[part].float().abs() <= limit).logical_not_()
        if bad.any():
            row, column = (int(index) for index in bad.nonzero()[0])
            value = float(weight[part][row, column])
            expected = f"finite and at most {limit:.0f}"
            message = f"value {value} at [{part.start + row}, {column}]: expected {expected}"
            raise QuantizationError(message, "the weights are damaged; fetch or convert them again")


def require_range(peak: Tensor, scheme: GroupedInt) -> None:
    """Refuse groups whose largest magnitudes `[n]` no scale can stand for.

    Raises:
        QuantizationError: a value is NaN, infinite or beyond the largest scale.
    """
    # Written so that a NaN, for which every comparison is false, is refused as well.
    if not bool((peak <= MAX_SCALE * scheme.code_range[1]).all()):
        message = "a value is not finite, or too large for a scale"
        raise QuantizationError(message)


def storable(scales: Tensor) -> Tensor:
    """Round to bf16 values in the range that every target holds exactly; float32."""
    return scales.to(torch.bfloat16).float().clamp_(MIN_SCALE, MAX_SCALE)


def _quantize_block(
    weight: Tensor,
    scheme: GroupedInt,
    quantize_chunk: QuantizeChunk,
    codes: Tensor,
    scales: Tensor,
) -> None:
    """Fill `codes [N, K]` and `scales [N, G]` on this thread, chunk by chunk."""
    group = weight.shape[1] // scales.shape[1]
    step = max(1, CHUNK_WEIGHTS // group)
    groups = weight.reshape(-1, group)
    flat_codes, flat_scales = codes.view(-1, group), scales.view(-1)
    work = Workspace(min(step, max(1, len(groups))) * group)
    for start in range(0, len(groups), step):
        part = slice(start, start + step)
        quantize_chunk(groups[part], scheme, work, flat_codes[part], flat_scales[part])
