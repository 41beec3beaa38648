"""Configs that LlamaForCausalLM loads, as public models and transformers' own tests have them.

Each is exported to ONNX in bfloat16, and its logits are compared with those of transformers.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from artifacts.opened import session_of
from artifacts.small_bundle import Silent
from artifacts.tiny import write_byte_vocabulary

from llama_export.exporting.pipeline import ExportRequest, export_bundle

# Measured 1.3e-11: float32 sums in another order.
MOST_KL = 1e-6
# Small, with weights and norms in which every fault shows.
SMALL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "initializer_range": 0.3,
    "bos_token_id": 256,
    "eos_token_id": 257,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
SHORT, LONG = [1.0 + n / 8 for n in range(8)], [4.0 + n for n in range(8)]
GONE = object()
VARIANTS = {
    "as it is": {},
    "multi-head": {"num_key_value_heads": 4},
    "key/value heads absent": {"num_key_value_heads": GONE},
    "key/value heads null": {"num_key_value_heads": None},
    "one key/value head": {"num_key_value_heads": 1},
    "one head": {"num_attention_heads": 1, "num_key_value_heads": 1},
    "one layer": {"num_hidden_layers": 1},
    "five layers": {"num_hidden_layers": 5},
    "tied": {"tie_word_embeddings": True},
    "odd vocabulary": {"vocab_size": 521},
    "odd feed-forward": {"intermediate_size": 37},
    "feed-forward of 172": {"intermediate_size": 172},
    "epsilon absent": {"rms_norm_eps": GONE},
    "large epsilon": {"rms_norm_eps": 0.01},
    "positions absent": {"max_position_embeddings": GONE},
    "theta absent": {"rope_theta": GONE},
    "theta 5e5": {"rope_theta": 500000.0},
    "theta in rope_parameters": {
        "rope_theta": GONE,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    },
    "head_dim absent": {"head_dim": GONE},
    "head_dim null": {"head_dim": None},
    "heads wider than the model": {"head_dim": 48},
    "heads of 2": {"head_dim": 2},
    "heads of 6": {"head_dim": 6},
    "heads of 8": {"head_dim": 8, "hidden_size": 32},
    "heads of 10": {"head_dim": 10},
    "heads of 18": {"head_dim": 18},
    "heads of 34": {"head_dim": 34},
    "heads of 80": {"head_dim": 80},
    "heads of 100": {"head_dim": 100, "num_key_value_heads": 4},
    "heads of 160": {"head_dim": 160},
    "heads of 256": {"head_dim": 256},
    "llama3": {"rope_scaling": LLAMA3},
    "linear": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "dynamic": {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
    "yarn": {"rope_scaling": YARN},
    "yarn, new spelling": {"rope_theta": GONE, "rope_parameters": YARN | {"rope_theta": 5e4}},
    "yarn in heads of 10": {"rope_scaling": YARN, "head_dim": 10},
    "longrope": {
        "rope_scaling": {
            "rope_type": "longrope",
            "short_factor": SHORT,
            "long_factor": LONG,
            "original_max_position_embeddings": 256,
        }
    },
    "biases of attention": {"attention_bias": True},
    "biases of the feed-forward": {"mlp_bias": True},
    "all biases, heads of 6": {"attention_bias": True, "mlp_bias": True, "head_dim": 6},
    "swish": {"hidden_act": "swish"},
    "what training leaves behind": {
        "attention_dropout": 0.1,
        "pretraining_tp": 2,
        "pad_token_id": -1,
        "layer_types": ["full_attention", "full_attention"],
        "use_sliding_window": False,
        "a_key_of_tomorrow": {"a": 1},
    },
    "no tokens named": {"bos_token_id": None, "eos_token_id": None},
    "many ends": {"eos_token_id": [257, 264, 265]},
}
FAST = ("heads of 10", "yarn", "what training leaves behind")


def write_theirs(folder: Path, raw: dict) -> transformers.LlamaForCausalLM:
    """Write a checkpoint of random weights with this config.json; return the model."""
    torch.manual_seed(5)
    theirs = transformers.LlamaConfig(**copy.deepcopy(raw))
    model = transformers.LlamaForCausalLM(theirs).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        elif name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
        # Not the whole model: that would round the rotary frequencies too.
        parameter.copy_(parameter.to(torch.bfloat16))
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(raw))
    write_byte_vocabulary(folder / "tokenizer.model")
    return model


def kl(expected: torch.Tensor, found: torch.Tensor) -> float:
    one, other = (each.double().log_softmax(-1) for each in (expected, found))
    return float((one.exp() * (one - other)).sum(-1).max())


@pytest.mark.onnx
@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(n, marks=pytest.mark.slow) for n in VARIANTS if n not in FAST)]
)
def test_a_config_that_transformers_loads_gives_its_logits(tmp_path, name):
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    raw = {k: v for k, v in {**SMALL, **VARIANTS[name]}.items() if v is not GONE}
    model = write_theirs(tmp_path / "model", raw)
    request = ExportRequest(
        str(tmp_path / "model"),
        ("onnx",),
        tmp_path / "out",
        recipe="bf16",
        max_context=96,
        verify=False,
    )
    session = session_of(export_bundle(request, Silent()).bundles[0].bundle)
    tokens = np.random.default_rng(3).integers(0, 256, 90).tolist()
    found = [session.prefill(part) for part in (tokens[:70], [tokens[70]], tokens[71:])]
    with torch.inference_mode():
        expected = model(torch.tensor([tokens])).logits[0, [69, 70, 89]]
    session.close()
    assert kl(expected, torch.from_numpy(np.stack(found))) <= MOST_KL
    # The twin: a position later it is another distribution.
    assert kl(expected.roll(1, 0), torch.from_numpy(np.stack(found))) > 1e-2


def test_there_are_forty_variants():
    assert len(VARIANTS) >= 40
