"""Sample text from a `Session`: prefill once, then one token a step.

It knows logits and token ids; it does not know runtimes, and it turns ids into text only through
the tokenizer's stream decoder.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from llama_export.errors import PromptError, UsageError
from llama_export.targets import FloatArray, Session


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Args:
        temperature: 0 takes the likeliest token.
        top_p: draw from the likeliest tokens that together have this probability.
        top_k: draw from this many of the likeliest tokens; 0 means all.
        seed: of the random numbers; the same seed gives the same text.
    """

    temperature: float = 0.8
    top_p: float = 0.95
    top_k: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn from."""
        sound = self.temperature >= 0 and 0 < self.top_p <= 1 and self.top_k >= 0
        if not (sound and math.isfinite(self.temperature) and self.seed >= 0):
            message = (
                "expected temperature >= 0, 0 < top-p <= 1, top-k >= 0 and seed >= 0, found "
                f"{self.temperature}, {self.top_p}, {self.top_k} and {self.seed}"
            )
            raise UsageError(message)


@dataclass(frozen=True)
class GenerationStats:
    """What a generation took.

    Args:
        stop_reason: "stop token", "length" or "context full".
    """

    prompt_tokens: int
    new_tokens: int
    time_to_first_token_s: float
    decode_s: float
    stop_reason: str

    @property
    def decode_tokens_per_s(self) -> float:
        """Tokens after the first, per second."""
        return (self.new_tokens - 1) / self.decode_s if self.new_tokens > 1 else 0.0


class Generation:
    """Iterate over new token ids; `stats` is there afterwards.

    Args:
        session: the prompt is appended at its position.
        input_ids: the prompt.
        sampling: how tokens are drawn.
        stop_token_ids: end the text and are not given out.
        max_tokens: the most new tokens.
        vocab_size: draw from the first so many ids; a model's table may be padded beyond its
            tokenizer. None: all.

    Raises:
        PromptError: the prompt is empty or does not fit.
    """

    def __init__(
        self,
        session: Session,
        input_ids: Sequence[int],
        *,
        sampling: Sampling,
        stop_token_ids: Collection[int],
        max_tokens: int,
        vocab_size: int | None = None,
    ) -> None:
        total = session.position + len(input_ids)
        if total > session.max_context:
            message = (
                f"the prompt is {len(input_ids)} tokens long, and the context has room for "
                f"{session.max_context - session.position} of {session.max_context}"
            )
            hint = "shorten it, or export with a larger --max-context if the model has more"
            raise PromptError(message, hint)
        self._session = session
        self._input_ids = input_ids
        self._sampling = sampling
        self._stop_token_ids = frozenset(stop_token_ids)
        self._max_tokens = max_tokens
        self._vocab_size = vocab_size
        self.stats = GenerationStats(len(input_ids), 0, 0.0, 0.0, "length")

    def __iter__(self) -> Iterator[int]:
        """Yield token ids as they are drawn."""
        random = np.random.default_rng(self._sampling.seed)
        begun = time.perf_counter()
        logits = self._session.prefill(self._input_ids)
        first_token_at = time.perf_counter()
        for count in range(self._max_tokens):
            token = sample(logits[: self._vocab_size], self._sampling, random)
            stopped = token in self._stop_token_ids
            full = not stopped and self._session.position >= self._session.max_context
            reason = "stop token" if stopped else "context full" if full else "length"
            self.stats = GenerationStats(
                prompt_tokens=len(self._input_ids),
                new_tokens=count + (0 if stopped else 1),
                time_to_first_token_s=first_token_at - begun,
                decode_s=time.perf_counter() - first_token_at,
                stop_reason=reason,
            )
            if stopped:
                return
            yield token
            if full or count + 1 == self._max_tokens:
                return
            logits = self._session.prefill([token])


def sample(logits: FloatArray, sampling: Sampling, random: np.random.Generator) -> int:
    """Draw a token id from logits `[V]`."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    order = np.argsort(-logits, kind="stable")
    if sampling.top_k:
        order = order[: sampling.top_k]
    below_best = logits[order].astype(np.float64) - float(logits[order[0]])
    # A tiny temperature sends all but the best to minus infinity, which is right.
    with np.errstate(over="ignore"):
        probabilities = np.exp(below_best / sampling.temperature)
    probabilities /= probabilities.sum()
    # The token that crosses top_p still belongs to the set.
    kept = int(np.searchsorted(probabilities.cumsum(), sampling.top_p)) + 1
    probabilities = probabilities[:kept] / probabilities[:kept].sum()
    return int(order[random.choice(len(probabilities), p=probabilities)])
