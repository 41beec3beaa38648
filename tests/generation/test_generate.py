"""The loop over a session, what the cache spares it, and the drawing of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from llama_export.errors import PromptError, UsageError
from llama_export.generation.decoding import Generation, GenerationStats
from llama_export.generation.prefix_cache import PIECE_TOKENS, PrefixCache
from llama_export.generation.sampling import Sampling, distribution, penalise, sample

LOGITS = np.array([0.0, 3.0, 1.0, 2.0], dtype=np.float32)


class CountingSession:
    """Likes the token after the last one best; remembers how it was called."""

    vocab_size = 10
    num_layers = 1

    def __init__(self, max_context: int = 8) -> None:
        self.max_context = max_context
        self.held: list[int] = []
        self.calls: list[list[int]] = []

    @property
    def position(self) -> int:
        return len(self.held)

    def prefill(self, input_ids: Sequence[int]) -> np.ndarray:
        self.calls.append(list(input_ids))
        self.held += input_ids
        logits = np.zeros(self.vocab_size, dtype=np.float32)
        logits[(input_ids[-1] + 1) % self.vocab_size] = 50.0
        return logits

    def rewind(self, position: int) -> None:
        assert 0 <= position <= self.position
        del self.held[position:]

    def cache(self, layer: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.array(self.held, dtype=np.float32).reshape(1, -1, 1)
        return rows, -rows

    def restore(self, layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        self.held = [int(value) for value in layers[0][0].ravel()]

    def fork(self) -> CountingSession:
        other = CountingSession(self.max_context)
        other.held = list(self.held)
        return other


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


def test_a_generation_that_is_left_says_so():
    generation = Generation(
        CountingSession(), [1], sampling=Sampling(0), stop_token_ids=(), max_tokens=5
    )
    assert next(iter(generation)) == 2
    assert (generation.stats.new_tokens, generation.stats.stop_reason) == (1, "interrupted")


def test_a_prompt_that_does_not_fit_is_refused_before_it_runs():
    session = CountingSession()
    with pytest.raises(PromptError, match="9 tokens long"):
        run(session, list(range(9)))
    assert session.calls == []


def test_padding_of_the_vocabulary_is_never_drawn():
    tokens, _ = run(CountingSession(), [6], vocab_size=7, stop_token_ids=(), max_tokens=2)
    assert max(tokens) < 7


def test_the_seed_is_in_the_stats_and_a_missing_one_is_fresh():
    def text(seed: int | None) -> tuple[list[int], GenerationStats]:
        session = CountingSession(64)
        session.prefill = lambda ids: np.zeros(10, dtype=np.float32)
        sampling = Sampling(1.0, 1.0, seed=seed)
        return run(session, [1], sampling=sampling, stop_token_ids=())

    (first, first_stats), (second, second_stats) = text(None), text(None)
    assert first_stats.seed != second_stats.seed
    assert first != second
    assert text(first_stats.seed)[0] == first


class OddOnly:
    """A guide: odd tokens alone, and two of them at most."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    @property
    def is_over(self) -> bool:
        return len(self.taken) == 2

    def look(self, logits: np.ndarray) -> np.ndarray:
        return np.where(np.arange(len(logits)) % 2, logits, -np.inf).astype(np.float32)

    def take(self, token: int) -> None:
        self.taken.append(token)


def test_a_guide_forbids_tokens_and_ends_the_text():
    session = CountingSession(max_context=16)
    guide = OddOnly()
    tokens, stats = run(session, [0, 1], max_tokens=8, guide=guide)
    assert all(token % 2 for token in tokens)
    assert guide.taken == tokens
    assert (len(tokens), stats.stop_reason) == (2, "complete")


def test_a_guide_is_not_given_the_stop_token():
    guide = OddOnly()
    tokens, stats = run(CountingSession(), [0], stop_token_ids=[1], guide=guide)
    assert (tokens, guide.taken, stats.stop_reason) == ([], [], "stop token")


def test_the_repetition_penalty_sees_prompt_and_answer_and_spares_stop_tokens():
    class Stubborn(CountingSession):
        def prefill(self, input_ids):
            super().prefill(input_ids)
            return np.array([0, 3.0, 2.9, 2.8, 2.7, 0, 0, 0, 0, 2.85], dtype=np.float32)

    sampling = Sampling(0, repetition_penalty=1.2)
    settings = {"sampling": sampling, "max_tokens": 2}
    # 1 is cached, 2 in the rest of the prompt; 9 stays as it is although the prompt holds it.
    for stops, expected in (((), [3, 4]), ((9,), [])):
        session = Stubborn()
        session.held = [1]
        tokens, stats = run(session, [1, 2, 9], stop_token_ids=stops, **settings)
        assert (tokens, session.calls[0], stats.reused_tokens) == (expected, [2, 9], 1)
    assert stats.stop_reason == "stop token"


# The record of the cache: what a text shares with it is not read again.


def written(cache: PrefixCache, token_ids: list[int]) -> list[list[int]]:
    """Read a text through the record; return what the session was given."""
    session = cache._session
    session.calls.clear()
    cache.prefill(token_ids[cache.keep_prefix_of(token_ids) :])
    assert session.held == token_ids
    return session.calls


def test_the_next_turn_of_a_long_history_reads_its_new_tokens_alone():
    cache = PrefixCache(CountingSession(2000))
    history = [index % 7 for index in range(1000)]
    assert sum(map(len, written(cache, history))) == 1000
    turn = [1, 2, 3, 4]
    assert written(cache, history + turn) == [turn]
    assert cache.tokens == tuple(history + turn)


def test_an_edited_text_is_read_from_the_edit_on():
    cache = PrefixCache(CountingSession(2000))
    history = [index % 7 for index in range(300)]
    written(cache, history)
    edited = [*history[:200], 9, *history[201:]]
    assert written(cache, edited) == [edited[200:]]
    assert written(cache, edited) == [edited[-1:]]
    assert written(cache, edited[:50]) == [edited[49:50]]


def test_a_long_text_is_read_in_pieces_that_can_be_stopped_and_gone_on_with():
    cache = PrefixCache(CountingSession(2000))
    text = [index % 7 for index in range(2 * PIECE_TOKENS + 5)]
    seen = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done:
            raise KeyboardInterrupt

    cache.on_progress = stop
    with pytest.raises(KeyboardInterrupt):
        written(cache, text)
    assert seen == [(0, len(text)), (PIECE_TOKENS, len(text))]
    assert cache.position == PIECE_TOKENS
    cache.on_progress = None
    assert [len(call) for call in written(cache, text)] == [PIECE_TOKENS, 5]


def test_an_interrupt_between_session_and_record_loses_nothing():
    class Interrupted(CountingSession):
        broken = True

        def prefill(self, input_ids):
            result = super().prefill(input_ids)
            if self.broken:
                raise KeyboardInterrupt
            return result

    cache = PrefixCache(Interrupted())
    with pytest.raises(KeyboardInterrupt):
        cache.prefill([1, 2])
    cache._session.broken = False
    cache.prefill([3, 4])
    assert cache._session.held == list(cache.tokens) == [3, 4]


def test_a_fork_of_the_record_goes_its_own_way():
    cache = PrefixCache(CountingSession())
    written(cache, [1, 2])
    other = cache.fork()
    written(other, [1, 2, 3])
    assert (cache.tokens, other.tokens) == ((1, 2), (1, 2, 3))


def test_the_record_keeps_to_its_context_and_its_positions():
    cache = PrefixCache(CountingSession(), max_context=3)
    with pytest.raises(PromptError, match="room for 3"):
        cache.prefill([1, 2, 3, 4])
    with pytest.raises(PromptError, match="rewind to position 1"):
        cache.rewind(1)
    rows = np.zeros((1, 2, 1), dtype=np.float32)
    with pytest.raises(PromptError, match="3 tokens with 2 rows"):
        cache.restore([1, 2, 3], [(rows, rows)])


# Drawing.


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


def hugging_face(logits: np.ndarray, seen: list[int], sampling: Sampling) -> np.ndarray:
    """The probabilities that transformers would draw from, in its own order of filters."""
    steps = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    steps.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        steps.append(MinPLogitsWarper(sampling.min_p))
    scores = steps(torch.tensor([seen]), torch.tensor(logits[None].astype(np.float64)))
    return torch.softmax(scores[0], 0).numpy()


def ours(logits: np.ndarray, seen: list[int], sampling: Sampling) -> np.ndarray:
    ids, shares = distribution(penalise(logits, set(seen), sampling.repetition_penalty), sampling)
    result = np.zeros(len(logits))
    result[ids] = shares
    return result


@pytest.mark.parametrize("size", [1000, 30000])
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(0.7, 0.95),
        Sampling(1.3, 1.0, 50),
        Sampling(0.8, 0.9, 300),
        Sampling(1.0, 1.0, 0, min_p=0.05),
        Sampling(0.9, 0.8, 40, min_p=0.1, repetition_penalty=1.3),
        Sampling(0.7, 0.999, repetition_penalty=0.8),
        Sampling(1.0, 1.0, 10**6),
    ],
    ids=str,
)
def test_the_probabilities_are_those_of_transformers(size, sampling):
    logits = (np.random.default_rng(5).standard_normal(size) * 3).astype(np.float32)
    seen = [3, 5, 5, int(logits.argmax()), size - 1]
    before = logits.copy()
    expected = hugging_face(logits, seen, sampling)
    assert np.abs(ours(logits, seen, sampling) - expected).max() < 1e-6
    assert np.array_equal(logits, before)


@pytest.mark.parametrize(
    "other",
    [
        Sampling(0.9, 0.8, 40, min_p=0.1),
        Sampling(0.9, 0.8, 40, min_p=0.4, repetition_penalty=1.3),
        Sampling(0.9, 0.8, 5, min_p=0.1, repetition_penalty=1.3),
        Sampling(0.9, 0.4, 40, min_p=0.1, repetition_penalty=1.3),
    ],
    ids=str,
)
def test_every_filter_makes_a_difference_to_the_comparison(other):
    logits = (np.random.default_rng(5).standard_normal(1000) * 3).astype(np.float32)
    seen = [3, 5, int(logits.argmax())]
    full = Sampling(0.9, 0.8, 40, min_p=0.1, repetition_penalty=1.3)
    assert np.abs(ours(logits, seen, other) - hugging_face(logits, seen, full)).max() > 1e-3


@pytest.mark.parametrize("penalty", [0.7, 1.0, 1.4])
def test_the_penalty_is_that_of_transformers_on_either_side_of_zero(penalty):
    logits = np.array([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0], dtype=np.float32)
    steps = RepetitionPenaltyLogitsProcessor(penalty)
    expected = steps(torch.tensor([[0, 0, 3, 2]]), torch.tensor(logits[None]))[0].numpy()
    assert penalise(logits, {0, 3, 2}, penalty).tolist() == expected.tolist()
    assert (penalise(logits, {0, 4}, penalty).tolist() == expected.tolist()) is (penalty == 1)


def test_ties_are_cut_by_id_and_a_flat_distribution_is_whole():
    flat = np.zeros(5000, dtype=np.float32)
    assert distribution(flat, Sampling(1.0, 1.0, 3))[0].tolist() == [0, 1, 2]
    assert len(distribution(flat, Sampling(1.0, 0.5))[0]) == 2500
    peaked = np.full(5000, -1e30, dtype=np.float32)
    peaked[77] = 0
    assert distribution(peaked, Sampling(1.0, 0.95, 300))[0].tolist() == [77]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"temperature": -1.0}, "expected temperature"),
        ({"temperature": float("nan")}, "expected temperature"),
        ({"temperature": float("inf")}, "expected temperature"),
        ({"top_p": 0.0}, "top-p"),
        ({"top_p": 1.5}, "top-p"),
        ({"top_k": -1}, "top-k"),
        ({"seed": -1}, "seed"),
        ({"min_p": 1.1}, "min-p"),
        ({"repetition_penalty": 0.0}, "penalty > 0, found 0.0"),
        ({"top_k": -1, "min_p": -1.0}, "top-k.*min-p"),
    ],
)
def test_sampling_that_cannot_be_drawn_from_is_refused(bad, message):
    with pytest.raises(UsageError, match=message):
        Sampling(**bad)
