"""A package as clients see it: inputs, outputs and states, and the check of a client's arrays.

It knows shapes and dtypes; it does not know what a function computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from coreml_evaluator.messages import Message
from coreml_evaluator.program import Function
from coreml_evaluator.types import NUMPY, TensorType, format_shape
from coreml_evaluator.values import Array
from llama_export.errors import EvaluationError

# Numbers of Core ML's array data types.
_DTYPES = {65568: "fp32", 65600: "fp64", 131104: "int32", 131080: "int8", 65552: "fp16"}
_UNLIMITED = -1


@dataclass(frozen=True)
class Feature:
    """An input, an output or a state.

    Args:
        name: the name that clients use. dtype: numpy's name of the dtype. shape: a size for each
        dimension, or its least and greatest size (-1: unlimited); None if the
            shape is not declared.
        shapes: the only shapes that are accepted, if they are enumerated.
    """

    name: str
    dtype: str
    shape: tuple[int | tuple[int, int], ...] | None
    shapes: tuple[tuple[int, ...], ...] = ()

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Return whether an array of this shape is accepted."""
        if self.shapes:
            return shape in self.shapes
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            _admits(declared, size) for declared, size in zip(self.shape, shape, strict=True)
        )

    def __str__(self) -> str:
        if self.shapes:
            return f"{self.dtype} {' or '.join(format_shape(shape) for shape in self.shapes)}"
        if self.shape is None:
            return f"{self.dtype} of any shape"
        return f"{self.dtype} [{', '.join(_format(size) for size in self.shape)}]"


@dataclass(frozen=True)
class Signature:
    """A function as clients see it."""

    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    states: tuple[Feature, ...]


def _admits(declared: int | tuple[int, int], size: int) -> bool:
    if isinstance(declared, int):
        return size == declared
    least, most = declared
    return least <= size and (most == _UNLIMITED or size <= most)


def _format(size: int | tuple[int, int]) -> str:
    if isinstance(size, int):
        return str(size)
    return f"{size[0]}..{'' if size[1] == _UNLIMITED else size[1]}"


def read_signatures(model: Message) -> dict[str, Signature]:
    """Read the description of each function.

    Raises:
        EvaluationError: an input is not an array.
    """
    description = model.description
    entries = {entry.name: entry for entry in description.functions} or dict.fromkeys(
        list(model.mlProgram.functions)[:1], description
    )
    return {
        name: Signature(
            inputs=tuple(_feature(feature) for feature in entry.input),
            outputs=tuple(_feature(feature) for feature in entry.output),
            states=tuple(_feature(feature) for feature in entry.state),
        )
        for name, entry in entries.items()
    }


def _feature(proto: Message) -> Feature:
    kind = proto.type.WhichOneof("kind")
    if kind not in ("multiArrayType", "stateType"):
        message = f"{proto.name}: expected an array or a state, found {kind or 'nothing known'}"
        raise EvaluationError(
            message,
            "the evaluator takes arrays, not images or dictionaries",
        )
    array = proto.type.stateType.arrayType if kind == "stateType" else proto.type.multiArrayType
    if array.dataType not in _DTYPES:
        message = f"{proto.name}: the data type {array.dataType} is not known"
        raise EvaluationError(message)
    shape: tuple[int | tuple[int, int], ...] | None = tuple(int(size) for size in array.shape)
    flexibility = array.WhichOneof("flexibility")
    if flexibility == "shapeRange":
        shape = tuple(_dimension(size) for size in array.shapeRange.sizeRanges)
    return Feature(
        name=proto.name,
        dtype=NUMPY[_DTYPES[array.dataType]].name,
        shape=shape or None,
        shapes=tuple(tuple(entry.shape) for entry in array.enumeratedShapes.shapes),
    )


def _dimension(proto: Message) -> int | tuple[int, int]:
    least, most = int(proto.lowerBound), int(proto.upperBound)
    return least if least == most else (least, most)


def require_agreement(signature: Signature, function: Function) -> None:
    """Refuse a description that disagrees with the program.

    Raises:
        EvaluationError: names or dtypes differ.
    """
    states = function.states
    tensors = {
        name: type_ for name, type_ in function.inputs.items() if isinstance(type_, TensorType)
    }
    outputs = {name for name, _ in function.outputs}
    for what, described, programmed in (
        ("inputs", {feature.name for feature in signature.inputs}, set(tensors)),
        ("states", {feature.name for feature in signature.states}, set(states)),
        ("outputs", {feature.name for feature in signature.outputs}, outputs),
    ):
        if described != programmed:
            message = (
                f"{function.name}: expected the described {what} {sorted(described)} in the "
                f"program, found {sorted(programmed)}"
            )
            raise EvaluationError(message)
    for feature in (*signature.inputs, *signature.states):
        type_ = tensors.get(feature.name) or states[feature.name]
        known = NUMPY.get(type_.dtype)
        if known is None or known.name != feature.dtype:
            message = (
                f"{function.name}: {feature.name} is described as {feature.dtype}, the program "
                f"takes {type_.dtype}"
            )
            raise EvaluationError(message)


def require_inputs(
    signature: Signature, inputs: Mapping[str, Array], function: str, mode: str
) -> None:
    """Refuse arrays that a function does not accept.

    Raises:
        EvaluationError: a name is missing or unknown, or a dtype or a shape is wrong.
    """
    expected = [feature.name for feature in signature.inputs]
    if set(inputs) != set(expected):
        message = (
            f"{function}: expected the inputs {', '.join(expected) or 'none'}, found "
            f"{', '.join(inputs) or 'none'}"
        )
        raise EvaluationError(message)
    for feature in signature.inputs:
        require_array(feature, inputs[feature.name], f"{function}: the input {feature.name}", mode)


def require_array(feature: Feature, array: object, where: str, mode: str) -> None:
    """Refuse anything but an array of the right dtype and shape, without a NaN.

    In mode "fp32" a float16 feature also accepts float32.

    Raises:
        EvaluationError: the array is refused.
    """
    if not isinstance(array, np.ndarray):
        message = f"{where}: expected a numpy array, found {type(array).__name__}"
        raise EvaluationError(message)
    dtypes = {feature.dtype}
    if mode == "fp32" and feature.dtype == "float16":
        dtypes.add("float32")
    shape = tuple(array.shape)
    if array.dtype.name not in dtypes or not feature.admits(shape):
        message = f"{where}: expected {feature}, found {array.dtype.name} {format_shape(shape)}"
        raise EvaluationError(message)
    if array.dtype.kind == "f" and bool(np.isnan(array).any()):
        message = f"{where}: expected numbers, found a NaN"
        raise EvaluationError(message)
