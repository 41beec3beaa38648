"""The vocabulary of storage forms: what a tensor's numbers become, as plain frozen data.

It says nothing of how codes are chosen (groupwise), packed (packing) or which tensor gets which
form (recipe).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from llama_quantize.errors import QuantizationError

SCALE_BITS = 16
_FLOAT_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_CODE_RANGES = {4: (-8, 7), 8: (-127, 127)}


@dataclass(frozen=True)
class GroupedInt:
    """Symmetric integers with one bf16 scale per group of neighbours in a row, no zero point.

    Args:
        bits: 4 (codes -8..7) or 8 (codes -127..127).
        group_size: weights per scale; None gives each row one scale.
        clip_search: choose each scale for the least squared error, not from the peak alone.
    """

    bits: int
    group_size: int | None
    clip_search: bool = True

    def __post_init__(self) -> None:
        if self.bits not in _CODE_RANGES:
            message = f"{self.bits} bits per code: expected 4 or 8"
            raise QuantizationError(message)
        if self.group_size is not None and self.group_size < 1:
            message = f"group size {self.group_size}: expected a positive number, or none per row"
            raise QuantizationError(message)

    @property
    def label(self) -> str:
        """Name the form for people, such as `int4 g32` or `int8 row`."""
        return f"int{self.bits} " + ("row" if self.group_size is None else f"g{self.group_size}")

    @property
    def code_range(self) -> tuple[int, int]:
        """Give the smallest and the largest code."""
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

    def bits_per_weight(self, columns: int) -> float:
        """Count the stored bits for each weight, scales included."""
        return self.bits + SCALE_BITS * self.groups(columns) / columns

    def to_json(self) -> dict[str, object]:
        """Describe the form as plain data."""
        return {
            "type": "grouped_int",
            "bits": self.bits,
            "group_size": self.group_size,
            "clip_search": self.clip_search,
        }


@dataclass(frozen=True)
class Float:
    """Plain 16-bit floats: `bfloat16` or `float16`."""

    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in _FLOAT_DTYPES:
            message = f"float type {self.dtype!r}: expected one of {', '.join(_FLOAT_DTYPES)}"
            raise QuantizationError(message)

    @property
    def label(self) -> str:
        """Name the form for people."""
        return self.dtype

    @property
    def torch_dtype(self) -> torch.dtype:
        """Give the type that torch stores."""
        return _FLOAT_DTYPES[self.dtype]

    def to_json(self) -> dict[str, object]:
        """Describe the form as plain data."""
        return {"type": "float", "dtype": self.dtype}


Scheme = GroupedInt | Float


def scheme_from_json(data: object) -> Scheme:
    """Read a scheme that `to_json` wrote.

    Raises:
        QuantizationError: anything missing, unknown or of the wrong type.
    """
    if isinstance(data, Mapping):
        match dict(data):
            case {"type": "float", "dtype": str(dtype), **rest} if not rest:
                return Float(dtype)
            case {
                "type": "grouped_int",
                "bits": int(bits),
                "group_size": (int() | None) as group_size,
                "clip_search": bool(clip_search),
                **rest,
            } if not rest:
                return GroupedInt(bits, group_size, clip_search)
    message = f"unknown quantisation scheme {data!r}"
    raise QuantizationError(message, "the file may come from a newer version; upgrade and retry")
