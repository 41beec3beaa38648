"""Ops that rearrange elements, such as reshape and concat, and ops that make new tensors.

It knows values; it does not know programs or files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional

from coreml_evaluator.arguments import (
    Arguments,
    Op,
    OpError,
    axis_of,
    computing,
    copying,
    require_bearable,
    viewing,
)
from coreml_evaluator.types import format_shape
from coreml_evaluator.values import Value

_RIGHT_ALIGNED_ZEROS_OPSET = 7
_PAD_MODES = ("constant", "reflect", "replicate")


def target_shape(shape: Sequence[int], wanted: Sequence[int], opset: int) -> list[int]:
    """Return the shape that `reshape` gives: 0 keeps a dimension, -1 takes what is left.

    Up to iOS 16 a 0 keeps the dimension at the same place from the left; later from the right, and
    a 0 without a counterpart gives a 1.

    Raises:
        OpError: the numbers of elements differ.
    """
    if opset >= _RIGHT_ALIGNED_ZEROS_OPSET:
        shift = len(shape) - len(wanted)
        kept = [shape[axis + shift] if axis + shift >= 0 else 1 for axis in range(len(wanted))]
    elif 0 in wanted and len(wanted) != len(shape):
        raise OpError(
            expected=f"a shape of {len(shape)} dimensions where it has a 0", found=str(list(wanted))
        )
    else:
        kept = list(shape) if 0 in wanted else list(wanted)
    result = [kept[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    elements = math.prod(shape)
    if result.count(-1) == 1:
        rest = math.prod(size for size in result if size != -1)
        result[result.index(-1)] = elements // rest if rest else 0
    if min(result, default=0) < 0 or math.prod(result) != elements:
        raise OpError(
            expected=f"a shape of {elements} elements for {format_shape(tuple(shape))}",
            found=str(list(wanted)),
        )
    return result


def _reshape(given: Arguments) -> Value:
    x = given.value("x")
    return x.like(x.data.reshape(target_shape(x.shape, given.ints("shape"), given.opset)))


def _reshape_like(given: Arguments) -> Value:
    x = given.value("x")
    references = given.given.get("ref_tensors", ())
    begins, ends, masks = (
        [int(value.data) for value in given.several(name)]
        for name in ("begins", "ends", "end_masks")
    )
    shape: list[int] = []
    for reference, begin, end, mask in zip(references, begins, ends, masks, strict=True):
        sizes = getattr(reference, "shape", ())
        shape.extend(sizes[begin:] if mask else sizes[begin:end])
    return x.like(x.data.reshape(shape))


def _transpose(given: Arguments) -> Value:
    x = given.value("x")
    order = [axis_of(axis, x.data.ndim) for axis in given.ints("perm")]
    if sorted(order) != list(range(x.data.ndim)):
        raise OpError(expected=f"an order of {x.data.ndim} axes", found=str(order))
    return x.like(x.data.permute(order))


def _expand_dims(given: Arguments) -> Value:
    x = given.value("x")
    axes = given.ints("axes")
    rank = x.data.ndim + len(axes)
    data = x.data
    for axis in sorted(axis_of(axis, rank) for axis in axes):
        data = data.unsqueeze(axis)
    return x.like(data)


def _squeeze(given: Arguments) -> Value:
    x = given.value("x")
    rank = x.data.ndim
    axes = {axis_of(axis, rank) for axis in given.ints("axes", range(rank))}
    shape = [size for axis, size in enumerate(x.shape) if axis not in axes or size != 1]
    return x.like(x.data.reshape(shape))


def _concat(given: Arguments) -> Value:
    values = given.several("values")
    parts = [value.data for value in values]
    ranks = {part.ndim for part in parts}
    if len(ranks) != 1:
        raise OpError(expected="parts of one rank", found=str(sorted(ranks)))
    if ranks == {0}:
        return values[0].like(torch.stack(parts))
    axis = given.axis("axis", parts[0].ndim)
    if not given.flag("interleave"):
        return values[0].like(torch.cat(parts, dim=axis))
    if len({part.shape for part in parts}) != 1:
        raise OpError(
            expected="parts of one shape to interleave", found=str([list(p.shape) for p in parts])
        )
    return values[0].like(torch.stack(parts, dim=axis + 1).flatten(axis, axis + 1))


def _split(given: Arguments) -> tuple[Value, ...]:
    x = given.value("x")
    axis = given.axis("axis", x.data.ndim)
    size = x.shape[axis]
    if given.has("split_sizes"):
        sizes = given.ints("split_sizes")
    else:
        count = given.integer("num_splits")
        if count < 1 or size % count:
            raise OpError(expected=f"a number of parts that divides {size}", found=str(count))
        sizes = [size // count] * count
    if sum(sizes) != size or min(sizes) < 0:
        raise OpError(expected=f"sizes of {size} together", found=str(sizes))
    return tuple(x.like(part) for part in torch.split(x.data, sizes, dim=axis))


def _stack(given: Arguments) -> Value:
    values = given.several("values")
    shapes = {value.shape for value in values}
    if len(shapes) != 1:
        raise OpError(expected="parts of one shape", found=str([list(shape) for shape in shapes]))
    axis = axis_of(given.integer("axis"), values[0].data.ndim + 1)
    return values[0].like(torch.stack([value.data for value in values], dim=axis))


def _tile(given: Arguments) -> Value:
    x = given.value("x")
    repeats = given.ints("reps")
    if len(repeats) != x.data.ndim or min(repeats, default=0) < 1:
        raise OpError(expected=f"{x.data.ndim} numbers from 1 on", found=str(repeats))
    require_bearable([size * times for size, times in zip(x.shape, repeats, strict=True)])
    return x.like(x.data.repeat(repeats))


def _flatten2d(given: Arguments) -> Value:
    x = given.value("x")
    axis = given.integer("axis", 1)
    return x.like(x.data.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def _identity(given: Arguments) -> Value:
    return given.value("x")


def _shape(given: Arguments) -> Value:
    part = given.given.get("x", ())
    sizes = getattr(part[0], "shape", None) if len(part) == 1 else None
    if sizes is None:
        raise OpError(expected="one tensor as x", found="none")
    return Value(torch.tensor(list(sizes), dtype=torch.int32), "int32")


def _reverse(given: Arguments) -> Value:
    x = given.value("x")
    axes = [axis_of(axis, x.data.ndim) for axis in given.ints("axes", range(x.data.ndim))]
    return x.like(torch.flip(x.data, axes))


def _pad(given: Arguments) -> Value:
    x = given.value("x")
    amounts = given.ints("pad")
    mode = given.text("mode", "constant")
    if mode not in _PAD_MODES or len(amounts) % 2 or min(amounts, default=0) < 0:
        raise OpError(
            expected="pairs of sizes from 0 on, and a known mode", found=f"{amounts}, {mode}"
        )
    padded = [*x.shape]
    for axis, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True)):
        padded[axis - len(amounts) // 2] += before + after
    require_bearable(padded)
    # MIL counts dimensions from the front, torch from the back.
    pairs = [amounts[start : start + 2] for start in range(0, len(amounts), 2)]
    if mode == "constant":
        flat = [amount for pair in reversed(pairs) for amount in pair]
        return x.like(functional.pad(x.data, flat, value=given.number("constant_val", 0.0)))
    data = x.data
    for back, (before, after) in enumerate(reversed(pairs), start=1):
        data = _extend(data, data.ndim - back, before, after, mode)
    return x.like(data)


def _extend(data: torch.Tensor, axis: int, before: int, after: int, mode: str) -> torch.Tensor:
    """Pad one dimension by mirroring, or by repeating its ends."""
    size = data.shape[axis]
    if mode == "reflect" and max(before, after) >= size:
        raise OpError(expected=f"padding below {size} to reflect", found=str(max(before, after)))
    index = torch.arange(-before, size + after)
    if mode == "reflect":
        index = (size - 1) - ((size - 1) - index.abs()).abs()
    return data.index_select(axis, index.clamp(0, size - 1))


def _range(given: Arguments) -> Value:
    start, end, step = given.pair("start", "end", "step")
    first, last, stride = (value.data.item() for value in (start, end, step))
    if not all(math.isfinite(value) for value in (first, last, stride)):
        raise OpError(expected="finite bounds", found=f"{first}, {last}, {stride}")
    if stride == 0:
        raise OpError(expected="a step that is not 0", found="0")
    count = max(0, math.ceil((last - first) / stride))
    require_bearable([count])
    numbers = torch.arange(count, dtype=start.data.dtype)
    return start.like(numbers * step.data.reshape(()) + start.data.reshape(()))


def _filled(shape: list[int], given: Arguments) -> Value:
    value = given.value("value") if given.has("value") else Value(torch.zeros(()), "fp32")
    if min(shape, default=0) < 0:
        raise OpError(expected="sizes from 0 on", found=str(shape))
    require_bearable(shape)
    return value.like(value.data.reshape(()).expand(shape).clone())


def _fill(given: Arguments) -> Value:
    return _filled(given.ints("shape"), given)


def _fill_like(given: Arguments) -> Value:
    return _filled(list(given.value("ref_tensor").shape), given)


def _non_zero(given: Arguments) -> Value:
    return Value(torch.nonzero(given.tensor("x")).to(torch.int32), "int32")


OPS: dict[str, Op] = {
    "concat": copying(_concat),
    "expand_dims": viewing(_expand_dims),
    "fill": computing(_fill),
    "fill_like": computing(_fill_like),
    "flatten2d": viewing(_flatten2d),
    "identity": viewing(_identity),
    "non_zero": computing(_non_zero),
    "pad": copying(_pad),
    "range_1d": computing(_range),
    "reshape": viewing(_reshape),
    "reshape_like": viewing(_reshape_like),
    "reverse": copying(_reverse),
    "shape": computing(_shape),
    "split": viewing(_split),
    "squeeze": viewing(_squeeze),
    "stack": copying(_stack),
    "tile": copying(_tile),
    "transpose": viewing(_transpose),
}
