"""Slices and updates of slices; every index must lie in its dimension, nothing is clamped.

It knows values; it does not know programs or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from coreml_evaluator.arguments import Arguments, Op, OpError, require_shape, viewing
from coreml_evaluator.values import Value


@dataclass(frozen=True)
class Cut:
    """The part of one dimension that a slice takes.

    Args:
        indices: indices, counted from the dimension's start.
        squeezed: true if the dimension is removed.
    """

    indices: range
    squeezed: bool

    @property
    def forwards(self) -> slice:
        """The same indices in ascending order."""
        indices = self.indices if self.indices.step > 0 else self.indices[::-1]
        return slice(indices.start, max(indices.stop, indices.start), indices.step)


def cuts(given: Arguments, shape: tuple[int, ...]) -> list[Cut]:
    """Return the part of each dimension that `slice_by_index` or `slice_update` takes.

    Raises:
        OpError: an index lies outside its dimension.
    """
    rank = len(shape)
    begins, ends = given.ints("begin"), given.ints("end")
    strides = given.ints("stride", [1] * rank)
    if not len(begins) == len(ends) == len(strides) == rank or 0 in strides:
        raise OpError(
            expected=f"{rank} numbers as begin, end and stride, no stride 0",
            found=f"{begins}, {ends}, {strides}",
        )
    from_start, to_end, squeezed = (
        given.flags(name, rank) for name in ("begin_mask", "end_mask", "squeeze_mask")
    )
    return [
        _cut(
            size,
            None if from_start[axis] else begins[axis],
            None if to_end[axis] else ends[axis],
            strides[axis],
            squeezed=squeezed[axis],
        )
        for axis, size in enumerate(shape)
    ]


def _cut(size: int, begin: int | None, end: int | None, stride: int, *, squeezed: bool) -> Cut:
    """Resolve one dimension; None is its own start or end in the stride's direction."""
    if squeezed:
        index = begin or 0
        if not -size <= index < size:
            raise OpError(expected=f"an index in [{-size}, {size})", found=str(index))
        return Cut(range(index % size, index % size + 1), True)
    for number in (begin, end):
        if number is not None and not -size <= number <= size:
            raise OpError(expected=f"a slice in [{-size}, {size}]", found=f"{begin} to {end}")
    resolved = slice(begin, end, stride).indices(size)
    return Cut(range(*resolved), False)


def _slice_by_index(given: Arguments) -> Value:
    x = given.value("x")
    chosen = cuts(given, x.shape)
    data = x.data[tuple(cut.forwards for cut in chosen)]
    backwards = [axis for axis, cut in enumerate(chosen) if cut.indices.step < 0]
    if backwards:
        data = torch.flip(data, backwards)
    for axis in reversed(range(len(chosen))):
        if chosen[axis].squeezed:
            data = data.squeeze(axis)
    return x.like(data)


def _slice_by_size(given: Arguments) -> Value:
    x = given.value("x")
    begins, sizes = given.ints("begin"), given.ints("size")
    if not len(begins) == len(sizes) == x.data.ndim:
        raise OpError(
            expected=f"{x.data.ndim} numbers as begin and size", found=f"{begins}, {sizes}"
        )
    data = x.data
    for axis, (begin, size, full) in enumerate(zip(begins, sizes, x.shape, strict=True)):
        start = begin + full if begin < 0 else begin
        length = full - start if size == -1 else size
        if not (0 <= start <= full and 0 <= length <= full - start):
            raise OpError(expected=f"a slice inside of {full}", found=f"{size} from {begin} on")
        data = data.narrow(axis, start, length)
    return x.like(data)


def _slice_update(given: Arguments) -> Value:
    x, update = given.pair("x", "update")
    chosen = cuts(given, x.shape)
    kept = [axis for axis, cut in enumerate(chosen) if not cut.squeezed]
    require_shape(update.shape, [len(chosen[axis].indices) for axis in kept], "an update")
    backwards = [at for at, axis in enumerate(kept) if chosen[axis].indices.step < 0]
    new = torch.flip(update.data, backwards) if backwards else update.data
    new = new.reshape([len(cut.indices) for cut in chosen])
    data = x.data if given.overwrites else x.data.clone(memory_format=torch.contiguous_format)
    data[tuple(cut.forwards for cut in chosen)] = new
    return x.like(data)


OPS: dict[str, Op] = {
    "slice_by_index": viewing(_slice_by_index),
    "slice_by_size": viewing(_slice_by_size),
    # Its aliases are what `states.plan_updates` is about.
    "slice_update": Op(_slice_update, moves=True),
}
