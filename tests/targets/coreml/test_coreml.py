"""The Core ML target: right in every form, the same bytes twice, what Xcode and Swift read."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from artifacts.coreml_artifacts import (
    ABOUT,
    CONTEXT,
    FIXED,
    INT4,
    IO,
    IOS17,
    STATE,
    Package,
    export_to,
    workshop,
)
from artifacts.tiny import MULTI_HEAD, TINY, UNTIED, random_tokens, write_checkpoint
from safetensors.torch import load_file, save_file

pytest.importorskip("coremltools", reason="needs the coreml extra")

from coreml_evaluator import Evaluator
from coreml_evaluator.package import Package as Opened
from llama_export.bundle.graph_spec import GraphSpec
from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.llama.config import LlamaConfig
from llama_export.llama.rope import inverse_frequencies, rope_tables
from llama_export.llama.trace import trace
from llama_export.targets.coreml import signature, sizes
from llama_export.targets.coreml.lowering import positions as steps_module
from llama_export.targets.coreml.lowering.lower import lower
from llama_export.targets.coreml.reading.describe import describe
from llama_export.targets.coreml.reading.read_back import read_back
from llama_export.targets.coreml.reading.wiring import read_wiring
from llama_export.targets.coreml.running.lookup import CoremlLookup
from llama_export.verification.measure.metrics import compare_logits
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.recipe import recipe
from llama_quantize.tensor import QuantizedTensor

pytestmark = pytest.mark.coreml
__all__ = ["workshop"]

# float32 sums in another order: 2e-7 to 8e-7 was measured.
SAME_REL_RMS = 5e-6
# Eleven bits of mantissa and random layers: 1e-3 was measured.
HALF_REL_RMS = 5e-3
TOKENS = random_tokens(TINY, 300)
FORMS = {"state": STATE, "prefill+decode": FIXED, "io": IO}


def rel_rms(expected: np.ndarray, found: np.ndarray) -> float:
    return float(np.sqrt(np.square(found - expected).mean() / np.square(expected).mean()))


def steps(session, tokens: list[int]) -> np.ndarray:
    return np.stack([session.prefill([token]) for token in tokens])


# --- What it computes ---


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_prefill_and_decode_are_the_eager_model(workshop, form):
    package = workshop.tiny(form)
    expected = package.expected(TOKENS)
    session = package.session()
    found = [session.prefill(TOKENS[:260])]
    found += [session.prefill(TOKENS[260:291]), *steps(session, TOKENS[291:])]
    rows = [259, 290, *range(291, 300)]
    assert rel_rms(expected[rows], np.stack(found)) < SAME_REL_RMS
    # The twins: a position off by one, and a stale row of the cache.
    session.rewind(298)
    assert rel_rms(expected[299], session.prefill(TOKENS[299:])) > 1e-3
    session.rewind(299)
    layers = [session.cache(layer) for layer in range(session.num_layers)]
    layers[1][0][:, 100] = layers[1][0][:, 101]
    session.restore(layers)
    assert rel_rms(expected[299], session.prefill(TOKENS[299:])) > 100 * SAME_REL_RMS


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_rounding_to_float16_costs_little(workshop, form):
    package = workshop.tiny(form)
    expected = package.expected(TOKENS[:80])
    session = package.session("fp16")
    found = np.stack([session.prefill(TOKENS[:70]), *steps(session, TOKENS[70:80])])
    error = rel_rms(expected[69:], found)
    assert SAME_REL_RMS < error < HALF_REL_RMS
    assert compare_logits(expected[69:], found).top1 == 1


def test_the_norms_of_a_large_residual_stream_do_not_overflow(tmp_path):
    """Llamas have values in the thousands at the first token: their squares leave float16."""
    folder = write_checkpoint(tmp_path / "checkpoint", UNTIED)
    file = folder / "model.safetensors"
    state = load_file(file)
    state["model.embed_tokens.weight"] *= 10_000
    save_file(state, file)
    checkpoint = HfCheckpoint.open(folder)
    quantize_to(tmp_path / "weights", checkpoint, INT4)
    weights = QuantizedWeights.open(tmp_path / "weights")
    spec = lower(trace(UNTIED, 64), weights, tmp_path, STATE, ABOUT)
    package = Package(tmp_path / "model.mlpackage", UNTIED, weights, spec)
    expected = package.expected(TOKENS[:40])[-1]
    found = package.session("fp16").prefill(TOKENS[:40])
    assert rel_rms(expected, found) < HALF_REL_RMS


def test_all_forms_hold_the_same_cache(workshop):
    sessions = [workshop.tiny(form).session() for form in FORMS.values()]
    for session in sessions:
        session.prefill(TOKENS[:90])
    (first, *others) = [[session.cache(layer) for layer in range(2)] for session in sessions]
    for other in others:
        for one, two in zip(first, other, strict=True):
            for expected, found in zip(one, two, strict=True):
                assert expected.shape == found.shape == (2, 90, 64)
                assert rel_rms(expected, found) < SAME_REL_RMS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "chosen", "form"),
    [
        (UNTIED, INT4, STATE),
        (MULTI_HEAD, INT4, STATE),
        (TINY, recipe("int4", 128), FIXED),
        (UNTIED, recipe("int4", table="int4"), FIXED),
        (TINY, recipe("int8"), STATE),
        (TINY, recipe("fp16"), STATE),
        (TINY, recipe("fp16"), IOS17),
    ],
    ids=["untied", "multi-head", "groups of 128", "int4 tables", "int8", "fp16", "iOS 17"],
)
def test_other_shapes_recipes_and_targets(workshop, config, chosen, form):
    package = workshop.tiny(form, config, chosen)
    expected = package.expected(TOKENS[:40])
    session = package.session()
    found = np.stack([session.prefill(TOKENS[:35]), *steps(session, TOKENS[35:40])])
    assert rel_rms(expected[34:], found) < SAME_REL_RMS
    assert rel_rms(expected[33:-1], found) > 0.1
    assert_read_back(package)


def test_a_missing_rope_scaling_shows(workshop, monkeypatch, tmp_path):
    plain = dataclasses.replace(TINY, rope_scaling=None)
    monkeypatch.setattr(steps_module, "inverse_frequencies", lambda _: inverse_frequencies(plain))
    right = workshop.weights()
    spec = lower(trace(TINY, CONTEXT), right, tmp_path, STATE, ABOUT)
    wrong = Package(tmp_path / "model.mlpackage", TINY, right, spec)
    expected = wrong.expected(TOKENS)[-1]
    assert rel_rms(expected, wrong.session().prefill(TOKENS)) > 1e-3


# --- Masks: what clients send ---


def mask_of(protocol: str, start: int, count: int) -> np.ndarray:
    """Return the mask that a client sends for `count` tokens after `start`."""
    end = start + count
    if protocol == "apple":  # one row a token, causal
        allowed = np.tril(np.ones((count, end)), k=start)
        return np.where(allowed, 0, -np.inf)[None, None].astype(np.float16)
    if protocol == "apple, finite":
        allowed = np.tril(np.ones((count, end)), k=start)
        return np.where(allowed, 0, -65504)[None, None].astype(np.float16)
    # swift-transformers' zeros are one position too long, in every call.
    return np.zeros((1, 1, 1, end + (protocol == "stock Swift")), np.float16)


def run_protocol(package: Package, protocol: str, mode: str = "fp16") -> np.ndarray:
    evaluator = Evaluator.open(package.path, mode=mode)
    state, rows, start = evaluator.make_state(), [], 0
    for chunk in (TOKENS[:50], *([token] for token in TOKENS[50:60]), TOKENS[60:70]):
        inputs = {
            signature.INPUT_IDS: np.array([chunk], np.int32),
            signature.CAUSAL_MASK: mask_of(protocol, start, len(chunk)),
        }
        rows.append(evaluator.predict(inputs, state)[signature.LOGITS][0])
        start += len(chunk)
    return np.concatenate(rows).astype(np.float32)


@pytest.mark.parametrize("protocol", ["apple", "apple, finite", "stock Swift"])
@pytest.mark.parametrize("mode", ["fp16", "fp32"])
def test_every_clients_mask_gives_the_same(workshop, protocol, mode):
    package = workshop.tiny()
    zeros = run_protocol(package, "zeros", mode)
    found = run_protocol(package, protocol, mode)
    assert np.array_equal(zeros.argmax(-1), found.argmax(-1))
    # The empty slot changes the shapes of products, and so the order of sums.
    assert rel_rms(zeros, found) < (HALF_REL_RMS if mode == "fp16" else SAME_REL_RMS)
    assert rel_rms(package.expected(TOKENS[:70]), found) < HALF_REL_RMS


def test_without_its_guards_the_package_would_not_stand_stock_swift(
    workshop, monkeypatch, tmp_path
):
    def nothing_empty(keys, start):
        from coremltools.converters.mil.mil import Builder as mb

        return mb.mul(x=start, y=0, name="empty_slots")

    monkeypatch.setattr(steps_module, "_empty_slot", nothing_empty)
    spec = lower(trace(TINY, CONTEXT), workshop.weights(), tmp_path, STATE, ABOUT)
    unguarded = Package(tmp_path / "model.mlpackage", TINY, workshop.weights(), spec)
    right = run_protocol(unguarded, "apple", "fp32")
    assert rel_rms(right, run_protocol(unguarded, "zeros", "fp32")) < SAME_REL_RMS
    assert rel_rms(right, run_protocol(unguarded, "stock Swift", "fp32")) > 1e-2


def test_what_a_client_hides_stays_hidden(workshop):
    """A mask may hide tokens, as padding on the left does."""
    package = workshop.tiny()
    evaluator = Evaluator.open(package.path, mode="fp32")

    def last_row(hidden: slice, first: int) -> np.ndarray:
        mask = np.zeros((1, 1, 20, 20), np.float16)
        mask[..., hidden] = -np.inf
        tokens = np.array([TOKENS[:20]], np.int32)
        tokens[0, 3] = first
        inputs = {signature.INPUT_IDS: tokens, signature.CAUSAL_MASK: mask}
        return evaluator.predict(inputs, evaluator.make_state())[signature.LOGITS][0, -1]

    assert np.array_equal(last_row(slice(3, 4), 1), last_row(slice(3, 4), 2))
    assert not np.array_equal(last_row(slice(5, 6), 1), last_row(slice(5, 6), 2))


def test_where_all_that_is_past_is_hidden_the_future_is_not_seen(workshop):
    """Padding on the left has rows that see nothing; what comes later must not leak into them."""
    package = workshop.tiny()
    evaluator = Evaluator.open(package.path, mode="fp32")

    def first_row(last: int, mask: np.ndarray) -> np.ndarray:
        tokens = np.array([[1, 5, last]], np.int32)
        inputs = {signature.INPUT_IDS: tokens, signature.CAUSAL_MASK: mask}
        return evaluator.predict(inputs, evaluator.make_state())[signature.LOGITS][0, 0]

    mask = np.zeros((1, 1, 3, 3), np.float16)
    mask[..., :1] = -np.inf
    assert np.array_equal(first_row(9, mask), first_row(200, mask))
    mask[:] = -65504
    assert np.array_equal(first_row(9, mask), first_row(200, mask))


# --- What it holds ---


def assert_read_back(package: Package) -> None:
    tensors = {name: package.weights.get(name) for name in package.weights.names()}
    expected = {
        name: (tensor.codes_sha256(), tensor.scales_sha256())
        for name, tensor in tensors.items()
        if isinstance(tensor, QuantizedTensor)
    }
    assert read_back(package.path).quantized == expected
    assert set(read_back(package.path).floats) == set(tensors) - set(expected)


def test_codes_scales_norms_and_tables_are_ours(workshop):
    package = workshop.tiny()
    assert_read_back(package)
    tables = read_back(package.path).rotary
    expected = rope_tables(inverse_frequencies(TINY), torch.arange(CONTEXT))
    assert np.array_equal(tables["cos table"], expected[0].numpy())
    assert np.array_equal(tables["sin table"], expected[1].numpy())


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_weights_are_stored_once_and_sizes_are_foretold(workshop, form):
    package = workshop.tiny(form)
    found = describe(package.stored)
    weights = package.weights
    shapes = {name: tuple(weights.get(name).shape) for name in weights.names()}
    schemes = {name: weights.scheme(name) for name in shapes}
    foretold = sizes.predict(package.config, shapes, schemes, CONTEXT, form)
    exact = {part.kind: part for part in foretold.parts if part.kind != "graph"}
    assert {part.kind: part for part in found.parts if part.kind != "graph"} == exact
    assert found.kv_bytes_per_token == foretold.kv_bytes_per_token == 2 * 2 * 2 * 64 * 2
    table = TINY.vocab_size * TINY.hidden_size
    assert exact["int8 table"].size_bytes == table
    stored = sum(path.stat().st_size for path in package.path.rglob("*") if path.is_file())
    assert sum(part.size_bytes for part in found.parts) == stored
    assert sum(part.size_bytes for part in foretold.parts) == pytest.approx(stored, rel=0.05)


def test_an_int4_table_is_looked_up_and_multiplied_with_and_stored_once(workshop):
    package = workshop.tiny(STATE, TINY, recipe("int4", table="int4"), 64)
    expected = package.expected(TOKENS[:40])
    session = package.session()
    found = np.stack([session.prefill(TOKENS[:38]), *steps(session, TOKENS[38:40])])
    assert rel_rms(expected[37:], found) < SAME_REL_RMS
    assert np.array_equal(expected[37:].argmax(1), found.argmax(1))
    assert_read_back(package)
    shapes = {name: tuple(package.weights.get(name).shape) for name in package.weights.names()}
    schemes = {name: package.weights.scheme(name) for name in shapes}
    foretold = sizes.predict(TINY, shapes, schemes, 64, STATE)
    exact = {part.kind: part for part in foretold.parts if part.kind != "graph"}
    held = {part.kind: part for part in describe(package.stored).parts if part.kind != "graph"}
    assert held == exact
    assert exact["int4 table"].size_bytes == TINY.vocab_size * TINY.hidden_size // 2
    wiring = read_wiring(package.path, TINY, package.spec)
    assert wiring.strangers == ()
    rows = CoremlLookup.open(package.path)
    table = package.weights.dequantized("model.embed_tokens.weight")[TOKENS[:40]].numpy()
    for looked_up in rows.rows(TOKENS[:40]).values():
        assert rel_rms(table, looked_up) < 1e-3
    rows.close()


def test_no_pass_changes_a_norm_of_ones(workshop, tmp_path):
    """coremltools would drop the product, and the norm would not be there to read back."""
    weights = workshop.weights()
    name = "model.norm.weight"

    class Ones:
        def __getattr__(self, attribute):
            return getattr(weights, attribute)

        def get(self, asked):
            found = weights.get(asked)
            return torch.ones_like(found) if asked == name else found

    lower(trace(TINY, 32), Ones(), tmp_path, STATE, ABOUT)
    assert name in read_back(tmp_path / "model.mlpackage").floats


# --- The same bytes ---


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_two_exports_are_the_same_bytes(tmp_path):
    first, second = (
        files_of(export_to(tmp_path / name, max_context=64)) for name in ("one", "two")
    )
    assert first == second
    assert "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin" in first
    assert not any("tmp" in name for name in first)


def test_the_package_opens_in_coremltools_and_is_readable(workshop):
    import stat

    from artifacts.coreml_programs import quiet

    package = workshop.tiny()
    with quiet():
        import coremltools as ct

        model = ct.models.MLModel(str(package.path), skip_model_load=True)
    assert model.get_spec().specificationVersion == 9
    for path in package.path.rglob("*"):
        assert path.stat().st_mode & stat.S_IROTH, path
    manifest = json.loads((package.path / "Manifest.json").read_text())
    assert len(manifest["itemInfoEntries"]) == 2


# --- What Xcode and Swift read ---


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_feature_is_described(workshop, form):
    description = Opened.open(workshop.tiny(form).path).model.description
    holders = list(description.functions) or [description]
    assert {each.name for each in description.functions} == (
        {"decode", "prefill"} if form.fixed else set()
    )
    for holder in holders:
        features = [*holder.input, *holder.output, *holder.state]
        assert all(feature.shortDescription.endswith(".") for feature in features)
        assert {feature.name for feature in holder.state} == (
            set() if form is IO else {"keyCache", "valueCache"}
        )


def test_the_metadata_say_whose_it_is_and_how_to_run_it(workshop):
    metadata = Opened.open(workshop.tiny().path).model.description.metadata
    assert metadata.author == "somebody; converted by llama-export 1.2.3"
    assert metadata.license == "Whose it is."
    assert metadata.versionString == "1.2.3"
    assert "Load it with .cpuAndGPU" in metadata.shortDescription
    assert "entitlements" not in metadata.shortDescription
    own = dict(metadata.userDefined)
    assert own["co.huggingface.exporters.name"] == "somebody/tiny"
    assert own["llama_export.stop_token_ids"] == " ".join(map(str, TINY.eos_token_id))
    assert own["llama_export.tokenizer_file"] == "tokenizer.json"
    assert own["llama_export.max_context"] == str(CONTEXT)
    assert own["llama_export.compute_units"] == "cpuAndGPU"
    assert not any("date" in key for key in own)


def test_large_weights_name_the_entitlements(workshop, tmp_path):
    about = dataclasses.replace(ABOUT, weights_bytes=2_000_000_001, hub_id=None, revision=None)
    lower(trace(TINY, 32), workshop.weights(), tmp_path, STATE, about)
    metadata = Opened.open(tmp_path / "model.mlpackage").model.description.metadata
    assert "increased-memory-limit" in metadata.shortDescription
    assert "extended-virtual-addressing" in metadata.userDefined["llama_export.entitlements"]
    assert metadata.author == "converted by llama-export 1.2.3"


def test_swift_transformers_finds_what_it_looks_for(workshop):
    """Its `LanguageModelWithStatefulKVCache`: names, types, and a range on the last axis."""
    description = Opened.open(workshop.tiny().path).model.description
    ids, mask = description.input
    assert (ids.name, mask.name) == ("inputIds", "causalMask")
    ranges = ids.type.multiArrayType.shapeRange.sizeRanges
    assert [(size.lowerBound, size.upperBound) for size in ranges] == [(1, 1), (1, CONTEXT)]
    int32, float16 = 131104, 65552  # Core ML's numbers of types
    assert ids.type.multiArrayType.dataType == int32
    assert mask.type.multiArrayType.dataType == float16
    assert [state.name for state in description.state] == ["keyCache", "valueCache"]
    assert [output.name for output in description.output] == ["logits"]
    (state, _) = description.state
    assert list(state.type.stateType.arrayType.shape) == [2, 1, 2, CONTEXT, 64]


def test_the_signature_survives_the_manifest(workshop):
    for form in FORMS.values():
        spec = workshop.tiny(form).spec
        assert GraphSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_the_evaluator_reads_nothing_but_the_package(workshop, tmp_path):
    package = workshop.tiny()
    copied = Path(shutil.copytree(package.path, tmp_path / "elsewhere.mlpackage"))
    moved = dataclasses.replace(package, path=copied)
    tokens = TOKENS[:20]
    assert np.array_equal(package.session().prefill(tokens), moved.session().prefill(tokens))


def test_a_longer_context_costs_tables_only(workshop):
    config: LlamaConfig = TINY
    short, long = (
        describe(package.stored).size_bytes
        for package in (workshop.tiny(), workshop.tiny(context=2 * CONTEXT))
    )
    tables = 2 * CONTEXT * config.head_dim // 2 * 4
    assert tables <= long - short < tables + 200
