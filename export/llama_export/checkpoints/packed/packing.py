"""What a packed weight is to whoever reads one, and the arithmetic that the methods share.

However a program packs a weight `[N, K]`, it stands for `(codes - zeros) * scales`, with one scale
and perhaps one zero for each group of a row. It knows no method and no file.

Shapes: N rows, K columns, n of the rows, G groups in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from llama_export.checkpoints.safetensors_header import TensorEntry
    from llama_quantize.scheme import GroupedInt
    from llama_quantize.tensor import QuantizedTensor

FLOATS = ("BF16", "F16", "F32")
FLOAT_TYPES = ("bfloat16", "float16", "float32")
"""The same, as PyTorch spells them."""
WEIGHT = "weight"
REORDERED = "their columns are reordered (act-order)"
ZERO_POINTS = "they have zero points"
KEPT_GROUPS = (32, 64, 128, 256)
"""Sizes of int4 groups that every target holds; a whole row is one too, if 32 divides it."""


@dataclass(frozen=True)
class Part:
    """A tensor that a packed weight consists of.

    Args:
        dtypes: types that it may have, in safetensors' spelling.
        shapes: shapes that it may have.
        needed: whether it must be there.
    """

    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    needed: bool = True


def part(dtypes: str | tuple[str, ...], *shapes: tuple[int, ...], needed: bool = True) -> Part:
    """Describe a tensor of a packed weight."""
    return Part((dtypes,) if isinstance(dtypes, str) else dtypes, shapes, needed)


@dataclass(frozen=True)
class Found:
    """A packed weight as its file has it.

    Args:
        module: name of the module that has it, such as `model.layers.0.mlp.up_proj`.
        shape: rows N and columns K of the weight.
        entries: type and shape of each of its tensors, by the ends of their names.
        look: function that reads one of them, of integers, without torch.
        metadata: function that reads the strings in the headers of the files.
    """

    module: str
    shape: tuple[int, int]
    entries: Mapping[str, TensorEntry]
    look: Callable[[str], NDArray[np.generic]]
    metadata: Callable[[], Mapping[str, str]]


@dataclass(frozen=True, eq=False)
class Numbers:
    """Some rows of a packed weight, taken apart.

    Args:
        codes: int8 or floats `[n, K]`.
        scales: floats `[n, G]`, of any float type.
        zeros: integers `[n, G]` that are taken off the codes; None: nothing is.
        groups: number of the group of each column, int64 `[K]`; None: they are equal and in order.
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor | None = None
    groups: Tensor | None = None


ReadPart = Callable[[str], "Tensor"]
"""Maps a tensor of a packed weight, by the end of its name."""
Take = Callable[[ReadPart, Any], Numbers]
"""Takes some rows of a packed weight apart: a slice of them, or their numbers, int64 `[n]`."""


@dataclass(frozen=True, eq=False)
class Packing:
    """How one weight is packed.

    Args:
        take: function that takes rows of it apart.
        kept: form in which its codes are kept bit for bit; None: it is read as floats.
        lost: why the codes cannot be kept, for people; empty: they are.
        dtype: type of the floats, as torch calls it; empty: that of the scales.
        scales: end of the name of what holds the scales of codes that are kept.
        unit: what these are multiplied with.
    """

    take: Take
    kept: GroupedInt | None
    lost: str = ""
    dtype: str = ""
    scales: str = ""
    unit: float = 1.0


class Method(Protocol):
    """A way of packing weights, with what a config says of it."""

    @property
    def label(self) -> str:
        """Name for people."""

    @property
    def marks(self) -> frozenset[str]:
        """Ends of names that only a packed weight has; a `weight` that is no float is one too."""

    @property
    def may_be_floats(self) -> bool:
        """Whether no weight need be packed, because they are quantised while they are loaded."""

    def parts(self, found: Found) -> Mapping[str, Part]:
        """List the tensors of a weight, by the ends of their names.

        Raises:
            CheckpointError: it is packed in a way that cannot be read; says in which.
        """

    def packing(self, found: Found) -> Packing:
        """Decide how a weight is read, of which all parts are as `parts` says.

        Raises:
            CheckpointError: its values contradict the config.
        """


def kept_form(bits: int, group: int, columns: int) -> GroupedInt | None:
    """Return the form of codes in groups of `group` columns; None: some target lacks it."""
    from llama_quantize.scheme import GroupedInt

    if bits == 4 and group in KEPT_GROUPS and columns % group == 0:
        return GroupedInt(4, group)
    if group < columns or bits not in (4, 8):
        return None
    return GroupedInt(bits, None) if bits == 8 or columns % KEPT_GROUPS[0] == 0 else None


def not_held(bits: int, group: int) -> str:
    """Explain that codes are not kept because of their form."""
    return f"int{bits} codes in groups of {group} are not a form of every target"


def keep(
    packing: Packing, form: GroupedInt, read: ReadPart, shape: tuple[int, int]
) -> QuantizedTensor:
    """Read a weight whose codes are kept in a form.

    Raises:
        QuantizationError: a code is out of range, or a scale is not to be used.
    """
    from llama_quantize.keep import keep_codes

    numbers = packing.take(read, slice(0, shape[0]))
    return keep_codes(numbers.codes, numbers.scales, form)


def dequantise(packing: Packing, read: ReadPart, rows: slice | Tensor) -> Tensor:
    """Compute some rows `[n, K]` of a weight, in the type that its program computes them in."""
    import torch

    numbers = packing.take(read, rows)
    scales, zeros, groups = numbers.scales.float(), numbers.zeros, numbers.groups
    values = numbers.codes.float()
    if groups is None:
        groups = torch.arange(values.shape[1]) // (values.shape[1] // scales.shape[1])
    if zeros is not None:
        values = values - zeros.float()[:, groups]
    dtype: torch.dtype = getattr(torch, packing.dtype) if packing.dtype else numbers.scales.dtype
    return (values * scales[:, groups]).to(dtype)


def nibbles(words: Tensor, bits: int) -> Tensor:
    """Unpack integers `[n, W]` into uint8 `[n, W * per]`, the lowest bits of a word first."""
    import torch

    octets = words.contiguous().view(torch.uint8)
    if bits == 8:
        return octets
    return torch.stack((octets & 15, octets >> 4), dim=2).flatten(1)


def picked(words: Tensor, bits: int, columns: Tensor, order: tuple[int, ...]) -> Tensor:
    """Unpack some columns, int64 `[n]`, of integers `[R, W]` into uint8 `[R, n]`.

    Args:
        words: int32, each of `32 / bits` columns.
        bits: width of a code.
        columns: numbers of the columns.
        order: place in its word of each column, counted from the lowest bits.
    """
    import torch

    per = 32 // bits
    shift = torch.tensor(order, dtype=torch.int32)[columns % per] * bits
    chosen = words[:, columns // per]
    return ((chosen >> shift) & ((1 << bits) - 1)).to(torch.uint8)


def signed(codes: Tensor, bits: int) -> Tensor:
    """Turn codes from 0 up, uint8, into int8 codes around 0."""
    import torch

    return codes.view(torch.int8) - 8 if bits == 4 else (codes ^ 128).view(torch.int8)


def row_numbers(rows: slice | Tensor, count: int) -> Tensor:
    """Return the numbers of some of `count` rows, int64 `[n]`."""
    import torch

    return torch.arange(count)[rows] if isinstance(rows, slice) else rows


def group_numbers(columns: int, group: int) -> Tensor | None:
    """Return the group of each column, of groups in order; None: they are equal."""
    import torch

    return None if columns % group == 0 else torch.arange(columns) // group


def in_order(groups: NDArray[np.generic], group: int) -> bool:
    """Whether the groups of the columns are the plain ones: no act-order."""
    import numpy as np

    return bool((groups == np.arange(len(groups)) // group).all())
