"""Emulate in PyTorch what a runtime's rounding of activations does to a tensor.

It knows the vocabulary of `llama_export.activations`; it knows no runtime and no model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llama_export.activations import ActivationQuantization


def round_activations(x: Tensor, rounding: ActivationQuantization) -> Tensor:
    """Round a product's input to the codes that the runtime multiplies, and back.

    Args:
        x: float32 `[..., K]`; K is a multiple of the block.
        rounding: blocks and bits.

    Returns:
        float32 `[..., K]`; a block of zeros stays zero.
    """
    blocks = x.unflatten(-1, (-1, rounding.block))
    largest = blocks.abs().amax(dim=-1, keepdim=True)
    # x * (127 / largest): x / (largest / 127) is another code near a tie, and so is what torch
    # makes of a number over a tensor, 127 * (1 / largest).
    code_max = torch.tensor(float(rounding.code_max))
    inverse = torch.where(largest > 0, torch.div(code_max, largest), 0.0)
    codes = (blocks * inverse).round()
    rounded: Tensor = (codes * (largest / code_max)).flatten(-2)
    return rounded
