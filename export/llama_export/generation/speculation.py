"""Write several tokens with one run: draft what may come, and check it with the model that writes.

A run over some tokens takes much less time than as many runs of one. So a draft is run together
with the token that was drawn, which gives the logits after each of them. The next token is drawn
from its own row, as it always is, and as long as it is the drafted one, the row after it is there
already. So whatever drafts, each token is drawn from the model's own distribution, with the same
random numbers, and under the same guide. It knows tokens, and neither runtimes nor texts.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Sequence

from llama_export.generation.decoding import Drafts
from llama_export.generation.draft_length import MOST_DRAFTED, DraftLength
from llama_export.generation.drafting import NOTHING, Drafter
from llama_export.generation.prefix_cache import PrefixCache
from llama_export.llama.intermediates import FloatArray

# What costs time to draft rests for so many tokens when it did not pay, and twice as many each
# time that it does not; then a short draft shows whether the text has changed.
_FIRST_REST, _LONGEST_REST = 16, 512
_TRIED_LENGTH = 3


class Speculator:
    """What drafts for the texts of one session, and what was seen of it.

    Args:
        drafter: source of the drafts.
        stop_token_ids: ids that end a text, after which nothing is drafted.
        length: the choice of how many to run; None: nothing was seen yet.
    """

    def __init__(
        self,
        drafter: Drafter,
        stop_token_ids: Collection[int],
        length: DraftLength | None = None,
    ) -> None:
        self.drafter = drafter
        self._stop_token_ids = frozenset(stop_token_ids)
        self.length = length or DraftLength()
        self._rest = _FIRST_REST
        self._resting = 0

    def begin(self) -> None:
        """Begin another text."""
        self.drafter.begin()
        self.length.begin()

    def draft(self, tokens: Sequence[int], most: int) -> tuple[int, ...]:
        """Return the draft to run after a text; none where none is worth it.

        Args:
            tokens: the whole text so far.
            most: largest number of tokens that may be run ahead.
        """
        if most < 1:
            return ()
        draft = self._worth_running(tokens, most)
        ends = (at for at, token in enumerate(draft) if token in self._stop_token_ids)
        return draft[: next(ends, len(draft))]

    def _worth_running(self, tokens: Sequence[int], most: int) -> tuple[int, ...]:
        if not self.drafter.is_free:
            count = self._costly_length(most)
            proposal = self.drafter.propose(tokens, count) if count else NOTHING
            self.length.watch(proposal)
            return proposal.tokens
        # It is looked at even where it is not run: so what it would be worth stays known.
        proposal = self.drafter.propose(tokens, MOST_DRAFTED)
        self.length.watch(proposal)
        count = min(most, len(proposal.tokens))
        return proposal.tokens[: self.length.choose(proposal.kind, count, staked=True)]

    def fork(self) -> Speculator:
        """Return one for another conversation, which knows what this one has seen."""
        return Speculator(self.drafter.fork(), self._stop_token_ids, self.length.fork())

    def close(self) -> None:
        """Let go of what it drafts with."""
        self.drafter.close()

    def _costly_length(self, most: int) -> int:
        """Return how many tokens to draft, where drafting itself takes time."""
        if self._resting:
            self._resting -= 1
            if self._resting:
                return 0
            self._rest = min(2 * self._rest, _LONGEST_REST)
            return min(_TRIED_LENGTH, most)
        count = self.length.choose(NOTHING.kind, most, staked=False)
        if count:
            self._rest = _FIRST_REST
        elif self.length.costs.seconds(1) is not None:
            self._resting = self._rest
        return count


class Speculative:
    """A cache that runs drafts ahead; a `Predictor` for one text.

    Args:
        cache: cache of the model that writes, which holds a beginning of the prompt.
        speculator: what drafts.
        max_tokens: largest number of new tokens.
    """

    def __init__(self, cache: PrefixCache, speculator: Speculator, max_tokens: int) -> None:
        self.drafts = Drafts()
        self._cache = cache
        self._speculator = speculator
        self._left = max_tokens
        self._text: list[int] = []
        # Drafted tokens that the text has not come to, and the logits after each of them.
        self._ahead: deque[tuple[int, FloatArray]] = deque()
        self._drafted_last = False

    @property
    def max_context(self) -> int:
        """Number of positions that the cache has."""
        return self._cache.max_context

    @property
    def position(self) -> int:
        """Number of the text's tokens in the cache; what was run ahead does not count."""
        return self._cache.position

    def prefill(self, input_ids: Sequence[int]) -> FloatArray:
        """Append tokens, first the prompt and then one a step; return the logits `[V]` after them.

        Raises:
            PromptError, UsageError, BundleError: as `PrefixCache.prefill`.
        """
        if not self._text:
            logits = self._cache.prefill(input_ids)
            self._text = list(self._cache.tokens)
            self._speculator.begin()
            return logits
        (token,) = input_ids
        self._text.append(token)
        self._left -= 1
        is_ahead = bool(self._ahead) and self._ahead[0][0] == token
        self._speculator.length.see(token, spared=is_ahead)
        if is_ahead:
            self._cache.confirm(token)
            self.drafts = Drafts(self.drafts.drafted, self.drafts.accepted + 1)
            return self._ahead.popleft()[1]
        return self._run(token)

    def _run(self, token: int) -> FloatArray:
        """Run a token with what is drafted after it, and note what both took."""
        begun = time.perf_counter()
        self._ahead.clear()
        room = self.max_context - self.position - 1
        draft = self._speculator.draft(self._text, min(room, self._left - 1, MOST_DRAFTED))
        if draft:
            logits, *after = self._cache.run_ahead(token, draft)
            self._ahead.extend(zip(draft, after, strict=True))
            self.drafts = Drafts(self.drafts.drafted + len(draft), self.drafts.accepted)
        else:
            logits = self._cache.prefill([token])
        # A drafter that has rested reads first what was written meanwhile.
        if not draft or self._drafted_last or self._speculator.drafter.is_free:
            self._speculator.length.costs.add(1 + len(draft), time.perf_counter() - begun)
        self._speculator.length.stake(1 + len(draft))
        self._drafted_last = bool(draft)
        return logits


def begin_text(cache: PrefixCache, max_tokens: int) -> PrefixCache | Speculative:
    """Return what writes one text with a cache: itself, or with drafts where it has a speculator.

    Args:
        cache: cache of the model that writes, which holds a beginning of the prompt.
        max_tokens: largest number of new tokens.
    """
    speculator = cache.speculator
    return cache if speculator is None else Speculative(cache, speculator, max_tokens)
