"""AWQ in AutoAWQ's `gemm` layout: codes and zeros along a weight's rows, in an order of its own.

The eight columns of a word are not in order: nibble k, from the lowest, is column
(0, 2, 4, 6, 1, 3, 5, 7)[k]. A zero is what is taken off; nothing is added to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_export.checkpoints.packed.packing import (
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
    picked,
    row_numbers,
    signed,
)
from llama_export.checkpoints.packed.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

_BITS = 4
_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
"""Nibble, from the lowest, of each column of a word."""
_SYMMETRIC_WORD = 0x88888888
# The backends "exllama" and "ipex" compute what the layout `gemm` holds.
_GEMM = ("gemm", "exllama", "ipex")


@dataclass(frozen=True)
class Awq:
    """A checkpoint of AWQ.

    Args:
        group_size: columns that share a scale; None: all of a row.
    """

    group_size: int | None

    label = "AWQ"
    may_be_floats = False
    marks = frozenset({"qweight", "qzeros", "scales"})

    @classmethod
    def read(cls, settings: Settings) -> Awq:
        """Read `quantization_config`."""
        settings.bits("bits", (_BITS,))
        for key in ("version", "format"):
            settings.refuse_other(key, settings.text(key, "gemm"), _GEMM)
        return cls(settings.group_size())

    def parts(self, found: Found) -> Mapping[str, Part]:
        """List the tensors, as `Method.parts` says."""
        rows, columns = found.shape
        groups, words = math.ceil(columns / (self.group_size or columns)), math.ceil(rows / 8)
        return {
            "qweight": part("I32", (columns, words)),
            "qzeros": part("I32", (groups, words)),
            "scales": part(FLOATS, (groups, rows)),
        }

    def packing(self, found: Found) -> Packing:
        """Look at the zeros, as `Method.packing` says."""
        import numpy as np

        group = self.group_size or found.shape[1]
        words = found.look("qzeros").view(np.uint32)
        form = kept_form(_BITS, group, found.shape[1])
        lost = ""
        if not bool((words == _SYMMETRIC_WORD).all()):
            lost = ZERO_POINTS
        elif form is None:
            lost = not_held(_BITS, group)
        return Packing(_taker(found.shape, group), None if lost else form, lost, scales="scales")


def _taker(shape: tuple[int, int], group: int) -> Take:
    count, columns = shape

    def take(read: ReadPart, rows: slice | Tensor) -> Numbers:
        numbers = row_numbers(rows, count)
        codes = picked(read("qweight"), _BITS, numbers, _PLACES).t()
        zeros = picked(read("qzeros"), _BITS, numbers, _PLACES).t()
        scales = read("scales")[:, numbers].t()
        codes, zeros = signed(codes.contiguous(), _BITS), signed(zeros.contiguous(), _BITS)
        return Numbers(codes, scales, zeros, group_numbers(columns, group))

    return take
