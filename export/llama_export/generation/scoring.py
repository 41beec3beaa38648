"""How likely a model finds tokens after other tokens: log-likelihoods, one token a step.

An artifact gives the logits of one position a call, so a context is read in one prefill, and what
is scored is stepped through, as it would be while it is written. What a text has in common with the
one before it stays in the KV cache, and so do the logits after a context: the choices of a question
cost their own tokens alone. It knows token ids; it knows no text, no task and no runtime.

Shapes: V logits, N tokens that are scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llama_export.errors import PromptError
from llama_export.generation.prefix_cache import PrefixCache
from llama_export.llama.intermediates import FloatArray

Doubles = npt.NDArray[np.float64]
# Of the positions behind a context, from its last token on: choices rarely have more in common. A
# row of a vocabulary of 128256 takes 0.5 MB.
_MOST_KEPT_ROWS = 8


@dataclass(frozen=True, eq=False)
class TokenScores:
    """What a model makes of some tokens.

    Args:
        log_likelihoods: natural logarithm of each token's probability, float64 `[N]`.
        is_greedy: whether each of them is the likeliest one where it stands.
    """

    log_likelihoods: Doubles
    is_greedy: bool

    @property
    def total(self) -> float:
        """Return the log-likelihood of all of them together, in nats."""
        return float(self.log_likelihoods.sum())


class TokenScorer:
    """Scores tokens with a session's cache, which it takes over.

    Args:
        cache: cache of a session whose head is whole.
    """

    def __init__(self, cache: PrefixCache) -> None:
        self._cache = cache
        self._rows: dict[int, FloatArray] = {}
        self._tokens: Sequence[int] = ()  # those that the rows belong to

    def score(self, context: Sequence[int], continuation: Sequence[int]) -> TokenScores:
        """Score tokens that follow others; the beginning of a context that is too long is cut off.

        Args:
            context: tokens before, at least one.
            continuation: tokens that are scored.

        Raises:
            PromptError: there is no context, or not even the continuation fits.
            BundleError: the runtime fails.
        """
        fed = [*context, *continuation][:-1][-self._cache.max_context :]
        first = len(fed) - len(continuation)
        if not context or first < 0:
            message = (
                f"{len(continuation)} tokens after {len(context)} others cannot be scored in a "
                f"context of {self._cache.max_context}"
            )
            raise PromptError(message, "give shorter texts, or a bundle with a larger context")
        self._keep_beginning_of(fed)
        found = np.empty(len(continuation))
        is_greedy = True
        for index, token in enumerate(continuation):
            row = self._row(fed, first + index).astype(np.float64)
            most = row.max()
            found[index] = row[token] - most - np.log(np.exp(row - most).sum())
            is_greedy = is_greedy and int(row.argmax()) == token
        return TokenScores(found, is_greedy)

    def _keep_beginning_of(self, tokens: Sequence[int]) -> None:
        """Forget what these tokens do not begin with."""
        same = _same(self._tokens, tokens)
        self._rows = {at: row for at, row in self._rows.items() if at < same}
        self._tokens = tokens
        self._cache.rewind(_same(self._cache.tokens, tokens))

    def _row(self, tokens: Sequence[int], position: int) -> FloatArray:
        """Return the logits `[V]` after the token at a position."""
        kept = self._rows.get(position)
        if kept is not None:
            return kept
        if self._cache.position > position:
            self._cache.rewind(position)
        row = self._cache.prefill(tokens[self._cache.position : position + 1])
        if len(self._rows) < _MOST_KEPT_ROWS:
            # A copy: a runtime may hand out the buffer that it writes the next call's logits to.
            self._rows[position] = row = row.copy()
        return row


def rolling_windows(
    token_ids: Sequence[int], *, prefix: int, length: int
) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    """Cut a text into contexts and what is scored after each, so that each token is scored once.

    The first window begins with the prefix, and each other one with the last token of the window
    before it; the last window is filled up with what comes before it. So does lm-eval.

    Args:
        token_ids: tokens of the text.
        prefix: token before it.
        length: positions of a window.

    Yields:
        Tokens before, and tokens that are scored.
    """
    if token_ids:
        yield [prefix], token_ids[:length]
    for start in range(length, len(token_ids), length):
        stop = min(start + length, len(token_ids))
        yield token_ids[stop - length - 1 : start], token_ids[start:stop]


def _same(one: Sequence[int], other: Sequence[int]) -> int:
    """Count the tokens that two sequences begin with."""
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return min(len(one), len(other))
