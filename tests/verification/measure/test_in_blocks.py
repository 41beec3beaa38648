"""Standard errors over blocks of positions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from llama_export.verification.measure.in_blocks import (
    exponential,
    mean_in_blocks,
    ratio_in_blocks,
)

RANDOM = np.random.default_rng(0)


def persistent(count: int, length: int) -> np.ndarray:
    """Return `count` draws, each of which holds for `length` positions, as a hard passage does."""
    return np.repeat(RANDOM.normal(size=count), length)


@pytest.mark.parametrize("positions", [2, 7, 32, 33, 255, 1000])
def test_the_mean_is_that_of_all_positions(positions):
    values = RANDOM.normal(size=positions)
    found = mean_in_blocks(values)
    assert found.value == pytest.approx(values.mean())
    assert found.error > 0
    assert found.count == positions


def test_the_error_is_that_of_many_texts():
    """Of 400 texts, the spread of their means is what one of them says of itself."""
    texts = [persistent(125, 8) for _ in range(400)]
    spread = np.std([text.mean() for text in texts])
    said = np.mean([mean_in_blocks(text).error for text in texts])
    assert said == pytest.approx(spread, rel=0.15)
    # Positions that each counted as a draw of their own would say a third of it.
    alone = np.mean([text.std() / math.sqrt(len(text)) for text in texts])
    assert alone < 0.5 * spread


def test_a_ratio_leaves_out_what_both_have_in_common():
    base = 1 + RANDOM.random(640)
    assert ratio_in_blocks(2 * base, base).error == pytest.approx(0, abs=1e-12)
    found = ratio_in_blocks(2 * base + RANDOM.normal(size=640), base)
    assert found.value == pytest.approx(2, abs=0.1)
    assert 0 < found.error < 0.1


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.inf], [1.0, math.nan] * 40])
def test_what_has_no_error_says_none(values):
    found = mean_in_blocks(np.array(values))
    assert math.isnan(found.error)
    assert found.count == len(values)


def test_a_base_of_nothing_gives_no_ratio():
    assert math.isnan(ratio_in_blocks(np.ones(64), np.zeros(64)).error)


def test_a_perplexity_is_as_unsure_as_its_logarithm():
    nats = mean_in_blocks(np.tile([1.0, 3.0, 2.0, 2.5], 100) + persistent(25, 16))
    found = exponential(nats)
    assert found.value == pytest.approx(math.exp(nats.value))
    assert found.error == pytest.approx(found.value * nats.error)
    assert exponential(mean_in_blocks(np.full(4, 800.0))).value == math.inf
