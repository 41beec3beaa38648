"""An interrupted calibration goes on at its layer, to the same bytes; not from damaged files."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from artifacts.tiny import TINY, random_tokens
from fakes.checkpoint import FakeCheckpoint, random_tensors

from llama_export.calibration.scratch import Scratch
from llama_export.calibration.streamed import CalibrationInputs, StreamedCalibration
from llama_quantize import GroupedInt, Needs, QuantizedTensor, find_method, quantize_to, recipe

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = replace(TINY, num_hidden_layers=3)
WINDOWS = torch.tensor([random_tokens(TINY, 24, seed) for seed in range(4)])
PER_LAYER, ALL = 7, 21
RECIPE = recipe("int4", quality="good")


class Stopped(BaseException):
    """As an interrupt, it is no Exception."""


@pytest.fixture(scope="module")
def checkpoint() -> FakeCheckpoint:
    """Return a model of which some channels never fire, in the first layer and in the last."""
    tensors = random_tensors(CONFIG)
    tensors["model.layers.0.input_layernorm.weight"][[3, 70]] = 0.0
    tensors["model.layers.2.mlp.gate_proj.weight"][:5] = 0.0
    return FakeCheckpoint(CONFIG, tensors)


def run(checkpoint, folder, key="key", stop_at=ALL + 1) -> tuple[dict[str, bytes], int]:
    """Quantise, perhaps until a weight's turn; returns the bytes and the weights solved."""
    method = type(find_method("gptq_descent"))
    solve, solved = method.quantize, 0

    def counted(self, *arguments):
        nonlocal solved
        solved += 1
        if solved == stop_at:
            raise Stopped
        return solve(self, *arguments)

    scratch = Scratch(folder / "scratch", key)
    calibration = StreamedCalibration(
        checkpoint, CalibrationInputs(WINDOWS, Needs.TARGETS), scratch
    )
    with tempfile.TemporaryDirectory(dir=folder) as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(method, "quantize", counted)
        try:
            quantize_to(Path(name), checkpoint, RECIPE, calibration)
        except Stopped:
            assert stop_at <= ALL
        return {path.name: path.read_bytes() for path in sorted(Path(name).iterdir())}, solved


@pytest.fixture
def quantise(checkpoint, tmp_path):
    return partial(run, checkpoint, tmp_path)


@pytest.fixture(scope="module")
def whole(checkpoint, tmp_path_factory, one_thread) -> dict[str, bytes]:
    """Return the bytes of a calibration in one go."""
    found, solved = run(checkpoint, tmp_path_factory.mktemp("whole"))
    assert solved == ALL
    assert json.loads(found["quantization.json"])["calibration"]["dead_channels"] == "7 in 2 inputs"
    return found


@pytest.mark.parametrize("stop_at", [8, 14, 21])
def test_an_interrupted_calibration_goes_on_at_its_layer(quantise, whole, stop_at):
    left, _ = quantise(stop_at=stop_at)
    assert left == {}
    found, solved = quantise()
    done = (stop_at - 1) // PER_LAYER
    assert solved == ALL - done * PER_LAYER
    assert found == whole


def test_it_may_be_interrupted_more_than_once(quantise, whole):
    for stop_at in (10, 9, 2):
        quantise(stop_at=stop_at)
    found, solved = quantise()
    assert (found, solved) == (whole, PER_LAYER)


def test_from_a_file_that_is_not_whole_it_does_not_go_on(quantise, whole, tmp_path):
    quantise(stop_at=16)
    half(tmp_path / "scratch" / "original-0.f32")
    assert quantise() == (whole, ALL)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return a folder in which one layer is done."""
    scratch = Scratch(tmp_path / "scratch", "key")
    scratch.array("states", (3, 5)).fill_(1.0)
    scratch.finish(0, {"w": rounded_matrix()}, {"inputs": 3})
    assert Scratch(tmp_path / "scratch", "key").layer == 1
    return tmp_path / "scratch"


def rounded_matrix() -> QuantizedTensor:
    scheme = GroupedInt(8, 32)
    weight = torch.randn(6, 64, generator=torch.Generator().manual_seed(0))
    return QuantizedTensor(scheme, (6, 64), *find_method("nearest").quantize(weight, scheme))


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def require_fresh(folder: Path, key: str = "key") -> None:
    scratch = Scratch(folder, key)
    assert (scratch.layer, scratch.counts) == (0, {})
    assert list(folder.iterdir()) == []
    assert not scratch.array("states", (3, 5)).any()


@pytest.mark.parametrize("damage", [half, lambda path: path.unlink()], ids=["truncated", "missing"])
@pytest.mark.parametrize("name", ["state.json", "layer-000.safetensors", "states.f32"])
def test_a_folder_in_which_a_file_is_not_whole_starts_over(folder, name, damage):
    damage(folder / name)
    require_fresh(folder)


@pytest.mark.parametrize("state", ["[]", "{}", '{"key": "key", "layer": 1}', "\0" * 40])
def test_a_state_that_says_something_else_starts_over(folder, state):
    (folder / "state.json").write_text(state)
    require_fresh(folder)


def test_another_key_empties_the_folder(folder):
    require_fresh(folder, "another")


def test_a_state_that_was_being_written_does_no_harm(folder):
    (folder / "state.json.new").write_text('{"key": "key", "la')
    scratch = Scratch(folder, "key")
    assert (scratch.layer, scratch.counts) == (1, {"inputs": 3})
    found, expected = scratch.made(0, "w", GroupedInt(8, 32)), rounded_matrix()
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(found.scales, expected.scales)
    assert (scratch.array("states", (3, 5)) == 1.0).all()


def test_arrays_are_files_and_new_ones_are_zeros(tmp_path):
    scratch = Scratch(tmp_path / "scratch", "key")
    array = scratch.array("states", (3, 5))
    assert not array.any()
    array.copy_(torch.arange(15.0).view(3, 5))
    assert torch.equal(scratch.array("states", (3, 5)), array)
    assert (tmp_path / "scratch" / "states.f32").stat().st_size == 60
    Scratch(tmp_path / "scratch", "key")  # no layer is done
    assert list((tmp_path / "scratch").iterdir()) == []
