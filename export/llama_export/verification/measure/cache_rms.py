"""How far apart two caches are, position by position. It knows arrays only.

Shapes: K heads, P positions, D numbers of a head.
"""

from __future__ import annotations

import math

import numpy as np

from llama_export.llama.intermediates import FloatArray
from llama_export.verification.measure.in_blocks import Doubles
from llama_export.verification.measure.metrics import relative_rms


def relative_rms_by_position(reference: FloatArray, candidate: FloatArray) -> Doubles:
    """Measure two caches' difference at each position, relative to the reference's size.

    Args:
        reference: keys or values `[K, P, D]` to compare with.
        candidate: keys or values `[K, P, D]` to judge.

    Returns:
        float64 `[P]`: the root mean square of the difference there, over that of the whole
        reference; infinite where the candidate holds a NaN or has another shape.
    """
    positions = reference.shape[1]
    if candidate.shape != reference.shape:
        return np.full(positions, math.inf)
    wanted = reference.astype(np.float64)
    difference = np.square(candidate.astype(np.float64) - wanted).mean(axis=(0, 2))
    mean_square = float(np.square(wanted).mean())
    return np.array([relative_rms(float(value), mean_square) for value in difference])
