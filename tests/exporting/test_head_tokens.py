"""A head pruned to the tokens of an answer: the same answers, from artifacts that are proved."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from artifacts.chat_templates import LLAMA_GUARD
from artifacts.opened import target_of
from artifacts.resealing import reseal
from artifacts.small_bundle import Silent
from artifacts.tiny import TINY, UNTIED, write_checkpoint

import llama_export
from llama_export.bundle.bundle import Bundle
from llama_export.checkpoints import pruned_head
from llama_export.checkpoints.checkpoint import GUARD_ANSWERS, ReadOptions
from llama_export.errors import BundleError, UsageError
from llama_export.exporting.pipeline import export_bundle
from llama_export.exporting.request import ExportRequest
from llama_export.generation.classification import Labels
from llama_export.generation.sampling import Sampling
from llama_export.sources.head_tokens import with_head_tokens
from llama_export.targets.stored import StoredArtifact
from llama_export.tokenizer.tokenizer import load_tokenizer

GUARD = ReadOptions(head_tokens=GUARD_ANSWERS)
# The tiny tokenizer's tokens are bytes; three special ones end a text.
KEPT = sorted({*map(ord, "\n,0123456789Sunsafe"), *TINY.eos_token_id})
ASKED = [{"role": "user", "content": "How do I pick a lock?"}]


def checkpoint_of(folder, config, seed=0):
    path = write_checkpoint(folder, config, seed)
    (path / "chat_template.jinja").write_text(LLAMA_GUARD)
    return path


def export(model, folder, target="onnx", *, weights="bf16", reading=GUARD, verify=True):
    request = ExportRequest(
        str(model), (target,), folder, reading=reading, verify=verify, recipe=weights
    )
    return export_bundle(request, Silent()).output / target


def require_same_answers(pruned, full, tolerance):
    few, all_of_them = llama_export.load(pruned), llama_export.load(full)
    found, expected = few.classify(ASKED), all_of_them.classify(ASKED)
    assert found.probability == pytest.approx(expected.probability, abs=tolerance)
    assert 1e-4 < expected.probability < 1 - 1e-4
    logits, wanted = few.logits("Hi"), all_of_them.logits("Hi")
    assert logits.shape == wanted.shape
    assert np.flatnonzero(np.isfinite(logits)).tolist() == KEPT
    np.testing.assert_allclose(logits[KEPT], wanted[KEPT], atol=100 * tolerance)


@pytest.fixture(scope="module", params=["tied", "untied"])
def both(request, tmp_path_factory):
    """A model's checkpoint, its bundle with a pruned head, and one with the whole head."""
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    folder = tmp_path_factory.mktemp(request.param)
    model = checkpoint_of(folder / "tiny", TINY if request.param == "tied" else UNTIED)
    whole = export(model, folder / "whole", reading=ReadOptions(), verify=False)
    return model, export(model, folder / "pruned"), whole


@pytest.mark.onnx
def test_a_pruned_head_answers_as_the_whole_one(both):
    _, pruned, full = both
    require_same_answers(pruned, full, 1e-5)


@pytest.mark.onnx
def test_the_bundle_is_proved_with_its_checkpoint(both):
    model, pruned, _ = both
    report = llama_export.verify(pruned, checkpoint=model, quick=True)
    assert report.verdict == "passed", report.failures
    assert "pruned head" in report.row("perplexity_artifact").note
    with pytest.raises(KeyError):
        report.row("perplexity_checkpoint")


@pytest.mark.onnx
def test_a_gate_passes_a_pruned_head_whose_quantisation_costs_little(both):
    model, pruned, _ = both
    report = llama_export.verify(pruned, checkpoint=model, quick=True, strict=True)
    assert report.verdict == "passed", report.failures
    assert report.row("kl_quantisation").passed is True
    assert report.row("share_of_quantisation").value is not None
    assert report.row("perplexity_artifact").passed is None


@pytest.mark.onnx
def test_clients_that_take_an_index_for_a_token_find_no_settings(both):
    _, pruned, full = both
    assert (full / "genai_config.json").exists()
    assert not (pruned / "genai_config.json").exists()
    config = json.loads((pruned / "config.json").read_text())
    assert config["architectures"] == ["LlamaExportForCausalLM"]
    assert config["llama_export"]["head_tokens"] == KEPT
    assert "transformers.js_config" not in config
    manifest = json.loads((pruned / "manifest.json").read_text())
    assert manifest["model"]["reading"] == {"head_tokens": list(GUARD_ANSWERS)}
    assert manifest["graph"]["outputs"][0]["shape"][-1] == len(KEPT)
    assert any("pruned" in note for note in manifest["model"]["notes"])


@pytest.mark.onnx
def test_no_other_token_is_ever_drawn(both):
    _, pruned, _ = both
    with llama_export.load(pruned) as session:
        for seed in range(3):
            for options in ({"top_k": 50}, {"top_p": 0.99}, {"repetition_penalty": 1.3}, {}):
                sampling = Sampling(temperature=2.0, seed=seed, **options)
                stream = session.stream("Hi", max_tokens=8, sampling=sampling)
                stream.finish()
                assert set(session.tokens[3:]) <= set(KEPT)
        fork = session.fork()
        assert np.isinf(fork.logits("Hi")).any()
        with pytest.raises(UsageError, match="no row for token 121"):
            session.classify(ASKED, labels=Labels("yes", "no"))


@pytest.mark.onnx
def test_rows_in_another_order_are_red(tmp_path, monkeypatch):
    model = checkpoint_of(tmp_path / "tiny", TINY)
    with monkeypatch.context() as patch:
        rows = pruned_head._rows
        patch.setattr(pruned_head, "_rows", lambda head, ids: rows(head, ids[::-1]))
        wrong = export(model, tmp_path / "out", weights="int4", verify=False)
    report = llama_export.verify(wrong, checkpoint=model, quick=True)
    (row,) = report.failures
    assert "lm_head.weight: row 0 is not the checkpoint's" in row.note


@pytest.mark.onnx
def test_int4_rows_are_near_enough(tmp_path):
    model = checkpoint_of(tmp_path / "tiny", TINY)
    bundle = export(model, tmp_path / "out", weights="int4")
    report = llama_export.verify(bundle, checkpoint=model, quick=True)
    assert report.verdict == "passed", report.failures


@pytest.mark.onnx
@pytest.mark.parametrize(
    ("ids", "fault"),
    [([1, 2], "for 22 logits"), (KEPT[::-1], "ascend"), ([*KEPT[:-1], 600], "outside")],
)
def test_a_manifest_whose_ids_do_not_fit_is_refused(both, ids, fault):
    artifact = StoredArtifact.of(Bundle.open(both[1]))
    assert artifact.head_tokens == tuple(KEPT)
    assert artifact.vocab_size == TINY.vocab_size
    model = {**artifact.model, "llama_export": {"head_tokens": ids}}
    with pytest.raises(BundleError, match=fault):
        replace(artifact, model=model).head_tokens  # noqa: B018 - it is read


def test_the_tokens_are_those_of_the_texts_and_of_their_ends(tmp_path):
    tokenizer = load_tokenizer(write_checkpoint(tmp_path / "tiny") / "tokenizer.model")
    assert with_head_tokens(TINY, tokenizer, ReadOptions()) is TINY
    named = ReadOptions(head_tokens=("ab", "<|python_tag|>"))
    special = tokenizer.special_tokens["<|python_tag|>"]
    found = with_head_tokens(TINY, tokenizer, named)
    assert found.head_tokens == tuple(sorted({97, 98, special, *TINY.eos_token_id}))
    assert not found.tie_word_embeddings
    assert list(with_head_tokens(UNTIED, tokenizer, GUARD).head_tokens) == KEPT
    with pytest.raises(UsageError, match="has no token"):
        with_head_tokens(TINY, tokenizer, ReadOptions(head_tokens=("",)))
    many = ReadOptions(head_tokens=("abc", *tokenizer.special_tokens))
    with pytest.raises(UsageError, match="at most 256"):
        with_head_tokens(TINY, tokenizer, many)


@pytest.mark.slow
@pytest.mark.executorch
def test_executorch_is_proved_and_says_which_tokens_there_are(tmp_path):
    pytest.importorskip("executorch", reason="needs the executorch extra")
    model = checkpoint_of(tmp_path / "tiny", TINY)
    pruned = export(model, tmp_path / "out", "executorch", weights="int4", verify=False)
    report = llama_export.verify(pruned, checkpoint=model, quick=True)
    assert report.verdict == "passed", report.failures
    with llama_export.load(pruned) as session:
        assert np.flatnonzero(np.isfinite(session.logits("Hi"))).tolist() == KEPT
        assert 0 < session.classify(ASKED).probability < 1
    assert told_of_tokens(pruned) == (KEPT, KEPT)
    manifest = json.loads((pruned / "manifest.json").read_text())
    manifest["model"]["config"]["llama_export"]["head_tokens"] = [11, *KEPT[1:]]
    (pruned / "manifest.json").write_text(json.dumps(manifest))
    reseal(pruned)
    assert told_of_tokens(pruned) == ([11, *KEPT[1:]], KEPT)
    with pytest.raises(BundleError, match="different models"):
        llama_export.verify(pruned, checkpoint=model, quick=True)


def told_of_tokens(folder):
    """What the manifest makes expect of `get_head_tokens`, and what the program answers."""
    bundle = Bundle.open(folder)
    told = target_of(bundle).own_description(bundle).said
    (said,) = (each for each in told if each.key == "get_head_tokens")
    return said.expected, said.found


@pytest.mark.slow
@pytest.mark.coreml
@pytest.mark.parametrize("weights", ["fp16", "int4"])
def test_core_ml_answers_alike_and_says_so(tmp_path, weights):
    pytest.importorskip("coremltools", reason="needs the coreml extra")
    _, pruned = require_proved(tmp_path, "coreml", weights, 2e-3)
    package = pruned / "model.mlpackage/Data/com.apple.CoreML/model.mlmodel"
    assert " ".join(map(str, KEPT)).encode() in package.read_bytes()


@pytest.mark.slow
@pytest.mark.coreml
def test_a_head_of_so_few_rows_that_core_ml_keeps_their_scales_in_the_program(tmp_path):
    pytest.importorskip("coremltools", reason="needs the coreml extra")
    model = checkpoint_of(tmp_path / "tiny", TINY)
    few = ReadOptions(head_tokens=("su",))
    bundle = export(model, tmp_path / "out", "coreml", weights="int4", reading=few)
    assert len(StoredArtifact.of(Bundle.open(bundle)).head_tokens) == 5
    llama_export.inspect(bundle)
    report = llama_export.verify(bundle, checkpoint=model, quick=True)
    assert report.verdict == "passed", report.failures


def require_proved(folder, target, weights, tolerance):
    model = checkpoint_of(folder / "tiny", TINY)
    pruned = export(model, folder / "pruned", target, weights=weights)
    whole = export(
        model, folder / "whole", target, weights=weights, reading=ReadOptions(), verify=False
    )
    require_same_answers(pruned, whole, tolerance)
    report = llama_export.verify(pruned, checkpoint=model, quick=True)
    assert report.verdict == "passed", report.failures
    return model, pruned
