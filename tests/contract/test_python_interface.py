"""The functions of the package: what they pass on, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from artifacts.demo_bundle import demo_bundle
from artifacts.folders import folders_in
from artifacts.tiny import TINY, write_checkpoint

import llama_export
from llama_export import (
    BundleError,
    CalibrationOptions,
    CheckpointError,
    CoremlOptions,
    ExecutorchOptions,
    ExportSettings,
    HubError,
    HubModel,
    OnnxOptions,
    OutputError,
    QuantizationError,
    UsageError,
    python_interface,
)
from llama_quantize import GroupedInt, QuantizedWeights

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytestmark = pytest.mark.onnx
__all__ = ["demo_bundle"]

QUICKLY = ExportSettings(keep_weights=False, verify=False)


@pytest.fixture
def tiny(tmp_path) -> Path:
    return write_checkpoint(tmp_path / "tiny", TINY)


def test_quality_and_text_of_a_calibration_reach_the_plan(tiny, tmp_path):
    text = CalibrationOptions(tokens=100)
    for quality, told in (("best", "expected 512"), ("fast", "no method of the recipe reads any")):
        settings = ExportSettings(quality=quality, calibration=text)
        with pytest.raises(UsageError, match=told):
            llama_export.export(tiny, "onnx", tmp_path / "out", settings=settings)
    with pytest.raises(QuantizationError, match="no codes, but quality good"):
        llama_export.export(tiny, "onnx", recipe="bf16", settings=ExportSettings(quality="good"))


def test_an_export_is_what_was_asked_for(tiny, tmp_path):
    result = llama_export.export(
        tiny,
        ["onnx"],
        str(tmp_path / "out"),
        recipe="int8",
        group_size=64,
        max_context=32,
        settings=ExportSettings(verify=False, table="int4"),
    )
    assert result.output == tmp_path / "out"
    (made,) = result.bundles
    assert made.report is None
    manifest = made.bundle.manifest
    # The tables have groups of 32: there is no one size.
    assert (manifest.quantization["recipe"], manifest.quantization["group_size"]) == ("int8", None)
    schemes = QuantizedWeights.open(result.output / "weights").scheme
    assert schemes("model.embed_tokens.weight") == GroupedInt(4, 32)
    assert schemes("model.layers.0.mlp.up_proj.weight") == GroupedInt(8, 64)
    assert manifest.graph["max_context"] == 32
    assert folders_in(result.output) == ["onnx", "weights"]
    assert repr(result).startswith(f"<ExportResult {tmp_path / 'out'}: onnx in ")
    again = llama_export.export(
        result.output / "weights", "onnx", tmp_path / "again", max_context=32, settings=QUICKLY
    )
    tensors = again.bundles[0].bundle.manifest.quantization["tensors"]
    assert tensors == manifest.quantization["tensors"]
    assert folders_in(again.output) == ["onnx"]


def test_nothing_is_replaced_without_force(tiny, tmp_path):
    def export(**settings: bool) -> llama_export.ExportResult:
        chosen = ExportSettings(keep_weights=False, verify=False, **settings)
        return llama_export.export(tiny, "onnx", tmp_path / "out", max_context=32, settings=chosen)

    export()
    with pytest.raises(OutputError, match="already exists"):
        export()
    assert export(force=True).bundles


def test_a_path_is_a_folder_and_a_name_is_a_name(tiny, monkeypatch):
    monkeypatch.chdir(tiny.parent)
    with pytest.raises(CheckpointError, match="demo does not exist"):
        llama_export.export(Path("demo"), "onnx", settings=QUICKLY)
    result = llama_export.export(Path("tiny"), "onnx", "out", max_context=32, settings=QUICKLY)
    assert result.bundles[0].bundle.manifest.model.name == "tiny"
    with pytest.raises(HubError, match="local folder"):
        llama_export.export(HubModel("tiny", revision="main"), "onnx", "more", settings=QUICKLY)


def test_options_stand_in_place_of_their_target(tiny, tmp_path):
    result = llama_export.export(
        tiny, OnnxOptions(all_logits=True), tmp_path / "out", max_context=32, settings=QUICKLY
    )
    assert result.bundles[0].bundle.manifest.graph["all_logits"] is True


@pytest.mark.parametrize(
    ("targets", "names", "options"),
    [
        ("all", ("onnx", "executorch", "coreml"), {}),
        (["coreml", "onnx", "coreml"], ("coreml", "onnx"), {}),
        (CoremlOptions(), ("coreml",), {"coreml": CoremlOptions()}),
        (
            ["all", ExecutorchOptions(kv_dtype="float16")],
            ("onnx", "executorch", "coreml"),
            {"executorch": ExecutorchOptions(kv_dtype="float16")},
        ),
    ],
)
def test_targets_are_names_or_options(targets, names, options):
    assert python_interface._chosen_targets(targets) == (names, options)


def test_a_token_is_not_shown():
    assert "secret" not in repr(HubModel("3.2-1B", token="secret"))


@pytest.mark.parametrize(
    ("targets", "options", "words"),
    [
        ("tpu", {}, "found 'tpu'"),
        ([], {}, "found nothing"),
        ("", {}, "found nothing"),
        ([3], {}, "expected names of targets or their options, found 3"),
        ([OnnxOptions(), OnnxOptions(all_logits=True)], {}, "onnx has two sets of options"),
        (OnnxOptions(kv_cache="state"), {}, "kv-cache.*state"),
        ("onnx", {"max_context": "many"}, "max_context: expected at least 1; found 'many'"),
        ("onnx", {"max_context": 0}, "max_context: expected at least 1; found 0"),
        ("onnx", {"max_context": 10**6}, "found 1000000"),
    ],
)
def test_a_wrong_argument_is_named(tmp_path, targets, options, words):
    with pytest.raises(UsageError, match=words):
        llama_export.export("demo", targets, tmp_path / "out", settings=QUICKLY, **options)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_verified_is_named(demo_bundle, tmp_path):
    with pytest.raises(UsageError, match="threads: expected 1 to"):
        llama_export.verify(demo_bundle, threads=0)
    with pytest.raises(BundleError, match="does not exist"):
        llama_export.verify(tmp_path / "none")
    with pytest.raises(UsageError, match="does not exist"):
        llama_export.verify(demo_bundle, weights=tmp_path / "none")
    with pytest.raises(CheckpointError, match="does not exist"):
        llama_export.verify(demo_bundle, checkpoint=tmp_path / "none")


def test_a_bundle_is_inspected_by_its_path_or_its_name(demo_bundle):
    found = llama_export.inspect(str(demo_bundle))
    assert (found.kind, found.hashes) == ("bundle", "not checked")
    assert llama_export.inspect(demo_bundle, check_hashes=True).hashes == "as written"
    assert repr(found).startswith(f"<Inspection of the bundle {demo_bundle}: demo, onnx, int4, ")


def test_want_of_memory_has_a_class_here_too(monkeypatch, tmp_path):
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("llama_export.generation.opening.open_session", fail)
    with pytest.raises(llama_export.OutOfMemoryError, match="gave no more memory"):
        llama_export.load(tmp_path)
