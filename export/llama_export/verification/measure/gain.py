"""Measure what the method of quantised weights gained over plain rounding into the same forms.

Three eager models read the verification's text and a second one of another domain: the checkpoint,
its quantised weights, and the same weights with their linears rounded to nearest while they are
read. A text as long as that of a quick check says too little of it. It knows no limits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llama_export.verification.artifact import Artifact
from llama_export.verification.estimate import Estimate
from llama_export.verification.measure.eager import Eager
from llama_export.verification.measure.feed import blocks
from llama_export.verification.measure.in_blocks import ratio_in_blocks
from llama_export.verification.measure.metrics import LogitComparison, LogitMetrics
from llama_export.verification.measure.nearest import methods_of_linears, rounded_to_nearest
from llama_export.verification.samples import Reading, second_text

if TYPE_CHECKING:
    from llama_export.verification.measure.shipped import Json


@dataclass(frozen=True)
class OnText:
    """How far two sets of weights are from the checkpoint on one text.

    Args:
        text: name of the text.
        weights: distance of the quantised weights.
        rounded: distance of plain rounding.
    """

    text: str
    weights: LogitMetrics
    rounded: LogitMetrics

    @property
    def ratio(self) -> Estimate:
        """Return the KL over that of plain rounding; 1 where neither lost anything."""
        positions = self.weights.positions
        if self.rounded.kl_mean > 0:
            value = self.weights.kl_mean / self.rounded.kl_mean
            return replace(ratio_in_blocks(self.weights.own_kl, self.rounded.own_kl), value=value)
        value = 1.0 if self.weights.kl_mean == 0 else math.inf
        return Estimate(value, math.nan, positions)

    @property
    def fault(self) -> str:
        """Return why there is no figure; empty when there is one."""
        return self.weights.fault or self.rounded.fault


@dataclass(frozen=True)
class Gain:
    """What a method gained over plain rounding.

    Args:
        read: comparison on the verification's text.
        second: comparison on a text of another domain.
    """

    read: OnText
    second: OnText

    def to_json(self) -> Json:
        """Return every figure that was measured, by name."""
        return {
            "rounding": self.read.rounded.to_json(),
            "quantisation_second": self.second.weights.to_json(),
            "rounding_second": self.second.rounded.to_json(),
        }


def measure_gain(
    artifact: Artifact, reading: Reading, original: Eager | None, quantised: LogitMetrics | None
) -> Gain | None:
    """Compare the quantised weights with plain rounding; None: nothing was rounded in groups.

    Args:
        artifact: artifact with its references.
        reading: tokens that were read.
        original: eager pass of the checkpoint over the compared ones; None: there is none.
        quantised: distance of the quantised weights from it.
    """
    weights, checkpoint = artifact.weights, artifact.checkpoint
    if weights is None or checkpoint is None or original is None or quantised is None:
        return None
    if not methods_of_linears(weights):
        return None
    config, second = artifact.config, second_text(artifact.tokenizer)
    compared = second.take(min(len(second.token_ids), reading.budget.positions))
    read = rounded_to_nearest(weights, checkpoint.tensor)
    rounded, rounded_second = Eager.run_texts(config, read, (reading.compared, compared))
    original_second = Eager.run(config, checkpoint.tensor, compared)
    quantised_second = Eager.run(config, weights.get, compared)
    own = len(reading.text.token_ids)
    return Gain(
        OnText(reading.text.name, quantised, _distance(original, rounded, own)),
        OnText(
            second.name,
            _distance(original_second, quantised_second, len(compared)),
            _distance(original_second, rounded_second, len(compared)),
        ),
    )


def _distance(wanted: Eager, found: Eager, own: int) -> LogitMetrics:
    comparison = LogitComparison(own)
    for block in blocks(0, wanted.states.hidden.shape[1]):
        comparison.add(wanted.logits(block), found.logits(block))
    return comparison.metrics()
