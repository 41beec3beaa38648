"""How Vulkan's and Core ML's delegates want a Llama written, so that they take it whole.

Both get the checkpoint's own codes and scales, in the patterns that their partitioners know:
torchao's affine operators, and for Vulkan's 8-bit products those of quantized_decomposed. It knows
these patterns; it does not know the partitioners. Nothing that it writes was run on a phone.

Shapes: S tokens, C cache capacity, E hidden_size, H query heads, K key/value heads, D head_dim;
of a weight: N rows, K columns, G groups a row.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from llama_quantize.tensor import QuantizedTensor

_INT4, _INT8 = (-8, 7), (-128, 127)
# A norm's input is divided by its peak, or by this where all of it is smaller: 2**-6.
_SMALLEST_PEAK = 0.015625


class AffineWeight(nn.Module):
    """A weight as torchao's weight-only pattern.

    Args:
        tensor: codes and scales.
    """

    def __init__(self, tensor: QuantizedTensor) -> None:
        super().__init__()
        self._group = tensor.scheme.group_size or tensor.shape[1]
        self._range = _INT4 if tensor.scheme.bits == 4 else _INT8
        self.register_buffer("codes", tensor.unpacked())
        self.register_buffer("scales", tensor.scales.float())
        self.register_buffer("zeros", torch.zeros(tensor.scales.shape, dtype=torch.int8))

    def weight(self) -> Tensor:
        """Return float32 `[N, K]`."""
        from torchao.quantization.quant_primitives import dequantize_affine

        block = (1, self._group)
        weight: Tensor = dequantize_affine(
            self.codes, block, self.scales, self.zeros, torch.int8, *self._range
        )
        return weight


class AffineProduct(AffineWeight):
    """`x @ weight.T`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map `[..., K]` to `[..., N]`."""
        return functional.linear(x, self.weight())


class AffineTable(AffineWeight):
    """The token lookup in a dequantised table, of which the delegate keeps the codes."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Map int64 `[1, S]` to `[1, S, K]`."""
        return functional.embedding(tokens, self.weight())


class RowProduct(nn.Module):
    """`x @ weight.T` with int8 rows, in the pattern that becomes Vulkan's `_weight_int8pack_mm`.

    torchao's pattern would be taken too, but then the whole weight is turned into floats at each
    call.

    Args:
        tensor: codes, and one scale a row.
    """

    def __init__(self, tensor: QuantizedTensor) -> None:
        super().__init__()
        self.register_buffer("codes", tensor.unpacked())
        self.register_buffer("scales", tensor.scales[:, 0].float())
        self.register_buffer("zeros", torch.zeros(tensor.shape[0], dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Map `[..., K]` to `[..., N]`."""
        weight = torch.ops.quantized_decomposed.dequantize_per_channel(
            self.codes, self.scales, self.zeros, 0, *_INT8, torch.int8
        )
        return functional.linear(x, weight)


class RoundedAffineProduct(AffineWeight):
    """`x @ weight.T` with x rounded to 8 bits a token, in torchao's pattern."""

    def forward(self, x: Tensor) -> Tensor:
        """Map `[1, S, K]` to `[1, S, N]`."""
        return functional.linear(x, self.weight())


class RowTable(nn.Module):
    """The token lookup as an operator of the runtime: Vulkan has none for int8 tables.

    Args:
        tensor: codes, and one scale a row.
    """

    def __init__(self, tensor: QuantizedTensor) -> None:
        super().__init__()
        self.register_buffer("codes", tensor.unpacked())
        self.register_buffer("scales", tensor.scales.float())

    def forward(self, tokens: Tensor) -> Tensor:
        """Map int64 `[1, S]` to `[1, S, E]`."""
        rows: Tensor = torch.ops.quantized_decomposed.embedding_byte.dtype(
            self.codes, self.scales, None, *_INT8, tokens, dtype=torch.float32
        )
        return rows
