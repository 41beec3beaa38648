"""Codes that a checkpoint holds are kept, unless another form is asked for: then all is said."""

from __future__ import annotations

import json

import pytest
import torch
from artifacts import packed_weights as packed
from artifacts.gguf_files import write_gguf
from artifacts.meta_int4 import write_spinquant
from artifacts.small_bundle import Silent

from llama_export import verify
from llama_export.checkpoints.checkpoint import ReadOptions
from llama_export.checkpoints.dequantized import REQUANTIZED, DequantizedCheckpoint
from llama_export.checkpoints.formats import open_checkpoint
from llama_export.errors import UsageError
from llama_export.exporting.pipeline import export_bundle
from llama_export.exporting.plan import plan_export
from llama_export.exporting.request import ExportRequest
from llama_quantize.tensor import QuantizedTensor

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytestmark = pytest.mark.onnx

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 64, "checkpoint_format": "gptq_v2"}
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def gptq(tmp_path_factory):
    return packed.write_packed(
        tmp_path_factory.mktemp("gptq") / "model",
        GPTQ,
        lambda _module, weight: packed.gptq(packed.rounded(weight, 64), version=2),
    )


def test_every_tensor_is_the_floats_that_its_codes_stand_for(gptq):
    kept = open_checkpoint(gptq)
    floats = open_checkpoint(gptq, options=ReadOptions(requantize=True))
    assert isinstance(floats, DequantizedCheckpoint)
    assert (floats.recipe, floats.notes[-1]) == (None, REQUANTIZED)
    assert (floats.config, tuple(floats.names)) == (kept.config, tuple(kept.names))
    assert (dict(floats.shapes), dict(floats.tied)) == (dict(kept.shapes), dict(kept.tied))
    assert (floats.folder, floats.size_bytes) == (kept.folder, kept.size_bytes)
    codes, lazy = kept.tensor(Q_PROJ), floats.tensor(Q_PROJ)
    assert isinstance(codes, QuantizedTensor)
    assert torch.equal(lazy.whole(), codes.dequantize())
    assert torch.equal(lazy[3:5], codes.dequantize()[3:5])
    assert torch.equal(lazy[torch.tensor([7, 1])], codes.dequantize()[[7, 1]])
    assert torch.equal(floats.tensor("model.norm.weight"), kept.tensor("model.norm.weight"))
    floats.release()


def test_another_form_is_made_recorded_and_proved(gptq, tmp_path):
    request = ExportRequest(str(gptq), ("onnx",), tmp_path / "out", "int8", 32, max_context=128)
    plan = plan_export(request)
    assert REQUANTIZED in plan.notes
    assert plan.recipe.name == "int8"
    bundle = export_bundle(request, Silent()).bundles[0]
    assert bundle.report.verdict == "passed"
    folder = bundle.bundle.folder
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["model"]["reading"] == {"requantize": True}
    assert REQUANTIZED in manifest["model"]["notes"]
    assert manifest["quantization"]["recipe"] == "int8"
    assert verify(folder, checkpoint=gptq).verdict == "passed"


def q8_0(place):
    return write_gguf(place.with_suffix(".gguf"), forms="Q8_0")


@pytest.mark.parametrize("write", [None, write_spinquant, q8_0])
def test_no_note_says_that_codes_are_kept_which_are_given_up(gptq, tmp_path, write):
    path = gptq if write is None else write(tmp_path / "model")
    kept = open_checkpoint(path).notes
    given_up = open_checkpoint(path, options=ReadOptions(requantize=True)).notes
    assert any("codes" in note and " kept" in note for note in kept)
    assert [note for note in given_up if "codes" in note] == [REQUANTIZED]
    assert set(given_up) - set(kept) == {REQUANTIZED}


def test_without_a_wish_the_codes_are_kept(gptq, tmp_path):
    plan = plan_export(ExportRequest(str(gptq), ("onnx",), tmp_path / "out"))
    assert plan.recipe.name == "kept int4 g64"
    assert REQUANTIZED not in plan.notes


def test_a_wish_that_floats_do_not_need_is_not_recorded(tmp_path):
    request = ExportRequest("demo", ("onnx",), tmp_path / "out", "bf16", verify=False)
    bundle = export_bundle(request, Silent()).bundles[0].bundle
    assert "reading" not in json.loads((bundle.folder / "manifest.json").read_text())["model"]


def test_our_own_weights_are_lowered_as_they_are(gptq, tmp_path):
    request = ExportRequest(str(gptq), ("onnx",), tmp_path / "out", verify=False)
    export_bundle(request, Silent())
    weights = str(tmp_path / "out" / "weights")
    with pytest.raises(UsageError, match="is quantised already, as kept int4 g64"):
        plan_export(ExportRequest(weights, ("onnx",), tmp_path / "again", "int8"))


def test_the_costs_of_other_forms_are_those_of_the_dequantised_weights(gptq, command):
    code, out, err = command("sensitivity", "-m", gptq, "--calibration-tokens", 512, "--json")
    assert code == 0, err
    found = json.loads(out)["linears"][Q_PROJ]
    # The codes came in groups of 64: in these again they lose next to nothing.
    costs = {label: form["predicted_kl"] for label, form in found.items()}
    assert costs["int4 g64"] < 0.05 * costs["int4 g128"]
