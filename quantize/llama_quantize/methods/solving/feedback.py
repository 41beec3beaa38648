"""GPTQ (Frantar et al. 2022) group by group: each column makes up for the errors before it.

It is written as LDLQ (Chee et al. 2023, which proves it the same): with H = U D Uᵀ, U a unit upper
triangle, column k is rounded after the errors of the columns before it were added, each times its
element of U's column k. No inverse is needed. A group's scale is chosen for its columns as they are
when its turn comes.

Shapes: N rows, K columns, G groups in a row, g columns in a group, b columns in a block.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llama_quantize.methods.clip_search import ClipSearch
from llama_quantize.scheme import GroupedInt

# Errors of earlier blocks are added to so many columns at once: a narrow product is slow.
_BLOCK_COLUMNS = 256


def round_with_feedback(
    target: Tensor, factor: Tensor, scheme: GroupedInt
) -> tuple[Tensor, Tensor]:
    """Choose codes and scales of a matrix column by column.

    Args:
        target: float32 `[N, K]`.
        factor: unit upper triangle U, float32 `[K, K]`, of the inputs' damped Gram matrix.
        scheme: storage form.

    Returns:
        Codes float32 `[N, K]` and scales float32 `[N, G]`.

    Raises:
        QuantizationError: a value is not finite, or too large for a scale.
    """
    rows, columns = target.shape
    group = columns // scheme.groups(columns)
    block = max(group, _BLOCK_COLUMNS // group * group)
    codes = torch.empty(columns, rows)
    scales = torch.empty(columns // group, rows)
    errors = torch.zeros(columns, rows)
    wanted = target.t()
    for begin in range(0, columns, block):
        end = min(begin + block, columns)
        updated = wanted[begin:end] + factor[:begin, begin:end].t() @ errors[:begin]
        for start in range(begin, end, group):
            part = slice(start, start + group)
            if start > begin:
                inner = factor[begin:start, part].t() @ errors[begin:start]
                updated[start - begin : start - begin + group] += inner
            shifted = updated[start - begin : start - begin + group]
            scales[start // group] = _scales(shifted, scheme)
            _round_group(
                shifted,
                wanted[part],
                factor[part, part],
                scales[start // group],
                scheme,
                codes[part],
                errors[part],
            )
    return codes.t().contiguous(), scales.t().contiguous()


def _scales(shifted: Tensor, scheme: GroupedInt) -> Tensor:
    """Search the best scale of each row of a group, given as `[g, N]`; float32 `[N]`."""
    row_form = GroupedInt(scheme.bits, None)
    _, scales = ClipSearch().quantize(shifted.t().contiguous(), row_form)
    return scales.flatten().float()


def _round_group(
    shifted: Tensor,
    wanted: Tensor,
    factor: Tensor,
    scales: Tensor,
    scheme: GroupedInt,
    codes: Tensor,
    errors: Tensor,
) -> None:
    """Round the columns of a group `[g, N]` in turn; fills codes and errors `[g, N]`."""
    low, high = scheme.code_range
    inverse = scales.reciprocal()
    for column in range(len(shifted)):
        value = shifted[column]
        if column:
            value = torch.addmv(value, errors[:column].t(), factor[:column, column])
        code = torch.mul(value, inverse, out=codes[column]).round_().clamp_(low, high)
        torch.addcmul(wanted[column], code, scales, value=-1, out=errors[column])
