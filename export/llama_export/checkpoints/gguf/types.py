"""The forms that a tensor of a GGUF file may have, and what becomes of each.

Sizes are ggml's. It knows no file and computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class TensorType:
    """A form of numbers.

    Args:
        number: its number in a file.
        name: ggml's name.
        block: how many weights of a row make a block.
        block_bytes: bytes of a block.
    """

    number: int
    name: str
    block: int
    block_bytes: int


TYPES: Mapping[int, TensorType] = {
    number: TensorType(number, name, block, block_bytes)
    for number, name, block, block_bytes in (
        (0, "F32", 1, 4),
        (1, "F16", 1, 2),
        (2, "Q4_0", 32, 18),
        (3, "Q4_1", 32, 20),
        (6, "Q5_0", 32, 22),
        (7, "Q5_1", 32, 24),
        (8, "Q8_0", 32, 34),
        (9, "Q8_1", 32, 40),
        (10, "Q2_K", 256, 84),
        (11, "Q3_K", 256, 110),
        (12, "Q4_K", 256, 144),
        (13, "Q5_K", 256, 176),
        (14, "Q6_K", 256, 210),
        (15, "Q8_K", 256, 292),
        (16, "IQ2_XXS", 256, 66),
        (17, "IQ2_XS", 256, 74),
        (18, "IQ3_XXS", 256, 98),
        (19, "IQ1_S", 256, 50),
        (20, "IQ4_NL", 32, 18),
        (21, "IQ3_S", 256, 110),
        (22, "IQ2_S", 256, 82),
        (23, "IQ4_XS", 256, 136),
        (24, "I8", 1, 1),
        (25, "I16", 1, 2),
        (26, "I32", 1, 4),
        (27, "I64", 1, 8),
        (28, "F64", 1, 8),
        (29, "IQ1_M", 256, 56),
        (30, "BF16", 1, 2),
        (34, "TQ1_0", 256, 54),
        (35, "TQ2_0", 256, 66),
        (39, "MXFP4", 32, 17),
        (40, "NVFP4", 64, 36),
        (41, "Q1_0", 128, 18),
    )
}

FLOATS = ("F32", "F16", "BF16")
"""Forms that are floats as they stand."""
KEPT = "Q8_0"
"""The form whose codes and scales are ours: int8 in groups of 32."""
INT4_FROM_FLOATS_DB = 19.6
"""Signal to noise of int4 g32 made from floats that are distributed like a Llama's."""
INT4_DB: Mapping[str, float] = {
    "Q8_0": 19.6,
    "Q6_K": 19.4,
    "Q4_0": 19.0,
    "Q5_1": 19.0,
    "Q5_K": 19.0,
    "Q5_0": 18.4,
    "Q4_K": 17.8,
    "Q4_1": 17.5,
    "IQ4_NL": 17.5,
    "IQ4_XS": 17.5,
    "Q3_K": 14.5,
    "Q2_K": 9.4,
}
"""Forms that are dequantised, with the signal to noise of int4 g32 made from what they hold.

The same weights were stored in each form by ggml, dequantised, and quantised by our default method;
all is measured against the weights before the first of these steps.
"""
POOR = ("Q3_K", "Q2_K")
"""Forms of these that have lost more than int4 itself loses; they are read when asked for."""
