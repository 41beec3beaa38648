"""The normalised Hadamard transform of the last axis, as one operator.

SpinQuant's R4: the weight behind it was multiplied by the same matrix when it was made. The matrix
is Sylvester's, in natural order, symmetric and its own inverse; of order a * b it is the Kronecker
product of those of orders a and b, which is how runtimes compute it: two small products. Like
attention, the trace keeps it whole. It knows no layers and no runtimes.

Shapes: F width, a power of two.
"""

from __future__ import annotations

import torch
from torch import Tensor


def hadamard(x: Tensor) -> Tensor:
    """Multiply `[..., F]` by Sylvester's matrix of order F over the root of F."""
    if torch.compiler.is_exporting():
        rotated: Tensor = _hadamard_op(x)
        return rotated
    return hadamard_reference(x)


def hadamard_reference(x: Tensor) -> Tensor:
    """Compute `hadamard` by sums and differences in float32; differentiable."""
    width = x.shape[-1]
    values = x.float()
    step = 1
    while step < width:
        pairs = values.unflatten(-1, (-1, 2, step))
        first, second = pairs[..., 0, :], pairs[..., 1, :]
        values = torch.stack((first + second, first - second), dim=-2).flatten(-3)
        step *= 2
    rotated: Tensor = (values * width**-0.5).to(x.dtype)
    return rotated


def sylvester(order: int) -> Tensor:
    """Return Sylvester's matrix of ones and minus ones, float32 `[order, order]`."""
    index = torch.arange(order)
    shared = index[:, None] & index[None]
    odd = torch.zeros_like(shared)
    while bool(shared.any()):
        odd ^= shared & 1
        shared = shared >> 1
    return 1.0 - 2.0 * odd.float()


_hadamard_op = torch.library.custom_op(
    "llama_export::hadamard", hadamard_reference, mutates_args=()
)


@_hadamard_op.register_fake
def _hadamard_shape(x: Tensor) -> Tensor:
    return torch.empty_like(x)
