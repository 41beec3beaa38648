"""The linears of a Llama's blocks: with or without a bias, and with QLoRA's side branch beside.

A product with a side branch is one operator in the trace, because what a runtime makes of it
depends on where it stands: it may be stacked with its neighbours, or cut into heads. It knows no
layers, no quantisation and no runtimes.

Shapes: K columns, N rows of the weight, r rank.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from llama_export.llama.config import LlamaConfig


class Adaptor(nn.Module):
    """The side branch's two weights: A `[r, K]` and B `[N, r]`."""

    def __init__(self, columns: int, rows: int, rank: int) -> None:
        super().__init__()
        self.A = nn.Linear(columns, rank, bias=False)
        self.B = nn.Linear(rank, rows, bias=False)


class AdaptedLinear(nn.Linear):
    """`W x + scale * B(A x)`, with W's bias if it has one.

    Args:
        columns: K.
        rows: N.
        rank: r.
        scale: factor of the side branch.
        bias: whether W has a bias.
    """

    def __init__(self, columns: int, rows: int, rank: int, scale: float, *, bias: bool) -> None:
        super().__init__(columns, rows, bias=bias)
        self.adaptor = Adaptor(columns, rows, rank)
        self.scale = scale

    def forward(self, input: Tensor, exact: Tensor | None = None) -> Tensor:
        """Map `[..., K]` to `[..., N]`.

        Args:
            input: what W multiplies.
            exact: what the side branch takes where W's input was rounded; None: the same.
        """
        side, down = self.adaptor.B.weight, self.adaptor.A.weight
        if torch.compiler.is_exporting():
            whole: Tensor = _adapted_op(input, self.weight, self.bias, down, side, self.scale)
            return whole
        exact = input if exact is None else exact
        product = functional.linear(input, self.weight, self.bias)
        return product + self.scale * functional.linear(functional.linear(exact, down), side)


def block_linear(config: LlamaConfig, columns: int, rows: int, *, bias: bool) -> nn.Linear:
    """Make a linear of a block, `[..., columns]` to `[..., rows]`."""
    if config.adaptor_rank:
        rank, scale = config.adaptor_rank, config.adaptor_scale
        return AdaptedLinear(columns, rows, rank, scale, bias=bias)
    return nn.Linear(columns, rows, bias=bias)


def _adapted(
    x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
) -> Tensor:
    product = functional.linear(x, weight, bias)
    return product + scale * functional.linear(functional.linear(x, a), b)


_adapted_op = torch.library.custom_op("llama_export::adapted_linear", _adapted, mutates_args=())


@_adapted_op.register_fake
def _adapted_shape(
    x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])
