"""Log-likelihoods over one cache: the same as from an empty one, and nothing read twice."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_export.errors import PromptError
from llama_export.generation.prefix_cache import PrefixCache
from llama_export.generation.scoring import TokenScorer, rolling_windows

VOCAB = 11
TOKENS = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=9)


class Toy:
    """A session whose logits depend on every token before; its buffer is written anew each call."""

    num_layers = 0
    vocab_size = VOCAB

    def __init__(self, max_context: int = 64) -> None:
        self.max_context = max_context
        self.held: list[int] = []
        self.read = 0
        self._buffer = np.zeros(VOCAB, dtype=np.float32)

    @property
    def position(self) -> int:
        return len(self.held)

    def prefill(self, input_ids):
        assert len(self.held) + len(input_ids) <= self.max_context
        self.held += input_ids
        self.read += len(input_ids)
        self._buffer[:] = logits_after(self.held)
        return self._buffer

    def rewind(self, position: int) -> None:
        assert position <= len(self.held)
        del self.held[position:]


def logits_after(tokens) -> np.ndarray:
    seed = int.from_bytes(bytes(tokens), "big") % 2**63
    return np.random.default_rng(seed).normal(size=VOCAB).astype(np.float32) * 3


def expected(context, continuation) -> tuple[list[float], bool]:
    found, greedy = [], True
    for index, token in enumerate(continuation):
        row = logits_after([*context, *continuation[:index]]).astype(np.float64)
        found.append(row[token] - math.log(np.exp(row).sum()))
        greedy = greedy and int(row.argmax()) == token
    return found, greedy


@given(requests=st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=8))
@settings(deadline=None, max_examples=100)
def test_scores_are_those_of_an_empty_cache_in_any_order(requests):
    scorer = TokenScorer(PrefixCache(Toy()))
    for context, continuation in requests:
        scores = scorer.score(context, continuation)
        wanted, greedy = expected(context, continuation)
        assert scores.log_likelihoods == pytest.approx(wanted, abs=1e-9)
        assert scores.total == pytest.approx(sum(wanted), abs=1e-8)
        assert scores.is_greedy is greedy


def test_the_likeliest_tokens_are_greedy():
    context, written = [1, 2], []
    for _ in range(4):
        written.append(int(logits_after([*context, *written]).argmax()))
    scorer = TokenScorer(PrefixCache(Toy()))
    assert scorer.score(context, written).is_greedy
    other = (written[-1] + 1) % VOCAB
    assert not scorer.score(context, [*written[:-1], other]).is_greedy


def test_choices_of_a_question_read_it_once():
    toy = Toy()
    scorer = TokenScorer(PrefixCache(toy))
    context = [3, 1, 4, 1, 5, 9, 2, 6]
    for choice in range(VOCAB):
        scorer.score(context, [choice])
    assert toy.read == len(context)
    scorer.score(context, [1, 2, 3])
    scorer.score(context, [1, 2, 4])
    assert toy.read == len(context) + 2  # the last token of a choice is never read
    scorer.score(context, [7, 2, 4])
    assert toy.read == len(context) + 4


def test_logits_of_another_text_are_not_taken_after_a_generation():
    cache = PrefixCache(Toy())
    scorer = TokenScorer(cache)
    scorer.score([1, 2, 3, 4], [5, 6])
    other = [1, 7, 3, 4, 5]
    cache.keep_prefix_of(other)
    cache.prefill(other[cache.position :])
    assert scorer.score(other, [6]).total == pytest.approx(sum(expected(other, [6])[0]))


def test_a_context_that_is_too_long_loses_its_beginning():
    scorer = TokenScorer(PrefixCache(Toy(max_context=5)))
    context = [1, 2, 3, 4, 5, 6]
    # The last token is scored and not read.
    assert scorer.score(context, [7]).total == pytest.approx(sum(expected(context[1:], [7])[0]))
    wanted = sum(expected(context[3:], [7, 8, 9])[0])
    assert scorer.score(context, [7, 8, 9]).total == pytest.approx(wanted)


def test_what_cannot_fit_or_has_nothing_before_it_is_refused():
    scorer = TokenScorer(PrefixCache(Toy(max_context=3)))
    assert scorer.score([1], [1, 2, 3]).log_likelihoods.shape == (3,)
    for context, continuation in (([1], [1, 2, 3, 4]), ([], [1])):
        with pytest.raises(PromptError, match="cannot be scored in a context of 3"):
            scorer.score(context, continuation)


@given(
    tokens=st.lists(st.integers(0, 99), max_size=40),
    length=st.integers(1, 12),
)
@settings(deadline=None)
def test_windows_score_each_token_once_as_lm_eval_cuts_them(tokens, length):
    windows = [(list(a), list(b)) for a, b in rolling_windows(tokens, prefix=-1, length=length)]
    assert [token for _, scored in windows for token in scored] == tokens
    assert all(0 < len(before) + len(scored) - 1 <= length for before, scored in windows)
    utils = pytest.importorskip("lm_eval.utils", reason="needs the extra evaluate")
    theirs = utils.get_rolling_token_windows(tokens, -1, max_seq_len=length, context_len=1)
    assert windows == [tuple(map(list, utils.make_disjoint_window(each))) for each in theirs]
