"""Single positions of a runtime that always rounds: held to the worst of them, less an offset."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from llama_export.targets.coreml.target import CoremlTarget
from llama_export.targets.executorch.target import ExecutorchTarget
from llama_export.verification.judge.judge import with_rounding
from llama_export.verification.judge.relative import relative_difference
from llama_export.verification.measure.metrics import compare_logits
from llama_export.verification.measure.shipped import Shipped

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(40, 500))


def noisy(share: float, worst: float) -> np.ndarray:
    """Return the logits with noise of a share of their size, and more at one position."""
    shares = np.full((40, 1), share)
    shares[17] = worst
    return LOGITS + shares * RANDOM.normal(size=LOGITS.shape)


def test_an_offset_of_all_logits_is_no_difference_where_a_runtime_always_rounds():
    moved = compare_logits(LOGITS, LOGITS + 0.4)
    assert relative_difference(ExecutorchTarget.limits, moved) == pytest.approx(0, abs=1e-12)
    # In exact arithmetic every digit counts.
    assert relative_difference(CoremlTarget.limits, moved) == pytest.approx(0.4, rel=0.01)
    assert moved.kl_max < 1e-12


def test_a_single_position_may_be_as_far_as_rounding_puts_the_worst_one_twice():
    rounding = compare_logits(LOGITS, noisy(0.06, 0.18))
    assert rounding.centred_rms_worst == pytest.approx(0.18, rel=0.2)
    shipped = Shipped(*[None] * 8)
    limits = with_rounding(
        ExecutorchTarget.limits, dataclasses.replace(shipped, activation=rounding)
    )
    assert limits.same_rel_rms.value == pytest.approx(2 * rounding.centred_rms_worst)
    assert limits.exact_rel_rms.value == pytest.approx(2 * rounding.centred_rms)
    # A swapped row is further off than any rounding.
    swapped = compare_logits(LOGITS[:1], LOGITS[1:2])
    assert relative_difference(limits, swapped) > limits.same_rel_rms.value
    right = compare_logits(LOGITS[17:18], noisy(0.06, 0.25)[17:18])
    assert relative_difference(limits, right) < limits.same_rel_rms.value
