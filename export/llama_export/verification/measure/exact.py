"""Run an artifact in exact float32: against the eager model, and against itself in other portions.

It knows a session and the eager passes; it knows neither limits nor reports.

Shapes: P positions, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np

from llama_export.llama.intermediates import own_columns
from llama_export.verification.measure.behaviour import (
    CONVERSATION_CALLS,
    END_CALLS,
    REPEATED_STEPS,
    ContextEnd,
    Conversations,
    feed_conversations,
    fill_context,
)
from llama_export.verification.measure.cache_rms import relative_rms_by_position
from llama_export.verification.measure.eager import QuantisedEager
from llama_export.verification.measure.feed import blocks, prefill, single_steps
from llama_export.verification.measure.metrics import (
    LogitComparison,
    LogitMetrics,
    Logits,
    compare_logits,
)
from llama_export.verification.samples import Budget

if TYPE_CHECKING:
    from llama_export.llama.attention import KeyValue
    from llama_export.targets.session import Session

    Json = dict[str, dict[str, float | int | str | None]]


@dataclass(frozen=True)
class CacheDifference:
    """The worst difference of an artifact's cache from the eager model's, and where it is."""

    value: float
    where: str


@dataclass(frozen=True)
class AtLength:
    """One comparison of logits after a prefill of some length."""

    length: int
    metrics: LogitMetrics


@dataclass(frozen=True)
class InPortions:
    """The last logits after some portions, against those after one prefill of the same tokens."""

    sizes: tuple[int, ...]
    metrics: LogitMetrics


@dataclass(frozen=True)
class Exact:
    """What the artifact computes in exact float32.

    Args:
        lowering: artifact against eager with the quantised weights; None without those.
        cache: the same comparison of keys and values.
        lengths: the same comparison of the last position after prefills of increasing length.
        at_once: last position after one prefill, against a prefill and single steps.
        portions: first tokens, cut up in several ways.
        conversations: results of a fork and of a rewound session.
        end: behaviour where the context ends; None when it was not filled.
        first_compared: position at which `lowering` begins.
    """

    lowering: LogitMetrics | None
    cache: CacheDifference | None
    lengths: tuple[AtLength, ...]
    at_once: LogitMetrics
    portions: tuple[InPortions, ...]
    conversations: Conversations
    end: ContextEnd | None
    first_compared: int = 0

    def to_json(self) -> Json:
        """Return every figure that was measured, by name."""
        figures: Mapping[str, LogitMetrics | None] = {
            "lowering_exact": self.lowering,
            "prefill_at_once": self.at_once,
            "side_by_side": self.conversations.side_by_side,
            "context_end": self.end.lowering if self.end else None,
            **{f"lowering_exact_{each.length}": each.metrics for each in self.lengths},
            **{
                f"portions_of_{'_'.join(map(str, each.sizes[:4]))}": each.metrics
                for each in self.portions
            },
        }
        return {name: figure.to_json() for name, figure in figures.items() if figure is not None}


def exact_calls(budget: Budget) -> int:
    """Return the most calls of the session that `measure_exact` makes."""
    portions = sum(map(len, budget.portions)) + 1
    steps = 1 + budget.exact_steps + CONVERSATION_CALLS
    return steps + len(budget.lengths) + portions + END_CALLS


def measure_exact(
    session: Session,
    quantised: QuantisedEager | None,
    input_ids: Sequence[int],
    budget: Budget,
    text_tokens: int,
    tick: Callable[[], None],
) -> Exact:
    """Feed an empty session the same tokens in many ways; only float32 order may differ.

    Args:
        session: empty session that computes in exact float32.
        quantised: eager passes with the quantised weights, over all tokens.
        input_ids: tokens `[budget.longest]`.
        budget: amount of work.
        text_tokens: number of tokens after which the text repeats itself.
        tick: function called after each call of the session.
    """
    # So many positions in a row are all different, wherever they begin.
    comparison = LogitComparison(text_tokens)
    stepped = _prefill_and_steps(session, quantised, input_ids, budget, comparison, tick)
    conversations = feed_conversations(session, stepped.start, input_ids, stepped.rows, tick)
    lengths = []
    at_once = stepped.last
    for length in budget.lengths:
        session.rewind(0)
        found = prefill(session, input_ids[:length], tick)
        at_once = found if length == budget.positions else at_once
        if quantised is not None:
            wanted = quantised.same_arithmetic.logits(slice(length - 1, length))
            lengths.append(AtLength(length, compare_logits(wanted, found)))
    portions = _in_portions(session, input_ids, budget.portions, tick)
    end = fill_context(session, quantised, input_ids[0], tick) if budget.fills_context else None
    return Exact(
        lowering=stepped.lowering,
        cache=stepped.cache,
        lengths=tuple(lengths),
        at_once=compare_logits(stepped.last, at_once),
        portions=tuple(portions),
        conversations=conversations,
        end=end,
        first_compared=budget.positions - budget.exact_steps - 1,
    )


@dataclass(frozen=True)
class _Stepped:
    """A prefill and single steps: the comparison, the first few steps' rows, and the last."""

    lowering: LogitMetrics | None
    cache: CacheDifference | None
    start: int
    rows: Logits
    last: Logits


def _prefill_and_steps(
    session: Session,
    quantised: QuantisedEager | None,
    input_ids: Sequence[int],
    budget: Budget,
    comparison: LogitComparison,
    tick: Callable[[], None],
) -> _Stepped:
    prefilled = budget.positions - budget.exact_steps
    last = prefill(session, input_ids[:prefilled], tick)
    if quantised is not None:
        comparison.add(quantised.same_arithmetic.logits(slice(prefilled - 1, prefilled)), last)
    # With a context of one token the prefill is itself the only step.
    start, rows = (prefilled, last[:0]) if budget.exact_steps else (0, last)
    for block in blocks(prefilled, budget.positions):
        candidate = single_steps(session, input_ids[block], tick)
        rows = np.concatenate((rows, candidate[: REPEATED_STEPS - len(rows)]))
        last = candidate[-1:]
        if quantised is not None:
            comparison.add(quantised.same_arithmetic.logits(block), candidate)
    if quantised is None:
        return _Stepped(None, None, start, rows, last)
    cache = _compare_cache(session, quantised.same_arithmetic.states.cache)
    return _Stepped(comparison.metrics(), cache, start, rows, last)


def _in_portions(
    session: Session,
    input_ids: Sequence[int],
    portions: Sequence[Sequence[int]],
    tick: Callable[[], None],
) -> Iterator[InPortions]:
    """Compare the last logits of the first tokens, whole and cut up."""
    session.rewind(0)
    whole = prefill(session, input_ids[: sum(portions[0])], tick)
    for sizes in portions:
        session.rewind(0)
        found = whole
        for start, stop in pairwise([0, *accumulate(sizes)]):
            found = prefill(session, input_ids[start:stop], tick)
        yield InPortions(tuple(sizes), compare_logits(whole, found))


def _compare_cache(session: Session, cache: Sequence[KeyValue]) -> CacheDifference:
    worst = CacheDifference(0.0, f"all {len(cache)} layers")
    for layer, (key, value) in enumerate(cache):
        found = session.cache(layer)
        for name, wanted, got in zip(("keys", "values"), (key, value), found, strict=True):
            rows = wanted[0, :, : session.position].numpy()
            difference = relative_rms_by_position(rows, own_columns(got, rows.shape[-1]))
            position = int(difference.argmax())
            if difference[position] > worst.value:
                where = f"worst in the {name} of layer {layer}, position {position}"
                worst = CacheDifference(float(difference[position]), where)
    return worst
