"""Coordinate descent over codes and scales, every row of a weight by itself.

It lowers tr(E H Eᵀ), E = target - codes x scales, one column at a time, and after each group its
scale. A new scale must be a storable one and better by the rounded figure, so that no step raises
the objective.

Shapes: N rows, K columns, G groups in a row, g columns in a group, b columns in a block.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llama_quantize.groupwise import storable
from llama_quantize.scheme import GroupedInt

_BLOCK_COLUMNS = 256


def descend(
    target: Tensor,
    codes: Tensor,
    scales: Tensor,
    gram: Tensor,
    scheme: GroupedInt,
    sweeps: int,
) -> list[float]:
    """Improve codes `[N, K]` and scales `[N, G]` in place, both float32.

    Args:
        target: float32 `[N, K]`.
        codes: codes to begin with.
        scales: scales to begin with, storable ones.
        gram: the inputs' damped Gram matrix, float32 `[K, K]`.
        scheme: storage form.
        sweeps: number of times that each column has its turn.

    Returns:
        By how much each sweep lowered the objective.
    """
    columns = target.shape[1]
    group = columns // scales.shape[1]
    block = max(group, _BLOCK_COLUMNS // group * group)
    held = codes.t().contiguous()
    held_scales = scales.t().contiguous()
    errors = target.t() - _values(held, held_scales)
    falls = []
    for _ in range(sweeps):
        fall = 0.0
        for begin in range(0, columns, block):
            end = min(begin + block, columns)
            pull = gram[begin:end] @ errors
            for start in range(begin, end, group):
                part = slice(start, start + group)
                here = slice(start - begin, start - begin + group)
                change = _improve_group(
                    held[part],
                    held_scales[start // group],
                    pull[here],
                    gram[part, part],
                    scheme,
                )
                fall += _fall(change, pull[here], gram[part, part])
                errors[part] -= change
                if end - start > group:
                    rest = slice(start - begin + group, end - begin)
                    pull[rest] -= gram[start + group : end, part] @ change
        falls.append(fall)
    codes.copy_(held.t())
    scales.copy_(held_scales.t())
    return falls


def _values(codes: Tensor, scales: Tensor) -> Tensor:
    """Multiply codes `[K, N]` by their scales `[G, N]`."""
    columns, rows = codes.shape
    groups = codes.view(len(scales), columns // len(scales), rows)
    return (groups * scales.unsqueeze(1)).view(columns, rows)


def _fall(change: Tensor, pull: Tensor, gram: Tensor) -> float:
    """Return by how much a group's change `[g, N]` lowered the objective."""
    return float((change * (2 * pull - gram @ change)).sum(dtype=torch.float64))


def _improve_group(
    codes: Tensor, scales: Tensor, pull: Tensor, gram: Tensor, scheme: GroupedInt
) -> Tensor:
    """Improve a group's codes `[g, N]`, then its scales `[N]`, in place.

    Args:
        codes: codes of the group.
        scales: its scales.
        pull: H E of the group's columns, `[g, N]`.
        gram: the group's own part of H, `[g, g]`.
        scheme: storage form.

    Returns:
        The change of codes x scales, `[g, N]`.
    """
    low, high = scheme.code_range
    before = codes * scales
    inverse = scales.reciprocal()
    steps = torch.empty_like(codes)
    per_step = gram.diagonal().reciprocal().tolist()
    for column in range(len(codes)):
        left = pull[column]
        if column:
            left = torch.addmv(left, steps[:column].t(), gram[column, :column], alpha=-1)
        code = codes[column]
        moved = torch.addcmul(code, left, inverse, value=per_step[column])
        moved.round_().clamp_(low, high)
        torch.sub(moved, code, out=steps[column]).mul_(scales)
        code.copy_(moved)
    _refit(codes, scales, pull - gram @ steps, gram)
    return codes * scales - before


def _refit(codes: Tensor, scales: Tensor, pull: Tensor, gram: Tensor) -> None:
    """Replace the scales `[N]` of a group where a better one can be stored, in place."""
    slope = (codes * pull).sum(0)
    curve = (codes * (gram @ codes)).sum(0)
    fitted = storable(scales + slope / curve.clamp_min(torch.finfo(torch.float32).tiny))
    step = fitted - scales
    better = step * (step * curve - 2 * slope) < 0
    scales.copy_(torch.where(better, fitted, scales))
