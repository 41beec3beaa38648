"""The vocabulary of storage forms: what a tensor's numbers become, as plain frozen data.

It says nothing of how codes are chosen (methods), packed (packing) or which tensor gets which form
(recipe). torch is imported only where one of its types is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_quantize.errors import QuantizationError
from llama_quantize.printable import shown_name

if TYPE_CHECKING:
    import torch

SCALE_BITS = 16
FLOAT_BYTES = 2
_FLOAT_DTYPES = ("bfloat16", "float16")
_CODE_RANGES = {4: (-8, 7), 8: (-127, 127)}


@dataclass(frozen=True)
class GroupedInt:
    """Symmetric integers with one bf16 scale per group of neighbours in a row, no zero point.

    Args:
        bits: width of a code, 4 (codes -8..7) or 8 (codes -127..127).
        group_size: number of weights that share a scale; None: one scale a row.
    """

    bits: int
    group_size: int | None

    def __post_init__(self) -> None:
        if self.bits not in _CODE_RANGES:
            message = f"{self.bits} bits per code: expected 4 or 8"
            raise QuantizationError(message)
        if self.group_size is not None and self.group_size < 1:
            message = f"group size {self.group_size}: expected a positive number, or none per row"
            raise QuantizationError(message)

    @property
    def label(self) -> str:
        """Name for people, such as `int4 g32` or `int8 row`."""
        return f"int{self.bits} " + ("row" if self.group_size is None else f"g{self.group_size}")

    @property
    def code_range(self) -> tuple[int, int]:
        """Smallest and largest code."""
        return _CODE_RANGES[self.bits]

    def groups(self, columns: int) -> int:
        """Count the groups in a row of `columns` weights.

        Raises:
            QuantizationError: the group does not divide the row.
        """
        group = self.group_size or columns
        if columns < 1 or columns % group:
            message = f"rows of {columns} weights do not divide into groups of {group}"
            raise QuantizationError(message, "choose a group size that divides the row length")
        if self.bits == 4 and columns % 2:
            message = f"rows of {columns} weights: expected an even number, two codes share a byte"
            raise QuantizationError(message, "use 8 bits, or a float type, for this tensor")
        return columns // group

    def stored_shapes(self, shape: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the shapes of the stored codes and scales of a weight `[N, K]`.

        Codes of 4 bits are packed two to a byte: `[N, K/2]` instead of `[N, K]`.

        Raises:
            QuantizationError: the weight is no matrix, or its rows do not divide into groups.
        """
        if len(shape) != 2:
            message = f"a tensor of shape {list(shape)} cannot be stored as {self.label}: no matrix"
            raise QuantizationError(message, "give it a float type in the recipe")
        rows, columns = shape
        scales = (rows, self.groups(columns))
        return (rows, columns // 2 if self.bits == 4 else columns), scales

    def size_bytes(self, shape: tuple[int, ...]) -> int:
        """Count the stored bytes of a weight `[N, K]`, scales included.

        Raises:
            QuantizationError: as `stored_shapes`.
        """
        codes, scales = self.stored_shapes(shape)
        return math.prod(codes) + math.prod(scales) * SCALE_BITS // 8

    def to_json(self) -> dict[str, object]:
        """Describe the form as plain data."""
        return {"type": "grouped_int", "bits": self.bits, "group_size": self.group_size}


@dataclass(frozen=True)
class Float:
    """Plain 16-bit floats.

    Args:
        dtype: `bfloat16` or `float16`.
    """

    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in _FLOAT_DTYPES:
            message = f"float type {self.dtype!r:.80}: expected one of {', '.join(_FLOAT_DTYPES)}"
            raise QuantizationError(message)

    @property
    def label(self) -> str:
        """Name for people."""
        return self.dtype

    @property
    def torch_dtype(self) -> torch.dtype:
        """Type that torch stores."""
        import torch

        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float16

    def size_bytes(self, shape: tuple[int, ...]) -> int:
        """Count the stored bytes of a tensor."""
        return math.prod(shape) * FLOAT_BYTES

    def to_json(self) -> dict[str, object]:
        """Describe the form as plain data."""
        return {"type": "float", "dtype": self.dtype}


Scheme = GroupedInt | Float


def scheme_from_json(data: object) -> Scheme:
    """Read a scheme that `to_json` wrote.

    Raises:
        QuantizationError: anything is missing, unknown or of the wrong type.
    """
    if isinstance(data, Mapping):
        match dict(data):
            case {"type": "float", "dtype": str(dtype), **rest} if not rest:
                return Float(dtype)
            case {
                "type": "grouped_int",
                "bits": int(bits),
                "group_size": (int() | None) as group_size,
                **rest,
            } if not rest and not isinstance(group_size, bool):
                return GroupedInt(bits, group_size)
    message = f"unknown quantisation scheme {shown_name(repr(data), 200)}"
    raise QuantizationError(message, "the file may come from a newer version; upgrade and retry")


def shared_group_size(schemes: Iterable[Scheme]) -> int | None:
    """Return the group size of the forms that have groups; None: none has, or they differ."""
    sizes = {each.group_size for each in schemes if isinstance(each, GroupedInt)} - {None}
    return sizes.pop() if len(sizes) == 1 else None
