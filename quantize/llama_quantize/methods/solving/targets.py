"""The weight that would undo, as far as one linear can, what was lost before it.

One ridge regression takes what the quantised model lacks at a linear's output, its inputs' error
and the residual stream's, into the linear's own weight. With the inputs' error alone it is the
asymmetric correction of GPTAQ (Li et al. 2025), there column by column.

Shapes: N rows, K columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llama_quantize.calibration import InputStatistics
from llama_quantize.methods.solving.damping import damped


def corrected(weight: Tensor, inputs: InputStatistics, ridge: float) -> Tensor:
    """Return `W + D (A + ridge)⁻¹`: A the Gram matrix, D the cross sums.

    Args:
        weight: float32 `[N, K]`.
        inputs: statistics of its inputs.
        ridge: share of A's mean diagonal that is added to the diagonal.

    Returns:
        float32 `[N, K]`; the weight itself where there are no cross sums.
    """
    if inputs.cross is None:
        return weight
    lower = torch.linalg.cholesky(damped(inputs.gram, ridge))
    return weight + torch.cholesky_solve(inputs.cross.t(), lower).t()
