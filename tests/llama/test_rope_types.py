"""Each rope type of config.json against transformers: frequencies, attention factor, logits."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from artifacts.tiny import MULTI_HEAD
from tolerances import FREQUENCY_REL
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from llama_export.errors import ConfigError, UnsupportedModelError
from llama_export.exporting.estimate import choose_context
from llama_export.llama.config import LlamaConfig
from llama_export.llama.rope import inverse_frequencies

SHORT, LONG = [1.0 + n / 31 for n in range(32)], [8.0 + n for n in range(32)]
POSITIONS, ORIGINAL = 1024, 256
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL}
LONGROPE = {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG}
TYPES = {
    "none": {},
    "default": {"rope_type": "default", "factor": 7.0},
    "linear": {"type": "linear", "factor": 4.0, "mscale": 3.0},
    "linear below one": {"type": "linear", "factor": 0.5},
    "proportional": {"rope_type": "proportional", "factor": 2.0, "partial_rotary_factor": 1.0},
    "dynamic": {"type": "dynamic", "factor": 2.0, "alpha": 1000.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": ORIGINAL,
        "attention_factor": 5.0,
    },
    "llama3 without its original positions": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    },
    "yarn": YARN,
    "yarn, old key": {"type": "yarn", "factor": 16, "original_max_position_embeddings": 64},
    "yarn without its original positions": {"rope_type": "yarn", "factor": 4.0},
    "yarn without a factor": {**YARN, "factor": None},
    "yarn, no longer": {**YARN, "factor": 1.0},
    "yarn with betas": {**YARN, "beta_fast": 16, "beta_slow": 0.5},
    "yarn with empty betas": {**YARN, "beta_fast": None, "beta_slow": 0},
    "yarn, not truncated": {**YARN, "truncate": False},
    "yarn with a sharpness": {**YARN, "attention_factor": 1.7},
    "yarn with both scales": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.3},
    "yarn with one scale": {**YARN, "mscale": 0.7},
    "yarn of one border": {**YARN, "beta_fast": 1, "beta_slow": 1, "truncate": False},
    "longrope": {**LONGROPE, "original_max_position_embeddings": ORIGINAL},
    "longrope with a factor": {
        **LONGROPE,
        "original_max_position_embeddings": ORIGINAL,
        "factor": 32.0,
    },
    "longrope with a sharpness": {
        **LONGROPE,
        "original_max_position_embeddings": ORIGINAL,
        "attention_factor": 1.2,
    },
}


def raw(scaling: dict, spelling: str = "old") -> dict:
    keys = {**MULTI_HEAD.to_hf(), "max_position_embeddings": POSITIONS, "rope_theta": 20000.0}
    if spelling == "old":
        return keys | {"rope_scaling": copy.deepcopy(scaling)}
    del keys["rope_theta"], keys["rope_scaling"]
    return keys | {"rope_parameters": copy.deepcopy({**scaling, "rope_theta": 20000.0})}


def theirs(keys: dict) -> transformers.LlamaConfig:
    return transformers.LlamaConfig(**copy.deepcopy(keys))


@pytest.mark.parametrize("spelling", ["old", "new"])
@pytest.mark.parametrize("name", TYPES)
def test_frequencies_and_sharpness_equal_those_of_transformers(name, spelling):
    keys = raw(TYPES[name], spelling)
    config, rotary = LlamaConfig.from_hf(keys), LlamaRotaryEmbedding(theirs(keys))
    found = inverse_frequencies(config)
    torch.testing.assert_close(found, rotary.inv_freq, rtol=FREQUENCY_REL, atol=0)
    assert config.attention_factor == pytest.approx(rotary.attention_scaling, rel=1e-12)
    assert LlamaConfig.from_hf(config.to_hf()) == config
    again = LlamaRotaryEmbedding(theirs(config.to_hf()))
    torch.testing.assert_close(found, again.inv_freq, rtol=FREQUENCY_REL, atol=0)
    assert config.attention_factor == pytest.approx(again.attention_scaling, rel=1e-12)


def test_the_types_differ_from_each_other():
    """The twin of the comparison: parameters that got lost would show."""
    made = [LlamaConfig.from_hf(raw(scaling)) for scaling in TYPES.values()]
    found = {(*inverse_frequencies(each).tolist(), each.attention_factor) for each in made}
    # None, default and dynamic are the same; so are some spellings of yarn's defaults.
    assert len(found) >= len(TYPES) - 7


def test_original_positions_may_stand_outside():
    scaling = {**TYPES["llama3"], "original_max_position_embeddings": 64}
    keys = raw(scaling) | {"original_max_position_embeddings": 512}
    found = inverse_frequencies(LlamaConfig.from_hf(keys))
    expected = LlamaRotaryEmbedding(theirs(keys)).inv_freq
    torch.testing.assert_close(found, expected, rtol=FREQUENCY_REL, atol=0)


def test_an_artifact_ends_where_its_frequencies_would_change():
    dynamic = LlamaConfig.from_hf(raw(TYPES["dynamic"]))
    assert dynamic.longest_context == POSITIONS
    longrope = LlamaConfig.from_hf(raw(TYPES["longrope"]))
    assert longrope.longest_context == ORIGINAL
    assert choose_context("onnx", longrope.longest_context, None) == ORIGINAL


@pytest.mark.parametrize(
    ("scaling", "named"),
    [
        ({"type": "linear"}, "factor"),
        ({"type": "linear", "factor": "4"}, "factor"),
        ({"type": "linear", "factor": 0}, "factor"),
        ({"type": "dynamic"}, "factor"),
        ({**YARN, "factor": -1.0}, "factor"),
        ({**YARN, "attention_factor": 0.0}, "attention_factor"),
        ({**YARN, "beta_fast": -3}, "beta_fast"),
        ({**YARN, "truncate": "yes"}, "truncate"),
        ({**YARN, "original_max_position_embeddings": 0}, "original_max_position_embeddings"),
        ({**YARN, "mscale": 1.0, "mscale_all_dim": -1e9}, "attention_factor"),
        ({**LONGROPE, "short_factor": SHORT[:-1]}, "short_factor must hold 32 numbers, found 31"),
        ({**LONGROPE, "short_factor": []}, "short_factor"),
        ({**LONGROPE, "short_factor": ["1"] * 32}, "short_factor"),
        ({**LONGROPE, "short_factor": [0.0] * 32}, "short_factor"),
        ({"rope_type": "longrope", "short_factor": SHORT}, "long_factor"),
    ],
)
def test_senseless_parameters_are_refused(scaling, named):
    with pytest.raises(ConfigError, match=named):
        LlamaConfig.from_hf(raw(scaling))


def test_yarn_needs_a_base_above_one():
    with pytest.raises(ConfigError, match="rope_theta above 1"):
        LlamaConfig.from_hf(raw(YARN) | {"rope_theta": 1.0})


@pytest.mark.parametrize("inside", [True, False])
def test_half_rotated_heads_are_refused(inside):
    scaling = {"type": "linear", "factor": 2.0}
    keys = raw(scaling | {"partial_rotary_factor": 0.5} if inside else scaling)
    if not inside:
        keys["partial_rotary_factor"] = 0.5
    with pytest.raises(UnsupportedModelError, match="partial_rotary_factor"):
        LlamaConfig.from_hf(keys)
