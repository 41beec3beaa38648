"""The quantised products of a segment, as placeholders whose bytes are known again after lowering.

A segment is lowered once for all layers, so what is lowered are stand-ins: matrices of zeros that
begin with a number of their own. In the finished delegate that number says which weight belongs
there. The module knows the patterns that XNNPACK's partitioner takes for int4 groups and int8 rows
with 8-bit dynamic activations, and for floats; it does not know where the weights come from.

Shapes: N rows, K columns, G groups in a row.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from llama_export.errors import LoweringError
from llama_export.targets.executorch.xnnpack.product_form import FLOAT_BITS, ProductForm

# A placeholder's number is its first two codes, digits -8..7, and its first scale, 1 + number/128:
# what both can hold exactly.
_DIGITS, _BASE, _SCALE_STEPS = 2, 16, 128
MOST_PRODUCTS = _SCALE_STEPS - 1


class Product(nn.Module):
    """`x @ weight.T` with a placeholder for the weight.

    Args:
        form: form of the weight.
        number: number of the product in its segment, from 1.
    """

    def __init__(self, form: ProductForm, number: int) -> None:
        super().__init__()
        if not 1 <= number <= MOST_PRODUCTS:
            message = f"a segment has more than {MOST_PRODUCTS} products"
            raise LoweringError(message, "report it with the model's config.json")
        self.form = form
        self.bias: Tensor | None
        self.codes: Tensor
        bias = torch.zeros(form.rows)
        bias[0] = number
        self.register_buffer("bias", bias if form.has_bias else None)
        if form.bits == FLOAT_BITS:
            floats = torch.zeros(form.rows, form.columns)
            floats[0, 0] = number
            self.register_buffer("codes", floats)
            return
        codes = torch.zeros(form.rows, form.columns, dtype=torch.int8)
        codes[0, :_DIGITS] = _digits(number)
        scales = torch.ones(form.rows, form.groups)
        scales[0, 0] += number / _SCALE_STEPS
        self.register_buffer("codes", codes)
        if form.bits == 4:
            self.register_buffer("scales", scales)
            zeros = torch.zeros(form.rows, form.groups, dtype=torch.int8)
            self.register_buffer("zero_points", zeros)
        else:
            self.register_buffer("scales", scales[:, 0])
            self.register_buffer("zero_points", torch.zeros(form.rows, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Map a rounded `[..., K]` to `[..., N]`."""
        known = torch.ops.quantized_decomposed
        if self.form.bits == FLOAT_BITS:
            return functional.linear(x, self.codes)
        if self.form.bits == 4:
            weight = known.dequantize_per_channel_group(
                self.codes,
                self.scales,
                self.zero_points,
                -8,
                7,
                torch.int8,
                self.form.group_size,
                torch.float32,
            )
        else:
            weight = known.dequantize_per_channel(
                self.codes, self.scales, self.zero_points, 0, -128, 127, torch.int8
            )
        return functional.linear(x, weight, self.bias)


def rounded(x: Tensor) -> Tensor:
    """Round each row of `[..., K]` to int8 with a zero point, as the kernels do at run time."""
    known = torch.ops.quantized_decomposed
    scale, zero_point = known.choose_qparams_per_token_asymmetric(x, torch.int8)
    codes = known.quantize_per_token(x, scale, zero_point, -128, 127, torch.int8)
    result: Tensor = known.dequantize_per_token(
        codes, scale, zero_point, -128, 127, torch.int8, torch.float32
    )
    return result


def number_in_floats(stored: bytes) -> int:
    """Read a placeholder's number from what stands for a bias or a float matrix; 0: it is none."""
    value = torch.frombuffer(bytearray(stored[:4]), dtype=torch.float32).item()
    rest = bytes(stored[4:])
    return round(value) if value == round(value) and not any(rest) else 0


def number_in_codes(stored: bytes, bits: int) -> int:
    """Read a placeholder's number from what the delegate stored as its codes."""
    if bits == 4:
        digits = [(stored[0] & 0xF) - 8, (stored[0] >> 4) - 8]
    else:
        digits = [byte - 256 if byte > 127 else byte for byte in stored[:_DIGITS]]
    return digits[0] + 8 + _BASE * (digits[1] + 8)


def number_in_scales(stored: bytes, bits: int) -> int:
    """Read a placeholder's number from what the delegate stored as its scales."""
    # bfloat16 is the upper half of a float32.
    first = (b"\0\0" + stored[:2]) if bits == 4 else stored[:4]
    value = torch.frombuffer(bytearray(first), dtype=torch.float32).item()
    return round((value - 1) * _SCALE_STEPS)


def _digits(number: int) -> Tensor:
    return torch.tensor([number % _BASE - 8, number // _BASE - 8], dtype=torch.int8)
