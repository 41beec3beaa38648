"""Ops along axes: sums, extremes, softmax, norms, sorting, bands.

It knows values; it does not know programs or files.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from coreml_evaluator.arguments import (
    Arguments,
    Op,
    OpError,
    axis_of,
    computing,
    copying,
    require_shape,
)
from coreml_evaluator.types import HELD
from coreml_evaluator.values import Value, is_float

_Reduce = Callable[[torch.Tensor, list[int], bool], torch.Tensor]
_L2_NORM_AXES = 3


def _reduction(compute: _Reduce, *, floats_only: bool = True) -> Op:
    def run(given: Arguments) -> Value:
        x = given.value("x")
        if floats_only and not is_float(x.dtype):
            raise OpError(expected="a float x", found=x.dtype)
        rank = x.data.ndim
        axes = [axis_of(axis, rank) for axis in given.ints("axes", range(rank))]
        if not axes:  # torch would reduce them all
            reduced = compute(x.data.unsqueeze(-1), [rank], False)
            return x.like(reduced.to(x.data.dtype))
        result = compute(x.data, sorted(set(axes)), given.flag("keep_dims"))
        return x.like(result.to(x.data.dtype))

    return computing(run)


def _product(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    for axis in reversed(axes):
        x = x.prod(dim=axis, keepdim=keep)
    return x


def _arg(pick: Callable[..., torch.Tensor]) -> Op:
    def run(given: Arguments) -> Value:
        x = given.value("x")
        axis = given.axis("axis", x.data.ndim, -1)
        dtype = given.text("output_dtype", "int32")
        if dtype not in ("int32", "uint16"):
            raise OpError(expected="int32 or uint16 as output_dtype", found=dtype)
        found = pick(x.data, dim=axis, keepdim=given.flag("keep_dims"))
        return Value(found.to(HELD[dtype]), dtype)

    return computing(run)


def _softmax(given: Arguments) -> Value:
    x = given.value("x")
    return x.like(torch.softmax(x.data, dim=given.axis("axis", x.data.ndim, -1)))


def _layer_norm(given: Arguments) -> Value:
    x = given.value("x")
    rank = x.data.ndim
    axes = sorted({axis_of(axis, rank) for axis in given.ints("axes", range(rank))})
    mean = x.data.mean(dim=axes, keepdim=True)
    centred = x.data - mean
    variance = centred.square().mean(dim=axes, keepdim=True)
    result = centred * torch.rsqrt(variance + given.number("epsilon", 1e-5))
    normalised = [x.shape[axis] for axis in axes]
    sizes = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
    for name in ("gamma", "beta"):
        if given.has(name):
            factor = given.tensor(name)
            require_shape(factor.shape, normalised, name)
            factor = factor.reshape(sizes)
            result = result * factor if name == "gamma" else result + factor
    return x.like(result)


def _l2_norm(given: Arguments) -> Value:
    x = given.value("x")
    if x.data.ndim < _L2_NORM_AXES:
        raise OpError(expected=f"at least {_L2_NORM_AXES} dimensions", found=str(x.data.ndim))
    total = x.data.square().sum(dim=(-3, -2, -1), keepdim=True)
    return x.like(x.data * torch.rsqrt(total + given.number("epsilon", 1e-6)))


def _cumsum(given: Arguments) -> Value:
    x = given.value("x")
    axis = given.axis("axis", x.data.ndim, 0)
    data = torch.flip(x.data, [axis]) if given.flag("reverse") else x.data
    total = torch.cumsum(data, dim=axis, dtype=data.dtype)
    if given.flag("exclusive"):
        # Shifted, and not less itself: a large value would take the small ones before it along.
        total = total.roll(1, dims=axis)
        total[(slice(None),) * axis + (slice(0, 1),)] = 0
    return x.like(torch.flip(total, [axis]) if given.flag("reverse") else total)


def _sorted(given: Arguments) -> tuple[Value, torch.Tensor, torch.Tensor, int]:
    x = given.value("x")
    axis = given.axis("axis", x.data.ndim, -1)
    descending = not given.flag("ascending")
    values, indices = torch.sort(x.data, dim=axis, descending=descending, stable=True)
    return x, values, indices.to(torch.int32), axis


def _topk(given: Arguments) -> tuple[Value, ...]:
    x, values, indices, axis = _sorted(given)
    count = given.integer("k", 1)
    if not 0 <= count <= x.shape[axis]:
        raise OpError(expected=f"k up to {x.shape[axis]}", found=str(count))
    best = x.like(values.narrow(axis, 0, count))
    if not given.flag("return_indices", True):
        return (best,)
    return best, Value(indices.narrow(axis, 0, count), "int32")


def _argsort(given: Arguments) -> Value:
    return Value(_sorted(given)[2], "int32")


def _band_part(given: Arguments) -> Value:
    x = given.value("x")
    lower, upper = given.integer("lower", -1), given.integer("upper", -1)
    row = torch.arange(x.shape[-2]).unsqueeze(-1)
    column = torch.arange(x.shape[-1])
    kept = torch.ones(x.shape[-2:], dtype=torch.bool)
    if lower >= 0:
        kept &= row - column <= lower
    if upper >= 0:
        kept &= column - row <= upper
    return x.like(torch.where(kept, x.data, torch.zeros((), dtype=x.data.dtype)))


OPS: dict[str, Op] = {
    "argsort": computing(_argsort),
    "band_part": copying(_band_part),
    "cumsum": computing(_cumsum),
    "l2_norm": computing(_l2_norm),
    "layer_norm": computing(_layer_norm),
    "reduce_argmax": _arg(torch.argmax),
    "reduce_argmin": _arg(torch.argmin),
    "reduce_l1_norm": _reduction(lambda x, axes, keep: x.abs().sum(axes, keep), floats_only=False),
    "reduce_l2_norm": _reduction(lambda x, axes, keep: x.square().sum(axes, keep).sqrt()),
    "reduce_log_sum": _reduction(lambda x, axes, keep: x.sum(axes, keep).log()),
    "reduce_log_sum_exp": _reduction(lambda x, axes, keep: x.logsumexp(axes, keep)),
    "reduce_max": _reduction(lambda x, axes, keep: x.amax(axes, keep), floats_only=False),
    "reduce_mean": _reduction(lambda x, axes, keep: x.mean(axes, keep)),
    "reduce_min": _reduction(lambda x, axes, keep: x.amin(axes, keep), floats_only=False),
    "reduce_prod": _reduction(_product, floats_only=False),
    "reduce_sum": _reduction(lambda x, axes, keep: x.sum(axes, keep), floats_only=False),
    "reduce_sum_square": _reduction(
        lambda x, axes, keep: x.square().sum(axes, keep), floats_only=False
    ),
    "softmax": computing(_softmax),
    "topk": computing(_topk),
}
