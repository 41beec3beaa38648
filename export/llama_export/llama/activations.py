"""How a runtime may round what flows into a product: the vocabulary, and nothing that computes.

A target says in these words what its artifact's products do; `verify` emulates it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ActivationQuantization:
    """Rounding of a product's input, anew for each row and block of neighbouring columns.

    Symmetric, a block's largest magnitude becomes the largest code; x becomes
    `round(x * (code_max / largest))`, ties to the even code. With a zero point, the block's range,
    which always contains 0, becomes the codes' whole range.

    Args:
        bits: width of a signed code; 8 gives codes of -127..127, or -128..127 with a zero point.
        block: number of columns that share a scale; None: the whole row.
        zero_point: whether the code that stands for zero is chosen too.
    """

    bits: int
    block: int | None
    zero_point: bool = False

    @property
    def code_max(self) -> int:
        """The largest code."""
        return (1 << (self.bits - 1)) - 1


# By the checkpoint's name of the product's weight; a product that is not named rounds nothing.
RoundedInputs = Mapping[str, ActivationQuantization]
EXACT_INPUTS: RoundedInputs = {}
