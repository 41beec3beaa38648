"""The streamed reference against the eager model that it streams."""

from __future__ import annotations

import dataclasses
import weakref

import pytest
import torch
from artifacts import tiny
from tolerances import FAULT_REL_RMS, SAME_MODEL_REL_RMS

from llama_export.llama import streamed
from llama_export.llama.streamed import reference_head, reference_logits, reference_states
from llama_quantize.methods.method import find_method
from llama_quantize.packing import pack_int4
from llama_quantize.scheme import GroupedInt
from llama_quantize.tensor import QuantizedTensor

CONFIGS = {"tied": tiny.TINY, "untied": tiny.UNTIED, "MHA unscaled": tiny.MULTI_HEAD}
INPUT_IDS = torch.tensor(
    [tiny.random_tokens(tiny.TINY, 300), tiny.random_tokens(tiny.TINY, 300, 2)]
)


def quantized(weight: torch.Tensor, scheme: GroupedInt) -> QuantizedTensor:
    codes, scales = find_method("clip_search").quantize(weight, scheme)
    stored = pack_int4(codes) if scheme.bits == 4 else codes
    return QuantizedTensor(scheme, tuple(weight.shape), stored, scales)


def relative_rms(expected: torch.Tensor, found: torch.Tensor) -> float:
    return float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())


@pytest.mark.parametrize("name", sorted(CONFIGS))
@torch.inference_mode()
def test_it_equals_the_eager_model(name, monkeypatch):
    monkeypatch.setattr(streamed, "_HEAD_ROWS", 100)  # 512 rows: the last block is short
    model = tiny.random_llama(CONFIGS[name])
    weights = {key: value.bfloat16() for key, value in model.state_dict().items()}
    expected, _ = model(INPUT_IDS)
    logits = reference_logits(model.config, weights.__getitem__, INPUT_IDS)
    assert logits.dtype == torch.float32
    assert relative_rms(expected, logits) < SAME_MODEL_REL_RMS
    weights["model.layers.1.mlp.up_proj.weight"] = (
        weights["model.layers.1.mlp.up_proj.weight"] * 1.01
    )
    faulty = reference_logits(model.config, weights.__getitem__, INPUT_IDS)
    assert relative_rms(expected, faulty) > FAULT_REL_RMS


@torch.inference_mode()
def test_it_keeps_the_cache_of_the_eager_model():
    model = tiny.random_llama(tiny.TINY)
    _, cache = model(INPUT_IDS)
    read = model.state_dict().__getitem__
    states = reference_states(tiny.TINY, read, INPUT_IDS, keep_cache=True)
    assert len(states.cache) == tiny.TINY.num_hidden_layers
    for expected, found in zip(cache, states.cache, strict=True):
        assert torch.equal(expected[0], found[0])
        assert torch.equal(expected[1], found[1])
    assert reference_states(tiny.TINY, read, INPUT_IDS).cache == ()


@torch.inference_mode()
def test_quantised_weights_are_read_as_they_are_stored(monkeypatch):
    monkeypatch.setattr(streamed, "_HEAD_ROWS", 100)
    model = tiny.random_llama(tiny.TINY)
    weights = dict(model.state_dict())
    for name, weight in weights.items():
        if "proj" in name:
            weights[name] = quantized(weight, GroupedInt(4, 32))
    weights["model.embed_tokens.weight"] = quantized(
        weights["model.embed_tokens.weight"], GroupedInt(8, None)
    )
    whole = {
        name: weight if isinstance(weight, torch.Tensor) else weight.dequantize()
        for name, weight in weights.items()
    }
    whole["lm_head.weight"] = whole["model.embed_tokens.weight"]
    model.load_state_dict(whole)
    expected, _ = model(INPUT_IDS)
    logits = reference_logits(tiny.TINY, weights.__getitem__, INPUT_IDS)
    assert relative_rms(expected, logits) < SAME_MODEL_REL_RMS


@torch.inference_mode()
def test_a_table_is_never_dequantised_whole(monkeypatch):
    config = dataclasses.replace(tiny.UNTIED, num_hidden_layers=1)
    model = tiny.random_llama(config)
    weights = dict(model.state_dict())
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = quantized(weights[name], GroupedInt(8, None))
    monkeypatch.setattr(streamed, "_HEAD_ROWS", 64)
    rows = []
    dequantize = QuantizedTensor.dequantize

    def spy(self, *arguments, **options):
        result = dequantize(self, *arguments, **options)
        rows.append(result.shape[0])
        return result

    monkeypatch.setattr(QuantizedTensor, "dequantize", spy)
    hidden = reference_states(config, weights.__getitem__, INPUT_IDS[:1, :5]).hidden
    reference_head(config, weights.__getitem__, hidden)
    assert rows == [5] + [64] * 8


@torch.inference_mode()
def test_one_layer_is_resident_at_a_time():
    model = tiny.random_llama(dataclasses.replace(tiny.TINY, num_hidden_layers=4))
    resident, most = set(), 0

    def read(name: str) -> torch.Tensor:
        nonlocal most
        # The storage keeps its array alive, whatever tensors are made of it.
        array = model.state_dict()[name].numpy().copy()
        if ".layers." in name:
            resident.add(name)
            weakref.finalize(array, resident.discard, name)
            most = max(most, len(resident))
        return torch.from_numpy(array)

    reference_logits(model.config, read, INPUT_IDS[:1, :3])
    assert most == 9
