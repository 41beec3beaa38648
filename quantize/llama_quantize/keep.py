"""Take codes and scales that somebody else chose into our storage form, the codes bit for bit.

Our scales are bfloat16, so foreign ones are rounded; what that changes is measured here, because
nobody can measure it later. It knows no file and no packing but our own.

Shapes: N rows, K columns, G groups in a row.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from llama_quantize.errors import QuantizationError
from llama_quantize.groupwise import CHUNK_WEIGHTS, MAX_SCALE, MIN_SCALE, row_blocks, storable
from llama_quantize.packing import pack_int4
from llama_quantize.scheme import GroupedInt
from llama_quantize.tensor import QuantizedTensor

_DAMAGED = "the weights are damaged; fetch or convert them again"
_INT4 = (-8, 7)


def keep_codes(codes: Tensor, scales: Tensor, scheme: GroupedInt) -> QuantizedTensor:
    """Keep the codes of a weight, and round its scales to bfloat16.

    A scale below the least one that every target holds, 2**-17, becomes that one, and the codes of
    its group are rounded to it: so small a weight is noise or nothing.

    Args:
        codes: int8 `[N, K]`: -8..7 for 4 bits, any for 8.
        scales: float32, bfloat16 or float16 `[N, G]`, none of them negative.
        scheme: storage form.

    Raises:
        QuantizationError: the shapes do not belong together, a code is out of range, or a scale is
            NaN, negative or too large; names the row.
    """
    columns = codes.shape[1] if codes.ndim == 2 else 0
    expected = (len(codes), scheme.groups(columns)) if columns else ()
    if codes.dtype != torch.int8 or tuple(scales.shape) != expected:
        found = f"{codes.dtype} {list(codes.shape)} and scales {list(scales.shape)}"
        message = f"expected int8 codes and scales of {scheme.label}, found {found}"
        raise QuantizationError(message)
    rounded = torch.empty(expected, dtype=torch.bfloat16)
    fitted, signal, noise = codes, 0.0, 0.0
    for part in row_blocks(len(codes), columns, CHUNK_WEIGHTS):
        _check_scales(scales[part], part.start)
        _check_codes(codes[part], scheme, part.start)
        given = scales[part].float()
        rounded[part] = storable(given)
        groups = codes[part].float().unflatten(1, (given.shape[1], -1))
        weight, kept = groups * given.unsqueeze(2), groups
        small = given < MIN_SCALE
        if bool(small.any()):
            kept = torch.where(small.unsqueeze(2), (weight / MIN_SCALE).round(), groups)
            fitted = codes.clone() if fitted is codes else fitted
            fitted[part] = kept.flatten(1).to(torch.int8)
        signal += float(torch.linalg.vector_norm(weight)) ** 2
        weight -= kept * rounded[part].float().unsqueeze(2)
        noise += float(torch.linalg.vector_norm(weight)) ** 2
    stored = pack_int4(fitted) if scheme.bits == 4 else fitted
    scales_sqnr_db = 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else math.inf
    return QuantizedTensor(scheme, (len(codes), columns), stored, rounded, scales_sqnr_db)


def _check_scales(scales: Tensor, first_row: int) -> None:
    # Written so that a NaN, for which every comparison is false, is refused as well.
    bad = ((scales >= 0) & (scales <= MAX_SCALE)).logical_not_()
    if bool(bad.any()):
        row, group = (int(index) for index in bad.nonzero()[0])
        found = f"scale {float(scales[row, group])} of group {group} in row {first_row + row}"
        message = f"{found}: expected 0 to {MAX_SCALE:.0f}"
        raise QuantizationError(message, _DAMAGED)


def _check_codes(codes: Tensor, scheme: GroupedInt, first_row: int) -> None:
    if scheme.bits == 8 or not codes.numel():
        return
    low, high = _INT4
    bad = (codes < low) | (codes > high)
    if bool(bad.any()):
        row, column = (int(index) for index in bad.nonzero()[0])
        found = f"code {int(codes[row, column])} at [{first_row + row}, {column}]"
        message = f"{found}: expected {low} to {high}"
        raise QuantizationError(message, _DAMAGED)
