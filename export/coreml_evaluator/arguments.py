"""The parameters that an op receives, and the description of an op.

It knows how parameters are read and refused; it does not know any op.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from coreml_evaluator.types import format_shape
from coreml_evaluator.values import Text, Value
from coreml_evaluator.weights import Held, Weight
from coreml_evaluator.workers import Workers

Given = Value | Text | Weight


# Of one result: an eighth of that is the largest that a Llama's program makes, scores of attention.
_MOST_ELEMENTS = 2**31


class OpError(Exception):
    """An op cannot be computed; the engine says which one it is.

    Args:
        expected: the op's requirement.
        found: the parameter that does not meet it.
    """

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"expected {expected}, found {found}")


def require_bearable(shape: Sequence[int]) -> None:
    """Refuse a result that a few bytes ask for, and that no memory holds.

    Raises:
        OpError: the result has too many elements.
    """
    if math.prod(shape) > _MOST_ELEMENTS:
        raise OpError(expected=f"at most {_MOST_ELEMENTS} elements", found=str(list(shape)))


@dataclass(frozen=True)
class Arguments:
    """The parameters of one execution of an op.

    Args:
        given: operands by parameter name; a list parameter has several.
        opset: version of the program's ops: 5 is iOS 15's, 8 is iOS 18's.
        workers: threads that share large products, with their scratch memory.
        overwrites: permission to write the result into `x`.
    """

    given: Mapping[str, Sequence[Given]]
    opset: int
    workers: Workers
    overwrites: bool = False

    def has(self, name: str) -> bool:
        """Return whether an optional parameter is given."""
        return bool(self.given.get(name))

    def value(self, name: str) -> Value:
        """Return a tensor; a weight is read in full."""
        return _whole(self._one(name), name)

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor's data."""
        return self.value(name).data

    def several(self, name: str) -> list[Value]:
        """Return a list of tensors, which must all have one dtype."""
        values = [_whole(part, name) for part in self.given.get(name, ())]
        if not values:
            raise OpError(expected=f"a list of tensors as {name}", found="none")
        self._same_dtypes(values, name)
        return values

    def pair(self, *names: str) -> tuple[Value, ...]:
        """Return tensors, which must have one dtype."""
        values = [self.value(name) for name in names]
        self._same_dtypes(values, " and ".join(names))
        return tuple(values)

    def broadcast_pair(self, *names: str) -> tuple[Value, ...]:
        """Return tensors, which must have one dtype and shapes that broadcast."""
        values = self.pair(*names)
        shapes = [value.shape for value in values]
        for sizes in zip(*(shape[::-1] for shape in shapes), strict=False):
            if len({size for size in sizes if size != 1}) > 1:
                raise OpError(
                    expected=f"shapes of {' and '.join(names)} that go together",
                    found=" and ".join(map(format_shape, shapes)),
                )
        return values

    def weight(self, name: str) -> Weight | None:
        """Return a weight that can be read in blocks; None for a computed tensor."""
        part = self._one(name)
        return part if isinstance(part, Weight) else None

    def as_weight(self, name: str) -> Weight:
        """Return a weight; a computed tensor becomes one."""
        part = self._one(name)
        if isinstance(part, Weight):
            return part
        value = _whole(part, name)
        return Held(value.data, value.dtype)

    def ints(self, name: str, default: Sequence[int] | None = None) -> list[int]:
        """Return a list of integers."""
        if default is not None and not self.has(name):
            return list(default)
        data = self.tensor(name)
        if data.is_floating_point() or data.ndim > 1:
            raise OpError(
                expected=f"a list of integers as {name}", found=f"{data.dtype} {list(data.shape)}"
            )
        return [int(number) for number in data.reshape(-1).tolist()]

    def integer(self, name: str, default: int | None = None) -> int:
        """Return an integer."""
        numbers = self.ints(name, None if default is None else (default,))
        if len(numbers) != 1:
            raise OpError(expected=f"one integer as {name}", found=str(len(numbers)))
        return numbers[0]

    def number(self, name: str, default: float) -> float:
        """Return a float, rounded to its dtype."""
        return float(self.tensor(name)) if self.has(name) else default

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a truth value."""
        return bool(self.tensor(name)) if self.has(name) else default

    def flags(self, name: str, count: int) -> list[bool]:
        """Return a list of truth values; all are false if it is not given."""
        if not self.has(name):
            return [False] * count
        flags = [bool(flag) for flag in self.tensor(name).reshape(-1).tolist()]
        if len(flags) != count:
            raise OpError(expected=f"{count} truth values as {name}", found=str(len(flags)))
        return flags

    def text(self, name: str, default: str | None = None) -> str:
        """Return a string."""
        if default is not None and not self.has(name):
            return default
        part = self._one(name)
        if not isinstance(part, Text):
            raise OpError(expected=f"a text as {name}", found="a tensor")
        return part.text

    def axis(self, name: str, rank: int, default: int | None = None) -> int:
        """Return an axis of a tensor of this rank, counted from the first dimension."""
        return axis_of(self.integer(name, default), rank)

    def _one(self, name: str) -> Given:
        parts = self.given.get(name, ())
        if len(parts) != 1:
            raise OpError(expected=f"one {name}", found=str(len(parts)) if parts else "none")
        return parts[0]

    def _same_dtypes(self, values: Sequence[Value], names: str) -> None:
        dtypes = [value.dtype for value in values]
        if len(set(dtypes)) != 1:
            raise OpError(
                expected=f"one dtype of {names}", found=" and ".join(dict.fromkeys(dtypes))
            )


def _whole(part: Given, name: str) -> Value:
    if isinstance(part, Text):
        raise OpError(expected=f"a tensor as {name}", found=f"the text {part.text!r}")
    if isinstance(part, Weight):
        return Value(part.whole(), part.dtype)
    return part


def axis_of(axis: int, rank: int) -> int:
    """Return an axis counted from the first dimension.

    Raises:
        OpError: there is no such axis.
    """
    if not -rank <= axis < rank:
        raise OpError(expected=f"an axis in [{-rank}, {rank})", found=str(axis))
    return axis % rank if rank else 0


def require_shape(found: Sequence[int], expected: Sequence[int], name: str) -> None:
    """Refuse a shape other than the expected one.

    Raises:
        OpError: the shapes differ.
    """
    if tuple(found) != tuple(expected):
        raise OpError(
            expected=f"{name} of shape {format_shape(tuple(expected))}", found=str(list(found))
        )


Result = Value | tuple[Value, ...]


@dataclass(frozen=True)
class Op:
    """The description of an op.

    Args:
        run: function from arguments to results, whose dtypes follow the op's own rule.
        moves: true if the results are elements of the inputs, which need no rounding.
        aliases: true if a result may share memory with `x`; it never does with another input.
    """

    run: Callable[[Arguments], Result]
    moves: bool = False
    aliases: bool = False


def computing(run: Callable[[Arguments], Result]) -> Op:
    """Describe an op that computes new numbers."""
    return Op(run)


def copying(run: Callable[[Arguments], Result]) -> Op:
    """Describe an op that copies numbers to other places."""
    return Op(run, moves=True)


def viewing(run: Callable[[Arguments], Result]) -> Op:
    """Describe an op that views the same numbers differently, usually without a copy."""
    return Op(run, moves=True, aliases=True)
