"""The work on one block of a tensor's rows: quantise or copy it, write it, measure what was lost.

Each function writes some rows at their final offset, on the thread that calls it, and returns the
energies of signal and noise. It knows no recipe, no model and no record.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from llama_quantize.checkpoint.safetensors_writer import SafetensorsWriter
from llama_quantize.errors import QuantizationError
from llama_quantize.groupwise import (
    CHUNK_WEIGHTS,
    MAX_SCALE,
    MIN_SCALE,
    check_range,
    dequantize_groups,
    row_blocks,
)
from llama_quantize.lazy import LazyTensor
from llama_quantize.methods.method import Method
from llama_quantize.packing import pack_int4
from llama_quantize.scheme import Float, GroupedInt
from llama_quantize.tensor import QuantizedTensor

Energies = tuple[float, float]
"""Sums of squares of a weight, and of what its stored form differs by."""

_DAMAGED = "the weights are damaged; fetch or convert them again"


def quantize_rows(
    writer: SafetensorsWriter,
    name: str,
    weight: Tensor | LazyTensor,
    scheme: GroupedInt,
    method: Method,
    part: slice,
) -> Energies:
    """Quantise and write some rows of a weight `[N, K]`.

    Raises:
        QuantizationError: a value cannot be stored; names the tensor and the place.
    """
    block = weight[part]
    try:
        quantized = method.quantize(block, scheme)
    except QuantizationError as error:
        raise located(name, weight, scheme, error) from error
    return write_codes(writer, name, block, scheme, quantized, part)


def write_codes(
    writer: SafetensorsWriter,
    name: str,
    block: Tensor,
    scheme: GroupedInt,
    quantized: tuple[Tensor, Tensor],
    part: slice,
) -> Energies:
    """Write codes `[n, K]` and scales `[n, G]` of a block `[n, K]`, the rows `part` of a weight."""
    codes, scales = quantized
    writer.write(f"{name}.codes", part.start, pack_int4(codes) if scheme.bits == 4 else codes)
    writer.write(f"{name}.scales", part.start, scales)
    signal, noise = 0.0, 0.0
    for rows in row_blocks(len(codes), codes.shape[1], CHUNK_WEIGHTS):
        source = block[rows].float()
        signal += _energy(source)
        noise += _energy(dequantize_groups(codes[rows], scales[rows]).sub_(source))
    return signal, noise


def copy_rows(
    writer: SafetensorsWriter, name: str, tensor: QuantizedTensor, part: slice
) -> Energies:
    """Write some rows of a tensor that came quantised, bit for bit; nothing is lost.

    Raises:
        QuantizationError: a scale is not one that every target holds.
    """
    scales = tensor.scales[part]
    # Written so that a NaN, for which every comparison is false, is refused as well.
    if not bool(((scales >= MIN_SCALE) & (scales <= MAX_SCALE)).all()):
        message = f"{name}: a scale in rows {part.start} to {part.stop - 1} is out of range"
        raise QuantizationError(message, f"scales are {MIN_SCALE} to {MAX_SCALE:.0f}, not negative")
    writer.write(f"{name}.codes", part.start, tensor.codes[part])
    writer.write(f"{name}.scales", part.start, scales)
    return 0.0, 0.0


def round_rows(
    writer: SafetensorsWriter, name: str, weight: Tensor | LazyTensor, scheme: Float, part: slice
) -> Energies:
    """Round and write some rows of floats `[N, ...]`.

    Raises:
        QuantizationError: a value is not finite in that type; names the tensor and the place.
    """
    signal, noise = 0.0, 0.0
    columns, block = math.prod(weight.shape[1:]), weight[part]
    for rows in row_blocks(part.stop - part.start, columns, CHUNK_WEIGHTS):
        source = block[rows]
        stored = source.to(scheme.torch_dtype)
        first_row = part.start + rows.start
        if not bool(stored.isfinite().all()):
            raise _not_finite(name, source, stored, first_row)
        writer.write(name, first_row, stored)
        signal += _energy(source.float())
        noise += _energy(stored.float().sub_(source))
    return signal, noise


def located(
    name: str, weight: Tensor | LazyTensor, scheme: GroupedInt, error: QuantizationError
) -> QuantizationError:
    """Return an error that names the tensor, and its first unusable value if there is one."""
    try:
        check_range(weight, scheme)
    except QuantizationError as found:
        error = found
    return QuantizationError(f"{name}: {error.message}", error.hint)


def _not_finite(name: str, source: Tensor, stored: Tensor, first_row: int) -> QuantizationError:
    place = [int(index) for index in stored.isfinite().logical_not_().nonzero()[0]]
    value = float(source[tuple(place)])
    place[0] += first_row
    message = f"{name}: value {value} at {place} is not a finite {str(stored.dtype)[6:]} number"
    hint = "store it as bfloat16" if math.isfinite(value) else _DAMAGED
    return QuantizationError(message, hint)


def _energy(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values)) ** 2
