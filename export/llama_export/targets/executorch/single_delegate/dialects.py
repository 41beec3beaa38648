"""How Vulkan's and Core ML's delegates want a Llama written, so that they take it whole.

Both get the checkpoint's own codes and scales, in the patterns that their partitioners know:
torchao's affine operators, and for Vulkan's 8-bit products those of quantized_decomposed. It knows
these patterns; it does not know the partitioners. Nothing that it writes was run on a phone.

Shapes: S tokens, C cache capacity, E hidden_size, H query heads, K key/value heads, D head_dim;
of a weight: N rows, K columns, G groups a row.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from llama_export.errors import LoweringError
from llama_export.targets.executorch.single_delegate.module import DialectProduct, Moment
from llama_export.targets.executorch.xnnpack.host_program import HostForm
from llama_quantize.tensor import QuantizedTensor

_INT4, _INT8 = (-8, 7), (-128, 127)
# A norm's input is divided by its peak, or by this where all of it is smaller: 2**-6.
_SMALLEST_PEAK = 0.015625


class AffineProduct(DialectProduct):
    """A product with a weight in torchao's pattern.

    Args:
        tensor: the weight's codes and scales.
        rounds: whether the product's input is rounded.
    """

    def __init__(self, tensor: QuantizedTensor, *, rounds: bool = False) -> None:
        super().__init__()
        self.rounds = rounds
        self._group = tensor.scheme.group_size or tensor.shape[1]
        self._range = _INT4 if tensor.scheme.bits == 4 else _INT8
        self.register_buffer("codes", tensor.unpacked())
        self.register_buffer("scales", tensor.scales.float())
        self.register_buffer("zeros", torch.zeros(tensor.scales.shape, dtype=torch.int8))

    def weight(self) -> Tensor:
        """Return float32 `[N, K]`; a delegate keeps the codes and computes no such thing."""
        from torchao.quantization.quant_primitives import dequantize_affine

        block = (1, self._group)
        weight: Tensor = dequantize_affine(
            self.codes, block, self.scales, self.zeros, torch.int8, *self._range
        )
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """Map `[..., K]` to `[..., N]`."""
        return functional.linear(x, self.weight())


class AffineTable(AffineProduct):
    """The token lookup in the same pattern."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Map int64 `[1, S]` to `[1, S, K]`."""
        return functional.embedding(tokens, self.weight())


class RowProduct(DialectProduct):
    """A product with int8 rows, in the pattern that becomes Vulkan's `_weight_int8pack_mm`.

    torchao's pattern is taken too, but not fused: the weight would become floats at each call.

    Args:
        tensor: the weight's codes, and one scale a row.
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


class RowTable(nn.Module):
    """The token lookup as an operator of the runtime; Vulkan has none for int8 rows.

    Args:
        tensor: the weight's codes, and one scale a row.
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


class GroupTable(nn.Module):
    """The token lookup in int4 groups, as the operator that Vulkan has too.

    Args:
        tensor: the weight's codes and scales.
    """

    def __init__(self, tensor: QuantizedTensor) -> None:
        super().__init__()
        # It takes the high nibble for the even element.
        self.register_buffer("codes", (tensor.codes << 4) | (tensor.codes >> 4))
        self.register_buffer("scales", tensor.scales.float())

    def forward(self, tokens: Tensor) -> Tensor:
        """Map int64 `[1, S]` to `[1, S, E]`."""
        rows: Tensor = torch.ops.quantized_decomposed.embedding_4bit.dtype(
            self.codes, self.scales, None, *_INT4, tokens, dtype=torch.float32
        )
        return rows


class Vulkan:
    """Any number of tokens; int4 products round their inputs, int8 ones do not."""

    def product(self, name: str, tensor: QuantizedTensor) -> DialectProduct:
        """Return a product of int4 groups or of int8 rows."""
        if tensor.scheme.bits == 4:
            return AffineProduct(tensor, rounds=True)
        _require_rows(name, tensor)
        return RowProduct(tensor)

    def table(self, name: str, tensor: QuantizedTensor) -> nn.Module:
        """Return a lookup in int4 groups or int8 rows."""
        if tensor.scheme.bits == 4:
            return GroupTable(tensor)
        _require_rows(name, tensor)
        return RowTable(tensor)

    def cache_shape(self, form: HostForm) -> tuple[int, int, int, int]:
        """Return `(1, C, K, D)`."""
        return 1, form.max_context, form.config.num_key_value_heads, form.config.head_dim

    def moment(self, tokens: Tensor, input_pos: Tensor, cos: Tensor, sin: Tensor) -> Moment:
        """Read the position as a number."""
        start, length = cast("int", input_pos[0].item()), tokens.shape[1]
        torch._check(start >= 0)
        torch._check(start + length <= cos.shape[0])
        cos, sin = (table.narrow(0, start, length)[:, None] for table in (cos, sin))
        return Moment(start, cos, sin)

    def round(self, x: Tensor) -> Tensor:
        """Round each token's row to int8 with a zero point."""
        from torchao.quantization.quant_primitives import (
            MappingType,
            choose_qparams_affine,
            dequantize_affine,
            quantize_affine,
        )

        block, int8 = (1, 1, x.shape[-1]), torch.int8
        scale, zero = choose_qparams_affine(
            x, MappingType.ASYMMETRIC, block, int8, *_INT8, zero_point_dtype=int8
        )
        codes = quantize_affine(x, block, scale, zero, int8, *_INT8)
        rounded: Tensor = dequantize_affine(codes, block, scale, zero, int8, *_INT8)
        return rounded

    def norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """Write it in the form that becomes one operator."""
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + epsilon) * weight

    def attend(
        self,
        query: Tensor,
        written: tuple[Tensor, Tensor],
        caches: tuple[Tensor, Tensor],
        moment: Moment,
    ) -> Tensor:
        """Use ExecuTorch's operators for language models; Vulkan makes one of the three."""
        llama = torch.ops.llama
        for new, cache in zip(written, caches, strict=True):
            llama.update_cache(new, cache, moment.start)
        mixed: Tensor = llama.custom_sdpa(query, *caches, moment.start, None, 0.0, True, None)
        return mixed


class CoreML:
    """One token a call; weights alone are quantised; computes in float16."""

    def product(self, name: str, tensor: QuantizedTensor) -> DialectProduct:
        """Return a product of int4 or int8 groups or rows."""
        return AffineProduct(tensor)

    def table(self, name: str, tensor: QuantizedTensor) -> nn.Module:
        """Return a lookup in the same pattern: a tied table is then stored once."""
        return AffineTable(tensor)

    def cache_shape(self, form: HostForm) -> tuple[int, int, int, int]:
        """Return `(1, K, C, D)`: attention needs no copy of it with its axes in another order."""
        return 1, form.config.num_key_value_heads, form.max_context, form.config.head_dim

    def moment(self, tokens: Tensor, input_pos: Tensor, cos: Tensor, sin: Tensor) -> Moment:
        """Keep the position a tensor: what depends on a number cannot be converted."""
        slots = torch.arange(cos.shape[0])[None, None, None]
        cos, sin = (table[input_pos][:, None] for table in (cos, sin))
        return Moment(input_pos, cos, sin, slots <= input_pos)

    def round(self, x: Tensor) -> Tensor:
        """Leave it; no product asks."""
        return x

    def norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """Divide by the peak first: a float16 square of more than 256 would be infinite."""
        peak = x.abs().amax(-1, keepdim=True).clamp(min=_SMALLEST_PEAK)
        small, added = x / peak, epsilon**0.5 / peak
        mean = (small * small).mean(-1, keepdim=True)
        return small * torch.rsqrt(mean + added * added) * weight

    def attend(
        self,
        query: Tensor,
        written: tuple[Tensor, Tensor],
        caches: tuple[Tensor, Tensor],
        moment: Moment,
    ) -> Tensor:
        """Treat the query heads of one key as rows of one matrix, so that no key is repeated."""
        positions = cast("Tensor", moment.start)
        for new, cache in zip(written, caches, strict=True):
            cache.index_copy_(2, positions, new.transpose(1, 2))
        keys, values = caches
        rows = query.view(1, keys.shape[1], -1, query.shape[-1])
        mixed = functional.scaled_dot_product_attention(rows, keys, values, attn_mask=moment.seen)
        return mixed.reshape(query.shape)


def _require_rows(name: str, tensor: QuantizedTensor) -> None:
    if tensor.scheme.label != "int8 row":
        message = f"{name} is stored as {tensor.scheme.label}; Vulkan wants one scale a row"
        raise LoweringError(message, "export with --quantize int4")
