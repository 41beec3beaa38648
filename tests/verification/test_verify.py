"""`verify` over a session in memory: green on a right one, red on each fault."""

from __future__ import annotations

import copy
import dataclasses
import json
import weakref

import numpy as np
import pytest
from artifacts import tiny
from artifacts.verifiable import (
    artifact_of,
    floats_of,
    hashes_of,
    make,
    rotary_of,
    stored_in,
    verify,
    without_recorded_hashes,
)
from fakes.session import FakeSession
from fakes.target import FakeTarget

from llama_export.bundle.bundle import Bundle
from llama_export.errors import BundleError
from llama_export.targets import registry
from llama_export.verification.rows import VerifyReport
from llama_export.verification.samples import read_text
from llama_export.verification.verify import VerifySettings, verify_artifact, verify_bundle

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("made"), tiny.TINY)


def failed(report: VerifyReport) -> set[str]:
    return {row.key for row in report.failures}


@pytest.mark.parametrize("quick", [True, False])
def test_a_right_artifact_passes(made, quick):
    report = verify(made, noise=1e-3, quick=quick)
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
    assert verify(untied).passed
    eight = make(tmp_path / "eight", tiny.MULTI_HEAD, "int8")
    report = verify(eight)
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
    report = verify(made, fault=fault)
    assert not report.passed
    assert row in failed(report)


def test_a_nan_is_named(made):
    report = verify(made, fault="NaN")
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

    def open_session(**_options):
        return FakeSession(model)

    report = verify(made, open_session=open_session, stored=stored_in(made, quantized=found))
    part = "scales" if which == "one scale" else "codes"
    assert {"codes_weights", "codes_manifest"} <= failed(report)
    assert report.row("codes_weights").note == f"first: {name}: other {part}"
    if which == "nibbles":  # even where the hashes lied, the arithmetic tells
        assert "rel_rms_exact" in failed(verify(made, open_session=open_session))


def test_missing_and_extra_tensors_fail(made):
    found = hashes_of(made.weights)
    moved = {**found, "model.other.weight": found["model.embed_tokens.weight"]}
    report = verify(made, stored=stored_in(made, quantized=moved))
    assert "is only in the artifact" in report.row("codes_weights").note
    fewer = {name: value for name, value in found.items() if "embed" not in name}
    report = verify(made, stored=stored_in(made, quantized=fewer))
    assert "is not in the artifact" in report.row("codes_manifest").note
    assert failed(report) == {"codes_weights", "codes_manifest"}


def test_a_tied_head_may_be_read_back_under_its_own_name(made):
    found = hashes_of(made.weights)
    head = {**found, "lm_head.weight": found["model.embed_tokens.weight"]}
    assert verify(made, stored=stored_in(made, quantized=head)).passed
    other = {**found, "lm_head.weight": ("0", "0")}
    report = verify(made, stored=stored_in(made, quantized=other))
    assert "codes_weights" in failed(report)


def test_changed_files_are_refused_and_the_artifact_is_not_run(tmp_path):
    made = make(tmp_path, tiny.TINY)

    def never(**_options):
        pytest.fail("a changed artifact was run")

    made.bundle.artifact.write_bytes(b"changed")  # as long as before
    artifact = artifact_of(made, open_session=never, stored=None)
    with pytest.raises(BundleError, match=r"model\.fake"):
        verify_artifact(artifact, quick=True)


def test_without_the_checkpoint_it_says_what_is_not_proved(made):
    report = verify(made, checkpoint=None)
    assert (report.verdict, report.missing, report.failures) == ("not proved", ("checkpoint",), ())
    row = report.row("kl_quantisation")
    assert (row.value, row.passed) == (None, None)
    assert row.note.startswith("not checked: no reference checkpoint")
    assert "not proved" in row.note


def test_without_the_weights_it_still_compares_portions(made):
    report = verify(made, weights=None)
    assert (report.verdict, report.missing, report.passed) == ("not proved", ("weights",), False)
    for key in ("codes_weights", "kl_exact", "kl_shipped", "kl_quantisation"):
        assert report.row(key).note.startswith("not checked: no quantised weights")
    wrong = verify(made, weights=None, fault="decode position off by one")
    assert "prefill_equals_decode" in failed(wrong)


def test_noise_of_a_shipped_artifact_is_judged(made):
    report = verify(made, noise=1.0, checkpoint=None)
    assert failed(report) == {"kl_shipped", "kl_shipped_prefill"}


def test_weights_or_a_checkpoint_of_another_model_are_refused(made, tmp_path):
    other = make(tmp_path, dataclasses.replace(tiny.TINY, intermediate_size=320))
    with pytest.raises(BundleError, match="quantised weights are not the bundle's"):
        verify(made, weights=other.weights)
    with pytest.raises(BundleError, match="describe different models"):
        verify(made, checkpoint=other.checkpoint)


def test_an_unknown_target_is_refused(tmp_path):
    made = make(tmp_path, tiny.TINY, target="abacus")
    with pytest.raises(BundleError, match="the target 'abacus' is not known to this version"):
        verify_bundle(made.bundle, settings=VerifySettings(quick=True))


def test_progress_ends_at_its_total(made):
    seen = []
    verify_artifact(
        artifact_of(made), quick=True, progress=lambda done, total: seen.append((done, total))
    )
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))


def test_one_session_is_gone_before_the_next_is_opened(made):
    """A session of a 1B model is 1 GB."""
    opened, alive = [], []

    def open_session(**_options):
        alive.append(sum(session() is not None for session in opened))
        session = FakeSession(made.model)
        opened.append(weakref.ref(session))
        return session

    assert verify(made, open_session=open_session).passed
    assert alive == [0, 0]


def test_a_bundle_is_taken_apart(tmp_path, monkeypatch):
    """`verify_bundle` reads the built-in text with the bundle's tokenizer, in both modes."""
    made = make(tmp_path, tiny.TINY, target="fake")
    (made.bundle.folder / "notes.txt").write_text("not listed")
    bundle, opened = Bundle.open(made.bundle.folder), []

    def open_session(*, threads, exact):
        opened.append((threads, exact))
        return FakeSession(made.model)

    monkeypatch.setattr(registry, "get", {"fake": FakeTarget(open_session, stored_in(made))}.get)
    report = verify_bundle(
        bundle,
        weights=made.weights,
        checkpoint=made.checkpoint,
        settings=VerifySettings(quick=True, threads=2),
    )
    assert report.passed
    assert opened == [(2, False), (2, True)]
    assert report.settings["text"] == "built-in"
    assert "notes.txt" in report.row("files").note
    assert report.row("codes_manifest").passed
    assert report.plot_data.sizes_bytes == {
        "scales": 7,
        "norms and the rest": 0,
        "tokenizer and other files": bundle.size_bytes - 7,
    }
    path = tmp_path / "own.txt"
    path.write_text("Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.", "utf-8")
    settings = VerifySettings(text=read_text(path), quick=True)
    own = verify_bundle(bundle, weights=made.weights, settings=settings)
    assert own.settings["text"] == "own.txt"
    built_in = report.row("perplexity_artifact").value
    assert own.row("perplexity_artifact").value != built_in


def test_an_artifact_that_cannot_be_looked_into_still_has_a_report(made):
    def probe(chunks):
        message = "no such value"
        raise BundleError(message)

    report = verify(made, fault="K and V swapped", probe=probe)
    assert not report.passed
    assert report.divergence is None
    assert "cannot be looked into: no such value" in report.row("operators").note
    strict = verify(made, probe=probe, quick=False, strict=True)
    assert "operators" in failed(strict)
    assert not any(row.key == "operators" for row in verify(made).rows)


def test_floats_and_rotary_tables_are_compared_whole(made):
    def failing(**changes):
        return failed(verify(made, stored=stored_in(made, **changes)))

    floats = {**floats_of(made.weights), "model.norm.weight": "0" * 64}
    assert failing(floats=floats) == {"floats_weights"}
    assert failing(floats={}) == {"floats_weights"}
    for spoil in (1e-5, np.nan):
        tables = {name: table.copy() for name, table in rotary_of(made.checkpoint.config).items()}
        tables["sin table"][60, 3] += spoil
        report = verify(made, stored=stored_in(made, rotary=tables))
        assert failed(report) == {"rotary"}
        assert "sin table, position 60" in report.row("rotary").note
    assert failing(rotary={"cos computed": np.empty((0, 0))}) == {"rotary"}
    without_tables = verify(made, stored=stored_in(made, rotary={}), quick=False, strict=True)
    assert "rotary" in failed(without_tables)


def test_where_nothing_is_quantised_no_row_passes_for_nothing(tmp_path):
    made = make(tmp_path, tiny.TINY, "bf16")
    bundle = without_recorded_hashes(made.bundle)
    report = verify(made, bundle=bundle, stored=stored_in(made, quantized={}))
    assert report.row("codes_weights").passed is None
    assert report.row("floats_weights").passed
