"""A token a step gives the logits of the eager model, whatever a Llama may have."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from artifacts.tiny import MULTI_HEAD, TINY, UNTIED, random_tokens, write_checkpoint
from fakes.checkpoint import FakeCheckpoint
from tolerances import FAULT_REL_RMS, SAME_MODEL_REL_RMS

from llama_export.calibration import stepwise
from llama_export.calibration.stepwise import StepwiseModel, cache_bytes, mapped_floats, quick_dtype
from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.llama.config import LlamaConfig
from llama_export.llama.rope_scaling import YarnScaling
from llama_export.llama.streamed import reference_logits
from llama_quantize.lazy import LazyTensor

CONFIGS = {
    "tied": TINY,
    "untied, with biases": replace(UNTIED, attention_bias=True, mlp_bias=True, head_dim=32),
    "no groups": MULTI_HEAD,
    "rotated, with side branches": replace(
        TINY, down_proj_rotation=True, adaptor_rank=4, adaptor_scale=2.0
    ),
    "a factor of attention": replace(
        TINY,
        max_position_embeddings=2048,
        rope_scaling=YarnScaling(4.0, 512, attention_factor=1.3),
    ),
}
TEXTS, LENGTH = 3, 70
IDS = torch.tensor([random_tokens(TINY, LENGTH, seed) for seed in range(TEXTS)])


def relative_rms(expected: torch.Tensor, found: torch.Tensor) -> float:
    return float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())


def stepped(config: LlamaConfig, weights, ids: torch.Tensor = IDS) -> torch.Tensor:
    model = StepwiseModel(config, weights, *ids.shape)
    return torch.stack([model.step(column) for column in ids.unbind(1)], dim=1)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_its_logits_are_those_of_the_eager_model(name, tmp_path):
    config = CONFIGS[name]
    checkpoint = FakeCheckpoint(config)
    expected = reference_logits(config, checkpoint.tensor, IDS)
    with mapped_floats(checkpoint, torch.float32, tmp_path) as weights:
        found = stepped(config, weights)
        assert found.dtype == torch.float32
        assert relative_rms(expected, found) < SAME_MODEL_REL_RMS
        for part in ("self_attn.k_proj.weight", "mlp.down_proj.weight", "input_layernorm.weight"):
            faulty = dict(weights)
            faulty[f"model.layers.1.{part}"] = faulty[f"model.layers.1.{part}"] * 1.02
            assert relative_rms(expected, stepped(config, faulty)) > FAULT_REL_RMS


def test_bfloat16_is_near_enough_to_draw_from(tmp_path):
    checkpoint = FakeCheckpoint(TINY)
    expected = reference_logits(TINY, checkpoint.tensor, IDS)
    with mapped_floats(checkpoint, torch.bfloat16, tmp_path) as weights:
        assert {each.dtype for each in weights.values()} == {torch.bfloat16}
        found = stepped(TINY, weights)
    assert SAME_MODEL_REL_RMS < relative_rms(expected, found) < 0.03  # measured 0.012


def test_what_lies_in_a_file_in_that_type_is_not_copied(tmp_path, monkeypatch):
    checkpoint = HfCheckpoint.open(write_checkpoint(tmp_path / "model"))
    copied = []
    write = stepwise._copy
    monkeypatch.setattr(stepwise, "_copy", lambda *given: (copied.append(given[1]), write(*given)))
    with mapped_floats(checkpoint, torch.bfloat16, tmp_path) as weights:
        assert copied == []
        for name in checkpoint.names:
            assert weights[name].data_ptr() == checkpoint.tensor(name).data_ptr()
    with mapped_floats(checkpoint, torch.float32, tmp_path) as weights:
        assert copied == list(checkpoint.names)
        for name in checkpoint.names:
            assert torch.equal(weights[name], checkpoint.tensor(name).float())
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_is_computed_when_it_is_read_is_copied(tmp_path):
    """A tensor of the right type may still be made anew each time, or row by row."""
    checkpoint = FakeCheckpoint(TINY)
    values = {name: checkpoint.tensor(name) for name in checkpoint.names}
    name = "model.layers.0.mlp.up_proj.weight"
    lazy = LazyTensor(tuple(values[name].shape), torch.float32, 1, lambda rows: values[name][rows])
    checkpoint._read = lambda each: lazy if each == name else values[each].clone()
    with mapped_floats(checkpoint, torch.float32, tmp_path) as weights:
        (copy,) = tmp_path.glob(".sampled.*/*")
        assert copy.stat().st_size > 4 * TINY.num_parameters
        assert all(torch.equal(weights[each], values[each]) for each in checkpoint.names)
    assert list(tmp_path.iterdir()) == []


def test_the_copy_is_removed_after_an_error(tmp_path):
    copy = mapped_floats(FakeCheckpoint(TINY), torch.bfloat16, tmp_path)
    copy.__enter__()
    assert list(tmp_path.iterdir())
    assert not copy.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert list(tmp_path.iterdir()) == []


def test_the_type_is_one_that_the_machine_multiplies(monkeypatch):
    assert quick_dtype() in (torch.bfloat16, torch.float32)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert quick_dtype() == torch.float32


def test_the_cache_is_as_large_as_is_said():
    weights = {name: each.bfloat16() for name, each in FakeCheckpoint(TINY).tensors.items()}
    model = StepwiseModel(TINY, weights, TEXTS, LENGTH)
    assert sum(cache.nbytes for cache in model._caches) == TEXTS * cache_bytes(
        TINY, torch.bfloat16, LENGTH
    )
