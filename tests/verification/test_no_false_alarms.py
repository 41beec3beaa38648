"""A right artifact is never red: random models, and a peaky one of SmolLM2's shape."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from artifacts import tiny
from artifacts.small_bundle import Silent
from safetensors.torch import load_file, save_file

from llama_export.exporting.pipeline import export_bundle
from llama_export.exporting.request import ExportRequest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

# 9 heads of 64 on 3 for keys and values, as SmolLM2-135M has them; 4 of its 30 layers.
SMOLLM2 = dataclasses.replace(
    tiny.TINY,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=4,
    num_attention_heads=9,
    num_key_value_heads=3,
    rope_theta=100000.0,
    rope_scaling=None,
)
CHANNEL, PEAK = 7, 100
RECIPES = {
    "onnx": ("int4", "int8", "bf16"),
    "executorch": ("int4",),
    "coreml": ("int4", "int8", "fp16"),
}
TOOLKITS = {"onnx": "onnxruntime", "executorch": "executorch", "coreml": "coremltools"}


def peaky(folder, seed=0):
    """Write a model whose first token has one channel a hundred times larger than the others'."""
    checkpoint = tiny.write_checkpoint(folder, SMOLLM2, seed)
    path = checkpoint / "model.safetensors"
    state = load_file(path)
    table = state["model.embed_tokens.weight"]
    table[SMOLLM2.bos_token_id, CHANNEL] = PEAK * table.float().std().to(torch.bfloat16)
    save_file(state, path)
    return checkpoint


def assert_green(folder, checkpoint, target, recipe):
    request = ExportRequest(str(checkpoint), (target,), folder, recipe=recipe, max_context=128)
    # A red one is not published: it raises, and its notes name the rows.
    (exported,) = export_bundle(request, Silent()).bundles
    assert exported.report.passed


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("target", RECIPES)
def test_random_models_pass(tmp_path, target, seed):
    pytest.importorskip(TOOLKITS[target], reason=f"needs the {target} extra")
    config = tiny.TINY if seed % 2 else tiny.UNTIED
    checkpoint = tiny.write_checkpoint(tmp_path / "checkpoint", config, seed)
    for recipe in RECIPES[target]:
        assert_green(tmp_path / recipe, checkpoint, target, recipe)


@pytest.mark.parametrize("target", RECIPES)
def test_a_model_of_another_shape_with_peaky_activations_passes(tmp_path, target):
    pytest.importorskip(TOOLKITS[target], reason=f"needs the {target} extra")
    assert_green(tmp_path / "out", peaky(tmp_path / "checkpoint"), target, "int4")
