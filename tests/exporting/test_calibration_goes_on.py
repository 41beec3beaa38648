"""An export whose calibration is interrupted goes on where it was, and ends as one in one go."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from artifacts.folders import folders_in
from artifacts.tiny import TINY, UNTIED, write_checkpoint
from rich.console import Console

from llama_export.bundle.bundle import Bundle
from llama_export.bundle.interrupts import notes_of
from llama_export.calibration.calibrate import CALIBRATION_FOLDER
from llama_export.calibration.options import CalibrationOptions
from llama_export.calibration.windows import ids_sha256
from llama_export.calibration.windows_file import read_windows
from llama_export.cli.export_table import show_export
from llama_export.cli.inspect import tables
from llama_export.errors import OutputError
from llama_export.examine.inspection import inspect_folder
from llama_export.exporting.left_over import left_over
from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.exporting.result import ExportedBundle, ExportResult
from llama_export.llama.config import LlamaConfig
from llama_export.sources.manifest_fields import describe_calibration
from llama_quantize.checkpoint.files import CALIBRATION_FILE
from llama_quantize.checkpoint.weights import QuantizedWeights

pytestmark = [pytest.mark.onnx, pytest.mark.usefixtures("one_thread")]
pytest.importorskip("onnx", reason="needs the onnx extra")
# Windows of a model with a shorter context are as short as that.
CONTEXT = 64
TOKENS = CalibrationOptions(tokens=4 * CONTEXT)
LAYERS = 3


class Steps:
    """Notes the steps, and raises what it is given after so many calls within one of them."""

    def __init__(self, label: str = "", after: int = 0, error: BaseException | None = None) -> None:
        self.seen: list[str] = []
        self.shown: list[tuple[int, int]] = []
        self._label, self._left, self._error = label, after, error

    @contextmanager
    def step(self, label):
        self.seen.append(label)

        def advance(done, total):
            if label.startswith("Quantising"):
                self.shown.append((done, total))
            if self._error is not None and label.startswith(self._label):
                self._left -= 1
                if self._left < 0:
                    raise self._error

        yield advance


def export_to(output: Path, model: Path, steps: Steps, quality: str = "best", **choices) -> Path:
    request = ExportRequest(
        str(model), ("onnx",), output, quality=quality, calibration=TOKENS, verify=False, **choices
    )
    return export_bundle(request, steps).output


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    config = replace(TINY, num_hidden_layers=LAYERS, max_position_embeddings=CONTEXT)
    return write_checkpoint(tmp_path_factory.mktemp("goes-on") / "tiny", config)


@pytest.fixture(scope="module")
def straight(model, tmp_path_factory, one_thread) -> Path:
    """Return the output of an export that nothing interrupted."""
    steps = Steps()
    output = export_to(tmp_path_factory.mktemp("one-go") / "out", model, steps)
    assert "Writing text to calibrate on" in steps.seen
    first, last = steps.shown[0], steps.shown[-1]
    # The table, a third of so small a model, takes no time and does not count.
    assert first[0] == 0
    assert last[0] == last[1]
    assert not (output / CALIBRATION_FOLDER).exists()
    return output


@pytest.fixture(scope="module")
def in_one_go(straight) -> dict[str, bytes]:
    return contents(straight)


def test_manifest_inspection_and_tables_say_what_it_was_calibrated_on(straight):
    weights = QuantizedWeights.open(straight / "weights")
    assert weights.calibration is not None
    sha256 = weights.calibration["ids_sha256"]
    told = {"method": "curvature_descent", "tokens": 4 * CONTEXT, "ids_sha256": sha256}
    for name in ("onnx", "weights"):
        found = inspect_folder(straight / name, check_hashes=True)
        assert found.quantization["calibration"] == told
        shown = io.StringIO()
        Console(file=shown, width=100).print(*tables(found))
        assert f"best (curvature_descent) on {4 * CONTEXT} tokens, ids sha256 {sha256[:12]}" in (
            shown.getvalue()
        )
    beside = next(file for file in found.files if file.name == CALIBRATION_FILE)
    assert beside.purpose == "the tokens that they were calibrated on"
    windows = read_windows(straight / "weights", LlamaConfig.read(straight / "onnx/config.json"))
    assert windows.ids.shape == (4, CONTEXT)
    assert ids_sha256(windows.ids) == sha256
    result = ExportResult(straight, (ExportedBundle(Bundle.open(straight / "onnx"), None),), 1.0)
    shown = io.StringIO()
    show_export(Console(file=shown, width=100), result)
    assert f"best, calibrated on {4 * CONTEXT} tokens" in shown.getvalue()


def test_a_record_that_says_nothing_sound_is_not_repeated(straight):
    weights = QuantizedWeights.open(straight / "weights")
    assert describe_calibration(weights)
    for key, wrong in (("tokens", "0"), ("tokens", "\x1b"), ("ids_sha256", "x")):
        said = {**(weights.calibration or {}), key: wrong}
        assert describe_calibration(dataclasses.replace(weights, calibration=said)) == {}
    assert describe_calibration(dataclasses.replace(weights, calibration=None)) == {}


def test_its_weights_are_exported_again_and_replaced(tmp_path, straight, in_one_go):
    output = tmp_path / "out"
    shutil.copytree(straight, output)
    again = ExportRequest(
        str(output / "weights"), ("onnx",), output, verify=False, force=True, max_context=CONTEXT
    )
    steps = Steps()
    export_bundle(again, steps)
    assert not any(label.startswith(("Writing", "Quantising")) for label in steps.seen)
    assert contents(output) == in_one_go


# Of the tensors of this model a layer has nine, each of one block; the table is before them.
@pytest.mark.parametrize(
    ("label", "after", "reached"),
    [
        ("Writing", 5, None),
        pytest.param(
            "Measuring the curvature", 3, "with the text that is written", marks=pytest.mark.slow
        ),
        pytest.param("Quantising", 5, "with the text that is written", marks=pytest.mark.slow),
        ("Quantising", 15, f"at layer 2 of {LAYERS}"),
        pytest.param("Quantising", 26, f"at layer 3 of {LAYERS}", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_export_goes_on_and_ends_the_same(
    tmp_path, model, in_one_go, caplog, monkeypatch, label, after, reached
):
    monkeypatch.setattr(logging.getLogger("llama_export"), "propagate", True)
    output = tmp_path / "out"
    struck = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        export_to(output, model, Steps(label, after, struck))
    kept = output / CALIBRATION_FOLDER
    if reached is None:
        assert notes_of(struck) == []
        assert not output.exists()
    else:
        (note,) = notes_of(struck)
        assert note.startswith(f"{kept} (")
        assert note.endswith(f" is kept: the same command goes on {reached}")
        assert sorted(path.name for path in output.iterdir()) == [CALIBRATION_FOLDER]
    steps = Steps()
    export_to(output, model, steps)
    assert ("Writing text to calibrate on" in steps.seen) is (reached is None)
    going_on = reached is not None and reached.startswith("at layer")
    assert (f"an interrupted calibration goes on {reached} layers" in caplog.text) is going_on
    assert contents(output) == in_one_go
    # The bar begins with what is left: the table and the layers that are done do not count.
    nothing = [done for done, _ in steps.shown].count(0)
    assert nothing == {"at layer 2 of 3": 10, "at layer 3 of 3": 19}.get(reached or "", 1)


@pytest.mark.slow
def test_another_choice_does_not_go_on(tmp_path, model, in_one_go):
    with pytest.raises(KeyboardInterrupt):
        export_to(tmp_path / "out", model, Steps("Quantising", 15, KeyboardInterrupt()))
    steps = Steps()
    output = export_to(tmp_path / "out", model, steps, quality="good")
    assert "Writing text to calibrate on" not in steps.seen
    straight = export_to(tmp_path / "other", model, Steps(), quality="good")
    assert contents(output) == contents(straight) != in_one_go


def test_a_full_disk_says_where_the_same_command_goes_on(tmp_path, model, monkeypatch):
    from llama_export.cli.endings import ending_of

    output = tmp_path / "out"
    full = OSError(28, "No space left on device")
    with pytest.raises(OutputError) as refused:
        export_to(output, model, Steps("Quantising", 15, full))
    ending = ending_of(refused.value, "llama-export", verbose=False)
    assert "cannot be written: No space left on device; " in ending.message
    assert ending.message.endswith(f"the same command goes on at layer 2 of {LAYERS}")
    assert ending.message.count(ending.hint) == 0


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system reserves no room")
def test_a_disk_without_room_for_the_streams_is_an_error_and_no_signal(
    tmp_path, model, monkeypatch
):
    def refuse(_descriptor, _offset, size_bytes):
        assert size_bytes > 0
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OutputError, match="No space left"):
        export_to(tmp_path / "out", model, Steps())


def test_a_second_export_does_not_work_in_the_same_folder(tmp_path, model):
    output = tmp_path / "out"
    refused: list[OutputError] = []

    class Rival(Steps):
        @contextmanager
        def step(self, label):
            if label.startswith("Measuring"):
                with pytest.raises(OutputError) as caught:
                    export_to(output, model, Steps())
                refused.append(caught.value)
                raise KeyboardInterrupt
            yield lambda done, total: None

    with pytest.raises(KeyboardInterrupt):
        export_to(output, model, Rival())
    (error,) = refused
    assert "another export" in error.message
    assert not any("the same command" in note for note in notes_of(error))


class StruckAt(Steps):
    """Is interrupted where a step begins."""

    @contextmanager
    def step(self, label):
        if label == self._label:
            raise KeyboardInterrupt
        with super().step(label) as advance:
            yield advance


@pytest.mark.slow
def test_the_layers_are_there_after_an_interrupt_of_the_lowering(tmp_path):
    config = replace(UNTIED, max_position_embeddings=CONTEXT)
    model = write_checkpoint(tmp_path / "tiny", config)
    with pytest.raises(KeyboardInterrupt) as struck:
        export_to(tmp_path / "out", model, StruckAt("Lowering to onnx"), "good")
    assert notes_of(struck.value)[0].endswith("goes on at layer 2 of 2")
    output = export_to(tmp_path / "out", model, Steps(), "good")
    straight = export_to(tmp_path / "other", model, Steps(), "good")
    assert contents(output) == contents(straight)


def test_what_is_left_over_is_named(tmp_path):
    assert left_over(tmp_path, 2) is None
    layers = tmp_path / CALIBRATION_FOLDER / "layers"
    layers.mkdir(parents=True)
    assert left_over(tmp_path, 2) is None
    for noted, place in ((0, "with the text that is written"), (2, "behind its last layer")):
        state = {"key": "", "layer": noted, "notes": {}}
        (layers / "state.json").write_text(json.dumps(state), encoding="utf-8")
        assert (left_over(tmp_path, 2) or "").endswith(f"the same command goes on {place}")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_command_goes_on(tmp_path, model, number):
    def command(output: Path) -> list[str]:
        options = ("--quality", "good", "--calibration-tokens", str(4 * CONTEXT), "--no-verify")
        start = [sys.executable, "-m", "llama_export", "--target", "onnx", "--model", str(model)]
        return [*start, *options, "--output", str(output)]

    output = tmp_path / "out"
    running = subprocess.Popen(command(output), stderr=subprocess.PIPE, text=True)
    state = output / CALIBRATION_FOLDER / "layers" / "state.json"
    until = time.monotonic() + 120
    while not state.exists():
        assert running.poll() is None
        assert time.monotonic() < until
        time.sleep(0.005)
    running.send_signal(number)
    _, err = running.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert running.returncode == -number
    else:
        assert running.returncode == 128 + number
        assert "the same command goes on at layer" in " ".join(err.split())
    again = subprocess.run(command(output), capture_output=True, text=True, check=True)
    assert "an interrupted calibration goes on at layer" in again.stderr
    assert "Writing text" not in again.stderr
    subprocess.run(command(tmp_path / "other"), capture_output=True, check=True)
    assert contents(output) == contents(tmp_path / "other")
    assert folders_in(output) == ["onnx", "weights"]
