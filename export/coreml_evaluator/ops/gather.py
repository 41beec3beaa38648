"""Gather and scatter: read and write by index; every index must lie in its dimension.

Up to iOS 16 an index may count from the end; from iOS 17 on it may not. This module knows values;
it does not know programs or files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from coreml_evaluator.arguments import (
    Arguments,
    Op,
    OpError,
    axis_of,
    copying,
    require_bearable,
    require_shape,
)
from coreml_evaluator.values import Value, is_float

_NO_NEGATIVE_OPSET = 7
_REDUCTIONS = {"add": "sum", "max": "amax", "min": "amin", "mul": "prod"}
_MODES = ("add", "div", "max", "min", "mul", "sub", "update")


def _checked(given: Arguments, indices: Value, size: int) -> torch.Tensor:
    """Return indices into a dimension as int64, counted from its start."""
    if is_float(indices.dtype) or indices.dtype == "bool":
        raise OpError(expected="integer indices", found=indices.dtype)
    data = indices.data.to(torch.int64)
    lowest = 0 if given.opset >= _NO_NEGATIVE_OPSET else -size
    if data.numel() and (int(data.min()) < lowest or int(data.max()) >= size):
        found = int(data.min()) if int(data.min()) < lowest else int(data.max())
        raise OpError(expected=f"indices in [{lowest}, {size})", found=str(found))
    return torch.where(data < 0, data + size, data)


def _gather(given: Arguments) -> Value:
    source = given.as_weight("x") if given.weight("x") else given.value("x")
    shape = source.shape
    axis = given.axis("axis", len(shape), 0)
    batch_dims = given.integer("batch_dims", 0)
    indices = given.value("indices")
    index = _checked(given, indices, shape[axis])
    if not 0 <= batch_dims <= min(axis, index.ndim):
        raise OpError(expected=f"batch_dims up to {min(axis, index.ndim)}", found=str(batch_dims))
    result = (*shape[:axis], *index.shape[batch_dims:], *shape[axis + 1 :])
    if not isinstance(source, Value):
        if axis == 0:
            return Value(source.pick(index.reshape(-1)).reshape(result), source.dtype)
        source = given.value("x")
    if batch_dims == 0:
        return source.like(source.data.index_select(axis, index.reshape(-1)).reshape(result))
    require_shape(index.shape[:batch_dims], shape[:batch_dims], "indices' batch")
    batch, between = math.prod(shape[:batch_dims]), math.prod(shape[batch_dims:axis])
    after, count = math.prod(shape[axis + 1 :]), math.prod(index.shape[batch_dims:])
    data = source.data.reshape(batch, between, shape[axis], after)
    wanted = index.reshape(batch, 1, count, 1).expand(batch, between, count, after)
    return source.like(data.gather(2, wanted).reshape(result))


def _gather_along_axis(given: Arguments) -> Value:
    x, indices = given.value("x"), given.value("indices")
    axis = given.axis("axis", x.data.ndim, 0)
    index = _checked(given, indices, x.shape[axis])
    _require_alike(x.shape, tuple(index.shape), axis)
    return x.like(x.data.gather(axis, index))


def _require_alike(shape: Sequence[int], index: Sequence[int], axis: int) -> None:
    """Refuse indices whose shape differs from the tensor's anywhere but on the axis."""
    expected = list(shape)
    if len(index) == len(shape):
        expected[axis] = index[axis]
    require_shape(index, expected, "indices")


def _linear_index(given: Arguments, shape: Sequence[int], indices: Value) -> torch.Tensor:
    """Return the row of the flattened shape for each index tuple on the last dimension."""
    flat = torch.zeros(indices.shape[:-1], dtype=torch.int64)
    for position, size in enumerate(shape):
        column = indices.like(indices.data[..., position])
        flat = flat * size + _checked(given, column, size)
    return flat


def _gather_nd(given: Arguments) -> Value:
    x, indices = given.value("x"), given.value("indices")
    batch_dims, depth = given.integer("batch_dims", 0), indices.shape[-1]
    if batch_dims + depth > x.data.ndim:
        raise OpError(
            expected=f"index tuples up to {x.data.ndim - batch_dims} long", found=str(depth)
        )
    batch_shape, rest = x.shape[:batch_dims], x.shape[batch_dims + depth :]
    require_shape(indices.shape[:batch_dims], batch_shape, "indices' batch")
    indexed = x.shape[batch_dims : batch_dims + depth]
    flat = _linear_index(given, indexed, indices)
    batch = math.prod(batch_shape)
    flat = flat.reshape(batch, -1) + (torch.arange(batch) * math.prod(indexed)).unsqueeze(-1)
    rows = x.data.reshape(batch * math.prod(indexed), -1)[flat.reshape(-1)]
    return x.like(rows.reshape(*indices.shape[:-1], *rest))


def _scattered(
    data: torch.Tensor, axis: int, index: torch.Tensor, updates: torch.Tensor, mode: str
) -> torch.Tensor:
    """Apply updates of the index's shape along an axis."""
    if mode == "update":
        return data.scatter(axis, index, updates)
    if mode == "sub":
        mode, updates = "add", -updates
    if mode == "div":
        mode, updates = "mul", torch.reciprocal(updates)
    return data.scatter_reduce(axis, index, updates, _REDUCTIONS[mode], include_self=True)


def _along(index: torch.Tensor, axis: int, shape: Sequence[int]) -> torch.Tensor:
    """Repeat an index `[n]` on an axis of a shape over all the other dimensions."""
    sizes = [1] * len(shape)
    sizes[axis] = index.numel()
    return index.reshape(sizes).expand(*shape)


def _mode(given: Arguments, dtype: str) -> str:
    mode = given.text("mode", "add")
    if mode not in _MODES or (mode == "div" and not is_float(dtype)):
        raise OpError(
            expected=f"one of the modes {', '.join(_MODES)} (div for floats only)", found=mode
        )
    return mode


def _scatter(given: Arguments) -> Value:
    data, updates = given.pair("data", "updates")
    indices = given.value("indices")
    axis = given.axis("axis", data.data.ndim, 0)
    index = _checked(given, indices, data.shape[axis])
    expected = (*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])
    require_shape(updates.shape, expected, "updates")
    rows = updates.data.reshape(*data.shape[:axis], index.numel(), *data.shape[axis + 1 :])
    mode = _mode(given, data.dtype)
    everywhere = _along(index.reshape(-1), axis, rows.shape)
    return data.like(_scattered(data.data, axis, everywhere, rows, mode))


def _scatter_along_axis(given: Arguments) -> Value:
    data, updates = given.pair("data", "updates")
    indices = given.value("indices")
    axis = given.axis("axis", data.data.ndim, 0)
    index = _checked(given, indices, data.shape[axis])
    _require_alike(data.shape, tuple(index.shape), axis)
    require_shape(updates.shape, index.shape, "updates")
    mode = _mode(given, data.dtype)
    return data.like(_scattered(data.data, axis, index, updates.data, mode))


def _scatter_nd(given: Arguments) -> Value:
    data, updates = given.pair("data", "updates")
    indices = given.value("indices")
    depth = indices.shape[-1]
    if depth > data.data.ndim:
        raise OpError(expected=f"index tuples up to {data.data.ndim} long", found=str(depth))
    require_shape(updates.shape, (*indices.shape[:-1], *data.shape[depth:]), "updates")
    flat = _linear_index(given, data.shape[:depth], indices).reshape(-1)
    rows = data.data.reshape(math.prod(data.shape[:depth]), -1)
    new = updates.data.reshape(flat.numel(), -1)
    mode = _mode(given, data.dtype)
    everywhere = _along(flat, 0, new.shape)
    return data.like(_scattered(rows, 0, everywhere, new, mode).reshape(data.shape))


def _one_hot(given: Arguments) -> Value:
    indices = given.value("indices")
    size = given.integer("one_hot_vector_size")
    on = given.value("on_value") if given.has("on_value") else Value(torch.tensor(1), "int32")
    off = given.value("off_value") if given.has("off_value") else on.like(on.data * 0)
    axis = axis_of(given.integer("axis", -1), indices.data.ndim + 1)
    require_bearable([*indices.shape, size])
    hits = indices.data.to(torch.int64).unsqueeze(-1) == torch.arange(size)
    return on.like(torch.where(hits, on.data, off.data.to(on.data.dtype)).movedim(-1, axis))


OPS: dict[str, Op] = {
    "gather": copying(_gather),
    "gather_along_axis": copying(_gather_along_axis),
    "gather_nd": copying(_gather_nd),
    "one_hot": copying(_one_hot),
    # Their modes compute.
    "scatter": Op(_scatter),
    "scatter_along_axis": Op(_scatter_along_axis),
    "scatter_nd": Op(_scatter_nd),
}
