"""FP8 weights with a scale a tensor, row or block: Meta's, transformers', vLLM's, ModelOpt's.

The codes are floats of 8 bits, and nothing of them fits integers; so they are always dequantised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_export.checkpoints.packed.packing import (
    FLOATS,
    WEIGHT,
    Found,
    Numbers,
    Packing,
    Part,
    ReadPart,
    Take,
    group_numbers,
    part,
    row_numbers,
)
from llama_export.checkpoints.packed.settings import Settings
from llama_export.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

FP8 = "F8_E4M3"
LOST = "they are floats of 8 bits"
_SCALE, _INVERSE = "weight_scale", "weight_scale_inv"
Block = tuple[int, int]


@dataclass(frozen=True)
class Fp8:
    """A checkpoint of FP8.

    Args:
        label: name of the method for people.
        block: rows and columns that share a scale; None: a whole tensor or each row has one.
    """

    label: str
    block: Block | None

    # transformers calls what it multiplies with an inverse; the others call it a scale.
    may_be_floats = False
    marks = frozenset({_SCALE, _INVERSE})

    @classmethod
    def read(cls, settings: Settings) -> Fp8:
        """Read `quantization_config`."""
        label = f"FP8 ({settings.text('quant_method', 'fp8')})"
        settings.refuse_other("fmt", settings.text("fmt", "e4m3"), ("e4m3",))
        return cls(label, block_of(settings, "weight_block_size"))

    @classmethod
    def of_modelopt(cls, settings: Settings) -> Fp8:
        """Read `quantization_config` as ModelOpt writes it, which has more forms than this."""
        settings.refuse_other("quant_algo", settings.text("quant_algo", "").upper(), ("FP8",))
        return cls("FP8 (modelopt)", None)

    def parts(self, found: Found) -> Mapping[str, Part]:
        """List the tensors, as `Method.parts` says."""
        name = _INVERSE if _INVERSE in found.entries or self.block else _SCALE
        return {
            WEIGHT: part(FP8, found.shape),
            name: part(FLOATS, *scale_shapes(found.shape, self.block)),
        }

    def packing(self, found: Found) -> Packing:
        """Choose the scale, as `Method.packing` says."""
        name = _INVERSE if _INVERSE in found.entries else _SCALE
        return Packing(taker(found.shape, name, self.block), None, LOST, "bfloat16")


def block_of(settings: Settings, key: str) -> Block | None:
    """Read the size of a block; null or absent: None.

    Raises:
        ConfigError: it is not two numbers.
    """
    match settings.raw.get(key):
        case None:
            return None
        case [int(rows), int(columns)] if rows > 0 and columns > 0:
            return rows, columns
    message = f"{settings.where}: {key} must be two whole numbers above 0"
    raise ConfigError(message, "take config.json from the model's repository")


def scale_shapes(shape: tuple[int, int], block: Block | None) -> tuple[tuple[int, ...], ...]:
    """Return the shapes that scales may have: one a tensor, one a row, or one a block."""
    rows, columns = shape
    if block is None:
        return (), (1,), (1, 1), (rows, 1), (rows,)
    return ((math.ceil(rows / block[0]), math.ceil(columns / block[1])),)


def taker(shape: tuple[int, int], name: str, block: Block | None) -> Take:
    """Return the function that takes rows apart whose scales are called `name`."""
    count, columns = shape

    def take(read: ReadPart, rows: slice | Tensor) -> Numbers:
        return Numbers(
            read(WEIGHT)[rows],
            scales_of_rows(read(name), rows, count, block),
            groups=None if block is None else group_numbers(columns, block[1]),
        )

    return take


def scales_of_rows(scales: Tensor, rows: slice | Tensor, count: int, block: Block | None) -> Tensor:
    """Return the scales `[n, G]` of some of `count` rows, however many rows share one."""
    numbers = row_numbers(rows, count)
    if block is not None:
        return scales[numbers // block[0]]
    if scales.numel() == 1:
        return scales.reshape(1, 1).expand(len(numbers), 1)
    return scales.reshape(count, -1)[numbers]
