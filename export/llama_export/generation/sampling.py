"""Draw the next token from logits: penalty, temperature, top-k, top-p and min-p, in that order.

The order is that of Hugging Face's `generate`. The temperature comes before the filters, so that
top-p and min-p speak of the probabilities that are really drawn from; top-k comes before top-p,
which is then a share of what top-k left; min-p looks at the ratio to the likeliest token only and
would give the same at any later place. The module knows logits and ids; it knows no session and
no text.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from llama_export.errors import UsageError
from llama_export.generation import defaults
from llama_export.llama.intermediates import FloatArray

IdArray = NDArray[np.intp]

# Below it no token but the likeliest has a share in float32: drawing is taking the likeliest.
_LEAST_TEMPERATURE = 1e-6
# How many of the likeliest tokens are looked at first; nearly always enough for top-p.
_FIRST_LOOK = 256


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Args:
        temperature: divisor of the logits; 0 takes the likeliest token.
        top_p: probability that the likeliest tokens, from which one is drawn, have together.
        top_k: number of the likeliest tokens from which one is drawn; 0: all.
        seed: seed of the random numbers, the same for the same text; None: a fresh one.
        min_p: smallest probability of a token that may be drawn, as a share of the likeliest's.
        repetition_penalty: divisor of the logits of tokens that the text already holds (factor,
            where they are negative); 1 changes nothing.

    Raises:
        UsageError: a value is out of its range; all such values are named.
    """

    temperature: float = defaults.TEMPERATURE
    top_p: float = defaults.TOP_P
    top_k: int = defaults.TOP_K
    seed: int | None = None
    min_p: float = defaults.MIN_P
    repetition_penalty: float = defaults.REPETITION_PENALTY

    def __post_init__(self) -> None:
        """Refuse values out of their ranges."""
        seed = self.seed
        faults = [
            f"{name}, found {value}"
            for name, value, sound in (
                ("temperature >= 0", self.temperature, 0 <= self.temperature < math.inf),
                ("0 < top-p <= 1", self.top_p, 0 < self.top_p <= 1),
                ("a whole top-k >= 0", self.top_k, isinstance(self.top_k, int) and self.top_k >= 0),
                (
                    "a whole seed >= 0",
                    seed,
                    seed is None or (isinstance(seed, int) and seed >= 0),
                ),
                ("0 <= min-p <= 1", self.min_p, 0 <= self.min_p <= 1),
                (
                    "repetition penalty > 0",
                    self.repetition_penalty,
                    0 < self.repetition_penalty < math.inf,
                ),
            )
            if not sound
        ]
        if faults:
            raise UsageError("expected " + "; expected ".join(faults))

    def with_seed(self) -> Sampling:
        """Return the same sampling with a seed: its own, or a fresh one where it has none."""
        return self if self.seed is not None else replace(self, seed=secrets.randbits(32))


def penalise(logits: FloatArray, token_ids: Collection[int], penalty: float) -> FloatArray:
    """Return logits `[V]` with CTRL's repetition penalty on the given ids; others stay.

    Args:
        logits: the model's logits `[V]`, which are not changed.
        token_ids: tokens that the text already holds, each counted once.
        penalty: divisor of positive logits, and factor of negative ones.
    """
    if penalty == 1 or not token_ids:
        return logits
    result = logits.copy()
    ids = np.fromiter(token_ids, dtype=np.intp, count=len(token_ids))
    ids = ids[ids < len(logits)]
    found = logits[ids]
    result[ids] = np.where(found > 0, found / penalty, found * penalty)
    return result


def distribution(logits: FloatArray, sampling: Sampling) -> tuple[IdArray, NDArray[np.float64]]:
    """Return the ids that may be drawn and their probabilities, which sum to 1.

    Args:
        logits: logits `[V]` with the repetition penalty already applied.
        sampling: how a token is drawn; the temperature must not be 0.
    """
    scale = max(sampling.temperature, _LEAST_TEMPERATURE)
    with np.errstate(over="ignore", under="ignore"):
        shares = np.exp((logits - logits.max()) / np.float32(scale))
    ids: IdArray | None = None
    if 0 < sampling.top_k < len(shares):
        ids = _largest(shares, sampling.top_k)
    if sampling.top_p < 1:
        ids = _nucleus(shares, sampling.top_p) if ids is None else _crossing(shares, ids, sampling)
    if ids is None:
        ids = np.arange(len(shares))
    # The likeliest token's share is 1: every other is its ratio to it.
    ids = ids[shares[ids] >= sampling.min_p]
    probabilities = shares[ids].astype(np.float64)
    return ids, probabilities / probabilities.sum()


def sample(logits: FloatArray, sampling: Sampling, random: np.random.Generator) -> int:
    """Draw a token id from logits `[V]` with the repetition penalty already applied."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    ids, probabilities = distribution(logits, sampling)
    sums = probabilities.cumsum()
    drawn = int(np.searchsorted(sums, random.random() * sums[-1], side="right"))
    # A product that is rounded up to the sum must not draw what comes after the last share above 0.
    return int(ids[min(drawn, int(np.searchsorted(sums, sums[-1])))])


def _largest(shares: FloatArray, count: int) -> IdArray:
    """Return the ids of the largest shares, largest first; of equal ones the lower id first."""
    if count >= len(shares):
        return np.argsort(-shares, kind="stable")
    # A partition finds the threshold in linear time; sorting all of 128,256 takes ten times that.
    threshold = np.partition(shares, len(shares) - count)[len(shares) - count]
    candidates = np.flatnonzero(shares >= threshold)
    if len(candidates) > 2 * count:  # a wide tie, at a share of zero as a rule
        above = np.flatnonzero(shares > threshold)
        ties = np.flatnonzero(shares == threshold)[: count - len(above)]
        candidates = np.sort(np.concatenate([above, ties]))
    order = np.argsort(-shares[candidates], kind="stable")
    return candidates[order][:count]


def _nucleus(shares: FloatArray, top_p: float) -> IdArray:
    """Return the fewest of the likeliest ids that together have `top_p` of the whole."""
    wanted = top_p * float(shares.sum(dtype=np.float64))
    count = _FIRST_LOOK
    while True:
        ids = _largest(shares, count)
        sums = shares[ids].cumsum(dtype=np.float64)
        if sums[-1] >= wanted or len(ids) == len(shares):
            # The token that crosses the line still belongs to the set.
            return ids[: int(np.searchsorted(sums, wanted)) + 1]
        count *= 16


def _crossing(shares: FloatArray, ids: IdArray, sampling: Sampling) -> IdArray:
    """Return what top-p leaves of the ids that top-k left."""
    sums = shares[ids].cumsum(dtype=np.float64)
    return ids[: int(np.searchsorted(sums, sampling.top_p * sums[-1])) + 1]
