"""Gram matrices made safe to factor: dead, repeated and few inputs do no harm.

A share of the mean diagonal is added to the diagonal. A channel that never fires then has that
share alone, and is coupled to no other: its weights are rounded by themselves. Where no channel
fires at all, the matrix becomes the identity: every weight is rounded by itself.

Shapes: K columns of a weight, N rows.
"""

from __future__ import annotations

import torch
from torch import Tensor


def damped(gram: Tensor, share: float) -> Tensor:
    """Return a Gram matrix float32 `[K, K]` with `share` of its mean diagonal added there."""
    mean = float(gram.diagonal().double().mean())
    if mean <= 0.0:
        return torch.eye(len(gram))
    result = gram.clone()
    result.diagonal().add_(share * mean)
    return result


def upper_factor(matrix: Tensor) -> Tensor:
    """Factor a positive definite matrix as U D Uᵀ with a unit upper triangle U, and return U.

    It is the Cholesky factor of the matrix read from its end. float32 `[K, K]`.
    """
    lower: Tensor = torch.linalg.cholesky(matrix.flip(0, 1))
    lower /= lower.diagonal().clone()
    return lower.flip(0, 1)
