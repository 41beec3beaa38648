"""Whole verifications of an artifact that rounds: the error terms, `strict`, and the plots."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from artifacts import tiny
from artifacts.verifiable import TEXT, every_product, make, verify
from fakes.session import FakeSession

from llama_export.llama.activations import EXACT_INPUTS
from llama_export.targets.onnx.target import OnnxTarget
from llama_export.verification import verify as verify_module
from llama_export.verification.findings import Divergence
from llama_export.verification.measure.shipped import MOST_PAIRS
from llama_export.verification.samples import UserText

pytestmark = pytest.mark.usefixtures("one_thread")

ROUNDING = every_product(32)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("made"), tiny.TINY)


def failed(report) -> set[str]:
    return {row.key for row in report.failures}


def test_rounding_is_a_term_of_its_own(made):
    report = verify(made, rounds=ROUNDING, rounding=ROUNDING)
    assert report.passed, report.failures
    activation, shipped = report.row("kl_activation").value, report.row("kl_shipped").value
    assert 1e-5 < activation < 1e-2
    assert shipped == pytest.approx(activation, rel=0.3)
    assert report.row("kl_shipped").threshold == pytest.approx(2 * activation)
    assert report.row("kl_shipped_emulated").value < 0.7 * activation
    assert report.row("kl_exact").value < 1e-10
    assert report.measurements["activation"]["positions"] == 32


@pytest.mark.parametrize(
    ("changes", "row"),
    [
        ({"noise": 0.1}, "kl_shipped"),  # far below what random weights were once allowed
        ({"rounds": EXACT_INPUTS, "noise": 0.06}, "kl_shipped_emulated"),
        ({"rounds": every_product(128)}, "kl_shipped_emulated"),
    ],
)
def test_what_rounding_does_not_explain_fails(made, changes, row):
    changes = {"rounds": ROUNDING, **changes}
    report = verify(made, rounding=ROUNDING, **changes)
    assert row in failed(report)
    assert report.row("kl_exact").passed  # it is what the artifact does as shipped
    unknown = verify(made, rounding=None, **changes)
    assert not failed(unknown)


def test_a_runtime_that_rounds_nothing_is_held_to_float32(made):
    report = verify(made, rounding=EXACT_INPUTS)
    assert report.passed
    assert report.row("kl_activation").value == 0
    limit = OnnxTarget.limits.exact_kl.value
    assert report.row("kl_shipped").threshold == limit
    assert report.row("kl_shipped_emulated").value < limit
    rounded = verify(made, rounds=ROUNDING, rounding=EXACT_INPUTS)
    assert {"kl_shipped", "kl_shipped_emulated"} <= failed(rounded)


def test_unknown_rounding_is_said(made):
    report = verify(made)
    assert report.passed
    for key in ("kl_activation", "kl_shipped_emulated"):
        assert report.row(key).note.startswith("not checked: how this machine's runtime rounds")


def test_strict_fails_what_was_not_checked_or_judged(made):
    report = verify(made, rounding=EXACT_INPUTS, strict=True)
    # Random weights, and a fake artifact that says nothing of itself.
    assert failed(report) == {
        "kl_quantisation",
        "share_of_quantisation",
        "manifest_graph",
        "artifact_said",
    }
    assert report.settings["strict"] is True
    assert "--strict" in report.row("kl_quantisation").note
    without = {"rounding": EXACT_INPUTS, "checkpoint": None}
    strict = verify(made, **without, strict=True)
    # What is missing can be given elsewhere, so it is no failure of the artifact.
    assert not failed(strict) & {"kl_quantisation", "side_chat"}
    assert "checkpoint" in strict.missing


def test_a_failure_is_located_and_a_pass_is_not(made, monkeypatch):
    asked = []

    def locate(probe, config, read, input_ids):
        asked.append((probe, len(input_ids)))
        return Divergence(1, "model.layers.1.mlp.up_proj", "up", 0.5, 1e-3, "wrong", ())

    monkeypatch.setattr(verify_module, "locate", locate)
    assert verify(made, probe="the probe").divergence is None
    assert not asked
    wrong = {"fault": "position off by one", "probe": "the probe"}
    assert verify(made, **wrong).divergence.layer == 1
    assert asked == [("the probe", 32)]
    for missing in ({"probe": None}, {"weights": None}):
        assert verify(made, **wrong | missing).divergence is None
    assert len(asked) == 1


def test_what_the_plots_show(made):
    plot_data = verify(made, rounding=EXACT_INPUTS).plot_data
    lengths = {name: len(values) for name, values in plot_data.kl_by_position.items()}
    assert lengths == {
        "quantisation": 32, "activation": 32, "lowering_shipped": 32, "lowering_exact": 32
    }  # fmt: skip
    exact = plot_data.kl_by_position["lowering_exact"]
    assert math.isnan(exact[0])
    assert math.isfinite(exact[-1])
    assert 1000 < len(plot_data.logit_scatter) <= MOST_PAIRS
    pairs = np.array(plot_data.logit_scatter)
    assert np.abs(pairs[:, 0] - pairs[:, 1]).max() < 1e-3
    assert pairs[:, 0].std() > 0.1
    names = {tensor.name: tensor for tensor in plot_data.tensors}
    assert names["model.layers.0.mlp.up_proj.weight"].bits == 4
    assert 15 < names["model.layers.0.mlp.up_proj.weight"].sqnr_db < 30
    assert names["model.norm.weight"].sqnr_db is None
    assert plot_data.sizes_bytes == {
        "scales": 7,
        "norms and the rest": 0,
        "tokenizer and other files": made.bundle.size_bytes - 7,
    }
    memory = plot_data.memory_bytes
    assert 0 < memory["after loading"] <= memory["peak while verifying"]
    bare = verify(made, rounding=EXACT_INPUTS, weights=None).plot_data
    assert (bare.kl_by_position, bare.tensors, bare.logit_scatter) == ({}, (), ())


def test_a_short_text_is_scored_once(made):
    text = UserText(Path("short.txt"), bytes(TEXT[:5]).decode())
    report = verify(made, text=text)
    assert report.measurements["loss_quantised"]["tokens"] == 5
    assert report.measurements["lowering_shipped"]["positions"] == 32
    assert report.settings["text_tokens"] == 5


def test_a_context_of_one_token_is_verified(made):
    def open_session(**_options):
        return FakeSession(made.model, max_context=1)

    report = verify(made, open_session=open_session)
    assert report.passed, report.failures
    assert report.settings["max_context"] == 1


def test_a_runtime_that_always_rounds_is_followed_step_by_step(made):
    """What ExecuTorch's artifacts are judged by, with a session that rounds in both modes."""
    from artifacts.verifiable import with_rounded_inputs

    limits = dataclasses.replace(
        OnnxTarget.limits, has_exact_mode=False, step_rel_rms=OnnxTarget.limits.exact_rel_rms
    )
    rounded = with_rounded_inputs(made.model, ROUNDING)
    behaviour = {"limits": limits, "rounding": ROUNDING}
    report = verify(made, open_session=lambda **_options: FakeSession(rounded), **behaviour)
    assert report.row("cache_steps").passed, report.row("cache_steps").note
    assert report.row("best_step").passed
    wrong = verify(
        made,
        open_session=lambda **_options: FakeSession(rounded, fault="position off by one"),
        **behaviour,
    )
    assert wrong.row("cache_steps").passed is False
    assert wrong.row("cache_steps").note.startswith("first: keys of layer 0")
