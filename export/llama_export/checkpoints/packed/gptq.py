"""GPTQ, as AutoGPTQ, GPTQModel and AutoRound pack it: codes along columns, zeros along rows.

`gptq` holds each zero less one and `gptq_v2` the zero itself. The key says which, and where all
zeros are alike the words say it too; a wrong guess looks plausible and is 35 % off. Whether columns
were reordered is seen in `g_idx`, whatever `desc_act` says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_export.checkpoints.packed.packing import (
    FLOATS,
    REORDERED,
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
    picked,
    row_numbers,
    signed,
)
from llama_export.checkpoints.packed.settings import Settings
from llama_export.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

_ONE = {4: 0x11111111, 8: 0x01010101}
# Of symmetric weights, the word of zeros in each format.
_V1_WORD = {4: 0x77777777, 8: 0x7F7F7F7F}
_V2_WORD = {4: 0x88888888, 8: 0x80808080}
_V1, _V2 = "gptq", "gptq_v2"
_IN_ORDER = {4: tuple(range(8)), 8: tuple(range(4))}


@dataclass(frozen=True)
class Gptq:
    """A checkpoint of GPTQ.

    Args:
        bits: width of a code, 4 or 8.
        group_size: columns that share a scale; None: all of a row.
        less_one: whether the zeros are stored less one.
    """

    bits: int
    group_size: int | None
    less_one: bool

    label = "GPTQ"
    may_be_floats = False
    marks = frozenset({"qweight", "qzeros", "g_idx", "scales"})

    @classmethod
    def read(cls, settings: Settings) -> Gptq:
        """Read `quantization_config`."""
        bits = settings.bits("bits", (4, 8))
        settings.refuse_set("dynamic", "is_marlin_format")
        kind = settings.text("checkpoint_format", settings.text("format", _V1))
        settings.refuse_other("checkpoint_format", kind, (_V1, _V2))
        return cls(bits, settings.group_size(), kind == _V1)

    def parts(self, found: Found) -> Mapping[str, Part]:
        """List the tensors, as `Method.parts` says."""
        rows, columns = found.shape
        groups = math.ceil(columns / self._group(columns))
        return {
            "qweight": part("I32", (math.ceil(columns * self.bits / 32), rows)),
            "qzeros": part("I32", (groups, math.ceil(rows * self.bits / 32))),
            "scales": part(FLOATS, (groups, rows)),
            "g_idx": part(("I32", "I64"), (columns,), needed=False),
        }

    def packing(self, found: Found) -> Packing:
        """Look at zeros and order, as `Method.packing` says."""
        import numpy as np

        columns = found.shape[1]
        group = self._group(columns)
        words = set(np.unique(found.look("qzeros").view(np.uint32)).tolist())
        mine, other = _V1_WORD[self.bits], _V2_WORD[self.bits]
        if not self.less_one:
            mine, other = other, mine
        if words == {other}:
            named, real = (_V1, _V2) if self.less_one else (_V2, _V1)
            message = (
                f"{found.module}.qzeros: config.json says checkpoint_format {named}, and every "
                f"word is {other:#x}, which is how {real} writes symmetric weights; set "
                f"checkpoint_format to {real} if that is right"
            )
            raise CheckpointError(message)
        ordered = self._is_ordered(found, group)
        form = kept_form(self.bits, group, columns)
        lost = ""
        if not ordered:
            lost = REORDERED
        elif words != {mine}:
            lost = ZERO_POINTS
        elif form is None:
            lost = not_held(self.bits, group)
        return Packing(
            self._taker(found, ordered=ordered), None if lost else form, lost, scales="scales"
        )

    def _group(self, columns: int) -> int:
        return self.group_size or columns

    def _is_ordered(self, found: Found, group: int) -> bool:
        """Whether the columns are in order, by the file and not by the key."""
        if "g_idx" not in found.entries:
            return True
        order = found.look("g_idx")
        highest = math.ceil(found.shape[1] / group) - 1
        if int(order.min()) < 0 or int(order.max()) > highest:
            message = f"{found.module}.g_idx names groups beyond 0 to {highest}"
            raise CheckpointError(message)
        return in_order(order, group)

    def _taker(self, found: Found, *, ordered: bool) -> Take:
        count, columns = found.shape
        bits, group, ones = self.bits, self._group(columns), _ONE[self.bits] * self.less_one

        def take(read: ReadPart, rows: slice | Tensor) -> Numbers:
            codes = nibbles(read("qweight")[:, rows].t(), bits)[:, :columns]
            # On whole words, as GPTQModel takes it off: a zero of 0 borrows from its neighbour.
            zeros = picked(read("qzeros") + ones, bits, row_numbers(rows, count), _IN_ORDER[bits])
            groups = group_numbers(columns, group) if ordered else read("g_idx").long()
            scales = read("scales")[:, rows].t()
            return Numbers(signed(codes, bits), scales, signed(zeros, bits).t(), groups)

        return take
