"""What a user may choose about the text that a method is calibrated on.

It is data: it reads nothing, and knows no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CalibrationOptions:
    """The text of a calibration.

    Args:
        tokens: number of tokens of all windows together.
        files: the user's own texts, files or folders of them; none: the model writes everything.
        seed: seed of whatever is drawn.
    """

    tokens: int = 32768
    files: tuple[Path, ...] = ()
    seed: int = 0

    @property
    def is_chosen(self) -> bool:
        """Whether anything was said of the text."""
        return self != CalibrationOptions()


WINDOW_TOKENS = 512
"""Most tokens of a window; of a model with a shorter context, all of that."""

MOST_TOKENS = 2**20
"""Most tokens of a calibration: from 2**18 on another one teaches hardly anything."""

# It takes a pass there and back: a quarter of the tokens of a 1B, and all of what is much smaller.
_LEAST_CURVATURE_TOKENS, _CURVATURE_WORK = 8192, 10**13

OWN_TEXT = CalibrationOptions()
"""As much of the model's own text as suits most models."""


def curvature_tokens(num_parameters: int) -> int:
    """Return how many tokens curvature is measured with, at most: more of a smaller model.

    Args:
        num_parameters: size of the model.
    """
    return max(_LEAST_CURVATURE_TOKENS, _CURVATURE_WORK // num_parameters)
