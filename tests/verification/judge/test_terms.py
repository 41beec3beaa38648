"""The error terms beside their limits: trained models, random ones, figures that are none."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from llama_export.llama.config import LlamaConfig
from llama_export.llama.presets import PRESETS
from llama_export.targets import registry
from llama_export.verification.judge.quantisation import QUANTISATION_KL, quantisation_rows
from llama_export.verification.judge.sessions import session_rows
from llama_export.verification.judge.terms import lowering_rows, strictly
from llama_export.verification.measure.behaviour import ContextEnd, Conversations
from llama_export.verification.measure.exact import AtLength, CacheDifference, Exact, InPortions
from llama_export.verification.measure.metrics import LogitMetrics, Perplexity, compare_logits
from llama_export.verification.measure.shipped import Shipped
from llama_export.verification.rows import Row, VerifyReport, informed, judged, unchecked

LIMITS = registry.get("onnx").limits
VOCAB = 4096
LARGE, SMALL = (
    dataclasses.replace(PRESETS[name], vocab_size=VOCAB, bos_token_id=1, eos_token_id=(2,))
    for name in ("3.2-1B", "smollm2-135m")
)
BROKEN = compare_logits(np.zeros((1, 2)), np.full((1, 2), np.nan))


def distance(kl: float, positions: int = 100) -> LogitMetrics:
    each = np.full(positions, kl)
    return LogitMetrics(
        positions, kl, kl, kl, kl, kl, 0.9, 0.1, *[kl**0.5 / 10] * 3, each, each >= 0
    )


def shipped(lowering: float, quantisation: float, nats: float = 3.5, **changes) -> Shipped:
    """Figures as the demo model gives them; `nats` says whether it counts as trained."""
    loss = Perplexity(100, nats, np.full(100, nats))
    figures = Shipped(
        lowering=distance(lowering),
        prefill=distance(lowering),
        activation=None,
        emulated=None,
        quantisation=distance(quantisation),
        artifact_loss=loss,
        quantised_loss=loss,
        checkpoint_loss=loss,
    )
    return dataclasses.replace(figures, **changes)


def judge(figures: Shipped, bits: int = 4, config: LlamaConfig = LARGE) -> dict[str, Row]:
    right = distance(1e-12)
    exact = Exact(
        lowering=right,
        cache=CacheDifference(1e-6, ""),
        lengths=(AtLength(4, right),),
        at_once=right,
        portions=(InPortions((1, 3), right),),
        conversations=Conversations(0, right),
        end=ContextEnd(64, right, "", 0),
    )
    rows = lowering_rows(LIMITS, figures, exact, config=config)
    rows += session_rows(LIMITS, exact)
    rows += quantisation_rows(figures, None, bits=bits, config=config)
    return {row.key: row for row in rows}


def test_a_trained_model_is_judged_by_the_tight_limits():
    rows = judge(shipped(1e-3, 6e-3))
    assert rows["kl_shipped"].threshold == 2e-3
    assert rows["kl_quantisation"].threshold == 0.5
    assert rows["share_of_quantisation"].value == pytest.approx(1 / 6)
    assert all(row.passed is not False for row in rows.values())


@pytest.mark.parametrize(
    ("lowering", "quantisation", "bits", "failing"),
    [
        (2.1e-3, 9e-3, 4, "kl_shipped"),
        (1.9e-3, 3e-3, 4, "share_of_quantisation"),
        (1e-3, 0.6, 4, "kl_quantisation"),
        (1e-3, 0.03, 8, "kl_quantisation"),
        (5e-4, 3e-3, 16, "kl_quantisation"),
    ],
)
def test_a_trained_model_fails_above_a_limit(lowering, quantisation, bits, failing):
    rows = judge(shipped(lowering, quantisation), bits)
    assert [row.key for row in rows.values() if row.passed is False] == [failing]


def test_a_small_model_may_lose_more_to_int4_but_not_all():
    def passed(kl: float, bits: int = 4, positions: int = 32, config: LlamaConfig = SMALL):
        figures = dataclasses.replace(
            shipped(5e-3, kl),
            lowering=distance(5e-3, positions),
            quantisation=distance(kl, positions),
        )
        return judge(figures, bits, config)["kl_quantisation"].passed

    assert passed(0.57)
    assert not passed(1.1)
    assert not passed(0.03, bits=8)
    assert not passed(0.57, config=LARGE)
    assert not passed(0.57, positions=100)  # a mean over many does not stray


def test_a_trained_model_may_lose_what_rounding_explains_up_to_a_limit():
    explained = distance(6.9e-3), distance(1e-5)
    figures = shipped(5.5e-3, 0.57, activation=explained[0], emulated=explained[1])
    row = judge(figures, config=SMALL)["kl_shipped"]
    assert (row.passed, row.threshold) == (True, pytest.approx(2 * 6.9e-3))
    over = shipped(1.4e-2, 0.57, activation=explained[0], emulated=explained[1])
    assert not judge(over, config=SMALL)["kl_shipped"].passed
    much = shipped(0.11, 0.57, activation=distance(0.5), emulated=explained[1])
    row = judge(much, config=SMALL)["kl_shipped"]
    assert (row.passed, row.threshold) == (False, pytest.approx(0.1))
    # A large model is held to the tight limit, whatever rounding explains.
    row = judge(figures, config=LARGE)["kl_shipped"]
    assert (row.passed, row.threshold) == (False, LIMITS.shipped_kl.value)


def test_the_share_is_not_judged_where_hardly_anything_was_lost():
    row = judge(shipped(8e-4, 5e-5), bits=8)["share_of_quantisation"]
    assert row.passed is None
    assert "quantisation error is below" in row.note


def test_random_weights_are_held_to_their_own_quantisation_error():
    rows = judge(shipped(8e-3, 0.02, nats=8.9))
    assert rows["kl_shipped"].passed
    assert rows["kl_shipped"].threshold == 0.02
    assert rows["kl_quantisation"].passed is None
    assert not judge(shipped(0.03, 0.02, nats=8.9))["kl_shipped"].passed
    assert not judge(shipped(0.06, 3.0, nats=8.9))["kl_shipped"].passed


PRUNED = dataclasses.replace(LARGE, head_tokens=(2, 7, 9), tie_word_embeddings=False)
NO_LOSS: dict[str, Any] = {
    **dict.fromkeys(("artifact_loss", "quantised_loss", "checkpoint_loss")),
    "activation": distance(2e-3),
    "emulated": distance(1e-6),
}


def test_a_pruned_head_passes_what_is_within_the_limits():
    """Whether the model is trained it does not tell: what costs little is good in any case."""
    rows = judge(shipped(1e-3, 6e-3, **NO_LOSS), config=PRUNED)
    assert (rows["kl_quantisation"].passed, rows["share_of_quantisation"].passed) == (True, True)
    assert rows["perplexity_artifact"].passed is None
    assert all(row.passed is not False for row in strictly(list(rows.values())))


def test_a_pruned_head_is_not_judged_beyond_the_limits_and_no_gate_lets_it_pass():
    rows = judge(shipped(1e-3, 0.6, **NO_LOSS), config=PRUNED)
    assert rows["kl_quantisation"].passed is None
    assert rows["kl_quantisation"].note.startswith("not judged: a pruned head")
    rows |= judge(shipped(3e-3, 6e-3, **NO_LOSS), config=PRUNED) | {"q": rows["kl_quantisation"]}
    assert rows["share_of_quantisation"].passed is None
    failed = {row.key for row in strictly(list(rows.values())) if row.passed is False}
    assert failed == {"kl_quantisation", "share_of_quantisation"}


def test_quantisation_that_gives_nan_fails_even_for_random_weights():
    rows = judge(dataclasses.replace(shipped(1e-3, 6e-3, nats=8.9), quantisation=BROKEN))
    assert rows["kl_quantisation"].passed is False
    assert rows["kl_shipped"].threshold == LIMITS.shipped_kl_untrained.value


def test_weights_that_were_spoilt_do_not_pass_as_random():
    """The checkpoint says whether the model is trained, not what became of it."""
    guess = Perplexity(100, 9.5, np.full(100, 9.5))
    rows = judge(shipped(1e-3, 4.0, quantised_loss=guess, artifact_loss=guess))
    assert rows["kl_quantisation"].passed is False


def test_a_report_that_judged_nothing_has_not_passed():
    report = VerifyReport("onnx", "m", {}, (unchecked("lowering", "k", "n", "why"),), {})
    assert not report.passed
    nan = judged("lowering", "k", "n", float("nan"), 1.0)
    assert nan.passed is False
    assert nan.to_json()["value"] is None


def test_strict_leaves_figures_and_verdicts_alone():
    rows = [judged("lowering", "a", "a", 0, 1), informed("lowering", "b", "b", 3.0, "a note")]
    assert strictly(rows) == rows
    assert strictly([unchecked("lowering", "c", "c", "why")])[0].passed is False


@pytest.mark.parametrize("target", registry.TARGETS)
def test_every_limit_has_a_reason(target):
    limits = registry.get(target).limits
    for name, limit in vars(limits).items():
        if name == "exact_wording":
            assert limit
        elif name not in ("has_exact_mode", "steps_stay_clean"):
            # Only Core ML is run by two things, of which one is held against the other.
            assert limit.value > 0 or (name == "runtime_kl" and target != "coreml")
            assert len(limit.reason) > 10
    assert set(QUANTISATION_KL) == {4, 8, 16}
    assert np.isfinite(limits.exact_kl.value)
