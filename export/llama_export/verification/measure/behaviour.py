"""Try what a session must do whatever its weights are: repeat itself, stay apart, and end in time.

It knows a session and the eager passes; it knows neither limits nor reports.

Shapes: P positions, V vocab_size, K key/value heads, D head_dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np

from llama_export.errors import PromptError
from llama_export.llama.intermediates import filled_columns
from llama_export.verification.measure.eager import QuantisedEager
from llama_export.verification.measure.feed import prefill, single_steps
from llama_export.verification.measure.metrics import (
    LogitComparison,
    LogitMetrics,
    Logits,
    compare_logits,
)

if TYPE_CHECKING:
    from llama_export.targets.session import KeyValueArrays, Session

# Steps that are repeated, and interleaved with those of a second conversation.
REPEATED_STEPS = 2
# `feed_conversations` repeats them, feeds two conversations, and one of them alone.
CONVERSATION_CALLS = 4 * REPEATED_STEPS
# `fill_context` takes the last position and, after the refusal, once more.
END_CALLS = 2


@dataclass(frozen=True)
class Conversations:
    """What a rewound session and a fork compute.

    Args:
        rewound: number of logits that are not the same bits when a rewound session repeats its
            calls.
        side_by_side: two conversations fed in turns, each against itself alone.
    """

    rewound: int
    side_by_side: LogitMetrics


@dataclass(frozen=True)
class ContextEnd:
    """What happens where the context ends.

    Args:
        positions: capacity of the artifact.
        lowering: logits at the last position against eager's; None without weights.
        beyond: fault in how one token more is refused; empty when there is none.
        after: number of logits that are not the same bits when the last token is repeated after
            that refusal.
    """

    positions: int
    lowering: LogitMetrics | None
    beyond: str
    after: int


def feed_conversations(
    session: Session,
    start: int,
    input_ids: Sequence[int],
    expected: Logits,
    tick: Callable[[], None],
) -> Conversations:
    """Repeat some single steps after a rewind, then in turns with a second conversation.

    Args:
        session: session that holds at least the tokens before `start`.
        start: position where the steps begin.
        input_ids: all tokens; those from `start` on are fed again.
        expected: logits `[P, V]` of the first P steps from `start`.
        tick: function called after each call of a session.
    """
    own = input_ids[start : start + len(expected)]
    session.rewind(start)
    again = single_steps(session, own, tick)

    # Each of the other tokens differs from the one that is fed in the same turn.
    others = [(token + 1) % session.vocab_size for token in own]
    session.rewind(start)
    fork = session.fork()
    in_turns = []
    for token, other in zip(own, others, strict=True):
        in_turns.append((prefill(session, (token,), tick), prefill(fork, (other,), tick)))
    del fork
    session.rewind(start)
    alone = single_steps(session, others, tick)

    comparison = LogitComparison()
    comparison.add(expected, np.concatenate([first for first, _ in in_turns]))
    comparison.add(alone, np.concatenate([second for _, second in in_turns]))
    return Conversations(_other_bits(expected, again), comparison.metrics())


def fill_context(
    session: Session,
    quantised: QuantisedEager | None,
    token: int,
    tick: Callable[[], None],
) -> ContextEnd:
    """Fill a session's cache but for one position, feed that token, and then one too many.

    Args:
        session: session that holds at least one token; its content is lost.
        quantised: eager passes, whose cache is repeated; None repeats the session's own.
        token: token of the context's last position.
        tick: function called after each call of the session.
    """
    last = session.max_context - 1
    session.restore(_Repeated(_caches(session, quantised), last))
    found = prefill(session, (token,), tick)
    wanted = quantised.context_end.logits(slice(0, 1)) if quantised else None
    beyond = _refusal(session, token)
    session.rewind(last)
    try:
        after = _other_bits(found, prefill(session, (token,), tick))
    except PromptError:  # the rewound session is still full
        after = found.size
    return ContextEnd(
        positions=session.max_context,
        lowering=None if wanted is None else compare_logits(wanted, found),
        beyond=beyond,
        after=after,
    )


class _Repeated(Sequence["KeyValueArrays"]):
    """A cache whose positions are repeated until there are `count`, one layer at a time.

    All layers together are half a gigabyte at 1B; the session holds them once as it is.
    """

    def __init__(self, layers: Sequence[KeyValueArrays], count: int) -> None:
        self._layers = layers
        self._count = count

    def __len__(self) -> int:
        return len(self._layers)

    @overload
    def __getitem__(self, index: int) -> KeyValueArrays: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[KeyValueArrays]: ...
    def __getitem__(self, index: int | slice) -> KeyValueArrays | Sequence[KeyValueArrays]:
        if isinstance(index, slice):
            return _Repeated(self._layers[index], self._count)
        key, value = (
            rows[:, np.arange(self._count) % rows.shape[1]] for rows in self._layers[index]
        )
        return key, value


def _caches(session: Session, quantised: QuantisedEager | None) -> Sequence[KeyValueArrays]:
    if quantised is None:
        return [session.cache(layer) for layer in range(session.num_layers)]
    columns = session.cache(0)[0].shape[-1]
    cache = quantised.plain.states.cache
    filled = [[filled_columns(rows[0].numpy(), columns) for rows in pair] for pair in cache]
    return [(key, value) for key, value in filled]


def _refusal(session: Session, token: int) -> str:
    """Return what is wrong when a full session is fed a token; empty when it refuses it."""
    try:
        session.prefill((token,))
    except PromptError:
        moved = session.position != session.max_context
        return f"it was refused, but the session is at {session.position}" if moved else ""
    except (RuntimeError, ValueError, IndexError) as error:
        return f"{type(error).__name__} where a PromptError was expected: {error}"
    return "it was accepted"


def _other_bits(expected: Logits, found: Logits) -> int:
    if expected.shape != found.shape:
        return expected.size
    return int((expected.view(np.int32) != found.view(np.int32)).sum())
