"""A mean with its standard error, over windows or other blocks that are drawn alike.

Neighbouring positions of a text are hard together, so their spread says too little; whole windows
are nearly independent. It knows numbers only.

Shapes: B windows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Estimate:
    """A figure with its standard error over windows."""

    value: float
    error: float


def mean(windows: npt.NDArray[np.float64]) -> Estimate:
    """Average a figure of each window `[B]`, at least two, with the standard error of that."""
    return Estimate(float(windows.mean()), float(windows.std(ddof=1)) / math.sqrt(len(windows)))


def ratio(windows: npt.NDArray[np.float64], base: npt.NDArray[np.float64]) -> Estimate:
    """Divide the means of two figures of the same windows `[B]`.

    Windows that are hard are hard for both, so the error is that of the differences, window by
    window: what is left of `windows - ratio * base`, over the mean of the base.
    """
    found = float(windows.mean() / base.mean())
    left = mean(windows - found * base)
    return Estimate(found, left.error / float(base.mean()))
