"""`verify` over a session in memory: green on a right one, red on each fault."""

from __future__ import annotations

import copy
import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from artifacts import tiny
from artifacts.subjects import floats_of, hashes_of, make, rotary_of, subject_of
from fakes.session import FakeSession
from fakes.target import FakeTarget

from llama_export.bundle.graph_spec import IO, GraphSpec
from llama_export.errors import BundleError
from llama_export.targets import registry
from llama_export.targets.registry import TARGETS
from llama_export.targets.stored import StoredWeights
from llama_export.verify.artifact import recorded_hashes
from llama_export.verify.judge.limits import QUANTISATION_KL, limits_for
from llama_export.verify.judge.sessions import session_rows
from llama_export.verify.judge.terms import lowering_rows, quantisation_rows
from llama_export.verify.measure.behaviour import ContextEnd, Conversations
from llama_export.verify.measure.exact import AtLength, CacheDifference, Exact, InPortions
from llama_export.verify.measure.metrics import LogitMetrics, Perplexity, compare_logits
from llama_export.verify.measure.shipped import Shipped
from llama_export.verify.rows import Row, VerifyReport, judged, unchecked
from llama_export.verify.samples import built_in_text, sample_text
from llama_export.verify.verify import verify_bundle, verify_subject

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("made"), tiny.TINY)


@pytest.fixture(scope="module")
def right(made):
    return verify_subject(subject_of(made), quick=True)


def failed(report: VerifyReport) -> set[str]:
    return {row.key for row in report.failures}


@pytest.mark.parametrize("quick", [True, False])
def test_a_right_artifact_passes(made, quick):
    report = verify_subject(subject_of(made, noise=1e-3), quick=quick)
    assert report.passed, report.failures
    assert report.settings["positions"] == (32 if quick else 64)  # the fake's whole context
    assert report.row("kl_exact").value < 1e-7
    assert report.row("cache_exact").value < 1e-5
    assert 1e-8 < report.row("kl_shipped").value < 1e-4
    assert report.row("kl_quantisation").value > 0.01
    assert report.row("kl_quantisation").passed is None  # random weights
    assert report.row("share_of_quantisation").note.startswith("not judged: random weights")
    assert report.row("codes_weights").note == "15 tensors read back and hashed"


def test_an_untied_model_and_one_recipe_of_8_bits_pass(tmp_path):
    untied = make(tmp_path / "untied", tiny.UNTIED)
    assert verify_subject(subject_of(untied), quick=True).passed
    eight = make(tmp_path / "eight", tiny.MULTI_HEAD, name="int8")
    report = verify_subject(subject_of(eight), quick=True)
    assert report.passed
    assert "8-bit" in report.row("kl_quantisation").name


@pytest.mark.parametrize(
    ("fault", "row"),
    [
        ("rope scaling off", "cache_exact"),
        ("position off by one", "cache_exact"),
        ("decode position off by one", "prefill_equals_decode"),
        ("K and V swapped", "cache_exact"),
        ("one stale cache row", "kl_exact"),
        ("chunk ends lost", "chunked_prefill"),
        ("rewind does nothing", "rewind"),
        ("forks share a cache", "side_by_side"),
        ("last rotation row wrong", "context_end"),
        ("no end of the context", "beyond_context"),
        ("a refused token counts", "beyond_context"),
        ("a refusal spoils the cache", "beyond_context"),
        ("NaN", "kl_exact"),
    ],
)
def test_a_faulty_artifact_fails(made, fault, row):
    report = verify_subject(subject_of(made, fault=fault), quick=True)
    assert not report.passed
    assert row in failed(report)


def test_a_nan_is_named(made):
    report = verify_subject(subject_of(made, fault="NaN"), quick=True)
    assert "candidate's logits hold 1 NaN" in report.row("kl_shipped").note
    assert report.row("perplexity_artifact").passed is False
    json.dumps(report.to_json(), allow_nan=False)


@pytest.mark.parametrize("which", ["one scale", "nibbles"])
def test_other_codes_or_scales_fail(made, which):
    name = "model.layers.1.mlp.down_proj.weight"
    stored = made.weights.get(name)
    if which == "one scale":
        scales = stored.scales.clone()
        scales[5, 2] *= 1.01
        changed = dataclasses.replace(stored, scales=scales)
    else:
        codes = (stored.codes >> 4) | (stored.codes << 4)
        changed = dataclasses.replace(stored, codes=codes)
    model = copy.deepcopy(made.model)
    model.get_parameter(name).copy_(changed.dequantize())
    found = hashes_of(made.weights) | {name: (changed.codes_sha256(), changed.scales_sha256())}
    subject = subject_of(
        made, read_back=lambda: found, open_session=lambda exact: FakeSession(model)
    )
    report = verify_subject(subject, quick=True)
    part = "scales" if which == "one scale" else "codes"
    assert {"codes_weights", "codes_manifest"} <= failed(report)
    assert report.row("codes_weights").note == f"first: {name}: other {part}"
    if which == "nibbles":  # even where the hashes lied, the arithmetic tells
        lying = dataclasses.replace(subject, read_back=lambda: hashes_of(made.weights))
        assert "rel_rms_exact" in failed(verify_subject(lying, quick=True))


def test_missing_and_extra_tensors_fail(made):
    found = hashes_of(made.weights)
    moved = {**found, "model.other.weight": found["model.embed_tokens.weight"]}
    report = verify_subject(subject_of(made, read_back=lambda: moved), quick=True)
    assert "is only in the artifact" in report.row("codes_weights").note
    fewer = {name: value for name, value in found.items() if "embed" not in name}
    report = verify_subject(subject_of(made, read_back=lambda: fewer), quick=True)
    assert "is not in the artifact" in report.row("codes_manifest").note
    assert failed(report) == {"codes_weights", "codes_manifest"}


def test_a_tied_head_may_be_read_back_under_its_own_name(made):
    found = hashes_of(made.weights)
    head = {**found, "lm_head.weight": found["model.embed_tokens.weight"]}
    assert verify_subject(subject_of(made, read_back=lambda: head), quick=True).passed
    other = {**found, "lm_head.weight": ("0", "0")}
    report = verify_subject(subject_of(made, read_back=lambda: other), quick=True)
    assert "codes_weights" in failed(report)


def test_changed_files_are_refused_and_the_artifact_is_not_run(made):
    def changed():
        message = "model.onnx_data was changed"
        raise BundleError(message)

    def never(level):
        pytest.fail("a changed artifact was run")

    subject = subject_of(made, check_hashes=changed, open_session=never, read_back=never)
    with pytest.raises(BundleError, match=r"model\.onnx_data was changed"):
        verify_subject(subject, quick=True)


def test_without_the_checkpoint_it_says_what_is_not_proved(made):
    report = verify_subject(subject_of(made, checkpoint=None), quick=True)
    assert report.passed
    row = report.row("kl_quantisation")
    assert (row.value, row.passed) == (None, None)
    assert row.note.startswith("not checked: no reference checkpoint")
    assert "not proved" in row.note


def test_without_the_weights_it_still_compares_portions(made):
    report = verify_subject(subject_of(made, weights=None), quick=True)
    assert report.passed
    for key in ("codes_weights", "kl_exact", "kl_shipped", "kl_quantisation"):
        assert report.row(key).note.startswith("not checked: no quantised weights")
    wrong = subject_of(made, weights=None, fault="decode position off by one")
    assert "prefill_equals_decode" in failed(verify_subject(wrong, quick=True))


def test_noise_of_a_shipped_artifact_is_judged(made):
    report = verify_subject(subject_of(made, noise=1.0, checkpoint=None), quick=True)
    assert failed(report) == {"kl_shipped", "kl_shipped_prefill"}


def test_weights_or_a_checkpoint_of_another_model_are_refused(made, tmp_path):
    other = make(tmp_path, dataclasses.replace(tiny.TINY, intermediate_size=320))
    with pytest.raises(BundleError, match="quantised weights are not the bundle's"):
        verify_subject(subject_of(made, weights=other.weights), quick=True)
    with pytest.raises(BundleError, match="describe different models"):
        verify_subject(subject_of(made, checkpoint=other.checkpoint), quick=True)


def test_an_unknown_target_is_refused(made):
    with pytest.raises(BundleError, match="the target 'abacus' is not known"):
        verify_subject(subject_of(made, target="abacus"), quick=True)


def test_progress_ends_at_its_total(made):
    seen = []
    verify_subject(
        subject_of(made), quick=True, progress=lambda done, total: seen.append((done, total))
    )
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))


GRAPH = GraphSpec(inputs=(), outputs=(), kv_cache=IO, max_context=64, all_logits=False)


def test_a_bundle_is_taken_apart(made, monkeypatch, tmp_path):
    """`verify_bundle` reads the built-in text with the bundle's tokenizer, at both levels."""
    opened = []
    manifest = SimpleNamespace(
        target="fake",
        graph=GRAPH.to_json(),
        runs_here=True,
        model=SimpleNamespace(name="tiny", config=tiny.TINY.to_hf()),
        quantization={
            "tensors": {
                name: {"codes_sha256": codes, "scales_sha256": scales}
                for name, (codes, scales) in hashes_of(made.weights).items()
            }
        },
        tokenizer={"file": "tokenizer.model"},
    )
    bundle = SimpleNamespace(
        manifest=manifest,
        artifact=made.checkpoint.folder / "model.onnx",
        path=lambda name: made.checkpoint.folder / name,
        check_hashes=lambda: ("notes.txt",),
        size_bytes=7,
    )

    def open_session(*, threads, exact):
        opened.append((threads, exact))
        return FakeSession(made.model)

    stored = StoredWeights(hashes_of(made.weights), floats_of(made.weights), rotary_of(tiny.TINY))
    target = FakeTarget(open_session, stored)
    monkeypatch.setattr(registry, "get", {"fake": target}.get)
    report = verify_bundle(
        bundle, weights=made.weights, checkpoint=made.checkpoint, quick=True, threads=2
    )
    assert report.passed
    assert opened == [(2, False), (2, True)]
    assert report.settings["text"] == "built-in"
    assert "notes.txt" in report.row("files").note
    assert report.row("codes_manifest").passed
    assert report.series.sizes_bytes == {
        "scales": 7,
        "norms and the rest": 0,
        "tokenizer and other files": 0,
    }
    path = tmp_path / "own.txt"
    path.write_text("Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.", "utf-8")
    given = verify_bundle(bundle, weights=made.weights, text=path, quick=True)
    assert given.settings["text"] == "own.txt"
    built_in = report.row("perplexity_artifact").value
    assert given.row("perplexity_artifact").value != built_in


LIMITS = limits_for("onnx")
VOCAB = 4096


BROKEN = compare_logits(np.zeros((1, 2)), np.full((1, 2), np.nan))


def distance(kl: float) -> LogitMetrics:
    return LogitMetrics(100, kl, kl, kl, kl, kl, 0.9, 0.1, kl**0.5 / 10, np.full(100, kl))


def shipped(lowering: float, quantisation: float, nats: float = 3.5, **changes) -> Shipped:
    """Figures as the demo model gives them; `nats` says whether it counts as trained."""
    loss = Perplexity(100, nats)
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


def judge(figures: Shipped, bits: int = 4) -> dict[str, Row]:
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
    rows = lowering_rows(LIMITS, figures, exact, vocab_size=VOCAB)
    rows += session_rows(LIMITS, exact)
    rows += quantisation_rows(figures, None, bits=bits, vocab_size=VOCAB)
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


def test_quantisation_that_gives_nan_fails_even_for_random_weights():
    rows = judge(dataclasses.replace(shipped(1e-3, 6e-3, nats=8.9), quantisation=BROKEN))
    assert rows["kl_quantisation"].passed is False
    assert rows["kl_shipped"].threshold == LIMITS.shipped_kl_untrained.value


def test_weights_that_were_spoilt_do_not_pass_as_random():
    """The checkpoint says whether the model is trained, not what became of it."""
    guess = Perplexity(100, 9.5)
    rows = judge(shipped(1e-3, 4.0, quantised_loss=guess, artifact_loss=guess))
    assert rows["kl_quantisation"].passed is False


def test_a_report_that_judged_nothing_has_not_passed():
    report = VerifyReport("onnx", "m", {}, (unchecked("lowering", "k", "n", "why"),), {})
    assert not report.passed
    nan = judged("lowering", "k", "n", float("nan"), 1.0)
    assert nan.passed is False
    assert nan.to_json()["value"] is None


def test_the_text_is_long_enough_and_cycles():
    class Bytes:
        bos_token_id = 256

        def encode(self, text):
            return list(text.encode())

    text = sample_text()
    assert 6000 < len(text) < 10_000
    assert text.isascii()
    ids = list(built_in_text(Bytes()).take(len(text) + 3))
    assert ids[0] == 256
    assert ids[1:3] == ids[-2:]
    assert list(built_in_text(Bytes()).take(5)) == ids[:5]


def test_hashes_are_read_from_a_manifest():
    tensors = {"a": {"codes_sha256": "1", "scales_sha256": "2"}}
    assert recorded_hashes({"recipe": "int4", "tensors": tensors}) == {"a": ("1", "2")}
    assert recorded_hashes({"recipe": "bf16"}) == {}


@pytest.mark.parametrize("target", TARGETS)
def test_every_limit_has_a_reason(target):
    limits = limits_for(target)
    for name, limit in vars(limits).items():
        if name == "exact_words":
            assert limit
        elif name not in ("has_exact_mode", "steps_stay_clean"):
            # Only Core ML is run by two things, of which one is held against the other.
            assert limit.value > 0 or (name == "runtime_kl" and target != "coreml")
            assert len(limit.reason) > 10
    assert set(QUANTISATION_KL) == {4, 8, 16}
    assert np.isfinite(limits.exact_kl.value)


def test_an_artifact_that_cannot_be_looked_into_still_has_a_report(made):
    def probe(chunks):
        message = "no such value"
        raise BundleError(message)

    report = verify_subject(subject_of(made, fault="K and V swapped", probe=probe), quick=True)
    assert not report.passed
    assert report.divergence is None
    assert "cannot be looked into: no such value" in report.row("operators").note
    strict = verify_subject(subject_of(made, probe=probe), strict=True)
    assert "operators" in failed(strict)
    assert not any(
        row.key == "operators" for row in verify_subject(subject_of(made), quick=True).rows
    )


def test_floats_and_rotary_tables_are_compared_whole(made):
    def failing(**changes):
        return failed(verify_subject(subject_of(made, **changes), quick=True))

    floats = {**floats_of(made.weights), "model.norm.weight": "0" * 64}
    assert failing(read_floats=lambda: floats) == {"floats_weights"}
    assert failing(read_floats=dict) == {"floats_weights"}
    for spoil in (1e-5, np.nan):
        tables = {name: table.copy() for name, table in rotary_of(made.checkpoint.config).items()}
        tables["sin table"][60, 3] += spoil
        report = verify_subject(subject_of(made, read_rotary=lambda t=tables: t), quick=True)
        assert failed(report) == {"rotary"}
        assert "sin table, position 60" in report.row("rotary").note
    assert failing(read_rotary=lambda: {"cos computed": np.empty((0, 0))}) == {"rotary"}
    unread = verify_subject(subject_of(made, read_floats=None, read_rotary=None), strict=True)
    assert {"floats_weights", "rotary"} <= failed(unread)


def test_where_nothing_is_quantised_no_row_passes_for_nothing(tmp_path):
    made = make(tmp_path, tiny.TINY, "bf16")
    report = verify_subject(subject_of(made, recorded={}, read_back=dict), quick=True)
    assert report.row("codes_weights").passed is None
    assert report.row("floats_weights").passed
