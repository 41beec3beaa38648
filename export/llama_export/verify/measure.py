"""Run an artifact and the eager model over the same tokens, and measure how far they are apart.

It knows sessions and the reference; it does not know limits or reports.

Shapes: P positions, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from llama_export.config import LlamaConfig
from llama_export.verify.metrics import (
    LogitComparison,
    LogitMetrics,
    Perplexity,
    TokenLoss,
    compare_logits,
    relative_rms_by_position,
)
from llama_export.verify.reference import (
    ReadWeight,
    ReferenceStates,
    reference_head,
    reference_states,
)

if TYPE_CHECKING:
    from llama_export.targets import Session

    Logits = npt.NDArray[np.float32]
    Json = dict[str, dict[str, float | int | str | None]]

# 64 positions of a 128256-word vocabulary are 33 MB in float32.
_BLOCK_POSITIONS = 64

# Calls of `measure_exact` but for its single steps: the first prefill, all at once, three uneven
# portions, and one token again after a rewind.
EXACT_EXTRA_CALLS = 6


@dataclass(frozen=True)
class Eager:
    """The eager model's hidden states over the tokens, with one set of weights.

    Args:
        config: the shape.
        read: gives the weights by name.
        states: what the model computes below its head.
    """

    config: LlamaConfig
    read: ReadWeight
    states: ReferenceStates

    @classmethod
    def run(
        cls,
        config: LlamaConfig,
        read: ReadWeight,
        input_ids: Sequence[int],
        *,
        keep_cache: bool = False,
    ) -> Eager:
        """Run everything below the head."""
        tokens = torch.tensor([list(input_ids)])
        return cls(config, read, reference_states(config, read, tokens, keep_cache=keep_cache))

    def logits(self, positions: slice) -> Logits:
        """Return the logits of some positions, float32 `[P, V]`."""
        hidden = self.states.hidden[0, positions]
        result: Logits = reference_head(self.config, self.read, hidden).numpy()
        return result


@dataclass(frozen=True)
class Shipped:
    """What the artifact computes as it is shipped, token by token.

    Args:
        lowering: the artifact against eager with the quantised weights.
        prefill: the same, for the last position after one prefill of everything.
        quantisation: eager quantised against eager with the checkpoint's weights.
        artifact_loss: how well the artifact predicts the text.
        quantised_loss: how well the quantised weights do.
        checkpoint_loss: how well the checkpoint does.

    A field is None where the weights or the checkpoint that it needs are not at hand.
    """

    lowering: LogitMetrics | None
    prefill: LogitMetrics | None
    quantisation: LogitMetrics | None
    artifact_loss: Perplexity
    quantised_loss: Perplexity | None
    checkpoint_loss: Perplexity | None

    def to_json(self) -> Json:
        """Return every figure that there is, by name."""
        figures: Mapping[str, LogitMetrics | Perplexity | None] = {
            "lowering_shipped": self.lowering,
            "lowering_shipped_prefill": self.prefill,
            "quantisation": self.quantisation,
            "loss_artifact": self.artifact_loss,
            "loss_quantised": self.quantised_loss,
            "loss_checkpoint": self.checkpoint_loss,
        }
        return {name: figure.to_json() for name, figure in figures.items() if figure is not None}


@dataclass(frozen=True)
class CacheDifference:
    """The worst difference of an artifact's cache to the eager model's, and where it is."""

    value: float
    where: str


@dataclass(frozen=True)
class Exact:
    """What the artifact computes in exact float32.

    Args:
        lowering: the artifact against eager with the quantised weights; None without those.
        cache: the same for its keys and values.
        at_once: the last position after one prefill, against a prefill and single steps.
        chunked: the same after three uneven portions.
        rewound: the same after forgetting the last token and giving it again.
    """

    lowering: LogitMetrics | None
    cache: CacheDifference | None
    at_once: LogitMetrics
    chunked: LogitMetrics
    rewound: LogitMetrics

    def to_json(self) -> Json:
        """Return every figure that there is, by name."""
        figures: Mapping[str, LogitMetrics | None] = {
            "lowering_exact": self.lowering,
            "prefill_at_once": self.at_once,
            "prefill_chunked": self.chunked,
            "prefill_rewound": self.rewound,
        }
        return {name: figure.to_json() for name, figure in figures.items() if figure is not None}


def measure_shipped(
    session: Session,
    quantised: Eager | None,
    original: Eager | None,
    token_ids: Sequence[int],
    tick: Callable[[], None],
) -> Shipped:
    """Feed an empty session token by token, and compare every row of logits.

    Args:
        session: at the accuracy level as shipped.
        quantised: eager with the quantised weights.
        original: eager with the checkpoint's weights.
        token_ids: `[P + 1]`: what is fed, and the token after the last of them.
        tick: called after each call of the session.
    """
    input_ids, targets = token_ids[:-1], token_ids[1:]
    lowering, quantisation = LogitComparison(), LogitComparison()
    artifact_loss, quantised_loss, original_loss = TokenLoss(), TokenLoss(), TokenLoss()
    for block in _blocks(0, len(input_ids)):
        candidate = _steps(session, input_ids[block], tick)
        artifact_loss.add(candidate, targets[block])
        if quantised is None:
            continue
        reference = quantised.logits(block)
        lowering.add(reference, candidate)
        quantised_loss.add(reference, targets[block])
        if original is not None:
            checkpoint = original.logits(block)
            quantisation.add(checkpoint, reference)
            original_loss.add(checkpoint, targets[block])
    session.rewind(0)
    last = _prefill(session, input_ids, tick)
    both = quantised is not None and original is not None
    return Shipped(
        lowering=lowering.metrics() if quantised else None,
        prefill=compare_logits(quantised.logits(slice(-1, None)), last) if quantised else None,
        quantisation=quantisation.metrics() if both else None,
        artifact_loss=artifact_loss.result(),
        quantised_loss=quantised_loss.result() if quantised else None,
        checkpoint_loss=original_loss.result() if both else None,
    )


def measure_exact(
    session: Session,
    quantised: Eager | None,
    input_ids: Sequence[int],
    exact_steps: int,
    tick: Callable[[], None],
) -> Exact:
    """Feed an empty session the same tokens in several portions; only float32 order may differ.

    Args:
        session: at the accuracy level that computes in exact float32.
        quantised: eager with the quantised weights, with its cache kept.
        input_ids: `[P]`, at least two.
        exact_steps: how many of them are single steps.
        tick: called after each call of the session.
    """
    prefilled = len(input_ids) - exact_steps
    comparison = LogitComparison()
    last = _prefill(session, input_ids[:prefilled], tick)
    if quantised is not None:
        comparison.add(quantised.logits(slice(prefilled - 1, prefilled)), last)
    for block in _blocks(prefilled, len(input_ids)):
        candidate = _steps(session, input_ids[block], tick)
        last = candidate[-1:]
        if quantised is not None:
            comparison.add(quantised.logits(block), candidate)
    cache = _compare_cache(session, quantised.states) if quantised else None

    session.rewind(len(input_ids) - 1)
    rewound = _prefill(session, input_ids[-1:], tick)
    session.rewind(0)
    at_once = _prefill(session, input_ids, tick)
    session.rewind(0)
    for portion in _uneven_portions(len(input_ids)):
        chunked = _prefill(session, input_ids[portion], tick)
    return Exact(
        lowering=comparison.metrics() if quantised else None,
        cache=cache,
        at_once=compare_logits(last, at_once),
        chunked=compare_logits(last, chunked),
        rewound=compare_logits(last, rewound),
    )


def _steps(session: Session, input_ids: Sequence[int], tick: Callable[[], None]) -> Logits:
    return np.concatenate([_prefill(session, (token,), tick) for token in input_ids])


def _prefill(session: Session, input_ids: Sequence[int], tick: Callable[[], None]) -> Logits:
    # A copy: a runtime may hand out the buffer that it writes the next call's logits to.
    row: Logits = np.array(session.prefill(input_ids), dtype=np.float32)[None]
    tick()
    return row


def _blocks(start: int, stop: int) -> Iterator[slice]:
    for first in range(start, stop, _BLOCK_POSITIONS):
        yield slice(first, min(first + _BLOCK_POSITIONS, stop))


def _uneven_portions(count: int) -> list[slice]:
    """Cut into three portions, the first two odd: where kernels pad, an odd end shows it."""
    sizes = [size for size in (count // 3 | 1, count // 4 | 1) if size < count]
    sizes = sizes if sum(sizes) < count else sizes[:1]
    ends = [*accumulate(sizes), count]
    return [slice(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]


def _compare_cache(session: Session, states: ReferenceStates) -> CacheDifference:
    worst = CacheDifference(0.0, "")
    for layer, (key, value) in enumerate(states.cache):
        found = session.cache(layer)
        for name, wanted, got in zip(("keys", "values"), (key, value), found, strict=True):
            difference = relative_rms_by_position(wanted[0].numpy(), got)
            position = int(difference.argmax())
            if difference[position] > worst.value:
                where = f"worst in the {name} of layer {layer}, position {position}"
                worst = CacheDifference(float(difference[position]), where)
    return worst
