"""Run an artifact as it is shipped, token by token, and measure how far it is from the eager model.

It knows a session and the eager passes; it knows neither limits nor reports.

Shapes: P positions, V vocab_size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from llama_export.verification.measure.eager import Eager, QuantisedEager
from llama_export.verification.measure.feed import blocks, prefill, single_steps
from llama_export.verification.measure.metrics import (
    LogitComparison,
    LogitMetrics,
    Logits,
    Perplexity,
    TokenLoss,
    compare_logits,
)

if TYPE_CHECKING:
    from llama_export.targets.session import Session

    Json = dict[str, dict[str, float | int | str | None]]

MOST_PAIRS = 2000


@dataclass(frozen=True)
class Shipped:
    """What the artifact computes as it is shipped, token by token.

    Args:
        lowering: artifact against eager with the quantised weights.
        prefill: the same comparison of the last position after one prefill of everything.
        activation: eager with the runtime's rounding emulated, against eager without it.
        emulated: artifact against eager with the rounding emulated; for an artifact that always
            rounds, each step after the artifact's own cache.
        quantisation: eager with the quantised weights against eager with the checkpoint's.
        artifact_loss: loss of the artifact on the text; this and the others are None for a pruned
            head, which has no logits for the text's tokens.
        quantised_loss: loss of the quantised weights.
        checkpoint_loss: loss of the checkpoint.
        scatter: some pairs of logits (eager with the quantised weights, artifact).
        best_step: smallest relative difference of a step's logits; for an artifact that always
            rounds.

    A field is None where the weights, the checkpoint or the knowledge that it needs are missing.
    """

    lowering: LogitMetrics | None
    prefill: LogitMetrics | None
    activation: LogitMetrics | None
    emulated: LogitMetrics | None
    quantisation: LogitMetrics | None
    artifact_loss: Perplexity | None
    quantised_loss: Perplexity | None
    checkpoint_loss: Perplexity | None
    scatter: tuple[tuple[float, float], ...] = field(default=(), repr=False)
    best_step: float | None = None

    def to_json(self) -> Json:
        """Return every figure that was measured, by name."""
        figures: Mapping[str, LogitMetrics | Perplexity | None] = {
            "lowering_shipped": self.lowering,
            "lowering_shipped_prefill": self.prefill,
            "activation": self.activation,
            "lowering_shipped_emulated": self.emulated,
            "quantisation": self.quantisation,
            "loss_artifact": self.artifact_loss,
            "loss_quantised": self.quantised_loss,
            "loss_checkpoint": self.checkpoint_loss,
        }
        return {name: figure.to_json() for name, figure in figures.items() if figure is not None}


@dataclass(frozen=True)
class TextTokens:
    """How much of what is read is a text itself.

    Args:
        count: number of tokens after the first that are the text; those behind repeat it, so they
            are no draws of their own, and how well they are predicted says nothing.
        scored: whether the predictions are scored; a pruned head has none for a text.
    """

    count: int
    scored: bool


def measure_shipped(
    session: Session,
    quantised: QuantisedEager | None,
    original: Eager | None,
    token_ids: Sequence[int],
    text: TextTokens,
    tick: Callable[[], None],
) -> Shipped:
    """Feed an empty session token by token, and compare every row of logits.

    Args:
        session: empty session, as shipped.
        quantised: eager passes with the quantised weights.
        original: eager pass with the checkpoint's weights.
        token_ids: tokens to feed, and the one after the last of them, `[P + 1]`.
        text: how much of that is the text itself, and whether its tokens are scored.
        tick: function called after each call of the session.
    """
    sums = _Sums(token_ids, text)
    input_ids = token_ids[:-1]
    for block in blocks(0, len(input_ids)):
        candidate = single_steps(session, input_ids[block], tick)
        sums.artifact(block, candidate)
        if quantised is not None:
            sums.eager(block, candidate, quantised, original)
    session.rewind(0)
    last = prefill(session, input_ids, tick)
    wanted = (
        quantised.plain.logits(slice(len(input_ids) - 1, len(input_ids))) if quantised else None
    )
    return sums.result(
        quantised, original, None if wanted is None else compare_logits(wanted, last)
    )


class _Sums:
    """The comparisons of one run, added up block by block."""

    def __init__(self, token_ids: Sequence[int], text: TextTokens) -> None:
        self._targets = token_ids[1:]
        self._is_scored = text.scored
        self._scored = min(text.count, len(self._targets)) if text.scored else 0
        self._lowering, self._activation, self._emulated, self._quantisation = (
            LogitComparison(text.count) for _ in range(4)
        )
        self._artifact_loss, self._quantised_loss = TokenLoss(), TokenLoss()
        self._original_loss = TokenLoss()
        self._pairs: list[tuple[float, float]] = []
        self._best = math.inf
        self._random = np.random.default_rng(0)

    def artifact(self, block: slice, candidate: Logits) -> None:
        self._score(self._artifact_loss, block, candidate)

    def eager(
        self, block: slice, candidate: Logits, quantised: QuantisedEager, original: Eager | None
    ) -> None:
        plain = quantised.plain.logits(block)
        self._lowering.add(plain, candidate)
        self._score(self._quantised_loss, block, plain)
        self._keep_pairs(block, plain, candidate)
        if quantised.rounded is quantised.plain:
            self._activation.add(plain, plain)
            self._emulated.add(plain, candidate)
        elif quantised.rounded is not None:
            self._activation.add(plain, quantised.rounded.logits(block))
            wanted = (quantised.teacher_forced or quantised.rounded).logits(block)
            self._emulated.add(wanted, candidate)
            if quantised.teacher_forced is not None:
                # The first token attends to itself alone, whatever is wrong with attention.
                first = 1 if block.start == 0 and len(candidate) > 1 else 0
                self._keep_best(wanted[first:], candidate[first:])
        if original is not None:
            checkpoint = original.logits(block)
            self._quantisation.add(checkpoint, plain)
            self._score(self._original_loss, block, checkpoint)

    def result(
        self,
        quantised: QuantisedEager | None,
        original: Eager | None,
        prefilled: LogitMetrics | None,
    ) -> Shipped:
        rounded = quantised is not None and quantised.rounded is not None
        both = quantised is not None and original is not None
        return Shipped(
            lowering=self._lowering.metrics() if quantised else None,
            prefill=prefilled,
            activation=self._activation.metrics() if rounded else None,
            emulated=self._emulated.metrics() if rounded else None,
            quantisation=self._quantisation.metrics() if both else None,
            artifact_loss=self._loss(self._artifact_loss),
            quantised_loss=self._loss(self._quantised_loss) if quantised else None,
            checkpoint_loss=self._loss(self._original_loss) if both else None,
            scatter=tuple(self._pairs),
            best_step=self._best if quantised is not None and quantised.teacher_forced else None,
        )

    def _loss(self, loss: TokenLoss) -> Perplexity | None:
        return loss.result() if self._is_scored else None

    def _keep_best(self, wanted: Logits, found: Logits) -> None:
        """Keep the smallest relative difference of a row; a NaN does not count."""
        if wanted.shape == found.shape:
            rms = np.sqrt(np.square(wanted - found).sum(1) / np.square(wanted).sum(1))
            self._best = min(self._best, float(np.nan_to_num(rms, nan=np.inf).min()))

    def _score(self, loss: TokenLoss, block: slice, logits: Logits) -> None:
        stop = min(block.stop, self._scored)
        if stop > block.start:
            loss.add(logits[: stop - block.start], self._targets[block.start : stop])

    def _keep_pairs(self, block: slice, plain: Logits, candidate: Logits) -> None:
        """Keep each row's highest logit, and others drawn the same way every time."""
        if plain.shape != candidate.shape:
            return
        others = max(MOST_PAIRS // len(self._targets) - 1, 0)
        for wanted, found in zip(plain, candidate, strict=True):
            drawn = self._random.integers(0, len(wanted), size=others)
            for column in (int(wanted.argmax()), *map(int, drawn)):
                pair = (float(wanted[column]), float(found[column]))
                if len(self._pairs) < MOST_PAIRS and all(map(math.isfinite, pair)):
                    self._pairs.append(pair)
