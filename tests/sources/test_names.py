"""Names of folders, as a system allows them and as a bundle can hold them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from artifacts.small_bundle import Silent
from artifacts.tiny import TINY, write_checkpoint

from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.errors import CheckpointError, HubError, LlamaExportError, OutputError
from llama_export.exporting.pipeline import run_export
from llama_export.exporting.plan import plan_export
from llama_export.exporting.request import ExportRequest
from llama_export.sources.resolve import ModelSource, model_name, name_model
from llama_export.sources.source import open_source
from llama_quantize import quantize_to, recipe

NAMES = {
    "~model": "model",
    "~": "model",
    "\n": "-",
    "line\nbreak": "line-break",
    "\x1b[31mred": "-[31mred",
    "\u202eevil": "-evil",
    "C:\\x": "C--x",
    "bytes\udcff": "bytes-",
    " blank ": "blank",
    "n" * 250: "n" * 120,
    "trailing.": "trailing.",
    "3.2-1B": "3.2-1B",
    "日本語": "日本語",
    "naïve model (v2)": "naïve model (v2)",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_folders_name_becomes_one_that_every_file_can_hold(name):
    assert model_name(name) == NAMES[name]


@pytest.mark.onnx
@pytest.mark.parametrize("name", ["~model", "\x1b[31m\nred", "C:\\x", "n" * 250, "trailing."])
def test_a_model_of_any_name_is_exported_to_an_output_of_any_name(tmp_path, name):
    """It used to fail when the bundle was sealed, after all the work."""
    pytest.importorskip("onnx", reason="needs the onnx extra")
    folder = write_checkpoint(tmp_path / "models" / name, replace(TINY, num_hidden_layers=1))
    output = tmp_path / "outputs" / name
    request = ExportRequest(str(folder), ("onnx",), output, max_context=64, verify=False)
    result = run_export(plan_export(request), Silent())
    assert result.bundles[0].bundle.manifest.model.name == NAMES.get(name, model_name(name))
    record = json.loads((output / "weights" / "quantization.json").read_text(encoding="utf-8"))
    assert record["metadata"]["name"] == model_name(name)


@pytest.mark.parametrize("model", ["x" * 5000, "/" + "x" * 5000, "a\0b", "./a\0b", "\ud800"])
def test_names_that_the_system_cannot_be_asked_about_are_refused(model):
    with pytest.raises((HubError, CheckpointError)) as caught:
        name_model(model)
    assert len(caught.value.message) < 500


@pytest.mark.parametrize("output", ["a\0b", "\ud800", "n" * 300])
def test_outputs_that_no_system_has_are_refused_by_the_plan(tmp_path, output):
    folder = write_checkpoint(tmp_path / "model")
    with pytest.raises(OutputError):
        plan_export(ExportRequest(str(folder), ("onnx",), tmp_path / output))


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        ({"name": "a", "hub_id": "../../x"}, "hub_id"),
        ({"name": "a", "hub_id": "a\nb/c"}, "hub_id"),
        ({"name": "a", "hub_id": "a/b", "revision": "main"}, "revision"),
        ({"name": "~\x1b" + "n" * 5000, "hub_id": "a/b", "revision": "c0ffee1"}, None),
    ],
)
def test_the_origin_that_quantised_weights_name_is_one_or_is_refused(tmp_path, metadata, match):
    source = write_checkpoint(tmp_path / "model")
    folder = tmp_path / "weights"
    quantize_to(folder, HfCheckpoint.open(source), recipe("bf16"), metadata=metadata)
    for name in ("config.json", "tokenizer.model"):
        (folder / name).write_bytes((source / name).read_bytes())
    model = ModelSource("weights", folder, None, None)
    if match is None:
        assert open_source(model).info.name == "-" + "n" * 119
    else:
        with pytest.raises(LlamaExportError, match=f"metadata.{match}"):
            open_source(model)


def test_quantised_weights_beside_the_config_of_another_model_are_refused(tmp_path):
    source = write_checkpoint(tmp_path / "model")
    folder = tmp_path / "weights"
    quantize_to(folder, HfCheckpoint.open(source), recipe("bf16"))
    raw = json.loads((source / "config.json").read_text())
    (folder / "tokenizer.model").write_bytes((source / "tokenizer.model").read_bytes())
    for key, value in {
        "num_hidden_layers": 900,
        "hidden_size": 256,
        "tie_word_embeddings": False,
    }.items():
        (folder / "config.json").write_text(json.dumps({**raw, key: value}))
        with pytest.raises(CheckpointError, match="different models"):
            open_source(ModelSource("weights", Path(folder), None, None))


def test_a_folder_that_may_not_be_entered_is_named(tmp_path, monkeypatch):
    folder = write_checkpoint(tmp_path / "model")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(CheckpointError, match="may not be read"):
        name_model(str(folder))
