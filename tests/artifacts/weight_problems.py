"""Small weights with the statistics of inputs and outputs, and what a calibrated method lowers.

Inputs are correlated and of very different sizes, as a model's are: with white ones every method
is as good as plain rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from llama_quantize import GroupedInt, InputStatistics


@dataclass(frozen=True, eq=False)
class WeightProblem:
    """A weight `[N, K]` and what is known of it."""

    weight: Tensor
    inputs: InputStatistics


def weight_problem(
    rows: int, columns: int, tokens: int = 512, seed: int = 0, directions: int = 5
) -> WeightProblem:
    """Draw a weight, its inputs, what its output lacks, and the curvature there.

    A model's answers depend on few `directions` of what the queries and keys are, and on most of
    what the feed-forward is.
    """
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    sizes = drawn(columns).exp()
    inputs = (drawn(tokens, columns) + 0.3 * drawn(tokens, 4) @ drawn(4, columns)) * sizes
    gradients = drawn(256, rows) * 0.1 + drawn(256, directions) @ drawn(directions, rows)
    lost = 0.02 * drawn(tokens, rows) + 0.02 * inputs @ drawn(columns, rows)
    return WeightProblem(
        (drawn(rows, columns) * 0.1).float(),
        InputStatistics(
            (inputs.T @ inputs).float(),
            tokens,
            (lost.T @ inputs).float(),
            (gradients.T @ gradients / 256).float(),
        ),
    )


def objective(
    target: Tensor, codes: Tensor, scales: Tensor, gram: Tensor, curvature: Tensor | None = None
) -> float:
    """Compute tr(O E H Eᵀ) in float64; without a curvature O is the identity."""
    group = codes.shape[1] // scales.shape[1]
    values = codes.double() * scales.double().repeat_interleave(group, 1)
    errors = target.double() - values
    through = errors @ gram.double()
    if curvature is not None:
        through = curvature.double() @ through
    return float((through * errors).sum())


def require_storable(codes: Tensor, scales: Tensor, scheme: GroupedInt) -> None:
    """Require whole codes in range, and scales that are bf16 values in range."""
    low, high = scheme.code_range
    assert torch.equal(codes, codes.round())
    assert low <= float(codes.min())
    assert float(codes.max()) <= high
    assert torch.equal(scales, scales.to(torch.bfloat16).float())
    assert float(scales.min()) >= 2.0**-17
    assert float(scales.max()) <= 65280
