"""Ops that make tensors from little: ranges, fills, positions of what is not zero."""

from __future__ import annotations

import math

import torch

from coreml_evaluator.arguments import Arguments, Op, OpError, computing
from coreml_evaluator.values import Value


def _range(given: Arguments) -> Value:
    start, end, step = given.pair("start", "end", "step")
    first, last, stride = (value.data.item() for value in (start, end, step))
    if not all(math.isfinite(value) for value in (first, last, stride)):
        raise OpError(expected="finite bounds", found=f"{first}, {last}, {stride}")
    if stride == 0:
        raise OpError(expected="a step that is not 0", found="0")
    count = max(0, math.ceil((last - first) / stride))
    numbers = torch.arange(count, dtype=start.data.dtype)
    return start.like(numbers * step.data.reshape(()) + start.data.reshape(()))


def _filled(shape: list[int], given: Arguments) -> Value:
    value = given.value("value") if given.has("value") else Value(torch.zeros(()), "fp32")
    if min(shape, default=0) < 0:
        raise OpError(expected="sizes from 0 on", found=str(shape))
    return value.like(value.data.reshape(()).expand(shape).clone())


def _fill(given: Arguments) -> Value:
    return _filled(given.ints("shape"), given)


def _fill_like(given: Arguments) -> Value:
    return _filled(list(given.value("ref_tensor").shape), given)


def _non_zero(given: Arguments) -> Value:
    return Value(torch.nonzero(given.tensor("x")).to(torch.int32), "int32")


OPS: dict[str, Op] = {
    "fill": computing(_fill),
    "fill_like": computing(_fill_like),
    "non_zero": computing(_non_zero),
    "range_1d": computing(_range),
}
