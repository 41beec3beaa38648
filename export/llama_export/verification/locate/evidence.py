"""Lay out the values inside an artifact for comparing one operator at a time.

It knows the points and how to measure a difference; it does not know what any operator computes.

Shapes: S tokens of all chunks, N values a token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llama_export.llama import intermediates
from llama_export.llama.config import LlamaConfig
from llama_export.llama.intermediates import Intermediates
from llama_export.llama.streamed import ReadWeight


@dataclass(frozen=True)
class Evidence:
    """Values from inside an artifact, and the model that it should be.

    Args:
        config: shape of the model.
        read: function that returns a weight by its Hugging Face name.
        chunks: tokens by call.
        tapped: values that were read during each call.
    """

    config: LlamaConfig
    read: ReadWeight
    chunks: Sequence[Sequence[int]]
    tapped: Sequence[Intermediates]

    @property
    def input_ids(self) -> Tensor:
        """Return all tokens, int64 `[S]`."""
        return torch.tensor([token for chunk in self.chunks for token in chunk])

    def has(self, point: str) -> bool:
        """Return whether the artifact has a point, in the right shape in every call."""
        start = 0
        for chunk, tapped in zip(self.chunks, self.tapped, strict=True):
            found = tapped.values.get(point)
            if found is None or not self._fits(point, found.shape, start, len(chunk)):
                return False
            start += len(chunk)
        return True

    def name(self, point: str) -> str:
        """Return the artifact's own name of a point's value, or the point where there is none."""
        return self.tapped[0].names.get(point, point)

    def rows(self, point: str) -> Tensor:
        """Return a point's rows of all chunks, `[S, N]`."""
        return torch.cat([torch.from_numpy(tapped.values[point]) for tapped in self.tapped])

    def _fits(self, point: str, shape: tuple[int, ...], start: int, length: int) -> bool:
        config = self.config
        if point == intermediates.HEAD:
            return shape in ((1, config.num_logits), (length, config.num_logits))
        size, shared = config.head_dim, config.num_key_value_heads
        part = point.split(".", 3)[-1] if point.startswith("model.layers.") else point
        if part in (
            intermediates.KEY,
            intermediates.VALUE,
            intermediates.PAST_KEY,
            intermediates.PAST_VALUE,
        ):
            rows = (
                start
                if part in (intermediates.PAST_KEY, intermediates.PAST_VALUE)
                else start + length
            )
            return shape == (shared, rows, size)
        widths = {
            intermediates.QKV: (config.num_attention_heads + 2 * shared) * size,
            intermediates.MIXED: config.num_attention_heads * size,
            **dict.fromkeys(
                (
                    intermediates.GATE,
                    intermediates.UP,
                    intermediates.ACTIVATION,
                    intermediates.ROTATED,
                ),
                config.intermediate_size,
            ),
        }
        return shape == (length, widths.get(part, config.hidden_size))

    def head_rows(self) -> Tensor:
        """Return the rows of the final norm for which the artifact returns logits, `[R, E]`."""
        normed = []
        for tapped in self.tapped:
            count = len(tapped.values[intermediates.HEAD])
            normed.append(torch.from_numpy(tapped.values[intermediates.FINAL_NORM])[-count:])
        return torch.cat(normed)


@dataclass(frozen=True)
class Deviation:
    """An operator whose result is not what it should be on the artifact's own input.

    Args:
        operator: module path of the operator.
        layer: index of its layer; None outside the layers.
        point: point at which its result was read.
        error: relative error, in the operator's own norm.
        limit: largest error that rounding explains.
        where: largest difference, in plain words.
        explain: function that returns the likely cause in plain words, "" if the pattern shows
            none; slow.
        rows: first output rows that differ, where the operator holds a weight.
    """

    operator: str
    layer: int | None
    point: str
    error: float
    limit: float
    where: str
    explain: Callable[[], str]
    rows: tuple[int, ...] = ()


def relative_error(expected: Tensor, found: Tensor, scale: Tensor) -> Tensor:
    """Measure a difference in units of the size that rounding is relative to.

    Args:
        expected: right values, of any shape.
        found: values to judge, of the same shape.
        scale: sizes that rounding is relative to, broadcast to that shape; zero where the result
            can only be exact.

    Returns:
        float64 of that shape: 0 where both are the same infinity or no number, inf where only one
        of them is.
    """
    difference = (found.double() - expected.double()).abs()
    error = difference / scale.double().clamp_min(torch.finfo(torch.float32).tiny)
    error = torch.where(difference.isfinite(), error, math.inf)
    both = ~expected.isfinite() & ~found.isfinite()
    return torch.where(both | (difference == 0), 0.0, error)


def is_explained(expected: Tensor, found: Tensor, error: float, limit: float) -> bool:
    """Return whether a suspected fault explains what was found.

    Args:
        expected: result of the suspected fault.
        found: values to explain, of the same shape.
        error: distance of `found` from the right result.
        limit: error that rounding may cause.
    """
    scale = expected.double().square().mean().sqrt()
    left = float(relative_error(expected, found, scale).max())
    # Near the limit everything would fit: a suspect must take most of the error away.
    return left <= min(max(20 * limit, min(error, 1.0) / 50), error / 5)
