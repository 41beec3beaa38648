"""bitsandbytes: nf4 and fp4, blocks of a flat weight that are looked up in a map, and int8 by rows.

Of two codes in a byte the high nibble is the first. A block's largest value may be quantised once
more (double quantisation). A config can say 4 bits of a checkpoint that holds floats, because it is
then quantised while it is loaded: such floats are read as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_export.checkpoints.packed.packing import (
    FLOAT_TYPES,
    WEIGHT,
    Found,
    Numbers,
    Packing,
    Part,
    ReadPart,
    Take,
    kept_form,
    part,
    row_numbers,
)
from llama_export.checkpoints.packed.settings import Settings
from llama_export.errors import CheckpointError
from llama_quantize.printable import shown_name
from llama_quantize.strict_json import JsonFault, parse_object

if TYPE_CHECKING:
    from torch import Tensor

_ABSMAX, _MAP = "weight.absmax", "weight.quant_map"
_NESTED, _NESTED_MAP = "weight.nested_absmax", "weight.nested_quant_map"
_STATES = {f"weight.quant_state.bitsandbytes__{kind}": kind for kind in ("nf4", "fp4")}
_SCB, _LAYOUT = "SCB", "weight_format"
_UNIT = 1 / 127
"""Scale of a code of int8, as a part of the largest value of its row."""
# Bytes of a code's storage, which may be a float type so that FSDP can shard it.
_STORAGE = {"U8": 1, "BF16": 2, "F16": 2, "F32": 4}
_MOST_STATE_BYTES = 4096


@dataclass(frozen=True)
class _State:
    """What the JSON beside a weight says.

    Args:
        dtype: type of the floats.
        block: weights that share a largest value.
        nested_block: largest values that share one of their own; None: they are floats.
        offset: what is added to them then.
    """

    dtype: str
    block: int
    nested_block: int | None
    offset: float


@dataclass(frozen=True)
class Bitsandbytes:
    """A checkpoint of bitsandbytes; each weight shows of which kind it is."""

    label = "bitsandbytes"
    may_be_floats = True
    marks = frozenset({_ABSMAX, _MAP, _NESTED, _NESTED_MAP, *_STATES, _SCB, _LAYOUT})

    @classmethod
    def read(cls, settings: Settings) -> Bitsandbytes:
        """Read `quantization_config`, of which the files know more."""
        settings.flag("load_in_4bit", default=False)
        settings.flag("load_in_8bit", default=False)
        return cls()

    def parts(self, found: Found) -> Mapping[str, Part]:
        """List the tensors, as `Method.parts` says."""
        rows, columns = found.shape
        if _is_int8(found):
            layout = part("U8", (), (1,), needed=False)
            return {WEIGHT: part("I8", found.shape), _SCB: part("F32", (rows,)), _LAYOUT: layout}
        name = next((each for each in _STATES if each in found.entries), next(iter(_STATES)))
        whole = {_MAP: part("F32", (16,)), name: Part(("U8",), _as_it_is(found, name).shapes)}
        if name not in found.entries or found.entries[name].dtype != "U8":
            return whole | {WEIGHT: _as_it_is(found, WEIGHT), _ABSMAX: _as_it_is(found, _ABSMAX)}
        state = _read_state(found, name)
        blocks = math.ceil(rows * columns / state.block)
        whole |= {WEIGHT: _stored(found), _ABSMAX: part("F32", (blocks,))}
        if state.nested_block is not None:
            nested = math.ceil(blocks / state.nested_block)
            whole |= {
                _ABSMAX: part("U8", (blocks,)),
                _NESTED: part("F32", (nested,)),
                _NESTED_MAP: part("F32", (256,)),
            }
        return whole

    def packing(self, found: Found) -> Packing:
        """Choose what reads it, as `Method.packing` says."""
        if _is_int8(found):
            if _LAYOUT in found.entries and bool(found.look(_LAYOUT).any()):
                message = f"{found.module}.{_LAYOUT} is not 0, the layout by rows"
                raise CheckpointError(message)
            form = kept_form(8, found.shape[1], found.shape[1])
            return Packing(_take_int8, form, scales=_SCB, unit=_UNIT)
        name = next(each for each in _STATES if each in found.entries)
        state = _read_state(found, name)
        take = _taker(found.shape, state)
        return Packing(take, None, f"their codes are of {_STATES[name]}", state.dtype)


def _is_int8(found: Found) -> bool:
    weight = found.entries.get(WEIGHT)
    return _SCB in found.entries or (weight is not None and weight.dtype == "I8")


def _as_it_is(found: Found, name: str) -> Part:
    """Describe a tensor whose form follows from another one, which is missing."""
    entry = found.entries.get(name)
    return part("U8", (1,)) if entry is None else part(entry.dtype, entry.shape)


def _stored(found: Found) -> Part:
    """Describe the codes: two a byte, in the type that they are stored as."""
    count = math.ceil(math.prod(found.shape) / 2)
    shapes = [(count // size, 1) for size in _STORAGE.values() if count % size == 0]
    entry = found.entries.get(WEIGHT)
    if entry is not None and entry.dtype in _STORAGE:
        shapes = [(count // _STORAGE[entry.dtype], 1)]
    return part(tuple(_STORAGE), *shapes)


def _read_state(found: Found, name: str) -> _State:
    """Read the JSON of a weight.

    Raises:
        CheckpointError: it is damaged, or of another weight.
    """
    data = found.look(name).tobytes()
    try:
        raw = parse_object(data, most_bytes=_MOST_STATE_BYTES)
    except JsonFault as fault:
        message = f"{found.module}.{name} cannot be read: {fault}"
        raise CheckpointError(message) from None
    match raw:
        case {"quant_type": kind, "blocksize": int(block), "dtype": str(dtype), "shape": [*shape]}:
            nested, offset = raw.get("nested_blocksize"), raw.get("nested_offset", 0.0)
            fits = kind == _STATES[name] and tuple(shape) == found.shape and block > 0
            doubled = nested is None or (type(nested) is int and nested > 0)
            if fits and doubled and dtype in FLOAT_TYPES and isinstance(offset, int | float):
                return _State(dtype, block, nested, float(offset))
    message = f"{found.module}.{name} does not fit its weight: {shown_name(repr(raw), 200)}"
    raise CheckpointError(message)


def _take_int8(read: ReadPart, rows: slice | Tensor) -> Numbers:
    return Numbers(read(WEIGHT)[rows], (read(_SCB) * _UNIT)[rows].unsqueeze(1))


def _taker(shape: tuple[int, int], state: _State) -> Take:
    count, columns = shape

    def take(read: ReadPart, rows: slice | Tensor) -> Numbers:
        import torch

        first = row_numbers(rows, count).unsqueeze(1) * columns
        places = first + torch.arange(columns)
        octets = read(WEIGHT).contiguous().view(torch.uint8).flatten()[places // 2]
        codes = torch.where(places % 2 == 0, octets >> 4, octets & 15)
        blocks = places if columns % state.block else first + torch.arange(0, columns, state.block)
        largest = _largest(read, state, blocks // state.block)
        return Numbers(read(_MAP)[codes.long()], largest)

    return take


def _largest(read: ReadPart, state: _State, blocks: Tensor) -> Tensor:
    """Return the largest value of some blocks."""
    stored = read(_ABSMAX)[blocks]
    if state.nested_block is None:
        return stored
    values = read(_NESTED_MAP)[stored.long()] * read(_NESTED)[blocks // state.nested_block]
    return values + state.offset
