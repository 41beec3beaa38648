"""Test vectors of drawing a token: logits, settings and a random number give an id.

The random number is given, so that no generator has to be rebuilt elsewhere. It keeps away from
every boundary between two tokens, and so do the thresholds of the filters, because two machines'
float32 exponentials differ in the last bit. This module knows the sampler; it does not know who
reads the vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count, islice
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_export.errors import UsageError
from llama_export.generation.model_sampling import sampling_of
from llama_export.generation.sampling import Sampling, distribution, penalise, sample

FORMAT_VERSION = 1
# Of a random number from a boundary between two tokens, and of a filter's threshold from a share.
MARGIN = 1e-4

Logits = NDArray[np.float32]


def _tied() -> Logits:
    return np.array([1, 3, 3, 0, 3, -2, 1, 3], dtype=np.float32)


def _pruned() -> Logits:
    return np.array([2, -np.inf, 1.5, -np.inf, 0.25, -1, -np.inf, 3], dtype=np.float32)


def _random(size: int, spread: float, seed: int) -> Logits:
    """Return logits that need few digits, no two of them alike."""
    random = Random(seed)
    found: set[int] = set()
    values: list[float] = []
    while len(values) < size:
        steps = int(random.gauss(0, spread) * 1024)
        if steps not in found:
            found.add(steps)
            values.append(steps / 1024)
    return np.array(values, dtype=np.float32)


LOGITS: Mapping[str, Logits] = {
    "one token": np.array([-7], dtype=np.float32),
    "ties": _tied(),
    "all alike": np.zeros(6, dtype=np.float32),
    "a pruned head": _pruned(),
    "far apart": np.array([-400, 90, 88.5, 300, 299, -1000, 298.5, 10], dtype=np.float32),
    "16": _random(16, 2.0, 1),
    "64": _random(64, 3.0, 2),
    "512, flat": _random(512, 1.0, 3),
    "700, peaked": _random(700, 4.0, 4),
}
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "all": {"temperature": 1.0, "top_p": 1.0},
    "the defaults": {},
    "cold": {"temperature": 0.1, "top_p": 1.0},
    "colder than float32": {"temperature": 1e-30, "top_p": 1.0},
    "hot": {"temperature": 2.5, "top_p": 1.0},
    "top-k": {"temperature": 1.0, "top_p": 1.0, "top_k": 3},
    "top-k of 1": {"temperature": 1.0, "top_p": 1.0, "top_k": 1},
    "top-k of more than all": {"temperature": 1.0, "top_p": 1.0, "top_k": 1000},
    "top-p": {"temperature": 1.0, "top_p": 0.61},
    "a small top-p": {"temperature": 1.0, "top_p": 0.01},
    "a top-p of nearly all": {"temperature": 1.5, "top_p": 0.993},
    "min-p": {"temperature": 1.0, "top_p": 1.0, "min_p": 0.07},
    "min-p of 1": {"temperature": 1.0, "top_p": 1.0, "min_p": 1.0},
    "top-k before top-p": {"temperature": 1.0, "top_p": 0.71, "top_k": 5},
    "all filters": {"temperature": 1.3, "top_p": 0.87, "top_k": 40, "min_p": 0.031},
}
_DRAWS = 3
_MOST_TRIES = 400


@dataclass(frozen=True)
class _Penalty:
    logits: str
    ids: Sequence[int]
    penalty: float
    settings: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0.0})


PENALTIES: Mapping[str, _Penalty] = {
    "of 1": _Penalty("16", [0, 1, 2], 1.0),
    "of none": _Penalty("16", [], 1.5),
    "of some": _Penalty("16", [0, 3, 15, 7], 1.3),
    "of the likeliest": _Penalty("16", list(range(16)), 3.0),
    "of ids outside the vocabulary": _Penalty("16", [2, 16, 4000], 1.7),
    "below 1 favours": _Penalty("64", list(range(0, 64, 5)), 0.75),
    "of what a pruned head lacks": _Penalty("a pruned head", [1, 7], 2.0),
    "before the other settings": _Penalty("64", list(range(20)), 1.9, {"top_k": 7, "top_p": 0.8}),
}

REFUSED: Mapping[str, Mapping[str, Any]] = {
    "temperature below 0": {"temperature": -0.5},
    "temperature without end": {"temperature": float("inf")},
    "temperature that is no number": {"temperature": float("nan")},
    "top-p of 0": {"top_p": 0.0},
    "top-p above 1": {"top_p": 1.5},
    "top-p that is no number": {"top_p": float("nan")},
    "top-k below 0": {"top_k": -1},
    "seed below 0": {"seed": -7},
    "min-p below 0": {"min_p": -0.25},
    "min-p above 1": {"min_p": 1.25},
    "penalty of 0": {"repetition_penalty": 0.0},
    "penalty without end": {"repetition_penalty": float("inf")},
    "penalty below 0": {"repetition_penalty": float("-inf")},
    "all of them": {
        "temperature": -1.0,
        "top_p": 2.0,
        "top_k": -3,
        "seed": -1,
        "min_p": 3.5,
        "repetition_penalty": -2.0,
    },
}

# Keys of a generation_config.json.
WISHES: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "all": {
        "temperature": 0.6,
        "top_p": 0.9,
        "top_k": 50,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "do_sample": True,
    },
    "whole numbers": {"temperature": 1, "top_p": 1},
    "the likeliest token": {"do_sample": False, "temperature": 0.6},
    "no word on sampling": {"do_sample": None, "temperature": None, "top_k": 20},
    "no such value": {"temperature": -1, "top_p": 0.8, "min_p": 2, "repetition_penalty": 0},
    "no number": {"temperature": "0.5", "top_p": [0.5], "top_k": True, "min_p": {}},
    "no whole number": {"top_k": 20.5},
    "a whole number with a point": {"top_k": 20.0},
    "keys of others": {"num_beams": 4, "typical_p": 0.2, "do_sample": 0},
}


def sampler_vectors() -> Mapping[str, Any]:
    """Return the vectors of drawing."""
    return {
        "format_version": FORMAT_VERSION,
        "defaults": asdict(Sampling()),
        "logits": [{"name": name, "values": _plain(values)} for name, values in LOGITS.items()],
        "draw": list(_draws()),
        "penalise": [_penalised(name, case) for name, case in PENALTIES.items()],
        "refused": [
            {"name": name, "settings": _words(given), "message": _refusal(given)}
            for name, given in REFUSED.items()
        ],
        "wishes": [
            {"name": name, "settings": dict(given), "sampling": asdict(sampling_of(given))}
            for name, given in WISHES.items()
        ],
        "random": [
            {"name": f"seed {seed}", "seed": seed, "u": split_mix(seed, 4)}
            for seed in (0, 1, 2, 2**32 - 1, 2**63 - 1)
        ],
    }


def split_mix(seed: int, size: int) -> list[float]:
    """Return the first numbers of SplitMix64, the generator that the apps use."""
    low = 2**64 - 1
    numbers = []
    for turn in range(1, size + 1):
        mixed = (seed + turn * 0x9E3779B97F4A7C15) & low
        mixed = ((mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9) & low
        mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & low
        numbers.append(((mixed ^ mixed >> 31) >> 11) * 2.0**-53)
    return numbers


def margin(logits: Logits, sampling: Sampling, u: float) -> float:
    """Return how far a draw is from being another one, in probability."""
    if sampling.temperature == 0:
        return 1.0
    _, probabilities = distribution(logits, sampling)
    draws = float(np.abs(probabilities.cumsum()[:-1] - u).min(initial=1.0))
    return min(draws, _filter_margin(logits, sampling))


def _filter_margin(logits: Logits, sampling: Sampling) -> float:
    """Return how far the filters' thresholds are from the shares that they are compared with."""
    wide = Sampling(temperature=sampling.temperature, top_p=1.0, top_k=sampling.top_k)
    _, left = distribution(logits, wide)
    likeliest_first = np.sort(left)[::-1]
    top_p = np.abs(likeliest_first.cumsum() - sampling.top_p).min() if sampling.top_p < 1 else 1.0
    ratios = likeliest_first / likeliest_first[0]
    # Equal float32 logits have a ratio of exactly 1 everywhere.
    inexact = ratios[ratios < 1]
    min_p = np.abs(inexact - sampling.min_p).min(initial=1.0) if sampling.min_p else 1.0
    return float(min(top_p, min_p))


def _draws() -> Iterator[Mapping[str, Any]]:
    seeds = count()
    for logits_name, logits in LOGITS.items():
        for settings_name, settings in SETTINGS.items():
            sampling = Sampling(**settings)
            for number in range(1 if sampling.temperature == 0 else _DRAWS):
                drawn = _drawn_far(logits, sampling, seeds)
                if drawn is None:
                    continue  # a threshold falls on a share
                u, token_id = drawn
                yield {
                    "name": f"{logits_name}: {settings_name}, {number}",
                    "logits": logits_name,
                    "settings": dict(settings),
                    "u": u,
                    "id": token_id,
                }


def _drawn_far(
    logits: Logits, sampling: Sampling, seeds: Iterator[int]
) -> tuple[float, int] | None:
    """Return a random number that is far enough from every boundary, and the id it gives."""
    for seed in islice(seeds, _MOST_TRIES):
        u = float(np.random.default_rng(seed).random())
        if margin(logits, sampling, u) >= MARGIN:
            return u, sample(logits, sampling, np.random.default_rng(seed))
    return None


def _penalised(name: str, case: _Penalty) -> Mapping[str, Any]:
    sampling = Sampling(**case.settings, repetition_penalty=case.penalty)
    result = penalise(LOGITS[case.logits], list(case.ids), case.penalty)
    drawn = _drawn_far(result, sampling, count())
    if drawn is None:
        message = f"{name}: no random number is far from a boundary"
        raise ValueError(message)
    u, token_id = drawn
    return {
        "name": name,
        "logits": case.logits,
        "ids": list(case.ids),
        "settings": {**case.settings, "repetition_penalty": case.penalty},
        "values": _plain(result),
        "u": u,
        "id": token_id,
    }


def _refusal(settings: Mapping[str, Any]) -> str:
    try:
        Sampling(**settings)
    except UsageError as error:
        return error.message
    message = f"{settings} are not refused"
    raise ValueError(message)


def _plain(values: Logits) -> list[float | None]:
    """Return float32 values as JSON has them; a head without a row for a token is null."""
    return [float(value) if np.isfinite(value) else None for value in values]


def _words(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as JSON has them: what is no finite number is a word."""
    return {
        key: str(value) if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in settings.items()
    }
