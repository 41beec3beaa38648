"""config.json: both rope spellings, what may be absent, what is refused, and the presets."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import transformers
from artifacts.tiny import MULTI_HEAD, TINY, UNTIED

from llama_export.errors import ConfigError, UnsupportedModelError
from llama_export.llama.config import LlamaConfig, RopeScaling
from llama_export.llama.presets import PRESETS
from llama_export.llama.rope import inverse_frequencies

# As Meta's repository of Llama 3.2 1B has it (transformers 4 wrote it).
LLAMA_1B = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0",
    "use_cache": True,
    "vocab_size": 128256,
}


def new_spelling() -> dict:
    raw = {k: v for k, v in LLAMA_1B.items() if k not in ("rope_scaling", "rope_theta")}
    raw["rope_parameters"] = {**LLAMA_1B["rope_scaling"], "rope_theta": 500000.0}
    return raw


def changed(**changes) -> dict:
    raw = {**LLAMA_1B, **changes}
    return {key: value for key, value in raw.items() if value is not ...}


def test_metas_own_file_is_the_preset():
    config = LlamaConfig.from_hf(LLAMA_1B)
    assert config == replace(PRESETS["3.2-1B"], eos_token_id=(128001,))
    assert config.rope_scaling == RopeScaling(32.0, 1.0, 4.0, 8192)


def test_both_rope_spellings_mean_the_same():
    assert LlamaConfig.from_hf(new_spelling()) == LlamaConfig.from_hf(LLAMA_1B)


@pytest.mark.parametrize("absent", [..., None, {}, False])
def test_no_scaling(absent):
    config = LlamaConfig.from_hf(changed(rope_scaling=absent))
    assert config.rope_scaling is None
    assert config.rope_theta == 500000.0


def test_default_rope_type_is_no_scaling():
    parameters = {"rope_type": "default", "rope_theta": 10000.0}
    raw = changed(rope_scaling=..., rope_theta=..., rope_parameters=parameters)
    config = LlamaConfig.from_hf(raw)
    assert config.rope_scaling is None
    assert config.rope_theta == 10000.0


def test_old_key_type_is_read():
    scaling = {**LLAMA_1B["rope_scaling"], "type": "llama3"}
    del scaling["rope_type"]
    assert LlamaConfig.from_hf(changed(rope_scaling=scaling)) == LlamaConfig.from_hf(LLAMA_1B)


@pytest.mark.parametrize("rope_type", ["su", "mrope", "Llama3", 3, ["llama3"]])
def test_unknown_rope_type_is_refused(rope_type):
    scaling = {**LLAMA_1B["rope_scaling"], "rope_type": rope_type}
    with pytest.raises(UnsupportedModelError, match=r"rope_type .* is not implemented"):
        LlamaConfig.from_hf(changed(rope_scaling=scaling))


def test_left_over_rope_keys_are_passed_over():
    scaling = {**LLAMA_1B["rope_scaling"], "mscale": 2.0, "finetuned": True}
    assert LlamaConfig.from_hf(changed(rope_scaling=scaling)) == LlamaConfig.from_hf(LLAMA_1B)


def test_two_thetas_that_differ_are_refused():
    raw = {**new_spelling(), "rope_theta": 10000.0}
    with pytest.raises(ConfigError, match=r"10000\.0.*500000\.0"):
        LlamaConfig.from_hf(raw)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("factor", 0),
        ("factor", "32"),
        ("factor", float("nan")),
        ("factor", float("inf")),
        ("low_freq_factor", 4.0),  # equal to the high one: a division by zero
        ("low_freq_factor", 0.0),
        ("high_freq_factor", 0.5),
        ("original_max_position_embeddings", 0),
        ("original_max_position_embeddings", 8192.5),
    ],
)
def test_senseless_scaling_is_refused(key, value):
    with pytest.raises(ConfigError, match=key):
        LlamaConfig.from_hf(changed(rope_scaling={**LLAMA_1B["rope_scaling"], key: value}))


def test_rope_scaling_must_be_an_object():
    with pytest.raises(ConfigError, match="rope_scaling"):
        LlamaConfig.from_hf(changed(rope_scaling=[1]))


@pytest.mark.parametrize(
    ("eos", "expected"),
    [
        (128001, (128001,)),
        ([128001, 128008, 128009], (128001, 128008, 128009)),
        ([128009], (128009,)),
    ],
)
def test_eos_is_a_number_or_a_list(eos, expected):
    config = LlamaConfig.from_hf(changed(eos_token_id=eos))
    assert config.eos_token_id == expected
    assert LlamaConfig.from_hf(config.to_hf()) == config


@pytest.mark.parametrize("absent", [..., None])
def test_tokens_that_the_file_does_not_name_are_left_to_others(absent):
    config = LlamaConfig.from_hf(changed(bos_token_id=absent, eos_token_id=absent))
    assert (config.bos_token_id, config.eos_token_id) == (None, ())
    assert LlamaConfig.from_hf(config.to_hf()) == config
    assert LlamaConfig.from_hf(changed(eos_token_id=[])).eos_token_id == ()


@pytest.mark.parametrize("eos", ["x", [128001, "x"], True, 1.5, 128256, -2])
def test_wrong_eos_is_refused(eos):
    with pytest.raises(ConfigError):
        LlamaConfig.from_hf(changed(eos_token_id=eos))


def test_absent_head_dim_and_key_value_heads_follow_from_the_rest():
    config = LlamaConfig.from_hf(changed(head_dim=..., num_key_value_heads=...))
    assert config.head_dim == 64
    assert config.num_key_value_heads == 32


def test_head_dim_need_not_be_hidden_size_over_heads():
    assert LlamaConfig.from_hf(changed(head_dim=128)).head_dim == 128


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "rms_norm_eps", "bos_token_id"])
@pytest.mark.parametrize("value", ["8", True, [1], {}])
def test_wrong_fields_are_named(key, value):
    with pytest.raises(ConfigError, match=key):
        LlamaConfig.from_hf(changed(**{key: value}))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"num_key_value_heads": 5}, "multiple"),
        ({"head_dim": 63}, "even"),
        ({"num_attention_heads": 0, "head_dim": ...}, "num_attention_heads"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"rms_norm_eps": float("inf")}, "rms_norm_eps"),
        ({"rope_theta": -1.0}, "rope_theta"),
        ({"hidden_size": -2048}, "hidden_size"),
        ({"bos_token_id": 128256}, "vocabulary"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings"),
    ],
)
def test_impossible_shapes_are_refused(changes, match):
    with pytest.raises(ConfigError, match=match):
        LlamaConfig.from_hf(changed(**changes))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"\xff\xfe{}", "JSON"),
        (b"[1]", "object"),
        (b"[" * 100_000, "JSON"),
    ],
)
def test_unreadable_files(tmp_path, content, match):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=match):
        LlamaConfig.read(tmp_path / "config.json")


def test_missing_file_and_folder_in_its_place(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        LlamaConfig.read(tmp_path / "config.json")
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ConfigError, match=r"config\.json"):
        LlamaConfig.read(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("name", "parameters", "factor", "tied", "positions"),
    [
        ("3.2-1B", 1_235_814_400, 32.0, True, 131072),
        ("3.2-3B", 3_212_749_824, 32.0, True, 131072),
        ("3.1-8B", 8_030_261_248, 8.0, False, 131072),
        ("3-8B", 8_030_261_248, None, False, 8192),
    ],
)
def test_presets(name, parameters, factor, tied, positions):
    config = PRESETS[name]
    assert config.num_parameters == parameters
    assert (config.rope_scaling.factor if config.rope_scaling else None) == factor
    assert config.tie_word_embeddings is tied
    assert config.max_position_embeddings == positions
    assert config.rope_theta == 500000.0
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config.to_hf()))
    assert model.num_parameters() == parameters


@pytest.mark.parametrize("config", [*PRESETS.values(), TINY, UNTIED, MULTI_HEAD])
def test_round_trip_through_transformers(tmp_path, config):
    theirs = transformers.LlamaConfig(**config.to_hf())
    theirs.save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    assert "rope_parameters" in raw or "rope_scaling" in raw
    assert LlamaConfig.read(tmp_path / "config.json") == config
    rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(theirs)
    torch.testing.assert_close(rotary.inv_freq, inverse_frequencies(config), rtol=1e-6, atol=0)


def test_frequencies_differ_without_scaling():
    """The twin of the comparison above: it would notice a scaling that got lost."""
    config = PRESETS["3.2-1B"]
    lost = replace(config, rope_scaling=None)
    assert not torch.allclose(inverse_frequencies(config), inverse_frequencies(lost), rtol=1e-3)


def test_round_trip_through_our_own_file(tmp_path):
    for name, config in PRESETS.items():
        (tmp_path / name).write_text(json.dumps(config.to_hf()))
        assert LlamaConfig.read(tmp_path / name) == config
