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
    """A figure with its standard error over windows.

    Args:
        value: the figure.
        error: its standard error; NaN where there is none.
        count: number of positions that it is a mean of; None where nobody counted them.
    """

    value: float
    error: float
    count: int | None = None

    def shown(self, scale: float = 1.0) -> str:
        """Write both, to the digit that the error allows: `0.0121 ± 0.0004`.

        The error has one digit, two where the first is a 1 once it is rounded, and the value ends
        at the same place: `0.12 ± 0.10` of 0.0996.
        A figure without an error, or with one that is no number, is written in three digits.

        Args:
            scale: factor of both; 100 makes a share percent.
        """
        value, error = self.value * scale, self.error * scale
        if not (math.isfinite(value) and math.isfinite(error) and error > 0):
            return f"{value:.3g}"
        one, two = f"{error:.0e}", f"{error:.1e}"
        digits = 2 if "1" in (one[0], two[0]) else 1
        place = int(one.partition("e")[2]) - (digits - 1)
        # Adding 0 makes a -0 a 0.
        value, error = round(value, -place) + 0.0, round(error, -place)
        decimals = max(0, -place)
        if decimals > 6 and value != 0:
            return f"{value:.{max(0, _exponent(value) - place)}e} ± {error:.{digits - 1}e}"
        return f"{value:.{decimals}f} ± {error:.{decimals}f}"


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


def _exponent(value: float) -> int:
    return int(f"{value:e}".partition("e")[2])
