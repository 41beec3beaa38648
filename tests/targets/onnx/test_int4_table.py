"""A token table of int4 groups in an ONNX graph: exact, proved, and once where it is tied."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from artifacts.small_bundle import Silent
from artifacts.tiny import TINY, UNTIED, random_tokens, write_checkpoint

from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.llama.streamed import reference_logits
from llama_export.verification.artifact import Artifact
from llama_export.verification.judge.lookups import lookup_row, wiring_rows
from llama_export.verification.measure.lookups import measure_lookups
from llama_export.verification.measure.metrics import compare_logits
from llama_quantize.checkpoint.weights import QuantizedWeights

pytest.importorskip("onnx", reason="needs the onnx extra")
pytest.importorskip("onnxruntime", reason="needs the onnx extra")
from artifacts.faults import inject
from artifacts.opened import footprint_of, session_of, stored_in, target_of
from onnx import numpy_helper

pytestmark = [pytest.mark.onnx, pytest.mark.usefixtures("one_thread")]

TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def export(folder: Path, config):
    request = ExportRequest(
        str(write_checkpoint(folder / "checkpoint", config)),
        ("onnx",),
        folder / "out",
        max_context=64,
        verify=False,
        table="int4",
        quality="fast",
    )
    return export_bundle(request, Silent()).bundles[0].bundle


@pytest.fixture(scope="module", params=[TINY, UNTIED], ids=["tied", "untied"])
def made(request, tmp_path_factory):
    bundle = export(tmp_path_factory.mktemp("made"), request.param)
    return bundle, request.param, QuantizedWeights.open(bundle.folder.parent / "weights")


def rows_of(bundle, weights):
    artifact = Artifact(bundle, target_of(bundle), weights, threads=1)
    lookups = measure_lookups(artifact, quick=False)
    rows = [*wiring_rows(artifact.wiring()), lookup_row(lookups, has_weights=True)]
    return {row.key: row for row in rows}


def test_it_computes_what_the_eager_model_computes_with_those_codes(made):
    bundle, config, weights = made
    tokens = random_tokens(config, 48)
    expected = reference_logits(config, weights.get, torch.tensor([tokens]))[0, -1:].numpy()
    found = session_of(bundle, exact=True).prefill(tokens)[None]
    assert compare_logits(expected, found).kl_max < 1e-6
    assert np.argmax(found) == np.argmax(expected)


def test_onnxruntime_genai_writes_the_same_tokens(made):
    genai = pytest.importorskip("onnxruntime_genai", reason="needs onnxruntime-genai")
    bundle, config, _ = made
    prompt = random_tokens(config, 12)
    model = genai.Model(str(bundle.folder))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=32, do_sample=False)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(np.array([prompt], dtype=np.int32))
    session, ours, theirs = session_of(bundle), [], []
    logits = session.prefill(prompt)
    for _ in range(8):
        ours.append(int(logits.argmax()))
        logits = session.prefill(ours[-1:])
        generator.generate_next_token()
        theirs.append(int(generator.get_next_tokens()[0]))
    assert theirs == ours


def test_codes_and_scales_are_read_back(made):
    bundle, config, weights = made
    found = dict(stored_in(bundle).quantized)
    tables = {TABLE} if config.tie_word_embeddings else {TABLE, HEAD}
    for name in tables:
        tensor = weights.get(name)
        assert tensor.scheme.label == "int4 g32"
        assert found[name] == (tensor.codes_sha256(), tensor.scales_sha256())
    assert set(found) <= set(weights.names())


def test_it_is_stored_once_where_it_is_tied(made):
    bundle, config, _ = made
    sizes = {part.kind: part.size_bytes for part in footprint_of(bundle).parts}
    copies = 1 if config.tie_word_embeddings else 2
    assert sizes["int4 table"] == copies * config.vocab_size * config.hidden_size // 2
    assert "int8 table" not in sizes


def test_every_operator_and_every_row_is_proved(made):
    bundle, _, weights = made
    rows = rows_of(bundle, weights)
    assert rows["wiring"].passed, rows["wiring"].note
    assert rows["lookups"].passed, rows["lookups"].note


def other_pair(artifact) -> None:
    """Let one byte of the table stand for another code."""
    pairs = next(each for each in artifact.graph.initializer if each.name == "int4_pairs")
    values = numpy_helper.to_array(pairs).copy()
    values[0x35, 1] += 1
    pairs.CopyFrom(numpy_helper.from_array(values, pairs.name))


def swapped_pair(artifact) -> None:
    """Let the high nibble be the even element."""
    pairs = next(each for each in artifact.graph.initializer if each.name == "int4_pairs")
    values = np.ascontiguousarray(numpy_helper.to_array(pairs)[:, ::-1])
    pairs.CopyFrom(numpy_helper.from_array(values, pairs.name))


@pytest.mark.parametrize("fault", [other_pair, swapped_pair])
def test_another_meaning_of_the_bytes_is_red(made, tmp_path, fault):
    bundle, _, weights = made
    changed = inject(Path(shutil.copytree(bundle.folder, tmp_path / "onnx")), fault)
    rows = rows_of(changed, weights)
    assert rows["wiring"].passed is False
    assert "model.embed_tokens" in rows["wiring"].note
    assert rows["lookups"].passed is False


def a_byte_of_the_table(artifact) -> None:
    (codes,) = (node for node in artifact.nodes("Gather") if node.input[0].endswith(".table"))
    content = bytearray(artifact.bytes_of(codes.input[0]).tobytes())
    content[70] ^= 0x40
    codes.input[0] = artifact.append_data("another table", codes.input[0], bytes(content))


def test_a_changed_code_is_another_weight(made, tmp_path):
    bundle, _, weights = made
    tensor = weights.get(TABLE)
    expected = (tensor.codes_sha256(), tensor.scales_sha256())
    changed = inject(Path(shutil.copytree(bundle.folder, tmp_path / "onnx")), a_byte_of_the_table)
    found = stored_in(changed).quantized
    others = [key for key in found if key.startswith(TABLE) and found[key] != expected]
    assert len(others) == 1
