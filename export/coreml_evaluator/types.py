"""Types of a Core ML program: dtypes, shapes with unknown dimensions, and how they are read.

A dtype has its MIL name: fp16, fp32, int32, bool, int4, ... This module knows nothing of values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from coreml_evaluator.messages import Message
from llama_export.errors import BundleError, EvaluationError

# MIL's numbers of dtypes.
_DTYPES = {
    1: "bool",
    2: "string",
    10: "fp16",
    11: "fp32",
    12: "fp64",
    13: "bf16",
    21: "int8",
    22: "int16",
    23: "int32",
    24: "int64",
    25: "int4",
    31: "uint8",
    32: "uint16",
    33: "uint32",
    34: "uint64",
    35: "uint4",
    36: "uint2",
    37: "uint1",
    38: "uint6",
    39: "uint3",
}

FLOATS = frozenset({"fp16", "fp32", "bf16", "fp64"})
# Of an element as it is stored; a bool has no storage but in the program itself.
BITS = {
    "fp64": 64,
    "int64": 64,
    "uint64": 64,
    "fp32": 32,
    "int32": 32,
    "uint32": 32,
    "fp16": 16,
    "bf16": 16,
    "int16": 16,
    "uint16": 16,
    "int8": 8,
    "uint8": 8,
    "bool": 8,
    "uint6": 6,
    "int4": 4,
    "uint4": 4,
    "uint3": 3,
    "uint2": 2,
    "uint1": 1,
}
# What a value of this dtype is computed in. float16 is held in float32 and rounded by the engine;
# unsigned integers that torch computes little with are held in the next wider signed ones.
HELD = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "fp16": torch.float32,
    "bf16": torch.float32,
    "int64": torch.int64,
    "uint64": torch.int64,
    "uint32": torch.int64,
    "int32": torch.int32,
    "uint16": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "int4": torch.int8,
    "uint8": torch.uint8,
    "uint6": torch.uint8,
    "uint4": torch.uint8,
    "uint3": torch.uint8,
    "uint2": torch.uint8,
    "uint1": torch.uint8,
    "bool": torch.bool,
}
# What a client sees.
NUMPY: dict[str, np.dtype[Any]] = {
    "fp64": np.dtype(np.float64),
    "fp32": np.dtype(np.float32),
    "fp16": np.dtype(np.float16),
    "int64": np.dtype(np.int64),
    "int32": np.dtype(np.int32),
    "int16": np.dtype(np.int16),
    "uint16": np.dtype(np.uint16),
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
}


@dataclass(frozen=True)
class TensorType:
    """A dtype and a shape.

    Args:
        dtype: MIL name of the dtype.
        shape: sizes; None for a dimension that is known at run time only, and None for the whole
            shape if even the rank is unknown.
    """

    dtype: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype} of any rank"
        return f"{self.dtype} {format_shape(self.shape)}"

    def admits(self, dtype: str, shape: tuple[int, ...]) -> bool:
        """Return whether a value with this dtype and shape is of this type."""
        if dtype != self.dtype:
            return False
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            declared in (None, found) for declared, found in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True)
class StateType:
    """A state, with the type of its content."""

    wrapped: TensorType


@dataclass(frozen=True)
class ListType:
    """A list; only constants are lists."""


ValueType = TensorType | StateType | ListType


def format_shape(shape: tuple[int | None, ...]) -> str:
    """Format a shape, with `?` for an unknown size."""
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def read_type(proto: Message, where: str) -> ValueType:
    """Read a `ValueType` message.

    Raises:
        BundleError: the message has no type.
        EvaluationError: no op computes with the type.
    """
    kind = proto.WhichOneof("type")
    if kind == "tensorType":
        return _tensor_type(proto.tensorType, where)
    if kind == "stateType":
        wrapped = read_type(proto.stateType.wrappedType, where)
        if isinstance(wrapped, TensorType) and wrapped.shape and None not in wrapped.shape:
            return StateType(wrapped)
        message = f"{where}: expected a state that is a tensor of fixed shape, found {wrapped}"
        raise EvaluationError(message)
    if kind == "listType":
        return ListType()
    if kind is None:
        message = f"{where}: expected a type, found none"
        raise BundleError(message)
    message = f"{where}: expected a tensor or a state, found a {kind}"
    raise EvaluationError(message)


def _tensor_type(proto: Message, where: str) -> TensorType:
    if proto.dataType not in _DTYPES:
        message = f"{where}: the data type number {proto.dataType} is not known"
        raise EvaluationError(
            message,
            f"known are {', '.join(_DTYPES.values())}",
        )
    dtype = _DTYPES[proto.dataType]
    if proto.rank < 0 or any(dimension.unknown.variadic for dimension in proto.dimensions):
        return TensorType(dtype, None)
    if proto.rank != len(proto.dimensions):
        message = f"{where}: expected {proto.rank} dimensions, found {len(proto.dimensions)}"
        raise BundleError(message)
    return TensorType(
        dtype,
        tuple(
            int(dimension.constant.size)
            if dimension.WhichOneof("dimension") == "constant"
            else None
            for dimension in proto.dimensions
        ),
    )
