"""Write token ids with a `Session`: prefill once, then decode one token a step.

It knows token ids and when a text ends; how a token is drawn is in `sampling`. It knows no
runtime and no text.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from llama_export.errors import PromptError
from llama_export.generation.sampling import Sampling, penalise, sample
from llama_export.llama.intermediates import FloatArray


@dataclass(frozen=True)
class Drafts:
    """What was drafted for a text.

    Args:
        drafted: number of tokens that were run ahead.
        accepted: number of these that the text went on with.
    """

    drafted: int = 0
    accepted: int = 0


class Predictor(Protocol):
    """What decoding needs of a session."""

    @property
    def max_context(self) -> int:
        """Number of positions that the cache has."""

    @property
    def position(self) -> int:
        """Number of tokens in the cache."""

    def prefill(self, input_ids: Sequence[int]) -> FloatArray:
        """Append tokens and return the logits `[V]` after the last of them."""


@runtime_checkable
class RunsAhead(Protocol):
    """A predictor that runs what may come ahead of the text."""

    @property
    def drafts(self) -> Drafts:
        """What was drafted so far."""


class Guide(Protocol):
    """What looks at each step, and may leave fewer tokens to draw from."""

    @property
    def is_over(self) -> bool:
        """Whether the text is whole, so that nothing may follow."""

    def look(self, logits: FloatArray) -> FloatArray:
        """Return logits `[V]` in which what may not follow is -inf; the given ones stay.

        At least one is finite.
        """

    def take(self, token: int) -> None:
        """Go on by a token that was drawn; a stop token is none of the text, and is not given."""


@dataclass(frozen=True)
class GenerationStats:
    """The figures of a generation.

    Args:
        prompt_tokens: length of the whole prompt.
        new_tokens: number of tokens written.
        time_to_first_token_s: seconds spent on the part of the prompt that the cache did not hold.
        decode_s: seconds from then on.
        stop_reason: "stop token", "stop text", "complete", "length" or "context full";
            "interrupted" as long as the text has not ended.
        reused_tokens: number of the prompt's tokens that the cache already held.
        seed: seed of the random numbers, with which the same text can be had again.
        drafted_tokens: number of tokens that were run ahead of the text, with speculation.
        accepted_tokens: number of these that the text went on with.
    """

    prompt_tokens: int
    new_tokens: int
    time_to_first_token_s: float
    decode_s: float
    stop_reason: str
    reused_tokens: int = 0
    seed: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def decode_tokens_per_s(self) -> float:
        """Speed of the tokens after the first."""
        return (self.new_tokens - 1) / self.decode_s if self.new_tokens > 1 else 0.0

    def to_json(self) -> dict[str, object]:
        """Return every figure, including the speed."""
        return {**vars(self), "decode_tokens_per_s": self.decode_tokens_per_s}


class Generation:
    """Iterate over new token ids; `stats` is up to date after each of them.

    Args:
        session: session to write with, whose cache holds nothing but a beginning of the prompt.
        input_ids: the whole prompt.
        sampling: how tokens are drawn.
        stop_token_ids: ids that end the text and are not part of it. The repetition penalty
            spares them: every earlier turn of a chat holds one, and answers would never end.
        max_tokens: largest number of new tokens.
        vocab_size: number of ids to draw from, the first ones; a model's table may be padded
            beyond its tokenizer. None: all.
        guide: what each token has to obey; None: nothing.

    Raises:
        PromptError: the prompt is empty or does not fit.
    """

    def __init__(
        self,
        session: Predictor,
        input_ids: Sequence[int],
        *,
        sampling: Sampling,
        stop_token_ids: Collection[int],
        max_tokens: int,
        vocab_size: int | None = None,
        guide: Guide | None = None,
    ) -> None:
        if len(input_ids) > session.max_context:
            message = (
                f"the prompt is {len(input_ids)} tokens long, and the context has room for "
                f"{session.max_context}"
            )
            hint = "shorten it, or export with a larger --max-context if the model has more"
            raise PromptError(message, hint)
        self._session = session
        self._input_ids = input_ids
        self._reused_tokens = session.position
        self._sampling = sampling.with_seed()
        self._stop_token_ids = frozenset(stop_token_ids)
        self._max_tokens = max_tokens
        self._vocab_size = vocab_size
        self._guide = guide
        self._seen = {*input_ids} - self._stop_token_ids
        self.stats = self._figures(0, 0.0, 0.0, "interrupted")

    def __iter__(self) -> Iterator[int]:
        """Yield token ids as they are drawn."""
        random = np.random.default_rng(self._sampling.seed)
        begun = time.perf_counter()
        logits = self._session.prefill(self._input_ids[self._reused_tokens :])
        first_token_at = time.perf_counter()
        for count in range(1, self._max_tokens + 1):
            token = self._draw(logits, random)
            stopped = token in self._stop_token_ids
            reason = self._stop_reason(count, stopped=stopped)
            self.stats = self._figures(
                count - stopped,
                first_token_at - begun,
                time.perf_counter() - first_token_at,
                reason,
            )
            if stopped:
                return
            yield token
            if reason != "interrupted":
                return
            logits = self._session.prefill([token])

    def _draw(self, logits: FloatArray, random: np.random.Generator) -> int:
        known = logits[: self._vocab_size]
        known = penalise(known, self._seen, self._sampling.repetition_penalty)
        if self._guide is not None:
            known = self._guide.look(known)
        token = sample(known, self._sampling, random)
        if token not in self._stop_token_ids:
            self._seen.add(token)
            if self._guide is not None:
                self._guide.take(token)
        return token

    def _stop_reason(self, count: int, *, stopped: bool) -> str:
        """Return why the token just drawn is the last one; "interrupted" while it is not."""
        if stopped:
            return "stop token"
        if self._guide is not None and self._guide.is_over:
            return "complete"
        if self._session.position >= self._session.max_context:
            return "context full"
        return "length" if count == self._max_tokens else "interrupted"

    def _figures(
        self, new_tokens: int, first_token_s: float, decode_s: float, reason: str
    ) -> GenerationStats:
        session = self._session
        drafts = session.drafts if isinstance(session, RunsAhead) else Drafts()
        return GenerationStats(
            prompt_tokens=len(self._input_ids),
            new_tokens=new_tokens,
            time_to_first_token_s=first_token_s,
            decode_s=decode_s,
            stop_reason=reason,
            reused_tokens=self._reused_tokens,
            seed=self._sampling.seed or 0,
            drafted_tokens=drafts.drafted,
            accepted_tokens=drafts.accepted,
        )
