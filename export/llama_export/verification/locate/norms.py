"""Check a norm on the artifact's own input: value by value, and the size of whole rows.

The reference is computed in float64, so that only the artifact's own rounding counts. It knows no
runtime and no layers.

Shapes: S tokens, E hidden_size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from llama_export.llama.streamed import weight_rows
from llama_export.verification.locate.evidence import Deviation, Evidence, relative_error

_EPSILON = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Norm:
    """A root-mean-square norm.

    Args:
        name: module path.
        layer: index of its layer; None for the final norm.
        source: point of its input.
        point: point of its result.
    """

    name: str
    layer: int | None
    source: str
    point: str

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the points that the check reads."""
        return self.source, self.point

    def check(self, evidence: Evidence) -> Iterator[Deviation]:
        """Compare value by value, then the size of whole rows, which an epsilon changes."""
        x, found = evidence.rows(self.source).double(), evidence.rows(self.point).double()
        gamma = evidence.read(f"{self.name}.weight")
        weight = weight_rows(gamma, slice(None)).double()
        eps = evidence.config.rms_norm_eps
        expected = functional.rms_norm(x, weight.shape, weight, eps)
        error = relative_error(expected, found, expected.abs())
        gain = (found * expected).sum(1) / expected.square().sum(1)
        worst, shift = float(error.max()), abs(float((gain - 1).median()))
        value_limit, row_limit = _limits(len(weight))
        explain = _explain_norm(x, gain, error, eps)
        if worst > value_limit:
            by_channel = error.amax(0)
            count = int((by_channel > value_limit).sum())
            channel = int(by_channel.argmax())
            where = f"{count} of {len(weight)} channels differ, most channel {channel}"
            yield Deviation(self.name, self.layer, self.point, worst, value_limit, where, explain)
        elif shift > row_limit:
            where = f"whole rows are {float(gain.median()) - 1:+.1e} off in size"
            yield Deviation(self.name, self.layer, self.point, shift, row_limit, where, explain)


def _limits(width: int) -> tuple[float, float]:
    """Return the limits of a value's error and of the error in the size of whole rows.

    A third of them was measured, at widths of 128 to 2048. A wrong epsilon moves all rows alike, by
    less than one value's rounding: that is why the rows' median size has a limit of its own.
    """
    walk = width**0.5
    return _EPSILON * (4 + 0.5 * walk), _EPSILON * (1.5 + 0.1 * walk)


def _explain_norm(x: Tensor, gain: Tensor, error: Tensor, eps: float) -> Callable[[], str]:
    """Distinguish an epsilon, which changes all channels of a row alike, from a weight."""

    def explain() -> str:
        variance = x.square().mean(1)
        # The rows where an epsilon counts most tell it best.
        rows = variance.argsort()[: max(1, len(variance) // 2)]
        guesses = (variance[rows] + eps) / gain[rows].square() - variance[rows]
        guess = float(guesses.median())
        wrong = (error.amax(0) > _limits(error.shape[1])[0]).sum()
        if guess >= 0 and float((guesses - guess).abs().median()) < 0.3 * abs(guess - eps):
            return f"its epsilon seems to be {guess:.1e}; the model's is {eps:g}"
        if int(wrong) < error.shape[1] // 2:
            return "its weight differs in those channels"
        return ""

    return explain
