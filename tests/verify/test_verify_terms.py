"""The error terms, texts, budgets, `strict`, and what a report keeps for its plots."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from artifacts import tiny
from artifacts.subjects import TEXT, every_product, make, subject_of
from fakes.session import FakeSession

from llama_export.errors import PromptError
from llama_export.llama.config import PRESETS
from llama_export.verify import verify as verify_module
from llama_export.verify.findings import Divergence
from llama_export.verify.judge.terms import strictly
from llama_export.verify.measure.metrics import compare_logits
from llama_export.verify.measure.shipped import MOST_PAIRS
from llama_export.verify.rows import informed, judged, unchecked
from llama_export.verify.samples import Text, cache_bytes, plan_budget, read_text, tokenize
from llama_export.verify.verify import verify_subject

pytestmark = pytest.mark.usefixtures("one_thread")

DEMO = dataclasses.replace(
    tiny.TINY, vocab_size=4096, hidden_size=256, intermediate_size=768, num_hidden_layers=6
)
ROUNDING = every_product(32)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("made"), tiny.TINY)


def failed(report) -> set[str]:
    return {row.key for row in report.failures}


def test_rounding_is_a_term_of_its_own(made):
    subject = subject_of(made, rounds=ROUNDING, rounding=lambda: ROUNDING)
    report = verify_subject(subject, quick=True)
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
        ({"rounds": {}, "noise": 0.06}, "kl_shipped_emulated"),
        ({"rounds": every_product(128)}, "kl_shipped_emulated"),
    ],
)
def test_what_rounding_does_not_explain_fails(made, changes, row):
    subject = subject_of(made, **{"rounds": ROUNDING, **changes}, rounding=lambda: ROUNDING)
    report = verify_subject(subject, quick=True)
    assert row in failed(report)
    assert report.row("kl_exact").passed  # it is what the artifact does as shipped
    unknown = verify_subject(dataclasses.replace(subject, rounding=lambda: None), quick=True)
    assert not failed(unknown)


def test_a_runtime_that_rounds_nothing_is_held_to_float32(made):
    report = verify_subject(subject_of(made, rounding=dict), quick=True)
    assert report.passed
    assert report.row("kl_activation").value == 0
    limit = verify_module.limits_for("onnx").exact_kl.value
    assert report.row("kl_shipped").threshold == limit
    assert report.row("kl_shipped_emulated").value < limit
    rounded = verify_subject(subject_of(made, rounds=ROUNDING, rounding=dict), quick=True)
    assert {"kl_shipped", "kl_shipped_emulated"} <= failed(rounded)


def test_unknown_rounding_is_said(made):
    report = verify_subject(subject_of(made), quick=True)
    assert report.passed
    for key in ("kl_activation", "kl_shipped_emulated"):
        assert report.row(key).note.startswith("not checked: how this machine's runtime rounds")


def test_strict_fails_what_was_not_checked_or_judged(made):
    complete = subject_of(made, rounding=dict)
    report = verify_subject(complete, quick=True, strict=True)
    assert failed(report) == {"kl_quantisation", "share_of_quantisation"}  # random weights
    assert report.settings["strict"] is True
    assert "--strict" in report.row("kl_quantisation").note
    without = dataclasses.replace(complete, checkpoint=None)
    assert verify_subject(without, quick=True).passed
    assert "kl_quantisation" in failed(verify_subject(without, quick=True, strict=True))


def test_strict_leaves_figures_and_verdicts_alone():
    rows = [judged("lowering", "a", "a", 0, 1), informed("lowering", "b", "b", 3.0, "a note")]
    assert strictly(rows) == rows
    assert strictly([unchecked("lowering", "c", "c", "why")])[0].passed is False


def test_a_failure_is_located_and_a_pass_is_not(made, monkeypatch):
    asked = []

    def locate(probe, config, read, input_ids):
        asked.append((probe, len(input_ids)))
        return Divergence(1, "model.layers.1.mlp.up_proj", "up", 0.5, 1e-3, "wrong", ())

    monkeypatch.setattr(verify_module, "locate", locate)
    right = subject_of(made, probe="the probe")
    assert verify_subject(right, quick=True).divergence is None
    assert not asked
    wrong = subject_of(made, fault="position off by one", probe="the probe")
    assert verify_subject(wrong, quick=True).divergence.layer == 1
    assert asked == [("the probe", 32)]
    for missing in ({"probe": None}, {"weights": None}):
        untapped = dataclasses.replace(wrong, **missing)
        assert verify_subject(untapped, quick=True).divergence is None
    assert len(asked) == 1


def test_what_the_plots_show(made):
    subject = subject_of(made, rounding=dict, sizes_bytes=lambda: {"int4 linears": 10})
    series = verify_subject(subject, quick=True).series
    lengths = {name: len(values) for name, values in series.kl_by_position.items()}
    assert lengths == {
        "quantisation": 32, "activation": 32, "lowering_shipped": 32, "lowering_exact": 32
    }  # fmt: skip
    exact = series.kl_by_position["lowering_exact"]
    assert math.isnan(exact[0])
    assert math.isfinite(exact[-1])
    assert 1000 < len(series.logit_scatter) <= MOST_PAIRS
    pairs = np.array(series.logit_scatter)
    assert np.abs(pairs[:, 0] - pairs[:, 1]).max() < 1e-3
    assert pairs[:, 0].std() > 0.1
    names = {tensor.name: tensor for tensor in series.tensors}
    assert names["model.layers.0.mlp.up_proj.weight"].bits == 4
    assert 15 < names["model.layers.0.mlp.up_proj.weight"].sqnr_db < 30
    assert names["model.norm.weight"].sqnr_db is None
    assert series.sizes_bytes == {"int4 linears": 10}
    assert 0 < series.memory_bytes["after loading"] <= series.memory_bytes["peak while verifying"]
    bare = verify_subject(dataclasses.replace(subject, weights=None), quick=True).series
    assert (bare.kl_by_position, bare.tensors, bare.logit_scatter) == ({}, (), ())


def test_a_short_text_is_scored_once(made):
    text = Text("short", 256, tuple(TEXT[:5]))
    report = verify_subject(subject_of(made, read_text=lambda: text), quick=True)
    assert report.measurements["loss_quantised"]["tokens"] == 5
    assert report.measurements["lowering_shipped"]["positions"] == 32
    assert report.settings["text_tokens"] == 5


def test_a_context_of_one_token_is_verified(made):
    def open_session(exact):
        return FakeSession(made.model, max_context=1)

    report = verify_subject(subject_of(made, open_session=open_session), quick=True)
    assert report.passed, report.failures
    assert report.settings["max_context"] == 1


def test_signal_to_noise_in_decibels():
    reference = np.ones((1, 4))
    assert compare_logits(reference, reference * 1.01).sqnr_db == pytest.approx(40)
    assert compare_logits(reference, reference).sqnr_db == math.inf
    assert compare_logits(reference, reference * np.nan).sqnr_db == -math.inf
    assert compare_logits(reference, reference).to_json()["sqnr_db"] is None


def test_budgets_are_bounded_for_large_models():
    one, three, eight = (PRESETS[name] for name in ("3.2-1B", "3.2-3B", "3.1-8B"))
    assert plan_budget(DEMO, 8192, quick=False).positions == 1000
    assert plan_budget(DEMO, 8192, quick=False).longest == 8192
    quick = plan_budget(one, 8192, quick=True)
    assert (quick.positions, quick.longest, quick.exact_steps) == (32, 32, 4)
    assert quick.fills_context
    full = plan_budget(one, 8192, quick=False)
    assert 200 < full.positions < 300
    assert 1000 < full.longest < 1100
    assert sum(map(len, full.portions)) <= 48
    assert plan_budget(eight, 8192, quick=False).positions == 64
    # 1.9 GB that an export need not have free.
    assert cache_bytes(three, 8192) > 1.8e9
    assert not plan_budget(three, 8192, quick=True).fills_context
    assert plan_budget(three, 8192, quick=False).fills_context


@pytest.mark.parametrize("quick", [True, False])
def test_a_budget_fits_into_any_context(quick):
    for context in [*range(1, 70), 300, 5000]:
        budget = plan_budget(DEMO, context, quick=quick)
        assert budget.longest <= context
        assert budget.lengths == tuple(sorted(set(budget.lengths)))
        assert budget.positions in budget.lengths
        assert 0 < budget.exact_steps < budget.positions or budget.positions == 1
        assert {sum(sizes) for sizes in budget.portions} == {min(budget.positions, 93)}
        assert all(size > 0 for sizes in budget.portions for size in sizes)
    assert budget.portions[0][:3] == (1, 3, 7)


class Letters:
    bos_token_id = 256

    def encode(self, text: str) -> list[int]:
        return list(text.encode())


def test_a_text_is_read_from_a_file(tmp_path):
    path = tmp_path / "page.txt"
    path.write_bytes(b"\xef\xbb\xbfna\xc3\xafve")
    assert read_text(path) == "naïve"
    assert tokenize(Letters(), "abc", path) == Text("page.txt", 256, (97, 98, 99))
    assert Text("t", 9, (1, 2)).take(6) == (9, 1, 2, 1, 2, 1)
    path.write_text("x" + "ä" * 600_000, encoding="utf-8")
    assert read_text(path) == "x" + "ä" * (2**19 - 1)  # a megabyte, and no half character


@pytest.mark.parametrize("content", ["", "x"])
def test_a_text_of_fewer_than_two_tokens_is_refused(tmp_path, content):
    path = tmp_path / "page.txt"
    with pytest.raises(PromptError, match=rf"page.txt: .* found {len(content)}"):
        tokenize(Letters(), content, path)


def test_a_text_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(PromptError, match=r"none.txt cannot be read: No such file"):
        read_text(tmp_path / "none.txt")
    with pytest.raises(PromptError, match="cannot be read: Is a directory"):
        read_text(tmp_path)
    path = tmp_path / "latin.txt"
    path.write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(PromptError, match=r"latin.txt is not UTF-8: byte 3"):
        read_text(path)
