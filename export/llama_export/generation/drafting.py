"""Guess how a text goes on: from what it said before, or with a smaller model.

What is guessed is only ever checked by the model that writes, so a bad guess costs time and never
changes a text. The module knows token ids; it does not know how guesses are checked, or whether
they pay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llama_export.generation.prefix_cache import PrefixCache

# Of a text's earlier places, the latest so many are compared; a pair of blanks has thousands.
_MOST_PLACES = 24
# A longer match says nothing more about how well it goes on.
_LONGEST_MATCH = 16
_PAIR = 2


@dataclass(frozen=True)
class Proposal:
    """Tokens that may come next.

    Args:
        tokens: the tokens; none, where nothing is known.
        kind: class of guesses that are alike in how often they hold, such as the length of the
            match that they follow.
    """

    tokens: tuple[int, ...] = ()
    kind: int = 0


NOTHING = Proposal()


class Drafter(Protocol):
    """Proposes what may come next in one text after the other."""

    @property
    def is_free(self) -> bool:
        """Whether a proposal costs next to nothing, so that it is made even if it is not run."""

    def begin(self) -> None:
        """Begin another text: the next one need not go on from the last."""

    def propose(self, tokens: Sequence[int], most: int) -> Proposal:
        """Guess what comes next.

        Args:
            tokens: the whole text so far, which goes on from what was given before.
            most: largest number of tokens that are wanted.
        """

    def fork(self) -> Drafter:
        """Return a second one, for another conversation."""

    def close(self) -> None:
        """Let go of what it works with. Closing twice does nothing."""


class PromptLookup:
    """Goes on as the text did after the longest earlier place that ends like it.

    It needs no model, and finds what is copied: code that is edited, a text that is summed up.
    """

    is_free = True

    def __init__(self) -> None:
        self._ends: dict[tuple[int, int], list[int]] = {}
        self._indexed = 0

    def begin(self) -> None:
        """Begin another text."""
        self._ends, self._indexed = {}, 0

    def propose(self, tokens: Sequence[int], most: int) -> Proposal:
        """Return what followed the longest match, of equally long ones the latest."""
        self._index(tokens)
        here = len(tokens)
        if here < _PAIR or most < 1:
            return NOTHING
        best, length = 0, 0
        for end in reversed(self._ends.get((tokens[-2], tokens[-1]), ())[-_MOST_PLACES:]):
            found = _match(tokens, end, here)
            if found > length:
                best, length = end, found
            if length == _LONGEST_MATCH:
                break
        if not length:
            return NOTHING
        # A text that repeats itself goes on in circles: what follows is the circle, not its end.
        circle = here - best
        guess = tuple(tokens[best + index % circle] for index in range(most))
        return Proposal(guess, length.bit_length())

    def fork(self) -> PromptLookup:
        """Return one that has seen nothing yet; it reads a text where it first meets it."""
        return PromptLookup()

    def close(self) -> None:
        """Forget the text."""
        self.begin()

    def _index(self, tokens: Sequence[int]) -> None:
        """Note where each pair ends, except the last one: nothing follows it yet."""
        for end in range(max(self._indexed, _PAIR), len(tokens)):
            self._ends.setdefault((tokens[end - 2], tokens[end - 1]), []).append(end)
        self._indexed = len(tokens)


class DraftModel:
    """Takes the likeliest tokens of a smaller model with the same vocabulary.

    Args:
        cache: the smaller model's cache, which is this object's own from now on.
        vocab_size: number of ids to choose from, the first ones.
    """

    is_free = False

    def __init__(self, cache: PrefixCache, vocab_size: int) -> None:
        self._cache = cache
        self._vocab_size = vocab_size

    def begin(self) -> None:
        """Begin another text, of which the cache keeps what the last one shares."""

    def propose(self, tokens: Sequence[int], most: int) -> Proposal:
        """Write with the smaller model; nothing, where its context is full."""
        cache = self._cache
        most = min(most, cache.max_context - len(tokens) + 1)
        if most < 1:
            return NOTHING
        shared = cache.keep_prefix_of(tokens)
        logits = cache.prefill(list(tokens[shared:]))
        guess = [int(logits[: self._vocab_size].argmax())]
        while len(guess) < most:
            logits = cache.prefill(guess[-1:])
            guess.append(int(logits[: self._vocab_size].argmax()))
        return Proposal(tuple(guess))

    def fork(self) -> DraftModel:
        """Return a second one, which shares the weights."""
        return DraftModel(self._cache.fork(), self._vocab_size)

    def close(self) -> None:
        """Close the smaller model's session."""
        self._cache.close()


def _match(tokens: Sequence[int], end: int, here: int) -> int:
    """Count the tokens that are the same before two places, up to the longest that counts."""
    most = min(end, _LONGEST_MATCH)
    for length in range(most):
        if tokens[end - 1 - length] != tokens[here - 1 - length]:
            return length
    return most
