"""Single positions of a runtime that always rounds: held to what 99 % cost, less an offset."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from artifacts.tiny import TINY, random_llama, random_tokens

from llama_export.llama.activations import ActivationQuantization
from llama_export.llama.names import TABLE
from llama_export.targets.coreml.target import CoremlTarget
from llama_export.targets.executorch.target import ExecutorchTarget
from llama_export.targets.limits import Limits
from llama_export.verification.judge.judge import with_rounding
from llama_export.verification.judge.relative import relative_difference
from llama_export.verification.measure.eager import QuantisedEager
from llama_export.verification.measure.metrics import LogitMetrics, compare_logits
from llama_export.verification.measure.shipped import Shipped

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(40, 500))
COUNT = 256


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


def limits_of(rounding: LogitMetrics) -> Limits:
    shipped = dataclasses.replace(Shipped(*[None] * 8), activation=rounding)
    return with_rounding(ExecutorchTarget.limits, shipped)


def test_a_single_position_may_be_twice_as_far_as_rounding_puts_nearly_all():
    rounding = compare_logits(LOGITS, noisy(0.06, 0.18))
    limits = limits_of(rounding)
    assert limits.same_rel_rms.value == pytest.approx(2 * rounding.centred_rms_p99)
    assert limits.exact_rel_rms.value == pytest.approx(2 * rounding.centred_rms)
    right = compare_logits(LOGITS[17:18], noisy(0.06, 0.18)[17:18])
    assert relative_difference(limits, right) < limits.same_rel_rms.value


def test_one_outlier_does_not_set_the_limit_of_all_positions():
    many = np.tile(LOGITS, (25, 1))
    shares = np.full((1000, 1), 0.06)
    shares[17] = 0.3
    limits = limits_of(compare_logits(many, many + shares * RANDOM.normal(size=many.shape)))
    assert limits.same_rel_rms.value < 2 * 0.08


def test_no_rounding_allows_half_a_row():
    limits = limits_of(compare_logits(LOGITS, noisy(0.5, 0.9)))
    assert limits.same_rel_rms.value == 0.5


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("layers", "room"), [(2, 2.0), (6, 1.2), (16, 2.0)])
def test_the_row_of_the_position_before_is_red_at_every_position(layers, room):
    """Of real rows, whose neighbours share a context: the nearest are 0.2 apart, not 1.4."""
    config = dataclasses.replace(TINY, num_hidden_layers=layers)
    state = random_llama(config).state_dict()
    row = ActivationQuantization(8, None, True)
    rounding = {name: row for name in state if name.endswith("proj.weight")} | {TABLE: row}
    quantised = QuantisedEager.run(
        config,
        lambda name: state[name].float(),
        random_tokens(config, COUNT + 1),
        positions=COUNT,
        max_context=2 * COUNT,
        rounding=rounding,
    )
    plain, rounded = (each.logits(slice(0, COUNT)) for each in (quantised.plain, quantised.rounded))
    limits = limits_of(compare_logits(plain, rounded))
    before = [
        relative_difference(limits, compare_logits(plain[at : at + 1], rounded[at - 1 : at]))
        for at in range(1, COUNT)
    ]
    assert min(before) > room * limits.same_rel_rms.value
    right = [
        relative_difference(limits, compare_logits(plain[at : at + 1], rounded[at : at + 1]))
        for at in range(COUNT)
    ]
    assert max(right) < limits.same_rel_rms.value
