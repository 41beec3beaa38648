"""Products: linear, matmul, einsum, convolution, attention.

A weight is dequantised a block of rows at a time, and each block is multiplied with all of the
input's rows before the next. Sums are taken in float32; only the result is rounded. This module
knows values and weights; it does not know programs or files.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional

from coreml_evaluator.arguments import Arguments, Op, OpError, computing, require_shape
from coreml_evaluator.values import Value, is_float
from coreml_evaluator.weights import Weight, joined_columns
from coreml_evaluator.workers import Workers

_MATRIX = 2


def product(x: torch.Tensor, weight: Weight, workers: Workers) -> torch.Tensor:
    """Return `x @ weight.T` for x `[..., K]` and a weight `[N, K]`."""
    flat = x.reshape(-1, x.shape[-1])
    result = flat.new_empty(flat.shape[0], weight.shape[0])
    if weight.splits_columns:
        flat = torch.cat((flat[:, 0::2], flat[:, 1::2]), dim=1)

    def multiply(first: int, last: int) -> None:
        result[:, first:last] = flat @ weight.block(first, last, workers.scratch).T

    workers.share(multiply, weight.blocks())
    return result.reshape(*x.shape[:-1], weight.shape[0])


def _transposed_product(x: torch.Tensor, weight: Weight, workers: Workers) -> torch.Tensor:
    """Return `x @ weight` for x `[..., K]` and a weight `[K, N]`."""
    flat = x.reshape(-1, x.shape[-1])
    result = flat.new_zeros(flat.shape[0], weight.shape[1])
    for first, last in weight.blocks():
        rows = weight.block(first, last, workers.scratch)
        result += flat[:, first:last] @ (joined_columns(rows) if weight.splits_columns else rows)
    return result.reshape(*x.shape[:-1], weight.shape[1])


def _require_floats(*values: Value | Weight) -> None:
    """Refuse integers: it is not defined what becomes of a sum that is too large."""
    for value in values:
        if not is_float(value.dtype):
            raise OpError(expected="floats", found=value.dtype)


def _linear(given: Arguments) -> Value:
    x, weight = given.value("x"), given.as_weight("weight")
    _require_floats(x, weight)
    if len(weight.shape) != _MATRIX or not x.shape or x.shape[-1] != weight.shape[1]:
        raise OpError(
            expected=f"x [..., K] and a weight [N, K], x is {list(x.shape)}",
            found=str(weight.shape),
        )
    result = product(x.data, weight, given.workers)
    if given.has("bias"):
        bias = given.tensor("bias")
        require_shape(bias.shape, weight.shape[:1], "a bias")
        result += bias
    return x.like(result)


def _matmul(given: Arguments) -> Value:
    weight = given.weight("y")
    x = given.value("x")
    transpose_x, transpose_y = given.flag("transpose_x"), given.flag("transpose_y")
    left = x.data.transpose(-1, -2) if transpose_x and x.data.ndim > 1 else x.data
    if weight is not None and len(weight.shape) == _MATRIX and left.ndim >= 1:
        _require_floats(x, weight)
        inner = weight.shape[1 if transpose_y else 0]
        require_shape(left.shape[-1:], (inner,), "x's columns")
        multiply: Callable[[torch.Tensor, Weight, Workers], torch.Tensor] = (
            product if transpose_y else _transposed_product
        )
        return x.like(multiply(left, weight, given.workers))
    y = given.value("y")
    _require_floats(x, y)
    right = y.data.transpose(-1, -2) if transpose_y and y.data.ndim > 1 else y.data
    # A constant may have another dtype than what is computed, which decides the result's.
    return Value(left @ right, y.dtype if given.weight("x") is not None else x.dtype)


def _einsum(given: Arguments) -> Value:
    values = given.several("values")
    _require_floats(*values)
    return values[0].like(torch.einsum(given.text("equation"), *[value.data for value in values]))


def _attention(given: Arguments) -> Value:
    query, key, value = given.pair("query", "key", "value")
    _require_floats(query)
    if not query.data.ndim == key.data.ndim == value.data.ndim >= _MATRIX + 1:
        raise OpError(
            expected="query, key and value of one rank from 3 on", found=str(list(query.shape))
        )
    require_shape(key.shape[:-2], query.shape[:-2], "keys' batch")
    require_shape(value.shape[:-1], key.shape[:-1], "values")
    scores = (query.data @ key.data.transpose(-1, -2)) / math.sqrt(query.shape[-1])
    if given.has("attn_mask"):
        mask = given.value("attn_mask")
        if torch.broadcast_shapes(mask.shape, scores.shape) != scores.shape:
            raise OpError(
                expected=f"a mask that fits {list(scores.shape)}", found=str(list(mask.shape))
            )
        if mask.dtype == "bool":
            scores = scores.masked_fill(~mask.data, -math.inf)
        else:
            scores += mask.data
    return query.like(torch.softmax(scores, dim=-1) @ value.data)


def _conv_padding(given: Arguments, kernel: list[int], x: torch.Tensor) -> list[int]:
    """Return padding before and after each spatial dimension."""
    spatial = len(kernel)
    kind = given.text("pad_type", "valid")
    if kind == "valid":
        return [0] * (2 * spatial)
    if kind == "custom":
        return given.ints("pad", [0] * (2 * spatial))
    if kind not in ("same", "same_lower"):
        raise OpError(expected="a known pad_type", found=kind)
    strides = given.ints("strides", [1] * spatial)
    dilations = given.ints("dilations", [1] * spatial)
    padding = []
    for size, taps, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        reach = (taps - 1) * dilation + 1
        total = max(0, (math.ceil(size / stride) - 1) * stride + reach - size)
        fewer, more = total // 2, total - total // 2
        padding += [more, fewer] if kind == "same_lower" else [fewer, more]
    return padding


def _conv(given: Arguments) -> Value:
    x, weight = given.value("x"), given.value("weight")
    _require_floats(x, weight)
    spatial = x.data.ndim - 2
    if not 1 <= spatial <= 3 or weight.data.ndim != x.data.ndim:
        raise OpError(
            expected="x [N, C, ...] and a weight [O, C, ...]", found=str(list(weight.shape))
        )
    padding = _conv_padding(given, list(weight.shape[2:]), x.data)
    pairs = [padding[start : start + 2] for start in range(0, len(padding), 2)]
    flat = [amount for pair in reversed(pairs) for amount in pair]
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[spatial - 1]
    result: torch.Tensor = convolve(
        functional.pad(x.data, flat),
        weight.data,
        given.tensor("bias") if given.has("bias") else None,
        stride=given.ints("strides", [1] * spatial),
        dilation=given.ints("dilations", [1] * spatial),
        groups=given.integer("groups", 1),
    )
    return x.like(result)


OPS: dict[str, Op] = {
    "conv": computing(_conv),
    "einsum": computing(_einsum),
    "linear": computing(_linear),
    "matmul": computing(_matmul),
    "scaled_dot_product_attention": computing(_attention),
}
