"""Turn constants and `constexpr_` ops into values and weights when a package is opened.

Nothing is dequantised here: of a weight file only the positions of its tensors are read. This
module knows messages and storage forms; it does not know what the weights are used for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch

from coreml_evaluator.messages import Message
from coreml_evaluator.package import Package
from coreml_evaluator.packing import unpack
from coreml_evaluator.palettes import Palette, Sparse
from coreml_evaluator.types import BITS, HELD, NUMPY, ListType, TensorType, format_shape, read_type
from coreml_evaluator.values import Text, Value, has_nan
from coreml_evaluator.weights import Cast, Grid, Held, ShiftScale, Stored, Weight
from llama_export.errors import BundleError, EvaluationError

Constant = Value | Text | Weight
_Parameters = Mapping[str, Constant]

# Fields of a TensorValue that hold numbers one by one.
_LISTS = ("floats", "ints", "bools", "longInts", "doubles")


def read_constant(proto: Message, package: Package, where: str) -> Constant:
    """Read a `Value` message; a tensor in a weight file stays there.

    Raises:
        BundleError: the message does not hold what its type declares.
        EvaluationError: no op computes with that type.
    """
    declared = read_type(proto.type, where)
    if isinstance(declared, ListType):
        message = f"{where}: lists are not computed with"
        raise EvaluationError(message)
    if not isinstance(declared, TensorType) or declared.shape is None or None in declared.shape:
        message = f"{where}: expected a constant of fixed shape, found {declared}"
        raise BundleError(message)
    shape = tuple(int(size or 0) for size in declared.shape)
    if proto.WhichOneof("value") == "blobFileValue":
        blob = proto.blobFileValue
        data = package.blobs(blob.fileName).read(blob.offset, declared.dtype, math.prod(shape))
        if not shape:
            return Value(data.reshape(()).to(HELD[declared.dtype]), declared.dtype)
        return Stored(data, declared.dtype, shape)
    tensor = proto.immediateValue.tensor
    if declared.dtype == "string":
        if len(tensor.strings.values) != 1:
            message = f"{where}: expected one string"
            raise EvaluationError(message)
        return Text(tensor.strings.values[0])
    value = Value(_immediate(tensor, declared.dtype, shape, where), declared.dtype)
    if has_nan(value.data):
        message = f"{where}: the constant holds a NaN"
        raise EvaluationError(message)
    return value


def _immediate(proto: Message, dtype: str, shape: tuple[int, ...], where: str) -> torch.Tensor:
    """Return the elements that are stored in a `TensorValue` itself."""
    kind = proto.WhichOneof("value")
    elements = math.prod(shape)
    found: torch.Tensor | None = None
    if kind == "bytes":
        found = _from_bytes(proto.bytes.values, dtype, elements)
    elif kind in _LISTS:
        numbers = np.array(getattr(proto, kind).values)
        found = torch.from_numpy(numbers) if numbers.size else torch.zeros(0)
    elif kind is None and elements == 0:
        found = torch.zeros(0)
    if found is None or found.numel() != elements:
        message = (
            f"{where}: expected {elements} elements of {dtype} for the shape "
            f"{format_shape(shape)}, found {'none' if found is None else found.numel()}"
        )
        raise BundleError(message)
    return found.to(HELD[dtype]).reshape(shape)


def _from_bytes(raw: bytes, dtype: str, elements: int) -> torch.Tensor | None:
    """Return elements that are stored as bytes; None if there are too few or too many."""
    bits = BITS[dtype]
    if len(raw) != -(-elements * bits // 8):
        return None
    if bits < 8:
        packed = torch.from_numpy(np.frombuffer(raw, np.uint8).copy())
        return unpack(packed, bits, elements, signed=dtype == "int4")
    if dtype == "bf16":
        return torch.from_numpy(np.frombuffer(raw, np.int16).copy()).view(torch.bfloat16)
    if dtype in ("uint32", "uint64"):
        return torch.from_numpy(np.frombuffer(raw, f"<u{bits // 8}").astype(np.int64))
    return torch.from_numpy(np.frombuffer(raw, NUMPY[dtype]).astype(NUMPY[dtype]))


def as_weight(constant: Constant, where: str) -> Weight:
    """Return a constant as a weight.

    Raises:
        EvaluationError: the constant is a text.
    """
    if isinstance(constant, Weight):
        return constant
    if isinstance(constant, Text):
        message = f"{where}: expected a tensor, found the text {constant.text!r}"
        raise EvaluationError(message)
    return Held(constant.data, constant.dtype)


def whole(constant: Constant, where: str) -> torch.Tensor:
    """Return a constant's whole value.

    Raises:
        EvaluationError: the constant is a text.
    """
    if isinstance(constant, Value):
        return constant.data
    return as_weight(constant, where).whole()


def blockwise_shift_scale(given: _Parameters, where: str, *, rounds: bool) -> Weight:
    """Build `constexpr_blockwise_shift_scale`."""
    codes, scale = as_weight(given["data"], where), as_weight(given["scale"], where)
    offset = as_weight(given["offset"], where) if "offset" in given else None
    grid = Grid.of(codes.shape, scale.shape)
    if not grid or (offset and offset.shape != scale.shape):
        shapes = [format_shape(part.shape) for part in (codes, scale, offset) if part]
        message = (
            f"{where}: expected scales, and offsets of their shape, in numbers that divide the "
            f"data's dimensions, found {', '.join(shapes)}"
        )
        raise EvaluationError(message)
    return ShiftScale(codes, scale, offset, grid, rounds=rounds)


def affine_dequantize(given: _Parameters, where: str, *, rounds: bool) -> Weight:
    """Build `constexpr_affine_dequantize`: scale and zero point are scalars, or lie on one axis."""
    codes = as_weight(given["quantized_data"], where)
    axis = int(whole(given["axis"], where)) % len(codes.shape)

    def along(name: str) -> Weight:
        constant = given[name]
        data = whole(constant, where)
        if data.ndim and data.numel() not in (1, codes.shape[axis]):
            message = f"{where}: expected a {name} or {codes.shape[axis]}, found {data.numel()}"
            raise EvaluationError(message)
        sizes = [1] * len(codes.shape)
        sizes[axis] = codes.shape[axis]
        dtype = "fp32" if isinstance(constant, Text) else constant.dtype
        count = [1] * len(codes.shape)
        count[axis] = data.numel()
        return Held(data.reshape(count).expand(sizes).contiguous(), dtype)

    scale, offset = along("scale"), along("zero_point")
    grid = Grid.of(codes.shape, scale.shape)
    if grid is None:
        message = f"{where}: expected data that are not empty"
        raise EvaluationError(message)
    return ShiftScale(codes, scale, offset, grid, rounds=rounds)


def lut_to_dense(given: _Parameters, where: str, *, rounds: bool) -> Weight:
    """Build `constexpr_lut_to_dense`: of iOS 16 (packed indices and a shape), or of iOS 18."""
    del rounds  # entries are values of their dtype already
    indices, tables = as_weight(given["indices"], where), as_weight(given["lut"], where)
    if "shape" in given:
        shape = tuple(int(size) for size in whole(given["shape"], where))
        bits = max(1, tables.shape[0].bit_length() - 1)
        if indices.shape[0] != -(-math.prod(shape) * bits // 8):
            message = (
                f"{where}: expected packed indices of {bits} bits for {format_shape(shape)}, found "
                f"{indices.shape[0]} bytes"
            )
            raise EvaluationError(message)
        dtype = f"uint{bits}"
        packed = indices.whole()
        groups = [1] * len(shape)
        indices = Stored(packed, dtype, shape)
        tables = Held(tables.whole().view(*groups, -1, 1), tables.dtype)
    grid = Grid.of(indices.shape, tables.shape[:-2])
    axis = int(whole(given["vector_axis"], where)) if "vector_axis" in given else 0
    if grid is None or (tables.shape[-1] > 1 and "vector_axis" not in given):
        message = (
            f"{where}: expected tables `[*groups, entries, vector]` for indices "
            f"{format_shape(indices.shape)}, found {format_shape(tables.shape)}"
        )
        raise EvaluationError(message)
    return Palette(indices, tables, grid, axis % len(indices.shape))


def sparse_to_dense(given: _Parameters, where: str, *, rounds: bool) -> Weight:
    """Build `constexpr_sparse_to_dense`: of iOS 16 (mask in bytes and a shape), or of iOS 18."""
    del rounds
    mask, values = as_weight(given["mask"], where), as_weight(given["nonzero_data"], where)
    shape = mask.shape
    if "shape" in given:
        shape = tuple(int(size) for size in whole(given["shape"], where))
        if mask.shape[0] != -(-math.prod(shape) // 8):
            message = (
                f"{where}: expected a mask for {format_shape(shape)}, found {mask.shape[0]} bytes"
            )
            raise EvaluationError(message)
        mask = Stored(mask.whole(), "uint1", shape)
    count = int(mask.whole().sum(dtype=torch.int64))
    if count != values.shape[0]:
        message = f"{where}: expected {count} values, found {values.shape[0]}"
        raise EvaluationError(message)
    return Sparse(values, mask, shape)


def cast(given: _Parameters, where: str, *, rounds: bool) -> Weight:
    """Build `constexpr_cast`."""
    del rounds
    dtype = given["output_dtype"]
    if not isinstance(dtype, Text) or dtype.text != "fp32":
        message = f"{where}: expected a cast to fp32, found {dtype}"
        raise EvaluationError(message)
    return Cast(as_weight(given["source_val"], where), dtype.text)


Build = Callable[..., Weight]
BUILDERS: dict[str, Build] = {
    "constexpr_affine_dequantize": affine_dequantize,
    "constexpr_blockwise_shift_scale": blockwise_shift_scale,
    "constexpr_cast": cast,
    "constexpr_lut_to_dense": lut_to_dense,
    "constexpr_sparse_to_dense": sparse_to_dense,
}
