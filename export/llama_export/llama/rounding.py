"""Emulate in PyTorch what a runtime's rounding of activations does to a tensor.

It knows the vocabulary of `llama_export.llama.activations`; it knows no runtime and no model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llama_export.llama.activations import ActivationQuantization


def round_activations(x: Tensor, rounding: ActivationQuantization) -> Tensor:
    """Round a product's input to the codes that the runtime multiplies, and back.

    Args:
        x: float32 `[..., K]`; K is a multiple of the block.
        rounding: blocks and bits.

    Returns:
        float32 `[..., K]`; a block of zeros stays zero.
    """
    blocks = x.unflatten(-1, (-1, rounding.block or x.shape[-1]))
    if rounding.zero_point:
        return _with_zero_point(blocks, rounding.bits).flatten(-2)
    largest = blocks.abs().amax(dim=-1, keepdim=True)
    # x * (127 / largest): x / (largest / 127) is another code near a tie, and so is what torch
    # makes of a number over a tensor, 127 * (1 / largest).
    code_max = torch.tensor(float(rounding.code_max))
    inverse = torch.where(largest > 0, torch.div(code_max, largest), 0.0)
    codes = (blocks * inverse).round()
    rounded: Tensor = (codes * (largest / code_max)).flatten(-2)
    return rounded


def _with_zero_point(blocks: Tensor, bits: int) -> Tensor:
    """Round to codes with a zero point, in the order of operations of XNNPACK's kernels.

    Source: https://github.com/google/XNNPACK, src/xnnpack/quantization.h
    (`xnn_f32_qd8_asymmetric_quantization_params`): the zero point comes from that end of the range
    which loses less by it.
    """
    lowest, highest = -float(1 << (bits - 1)), float((1 << (bits - 1)) - 1)
    least = blocks.amin(dim=-1, keepdim=True).clamp(max=0.0)
    most = blocks.amax(dim=-1, keepdim=True).clamp(min=0.0)
    span = most - least
    scale = torch.where(span > 0, torch.div(torch.tensor(highest - lowest), span), 1.0)
    from_least, from_most = lowest + least * scale, highest + most * scale
    zero = torch.where(from_least + from_most > 0, lowest - least * scale, highest - most * scale)
    zero = zero.clamp(lowest, highest).round()
    codes = ((blocks * scale).round() + zero).clamp(lowest, highest)
    rounded: Tensor = (codes - zero) * (1.0 / scale)
    return rounded
