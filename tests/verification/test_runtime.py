"""A runtime held against what computes as it should: on a Mac, Core ML against the evaluator."""

from __future__ import annotations

import pytest
from artifacts import tiny
from artifacts.verifiable import make, verify
from fakes.session import FakeSession

from llama_export.llama.activations import EXACT_INPUTS
from llama_export.targets.coreml.target import CoremlTarget
from llama_export.verification.judge.judge import with_runtime
from llama_export.verification.judge.terms import runtime_rows
from llama_export.verification.measure.measure import compare_sessions

LIMITS = CoremlTarget.limits
TOKENS = tiny.random_tokens(tiny.TINY, 40)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("made"), tiny.TINY, target="coreml")


def rows(made, **runtime):
    """Judge a runtime against one that is right."""
    reference, session = FakeSession(made.model), FakeSession(made.model, **runtime)
    return runtime_rows(LIMITS, compare_sessions(reference, session, TOKENS), quick=False)


def test_where_the_runtime_is_the_reference_there_is_no_row(made):
    assert runtime_rows(LIMITS, None, quick=False) == []
    assert not any(row.key == "kl_runtime" for row in verify(made).rows)


def test_a_runtime_that_computes_the_same_passes(made):
    (row,) = rows(made)
    assert row.passed
    assert row.value == pytest.approx(0, abs=1e-12)
    assert "over 13 positions, 100.0% with the same" in row.note


@pytest.mark.parametrize(
    "runtime", [{"noise": 1.0}, {"fault": "position off by one"}], ids=["noise", "position"]
)
def test_a_runtime_that_computes_another_thing_is_red(made, runtime):
    (row,) = rows(made, **runtime)
    assert row.passed is False


def test_a_short_context_is_compared_as_far_as_it_goes(made):
    one, other = (FakeSession(made.model, max_context=1) for _ in range(2))
    (row,) = runtime_rows(LIMITS, compare_sessions(one, other, TOKENS), quick=False)
    assert row.passed
    assert "over 1 positions" in row.note


def test_the_report_has_the_row(made):
    behaviour = {
        "limits": LIMITS,
        "rounding": EXACT_INPUTS,
        "open_reference": lambda: FakeSession(made.model, fault="position off by one"),
    }
    report = verify(made, quick=False, **behaviour)
    assert report.row("kl_runtime").passed is False
    assert report.row("kl_exact").passed
    # What a processor rounds stops no export: its limit is an estimate.
    quick = verify(made, **behaviour).row("kl_runtime")
    assert quick.passed is None
    assert quick.value > LIMITS.runtime_kl.value


def test_a_runtime_has_the_limits_of_its_own_rounding():
    loose = with_runtime(LIMITS)
    assert loose.shipped_kl == LIMITS.runtime_kl
    assert loose.shipped_prefill_kl.value == 10 * LIMITS.runtime_kl.value
    assert loose.exact_kl == LIMITS.exact_kl
