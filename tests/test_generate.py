from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from llama_export.errors import PromptError, UsageError
from llama_export.generate import Generation, Sampling, sample

LOGITS = np.array([0.0, 3.0, 1.0, 2.0], dtype=np.float32)


class CountingSession:
    """Likes the token after the last one best; remembers how it was called."""

    vocab_size = 10
    max_context = 8

    def __init__(self) -> None:
        self.position = 0
        self.calls: list[list[int]] = []

    def prefill(self, input_ids: Sequence[int]) -> np.ndarray:
        self.calls.append(list(input_ids))
        self.position += len(input_ids)
        logits = np.zeros(self.vocab_size, dtype=np.float32)
        logits[(input_ids[-1] + 1) % self.vocab_size] = 50.0
        return logits

    def rewind(self, position: int) -> None:
        self.position = position

    def cache(self, layer: int) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError


def run(session, prompt, **options):
    settings = {"sampling": Sampling(temperature=0), "stop_token_ids": (9,), "max_tokens": 20}
    generation = Generation(session, prompt, **{**settings, **options})
    return list(generation), generation.stats


def test_the_prompt_is_prefilled_once_and_then_one_token_a_step():
    session = CountingSession()
    tokens, stats = run(session, [1, 2, 3], max_tokens=3)
    assert tokens == [4, 5, 6]
    assert session.calls == [[1, 2, 3], [4], [5]]
    assert (stats.prompt_tokens, stats.new_tokens, stats.stop_reason) == (3, 3, "length")


def test_a_stop_token_ends_the_text_and_is_not_given_out():
    tokens, stats = run(CountingSession(), [6])
    assert tokens == [7, 8]
    assert (stats.new_tokens, stats.stop_reason) == (2, "stop token")


def test_a_full_context_ends_the_text():
    session = CountingSession()
    tokens, stats = run(session, [0, 1, 2, 3, 4, 5], stop_token_ids=())
    assert tokens == [6, 7, 8]
    assert (session.position, stats.stop_reason) == (8, "context full")


def test_a_prompt_that_does_not_fit_is_refused_before_it_runs():
    session = CountingSession()
    with pytest.raises(PromptError, match="9 tokens long"):
        run(session, list(range(9)))
    assert session.calls == []


def test_padding_of_the_vocabulary_is_never_drawn():
    session = CountingSession()
    tokens, _ = run(session, [6], vocab_size=7, stop_token_ids=(), max_tokens=2)
    assert max(tokens) < 7


def test_a_tiny_temperature_takes_the_likeliest():
    assert sample(LOGITS, Sampling(temperature=1e-320), np.random.default_rng(0)) == 1


def test_temperature_zero_takes_the_likeliest():
    assert sample(LOGITS, Sampling(temperature=0), np.random.default_rng(0)) == 1


def test_top_k_and_top_p_leave_the_likeliest_only():
    random = np.random.default_rng(0)
    assert {sample(LOGITS, Sampling(1.0, 1.0, 1), random) for _ in range(50)} == {1}
    assert {sample(LOGITS, Sampling(1.0, 0.1, 0), random) for _ in range(50)} == {1}
    assert {sample(LOGITS, Sampling(1.0, 1.0, 2), random) for _ in range(200)} == {1, 3}


def test_the_shares_drawn_are_the_softmax():
    random = np.random.default_rng(0)
    draws = [sample(LOGITS, Sampling(0.5, 1.0), random) for _ in range(4000)]
    shares = np.bincount(draws, minlength=4) / len(draws)
    weights = np.exp(LOGITS.astype(np.float64) / 0.5)
    assert np.abs(shares - weights / weights.sum()).max() < 0.03


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -1.0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_k": -1},
        {"temperature": float("nan")},
    ],
)
def test_sampling_that_cannot_be_drawn_from_is_refused(bad):
    with pytest.raises(UsageError, match="expected temperature"):
        Sampling(**bad)
