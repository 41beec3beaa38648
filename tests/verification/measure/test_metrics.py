"""The metrics against closed forms, and what they make of NaN."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tolerances import FLOAT64_REL

from llama_export.verification.measure.cache_rms import relative_rms_by_position
from llama_export.verification.measure.metrics import (
    LogitComparison,
    TokenLoss,
    compare_logits,
)


def perplexity(logits, targets):
    loss = TokenLoss()
    loss.add(logits, targets)
    return loss.result()


finite = st.floats(-30, 30, width=32)


def random_logits(positions: int, vocab: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(positions, vocab)).astype(np.float32) * 3


@given(finite, finite)
def test_kl_of_two_outcomes(a, b):
    p = 1 / (1 + math.exp(-a))
    # ln p - ln q, and ln (1 - p) - ln (1 - q)
    yes = math.log1p(math.exp(-b)) - math.log1p(math.exp(-a))
    no = math.log1p(math.exp(b)) - math.log1p(math.exp(a))
    metrics = compare_logits(np.array([[a, 0.0]]), np.array([[b, 0.0]]))
    assert metrics.kl_mean == pytest.approx(p * yes + (1 - p) * no, rel=FLOAT64_REL, abs=1e-12)
    assert metrics.max_abs == pytest.approx(abs(a - b), abs=1e-12)


@given(st.lists(finite, min_size=2, max_size=9), finite)
def test_kl_of_a_shift_is_zero_and_never_negative(row, shift):
    logits = np.array([row])
    metrics = compare_logits(logits, logits + shift)
    assert 0 <= metrics.kl_mean < 1e-12


@given(st.lists(finite, min_size=2, max_size=9))
def test_kl_from_uniform(row):
    """KL(uniform || q) is the log-sum-exp, less the mean logit, less ln V."""
    values = np.array(row)
    peak = values.max()
    log_sum = peak + math.log(np.exp(values - peak).sum())
    expected = log_sum - values.mean() - math.log(len(row))
    metrics = compare_logits(np.zeros((1, len(row))), values[None])
    assert metrics.kl_mean == pytest.approx(expected, rel=FLOAT64_REL, abs=1e-9)


def test_kl_is_of_the_reference_first():
    one, other = np.array([[5.0, 0.0, 0.0]]), np.array([[0.0, 0.0, 0.0]])
    forward, backward = compare_logits(one, other).kl_mean, compare_logits(other, one).kl_mean
    p = np.exp(one[0]) / np.exp(one[0]).sum()
    assert forward == pytest.approx(float((p * np.log(p * 3)).sum()), rel=FLOAT64_REL)
    assert backward > forward + 1


def test_the_figures_of_a_known_pair():
    reference = np.zeros((4, 2))
    candidate = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    lead = np.array([1.0, 0.0])
    metrics = compare_logits(reference + lead, candidate + lead)
    assert metrics.positions == 4
    assert metrics.top1 == 0.75  # at the tie the first counts
    assert metrics.max_abs == 2
    assert metrics.rel_rms == pytest.approx(math.sqrt((1 + 1 + 4) / 4))
    assert metrics.kl.shape == (4,)
    assert metrics.kl_max == metrics.kl.max() == metrics.kl[3]
    assert metrics.kl_p50 == np.percentile(metrics.kl, 50)
    assert metrics.kl_p99 == np.percentile(metrics.kl, 99)


def test_blocks_give_what_one_call_gives():
    reference, candidate = random_logits(75, 40), random_logits(75, 40, seed=1)
    whole = compare_logits(reference, candidate)
    blocks = LogitComparison()
    for part in np.array_split(np.arange(75), 6):
        blocks.add(reference[part], candidate[part])
    pieces = blocks.metrics()
    np.testing.assert_array_equal(whole.kl, pieces.kl)
    assert whole.rel_rms == pytest.approx(pieces.rel_rms, rel=FLOAT64_REL)
    assert (whole.top1, whole.max_abs) == (pieces.top1, pieces.max_abs)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["reference", "candidate"])
def test_a_nan_is_a_named_fault_and_passes_no_limit(bad, side):
    sides = {"reference": random_logits(40, 8), "candidate": random_logits(40, 8)}
    sides[side][33, 2] = bad
    metrics = compare_logits(sides["reference"], sides["candidate"])
    assert metrics.fault == f"the {side}'s logits hold 1 NaN or infinite values at position 33"
    assert not metrics.kl_mean <= 1e9
    assert not metrics.rel_rms <= 1e9
    assert metrics.top1 == 0
    written = json.dumps(metrics.to_json(), allow_nan=False)
    assert json.loads(written)["kl_mean"] is None


def test_another_vocabulary_is_a_named_fault():
    metrics = compare_logits(random_logits(3, 8), random_logits(3, 9))
    assert "shape (3, 9)" in metrics.fault
    assert metrics.kl_mean == math.inf


def test_nothing_compared_is_a_fault():
    assert LogitComparison().metrics().fault == "no positions were compared"
    assert TokenLoss().result().fault == "no tokens were scored"


def test_signal_to_noise_in_decibels():
    reference = np.ones((1, 4))
    assert compare_logits(reference, reference * 1.01).sqnr_db == pytest.approx(40)
    assert compare_logits(reference, reference).sqnr_db == math.inf
    assert compare_logits(reference, reference * np.nan).sqnr_db == -math.inf
    assert compare_logits(reference, reference).to_json()["sqnr_db"] is None


def test_large_logits_do_not_overflow():
    logits = np.array([[1e5, -1e5], [3e4, 3e4]], dtype=np.float32)
    metrics = compare_logits(logits, logits)
    assert metrics.kl_mean == 0
    assert metrics.fault == ""


@given(st.integers(2, 300), st.integers(1, 40))
def test_perplexity_of_a_guess_is_the_vocabulary(vocab, count):
    loss = perplexity(np.full((count, vocab), 2.5), [index % vocab for index in range(count)])
    assert loss.perplexity == pytest.approx(vocab, rel=FLOAT64_REL)
    assert loss.tokens == count


def test_perplexity_scores_the_target_and_no_other():
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    loss = perplexity(logits, [0, 1])
    assert loss.nats_per_token == pytest.approx(-(math.log(0.5) + math.log(0.1)) / 2)


def test_perplexity_names_its_faults():
    logits = random_logits(20, 5)
    assert "no entry for token 5" in perplexity(logits, [5] * 20).fault
    logits[17, 0] = math.nan
    loss = perplexity(logits, [0] * 20)
    assert "position 17" in loss.fault
    assert loss.perplexity == math.inf
    assert loss.to_json()["perplexity"] is None


def test_a_stale_row_shows_at_its_position():
    cache = np.random.default_rng(2).normal(size=(2, 50, 64)).astype(np.float32)
    stale = cache.copy()
    stale[:, 30] = stale[:, 29]
    difference = relative_rms_by_position(cache, stale)
    assert difference.argmax() == 30
    assert difference[30] > 1
    assert difference[:30].max() == difference[31:].max() == 0
    stale[0, 3, 0] = math.nan
    assert relative_rms_by_position(cache, stale)[3] == math.inf
    assert np.all(relative_rms_by_position(cache, cache[:, :, :32]) == math.inf)


def test_positions_that_repeat_a_text_make_no_error_smaller():
    random = np.random.default_rng(5)
    wanted = random.normal(size=(100, 50))
    found = wanted + random.gamma(0.5, 0.5, size=(100, 1)) * random.normal(size=(100, 50))
    once = compare_logits(wanted, found)
    repeated = LogitComparison(own=100)
    for _ in range(10):
        repeated.add(wanted, found)
    metrics = repeated.metrics()
    assert metrics.positions == 1000
    assert metrics.kl_estimate.count == metrics.top1_estimate.count == 100
    assert metrics.kl_estimate.error == pytest.approx(once.kl_estimate.error)
    assert metrics.top1_estimate.error == pytest.approx(once.top1_estimate.error)
    # A fault counts wherever it is, so the means are those of all positions.
    repeated.add(wanted[:1], wanted[1:2])
    assert repeated.metrics().kl_estimate.value > metrics.kl_estimate.value
