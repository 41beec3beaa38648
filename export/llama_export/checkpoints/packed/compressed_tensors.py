"""compressed-tensors, as llm-compressor saves it: int4 and int8, packed or not, and FP8.

Which of several groups of settings a weight is of is seen in its tensors; the patterns of a config
are not tried. Packed bytes are the ones that this product stores: code + 8, low nibble first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_export.checkpoints.packed import fp8
from llama_export.checkpoints.packed.packing import (
    FLOATS,
    REORDERED,
    WEIGHT,
    ZERO_POINTS,
    Found,
    Numbers,
    Packing,
    Part,
    ReadPart,
    Take,
    group_numbers,
    in_order,
    kept_form,
    nibbles,
    not_held,
    part,
    signed,
)
from llama_export.checkpoints.packed.settings import ORIGINAL, Settings
from llama_export.errors import CheckpointError, ConfigError, UnsupportedModelError

if TYPE_CHECKING:
    from torch import Tensor

_PACKED, _SCALE, _ZERO, _ORDER = (
    "weight_packed",
    "weight_scale",
    "weight_zero_point",
    "weight_g_idx",
)
_SHAPE = "weight_shape"
_PACK, _INT, _FLOAT, _NAIVE = (
    "pack-quantized",
    "int-quantized",
    "float-quantized",
    "naive-quantized",
)
_FORMATS = (_PACK, _INT, _FLOAT, _NAIVE)
_MIXED = "mixed-precision"
_STRATEGIES = ("tensor", "channel", "group", "block")


@dataclass(frozen=True)
class _Group:
    """What the weights of one group of settings are.

    Args:
        bits: width of a code.
        packed: whether codes share words.
        floats: whether codes are floats.
        strategy: what shares a scale.
        group_size: columns that share one, of the strategy `group`.
        block: rows and columns that share one, of the strategy `block`.
        symmetric: whether there are no zeros.
    """

    bits: int
    packed: bool
    floats: bool
    strategy: str
    group_size: int | None
    block: tuple[int, int] | None
    symmetric: bool

    @classmethod
    def read(cls, settings: Settings, kind: str) -> _Group:
        """Read a group of `config_groups`; `kind` is the checkpoint's format."""
        kind = settings.text("format", kind)
        settings.refuse_other("format", kind, _FORMATS)
        weights = settings.nested("weights")
        if weights is None:
            message = f"{settings.where}: weights is missing"
            raise ConfigError(message, "take config.json from the model's repository")
        number = weights.text("type", "int")
        weights.refuse_other("type", number, ("int", "float"))
        floats, packed = number == "float", kind == _PACK
        bits = weights.bits("num_bits", (8,) if floats else (4, 8))
        group_size, block = weights.group_size(), fp8.block_of(weights, "block_structure")
        default = "group" if group_size else "tensor"
        strategy = weights.text("strategy", default)
        weights.refuse_other("strategy", strategy, _STRATEGIES)
        if (floats and packed) or (strategy == "group") != (group_size is not None):
            message = (
                f"{weights.where}: format, type, strategy and group_size contradict each other"
            )
            raise ConfigError(message, "take config.json from the model's repository")
        if strategy == "block" and block is None:
            message = f"{weights.where}: block_structure is missing"
            raise ConfigError(message, "take config.json from the model's repository")
        symmetric = weights.flag("symmetric", default=True)
        return cls(bits, packed, floats, strategy, group_size, block, symmetric)

    def parts(self, shape: tuple[int, int]) -> Mapping[str, Part]:
        """List the tensors of a weight."""
        rows, columns = shape
        scales = self._scale_shapes(shape)
        found = {_SCALE: part(FLOATS, *scales)}
        zeros = {_ZERO: part(("I8",), *scales, needed=not self.symmetric)}
        if self.packed:
            words = math.ceil(rows * self.bits / 32), scales[0][-1]
            zeros = {_ZERO: part("I32", words, needed=not self.symmetric)}
            found |= {
                _PACKED: part("I32", (rows, math.ceil(columns * self.bits / 32))),
                _SHAPE: part(("I64", "I32"), (2,)),
            }
        else:
            found[WEIGHT] = part(fp8.FP8 if self.floats else "I8", shape)
        order = {_ORDER: part(("I32", "I64"), (columns,), needed=False)}
        return found | order | ({} if self.floats else zeros)

    def columns_of_group(self, columns: int) -> int:
        """Return how many columns share a scale."""
        if self.block is not None:
            return self.block[1]
        return self.group_size or columns

    def _scale_shapes(self, shape: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
        rows, columns = shape
        if self.strategy == "group":
            return ((rows, math.ceil(columns / (self.group_size or columns))),)
        if self.strategy == "channel":
            return (rows, 1), (rows,)
        if self.strategy == "tensor":
            return (1,), (), (1, 1)
        return fp8.scale_shapes(shape, self.block)


@dataclass(frozen=True)
class CompressedTensors:
    """A checkpoint of compressed-tensors.

    Args:
        groups: what the weights of each of its groups are.
    """

    groups: tuple[_Group, ...]

    label = "compressed-tensors"
    may_be_floats = False
    marks = frozenset({_PACKED, _SCALE, _ZERO, _ORDER, _SHAPE})

    @classmethod
    def read(cls, settings: Settings) -> CompressedTensors:
        """Read `quantization_config`."""
        kind = settings.text("format", "")
        settings.refuse_other("format", kind, (*_FORMATS, _MIXED))
        settings.refuse_set("transform_config")
        sparsity = settings.nested("sparsity_config")
        if sparsity is not None:
            sparsity.refuse_other("format", sparsity.text("format", "dense"), ("dense",))
        groups = tuple(_Group.read(each, kind) for each in _groups(settings))
        if not groups:
            message = f"{settings.where}: no group of config_groups has weights"
            raise ConfigError(message, "take config.json from the model's repository")
        return cls(groups)

    def parts(self, found: Found) -> Mapping[str, Part]:
        """List the tensors, as `Method.parts` says: of the group that fits them best."""
        return self._group(found).parts(found.shape)

    def packing(self, found: Found) -> Packing:
        """Look at zeros and order, as `Method.packing` says."""
        group, columns = self._group(found), found.shape[1]
        if group.packed and tuple(found.look(_SHAPE).tolist()) != found.shape:
            shape = found.look(_SHAPE).tolist()
            message = f"{found.module}.{_SHAPE} is {shape}, expected {list(found.shape)}"
            raise CheckpointError(message)
        if group.floats:
            return Packing(fp8.taker(found.shape, _SCALE, group.block), None, fp8.LOST)
        width = group.columns_of_group(columns)
        ordered = _ORDER not in found.entries or _is_ordered(found, width)
        zeros = _ZERO in found.entries and (not group.symmetric or bool(found.look(_ZERO).any()))
        form = kept_form(group.bits, width, columns)
        lost = ""
        if not ordered:
            lost = REORDERED
        elif zeros:
            lost = ZERO_POINTS
        elif form is None or group.strategy == "block":
            lost = not_held(group.bits, width)
        take = _taker(group, found.shape, zeros=zeros, ordered=ordered)
        return Packing(take, None if lost else form, lost, scales=_SCALE)

    def _group(self, found: Found) -> _Group:
        return min(self.groups, key=lambda group: _misfits(group.parts(found.shape), found))


def _groups(settings: Settings) -> Iterator[Settings]:
    groups = settings.nested("config_groups")
    if groups is None or not groups.raw:
        message = f"{settings.where}: config_groups is missing"
        raise ConfigError(message, "take config.json from the model's repository")
    for name in groups.raw:
        if isinstance(groups.raw[name], list):
            message = f"{groups.where}: {name} is the name of a preset, whose settings are not here"
            raise UnsupportedModelError(message, ORIGINAL)
        group = groups.nested(name)
        # A group without weights rounds activations alone, such as those of the cache.
        if group is not None and group.raw.get("weights") is not None:
            yield group


def _misfits(parts: Mapping[str, Part], found: Found) -> int:
    """Count what is missing, odd or of another form, for the choice of a group."""
    wrong = len(set(found.entries) - set(parts) - {"bias"})
    for name, each in parts.items():
        entry = found.entries.get(name)
        if entry is None:
            wrong += each.needed
        else:
            wrong += entry.dtype not in each.dtypes or entry.shape not in each.shapes
    return wrong


def _is_ordered(found: Found, width: int) -> bool:
    order = found.look(_ORDER)
    highest = math.ceil(found.shape[1] / width) - 1
    if bool((order == -1).all()):  # how a weight without an order was saved by early versions
        return True
    if int(order.min()) < 0 or int(order.max()) > highest:
        message = f"{found.module}.{_ORDER} names groups beyond 0 to {highest}"
        raise CheckpointError(message)
    return in_order(order, width)


def _taker(group: _Group, shape: tuple[int, int], *, zeros: bool, ordered: bool) -> Take:
    count, columns = shape
    bits, width = group.bits, group.columns_of_group(columns)

    def take(read: ReadPart, rows: slice | Tensor) -> Numbers:
        if group.packed:
            codes = signed(nibbles(read(_PACKED)[rows], bits)[:, :columns], bits)
        else:
            codes = _in_range(read(WEIGHT)[rows], bits)
        scales = fp8.scales_of_rows(read(_SCALE), rows, count, group.block)
        groups = group_numbers(columns, width) if ordered else read(_ORDER).long()
        taken = _zeros(group, read, rows, count) if zeros else None
        return Numbers(codes, scales, taken, groups)

    return take


def _zeros(group: _Group, read: ReadPart, rows: slice | Tensor, count: int) -> Tensor:
    stored = read(_ZERO)
    if group.packed:
        unpacked = nibbles(stored.t(), group.bits)[:, :count]
        stored = signed(unpacked.contiguous(), group.bits).t()
    return fp8.scales_of_rows(stored, rows, count, group.block)


def _in_range(codes: Tensor, bits: int) -> Tensor:
    """Refuse codes of 4 bits, a byte each, that are none."""
    if bits == 4 and bool(((codes < -8) | (codes > 7)).any()):
        message = "a code is out of range: expected -8 to 7"
        raise CheckpointError(message, "the weights are damaged; download them again")
    return codes
