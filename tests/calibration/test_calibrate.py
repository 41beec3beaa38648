"""A calibration is prepared where a method asks, is recorded, and leaves no folder behind."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest
from artifacts.small_bundle import Silent, export_small
from artifacts.tiny import TINY, write_checkpoint
from fakes.checkpoint import FakeCheckpoint, random_tensors

from llama_export.calibration import calibrate
from llama_export.calibration.calibrate import CALIBRATION_FOLDER, Place, calibration_for
from llama_export.calibration.options import CalibrationOptions
from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.errors import PromptError
from llama_export.exporting import pipeline
from llama_export.exporting.pipeline import export_bundle
from llama_export.exporting.request import ExportRequest
from llama_export.llama.names import TABLE
from llama_export.tokenizer.chat.chat_format import ChatFormat, Dialog
from llama_export.tokenizer.chat.messages import Message
from llama_export.tokenizer.tokenizer import load_tokenizer
from llama_quantize import QuantizedWeights, quantize_to, recipe

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = replace(TINY, max_position_embeddings=96, rope_scaling=None, num_hidden_layers=1)
FEW = CalibrationOptions(tokens=192)
METHODS = {"good": "gptq_descent", "best": "curvature_descent"}


class Steps:
    """Notes the steps that are shown."""

    def __init__(self) -> None:
        self.labels: list[str] = []

    @contextmanager
    def step(self, label: str):
        self.labels.append(label)
        yield lambda _done, _total: None


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> HfCheckpoint:
    return HfCheckpoint.open(write_checkpoint(tmp_path_factory.mktemp("short") / "model", SHORT))


@pytest.fixture
def prepare(checkpoint, tmp_path):
    def prepare(quality: str, steps: Steps, **options):
        tokenizer = load_tokenizer(checkpoint.folder)
        form = ChatFormat.of(tokenizer, tokenizer.config_keys())
        place = Place(tmp_path / "work", steps.step)
        chosen = replace(FEW, **options)
        return calibration_for(recipe("int4", quality=quality), checkpoint, form, chosen, place)

    return prepare


def test_a_calibration_is_made_only_where_a_method_asks(prepare, tmp_path):
    steps = Steps()
    assert prepare("fast", steps) is None
    assert steps.labels == []
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("quality", METHODS)
def test_what_decides_a_calibration_is_recorded(prepare, quality):
    steps = Steps()
    found = prepare(quality, steps)
    assert found is not None
    origin = found.origin
    assert (origin["tokens"], origin["window"], origin["seed"]) == ("192", "96", "0")
    settings = dict(each.split(" ", 1) for each in origin[METHODS[quality]].split(", ") if each)
    assert (settings["ridge"], settings["damp"]) == ("0.15", "0.1")
    assert settings["sweeps"] == "4"
    assert origin.get("curvature_tokens") == ("192" if quality == "best" else None)
    assert len(steps.labels) == (2 if quality == "best" else 1)
    assert prepare(quality, Steps(), seed=1).origin["ids_sha256"] != origin["ids_sha256"]


def test_a_checkpoint_that_differs_anywhere_is_another_one(monkeypatch):
    monkeypatch.setattr(calibrate, "BLOCK_WEIGHTS", 1000)
    tensors = random_tensors(SHORT)
    known = calibrate._fingerprint(FakeCheckpoint(SHORT, tensors))
    assert calibrate._fingerprint(FakeCheckpoint(SHORT, dict(tensors))) == known
    for name in (TABLE, "model.layers.0.mlp.up_proj.weight", "model.norm.weight"):
        changed = tensors[name].clone()
        changed[len(changed) // 2] += 1e-3
        other = FakeCheckpoint(SHORT, {**tensors, name: changed})
        assert calibrate._fingerprint(other) != known, name
    longer = FakeCheckpoint(replace(SHORT, max_position_embeddings=128), tensors)
    assert calibrate._fingerprint(longer) != known


@pytest.mark.onnx
@pytest.mark.parametrize("quality", METHODS)
def test_an_export_calibrates_what_asks_for_it(prepare, checkpoint, tmp_path, quality):
    pytest.importorskip("onnx", reason="needs the onnx extra")
    output = export_small(tmp_path, SHORT, quality=quality, calibration=FEW)
    assert not (output / CALIBRATION_FOLDER).exists()
    exported = QuantizedWeights.open(output / "weights")
    assert {stats.method for stats in exported.stats} == {METHODS[quality], "nearest", None}
    assert METHODS[quality] in exported.calibration
    found = {}
    for name, seed in (("again", 0), ("other", 1)):
        calibration = prepare(quality, Steps(), seed=seed)
        quantize_to(tmp_path / name, checkpoint, recipe("int4", quality=quality), calibration)
        found[name] = QuantizedWeights.open(tmp_path / name)
    assert exported.weights_sha256 == found["again"].weights_sha256
    assert exported.calibration == found["again"].calibration
    assert exported.weights_sha256 != found["other"].weights_sha256


@pytest.mark.onnx
def test_the_demo_writes_dialogs_as_it_was_trained(tmp_path, monkeypatch):
    """Without Meta's lines of dates, which its template writes for whoever does not know it."""
    pytest.importorskip("onnx", reason="needs the onnx extra")
    taken = []

    def stop(recipe, checkpoint, form, *_) -> None:
        taken.append(form.render(Dialog([Message("user", "Hi")])))
        raise PromptError("seen")  # noqa: EM101

    monkeypatch.setattr(pipeline, "calibration_for", stop)
    with pytest.raises(PromptError, match="seen"):
        export_bundle(ExportRequest("demo", ("onnx",), tmp_path / "demo"), Silent())
    assert taken[0].startswith("<|begin_of_text|><|start_header_id|>user")


@pytest.mark.onnx
def test_an_export_that_asks_for_nothing_runs_no_calibration(tmp_path, monkeypatch):
    pytest.importorskip("onnx", reason="needs the onnx extra")
    for name in ("StreamedCalibration", "gather_windows"):
        monkeypatch.setattr(calibrate, name, lambda *_: pytest.fail("nothing looks at inputs"))
    output = export_small(tmp_path, TINY, quality="fast")
    assert QuantizedWeights.open(output / "weights").calibration is None
