"""Heads that no operator takes as they are: zeros after each half, in the graph and its caches."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from artifacts.small_bundle import Silent
from artifacts.tiny import TINY, write_checkpoint

from llama_export.bundle.bundle import Bundle
from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.llama.intermediates import filled_columns, own_columns
from llama_export.targets.onnx.layout import padded_head
from llama_export.targets.onnx.reading.read_back import read_back
from llama_export.targets.onnx.reading.wiring import read_wiring
from llama_export.targets.registry import get
from llama_export.targets.stored import StoredArtifact

onnx = pytest.importorskip("onnx", reason="needs the onnx extra")
pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytestmark = pytest.mark.onnx

ODD = replace(TINY, head_dim=10, num_key_value_heads=1, intermediate_size=208)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    """A bundle that its own check has proved: logits, caches, wiring, lookups, sessions."""
    folder = tmp_path_factory.mktemp("heads")
    checkpoint = write_checkpoint(folder / "checkpoint", ODD)
    request = ExportRequest(
        str(checkpoint), ("onnx",), folder / "out", recipe="bf16", max_context=128
    )
    return export_bundle(request, Silent()).bundles[0].bundle


def test_the_cache_says_what_it_holds(bundle):
    spec = bundle.manifest.spec
    assert spec.inputs[2].shape == ("batch_size", 1, "past_sequence_length", 16)
    genai = json.loads((bundle.folder / "genai_config.json").read_text())
    assert genai["model"]["decoder"]["head_size"] == 16
    assert [padded_head(size) for size in (2, 16, 18, 64, 80, 100)] == [16, 16, 32, 64, 80, 112]


def test_a_saved_cache_goes_on_as_the_conversation_did(bundle):
    artifact = StoredArtifact.of(bundle)
    session = get("onnx").open_session(artifact, exact=True)
    session.prefill([3, 5, 7, 11])
    kept = [session.cache(layer) for layer in range(session.num_layers)]
    for rows in (rows for pair in kept for rows in pair):
        assert rows.shape == (1, 4, 16)
        assert np.array_equal(filled_columns(own_columns(rows, 10), 16), rows)
        assert own_columns(rows, 10).any()
    expected = session.prefill([13])
    other = session.fork()
    other.restore(kept)
    assert np.array_equal(other.prefill([13]), expected)


def test_the_stored_tables_are_the_models(bundle):
    tables = read_back(bundle.artifact).rotary
    assert {table.shape for table in tables.values()} == {(128, 5)}


def change_constant(name: str, values: list[int]):
    def change(graph) -> None:
        for tensor in graph.initializer:
            if tensor.name == name:
                assert onnx.numpy_helper.to_array(tensor).tolist() != values
                tensor.CopyFrom(onnx.helper.make_tensor(name, 7, [len(values)], values))

    return change


def without_padding(graph) -> None:
    for node in graph.node:
        if node.op_type == "GroupQueryAttention":
            node.input[0] = node.input[0].removesuffix(".padded")


CHANGES = {
    "zeros before the halves": change_constant("head_pads", [0, 0, 0, 3, 0, 0, 0, 0]),
    "zeros on other axes": change_constant("head_pads", [0, 0, 3, 0, 0, 0, 0, 0]),
    "other columns": change_constant("head_start", [3]),
    "too many columns": change_constant("half_head", [8]),
    "another axis": change_constant("head_axis", [2]),
    "whole heads cut": change_constant("heads_8_8", [0, 0, 4, 16]),
    "no padding": without_padding,
}


@pytest.mark.parametrize("name", CHANGES)
def test_heads_that_are_filled_up_otherwise_are_found(bundle, tmp_path, name):
    model = onnx.load(str(bundle.artifact), load_external_data=False)
    sound = read_wiring(bundle.artifact, ODD, all_logits=False)
    assert sound.strangers == ()
    CHANGES[name](model.graph)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    found = read_wiring(tmp_path / "model.onnx", ODD, all_logits=False).strangers
    assert found
    assert "heads" in found[0] or "qkv" in found[0]
