"""torchao's tensors in safetensors: the header's metadata names the class of each weight.

Of its classes those are read whose numbers lie open: int4 and int8 codes a byte each, and FP8. The
others are laid out for one processor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_export.checkpoints.packed import fp8
from llama_export.checkpoints.packed.packing import (
    FLOAT_TYPES,
    FLOATS,
    ZERO_POINTS,
    Found,
    Numbers,
    Packing,
    Part,
    ReadPart,
    Take,
    group_numbers,
    kept_form,
    not_held,
    part,
)
from llama_export.checkpoints.packed.settings import Settings
from llama_export.errors import CheckpointError
from llama_quantize.printable import shown_name
from llama_quantize.strict_json import JsonFault, parse_object

if TYPE_CHECKING:
    from torch import Tensor

_DATA, _SCALE, _ZERO = "_weight_qdata", "_weight_scale", "_weight_zero_point"
# They round activations, which every target does in its own way.
_ACTIVATIONS = ("_weight_act_quant_scale", "_weight_act_quant_zero_point")
_INTX, _INT8, _FLOAT8 = "IntxUnpackedToInt8Tensor", "Int8Tensor", "Float8Tensor"
_CLASSES = (_INTX, _INT8, _FLOAT8)


@dataclass(frozen=True)
class _Tensor:
    """What the metadata says of a weight.

    Args:
        name: name of its class.
        bits: width of a code.
        block: rows and columns that share a scale.
        dtype: type of the floats.
    """

    name: str
    bits: int
    block: tuple[int, int]
    dtype: str


@dataclass(frozen=True)
class Torchao:
    """A checkpoint of torchao."""

    label = "torchao"
    may_be_floats = False
    marks = frozenset({_DATA, _SCALE, _ZERO, *_ACTIVATIONS})

    @classmethod
    def read(cls, settings: Settings) -> Torchao:
        """Read `quantization_config`, of which the files know more."""
        return cls()

    def parts(self, found: Found) -> Mapping[str, Part]:
        """List the tensors, as `Method.parts` says."""
        described = _described(found)
        rows, columns = found.shape
        grid = rows // described.block[0], columns // described.block[1]
        shapes = [grid] if grid[1] > 1 else [grid, grid[:1]]
        parts = {
            _DATA: part(fp8.FP8 if described.name == _FLOAT8 else "I8", found.shape),
            _SCALE: part(FLOATS, *shapes),
        }
        if described.name == _INTX:
            parts[_ZERO] = part(("I8", *FLOATS), *shapes)
        if described.name == _INT8:
            parts[_ZERO] = part("I8", *shapes, needed=False)
            for name in _ACTIVATIONS:
                if name in found.entries:
                    entry = found.entries[name]
                    parts[name] = part(entry.dtype, entry.shape, needed=False)
        return parts

    def packing(self, found: Found) -> Packing:
        """Look at the zeros, as `Method.packing` says."""
        described = _described(found)
        if described.name == _FLOAT8:
            return Packing(
                _taker(found.shape, described, zeros=False), None, fp8.LOST, described.dtype
            )
        rows, width = described.block
        zeros = _ZERO in found.entries and bool(found.look(_ZERO).any())
        form = kept_form(described.bits, width, found.shape[1])
        lost = ""
        if zeros:
            lost = ZERO_POINTS
        elif form is None or (width < found.shape[1] and rows > 1):
            lost = not_held(described.bits, width)
        take = _taker(found.shape, described, zeros=zeros)
        return Packing(take, None if lost else form, lost, described.dtype, _SCALE)


def _described(found: Found) -> _Tensor:
    """Read the metadata of a weight.

    Raises:
        CheckpointError: it is missing or damaged, or its class is one that is not read.
    """
    name = f"{found.module}.weight"
    text = found.metadata().get(name)
    if text is None:
        message = f"{name} is not in the file's metadata, which says how torchao packed it"
        raise CheckpointError(message)
    try:
        raw = parse_object(text.encode())
    except JsonFault as fault:
        message = f"the file's metadata of {name} is not valid JSON: {fault}"
        raise CheckpointError(message) from None
    kind, data = raw.get("_type"), raw.get("_data")
    if kind not in _CLASSES or not isinstance(data, dict):
        message = f"{name} is a {shown_name(str(kind))} of torchao; {', '.join(_CLASSES)} are read"
        raise CheckpointError(message)
    bits = {"int4": 4, "int8": 8}.get(_named(data.get("target_dtype"))) if kind == _INTX else 8
    dtype, block = _named(data.get("dtype")), _block(data.get("block_size"), found.shape)
    if bits is None or dtype not in FLOAT_TYPES or block is None or data.get("act_pre_scale"):
        message = f"{name} is packed in a way that is not read: {shown_name(repr(data), 200)}"
        raise CheckpointError(message)
    return _Tensor(kind, bits, block, dtype)


def _named(value: object) -> str:
    match value:
        case {"_type": "torch.dtype", "_data": str(name)}:
            return name
    return ""


def _block(value: object, shape: tuple[int, int]) -> tuple[int, int] | None:
    match value:
        case [int(rows), int(columns)] if rows > 0 and columns > 0:
            if shape[0] % rows == 0 and shape[1] % columns == 0:
                return rows, columns
    return None


def _taker(shape: tuple[int, int], described: _Tensor, *, zeros: bool) -> Take:
    count, columns = shape
    height, width = described.block

    def spread(stored: Tensor, rows: slice | Tensor) -> Tensor:
        grid = stored.reshape(count // height, columns // width)
        return fp8.scales_of_rows(grid, rows, count, described.block)

    def take(read: ReadPart, rows: slice | Tensor) -> Numbers:
        codes = read(_DATA)[rows]
        taken = spread(read(_ZERO), rows) if zeros else None
        groups = group_numbers(columns, width)
        return Numbers(codes, spread(read(_SCALE), rows), taken, groups)

    return take
