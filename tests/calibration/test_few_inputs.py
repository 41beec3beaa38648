"""Models and texts that tell a method little, or nothing that is finite."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from artifacts.tiny import TINY, random_tokens
from fakes.checkpoint import FakeCheckpoint, random_tensors

from llama_export.calibration.curvature import measure_curvature
from llama_export.calibration.scratch import Scratch
from llama_export.calibration.streamed import CalibrationInputs, StreamedCalibration
from llama_export.llama.streamed import reference_logits
from llama_quantize import (
    QuantizationError,
    QuantizedWeights,
    find_method,
    quantize_to,
    recipe,
)
from llama_quantize.recipe import QUALITIES

pytestmark = pytest.mark.usefixtures("one_thread")

each_quality = pytest.mark.parametrize("quality", ["good", "best"])
SHALLOW = replace(TINY, num_hidden_layers=1)
FIRST, SECOND = "model.layers.0", "model.layers.1"


def quantised(folder, checkpoint, quality, windows) -> QuantizedWeights:
    config, read = checkpoint.config, checkpoint.tensor
    curvature = measure_curvature(config, read, windows, 0, Scratch(folder / "curvature", "key"))
    needs = find_method(QUALITIES[quality]).needs
    inputs = CalibrationInputs(windows, needs, curvature.of)
    calibration = StreamedCalibration(checkpoint, inputs, Scratch(folder / "layers", "key"))
    quantize_to(folder / "out", checkpoint, recipe("int4", quality=quality), calibration)
    return QuantizedWeights.open(folder / "out")


def divergence(checkpoint, weights, windows) -> float:
    expected, found = (
        reference_logits(checkpoint.config, read, windows).log_softmax(-1)
        for read in (checkpoint.tensor, weights.get)
    )
    return float((expected.exp() * (expected - found)).sum(-1).mean())


def windows_of(count: int, length: int) -> torch.Tensor:
    return torch.tensor([random_tokens(TINY, length, seed) for seed in range(count)])


@each_quality
def test_channels_that_never_fire_are_counted_and_do_no_harm(tmp_path, quality):
    tensors = random_tensors(TINY)
    tensors[f"{FIRST}.input_layernorm.weight"][[3, 70]] = 0.0
    tensors[f"{FIRST}.self_attn.v_proj.weight"].zero_()  # the output projection sees nothing
    for part in ("gate", "up"):
        tensors[f"{SECOND}.mlp.{part}_proj.weight"][:5] = 0.0
    checkpoint, windows = FakeCheckpoint(TINY, tensors), windows_of(16, 64)
    weights = quantised(tmp_path, checkpoint, quality, windows)
    assert weights.calibration["dead_channels"] == f"{2 + 256 + 5} in 3 inputs"
    quantize_to(tmp_path / "fast", checkpoint, recipe("int4"))
    searched = QuantizedWeights.open(tmp_path / "fast")
    held_out = windows_of(20, 64)[16:]
    assert divergence(checkpoint, weights, held_out) < divergence(checkpoint, searched, held_out)
    name = f"{FIRST}.self_attn.o_proj.weight"
    lost = weights.dequantized(name) - tensors[name]
    assert float(lost.norm()) < 0.15 * float(tensors[name].norm())


@each_quality
def test_a_handful_of_tokens_is_enough_to_end_well(tmp_path, quality):
    checkpoint, windows = FakeCheckpoint(SHALLOW), windows_of(2, 3)
    weights = quantised(tmp_path, checkpoint, quality, windows)
    for name in checkpoint.names:
        if name.endswith("_proj.weight"):
            original = checkpoint.tensor(name)
            lost = weights.dequantized(name) - original
            assert float(lost.norm()) < 0.35 * float(original.norm()), name
    assert divergence(checkpoint, weights, windows) < 1


@each_quality
@pytest.mark.parametrize("path", ["self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj"])
def test_a_weight_that_is_no_number_is_refused_by_its_name(tmp_path, quality, path):
    tensors = random_tensors(TINY)
    name = f"{FIRST}.{path}.weight"
    tensors[name][5, 9] = torch.nan
    with pytest.raises(QuantizationError, match=r"value nan at \[5, 9\]") as caught:
        calibrated_without_curvature(tmp_path, tensors, quality)
    assert caught.value.message.startswith(f"{name}: ")
    assert list((tmp_path / "out").iterdir()) == []


@each_quality
def test_a_norm_that_is_no_number_is_refused_too(tmp_path, quality):
    tensors = random_tensors(TINY)
    tensors[f"{FIRST}.input_layernorm.weight"][5] = torch.nan
    with pytest.raises(QuantizationError, match="input_layernorm"):
        calibrated_without_curvature(tmp_path, tensors, quality)


@each_quality
def test_inputs_that_overflow_are_refused_by_the_weight_that_meets_them(tmp_path, quality):
    """All weights are finite; what the model makes of them is not."""
    tensors = random_tensors(TINY)
    tensors[f"{FIRST}.mlp.up_proj.weight"].mul_(1e5)
    tensors[f"{FIRST}.mlp.gate_proj.weight"].mul_(1e5)
    tensors[f"{FIRST}.post_attention_layernorm.weight"].fill_(1e12)
    with pytest.raises(QuantizationError, match="not finite") as caught:
        calibrated_without_curvature(tmp_path, tensors, quality)
    assert caught.value.message.startswith(f"{FIRST}.mlp.down_proj.weight: ")
    assert caught.value.hint


def calibrated_without_curvature(folder, tensors, quality) -> None:
    checkpoint = FakeCheckpoint(TINY, tensors)
    inputs = CalibrationInputs(windows_of(2, 30), find_method(QUALITIES[quality]).needs)
    calibration = StreamedCalibration(checkpoint, inputs, Scratch(folder / "layers", "key"))
    quantize_to(folder / "out", checkpoint, recipe("int4", quality=quality), calibration)
