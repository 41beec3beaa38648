"""Keys of config.json by their kind: computed, passed over, or refused; transformers' defaults."""

from __future__ import annotations

from dataclasses import replace

import pytest
import transformers
from artifacts.tiny import TINY

from llama_export.errors import ConfigError, UnsupportedModelError
from llama_export.llama.config import LlamaConfig

PLAIN = TINY.to_hf()
# What public fine-tunes, old conversions and training programs leave in a config.json.
HARMLESS = {
    "a_key_of_tomorrow": 1,
    "attention_dropout": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "auto_map": {"AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM"},
    "begin_suppress_tokens": None,
    "chunk_size_feed_forward": 0,
    "do_sample": True,
    "ffn_dim_multiplier": 1.3,
    "final_logit_softcapping": None,
    "hidden_dropout": 0.1,
    "is_llama_config": True,
    "layer_types": ["full_attention", "full_attention"],
    "logit_scale": 1.0,
    "max_length": 4096,
    "max_sequence_length": 2048,
    "max_window_layers": 28,
    "mlp_layer_types": ["dense", "dense"],
    "no_rope_layers": [1, 1],
    "num_experts": 0,
    "num_local_experts": None,
    "pad_token_id": -1,
    "position_embedding_type": "rope",
    "pretraining_tp": 2,
    "pruned_heads": {},
    "qk_norm": False,
    "quantization_config": {"quant_method": "gptq"},  # the checkpoint's business
    "residual_multiplier": 1,
    "rope_interleaved": False,
    "rotary_pct": 1.0,
    "sliding_window": None,
    "temperature": 0.6,
    "tokenizer_class": "LlamaTokenizer",
    "use_rope": True,
    "use_sliding_window": False,
    "_attn_implementation": "flash_attention_2",
}
OTHER_MATHS = {
    "activation_function": "gelu",
    "alibi": True,
    "attention_chunk_size": 8192,
    "attention_multiplier": 0.0078125,
    "attn_temperature_tuning": True,
    "clip_qkv": 8.0,
    "embedding_multiplier": 12.0,
    "final_logit_softcapping": 30.0,
    "hidden_act": "gelu",
    "kv_lora_rank": 512,
    "layer_types": ["full_attention", "sliding_attention"],
    "logit_scale": 0.0625,
    "logits_scaling": 8.0,
    "moe_intermediate_size": 512,
    "no_rope_layer_interval": 4,
    "no_rope_layers": [1, 0],
    "norm_type": "layernorm",
    "num_experts_per_tok": 2,
    "num_local_experts": 8,
    "partial_rotary_factor": 0.5,
    "per_layer_config": {"0": {"intermediate_size": 512}},
    "position_embedding_type": "learned",
    "pruned_heads": {"0": [1]},
    "qk_norm": True,
    "query_pre_attn_scalar": 256,
    "residual_multiplier": 0.22,
    "rope_interleaved": True,
    "scale_emb": 12,
    "sliding_window": 4096,
    "use_parallel_residual": True,
    "use_qk_norm": True,
    "use_rope": False,
}


@pytest.mark.parametrize("key", sorted(HARMLESS))
def test_what_changes_nothing_is_passed_over(key):
    assert LlamaConfig.from_hf({**PLAIN, key: HARMLESS[key]}) == TINY


def test_harmless_keys_are_those_that_transformers_computes_alike():
    taken = {**PLAIN, **HARMLESS}
    del taken["quantization_config"]
    theirs = transformers.LlamaConfig(**taken)
    assert theirs.head_dim == TINY.head_dim
    assert theirs.rope_parameters["rope_type"] == "llama3"


@pytest.mark.parametrize("key", sorted(OTHER_MATHS))
def test_what_changes_the_maths_is_refused(key):
    with pytest.raises(UnsupportedModelError, match=key):
        LlamaConfig.from_hf({**PLAIN, key: OTHER_MATHS[key]})


def test_all_refused_keys_are_named_at_once():
    with pytest.raises(UnsupportedModelError, match=r"(?s)alibi.*logit_scale"):
        LlamaConfig.from_hf({**PLAIN, "alibi": True, "logit_scale": 2})
    many = {f"num_experts_{number}": 8 for number in range(30)}
    with pytest.raises(UnsupportedModelError, match="and 18 more"):
        LlamaConfig.from_hf(PLAIN | many)


@pytest.mark.parametrize(
    "beside", [{"use_sliding_window": False}, {"max_position_embeddings": 4096}]
)
def test_a_window_that_no_text_reaches_changes_nothing(beside):
    raw = {**PLAIN, "sliding_window": 4096}
    assert LlamaConfig.from_hf(raw | beside)
    with pytest.raises(UnsupportedModelError, match="sliding_window"):
        LlamaConfig.from_hf(raw | {"max_position_embeddings": 4097})


def without(*keys: str) -> dict[str, object]:
    return {key: value for key, value in PLAIN.items() if key not in keys}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "mistral"}, "model_type = 'mistral'"),
        ({"model_type": "mistral", "architectures": ["LlamaForCausalLM"]}, "mistral"),
        ({"model_type": None, "architectures": ["MistralForCausalLM"]}, "architectures"),
        ({"model_type": None, "architectures": []}, "neither"),
        ({"model_type": None, "architectures": [3]}, "architectures"),
        ({"model_type": None, "architectures": "LlamaForCausalLM"}, "neither"),
    ],
)
def test_another_architecture_is_refused(changes, named):
    with pytest.raises(UnsupportedModelError, match=named):
        LlamaConfig.from_hf(PLAIN | changes)


def test_the_architecture_is_a_llamas_by_either_key():
    assert LlamaConfig.from_hf(without("model_type")) == TINY
    assert LlamaConfig.from_hf(without("architectures")) == TINY
    with pytest.raises(UnsupportedModelError, match="neither"):
        LlamaConfig.from_hf(without("model_type", "architectures"))


def test_absent_keys_have_the_defaults_of_transformers():
    ours, theirs = LlamaConfig.from_hf({"model_type": "llama"}), transformers.LlamaConfig()
    kept = set(vars(ours)) - {"rope_theta", "rope_scaling", "bos_token_id", "eos_token_id"}
    assert {key: getattr(theirs, key) for key in kept if hasattr(theirs, key)} == {
        key: getattr(ours, key) for key in kept if hasattr(theirs, key)
    }
    assert ours.rope_theta == theirs.rope_parameters["rope_theta"]


def test_swish_is_silu_and_whole_numbers_may_have_a_point():
    scaling = {**PLAIN["rope_scaling"], "original_max_position_embeddings": 8192.0}
    raw = {**PLAIN, "hidden_act": "swish", "hidden_size": 128.0, "rope_scaling": scaling}
    assert LlamaConfig.from_hf(raw) == TINY
    with pytest.raises(ConfigError, match="hidden_size"):
        LlamaConfig.from_hf({**PLAIN, "hidden_size": 128.5})


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"model_type": "mistral", "sliding_window": None}, "set model_type to 'llama'"),
        ({"model_type": "mistral", "sliding_window": 2**20}, "set model_type to 'llama'"),
        ({"model_type": "mistral"}, "a window of tokens"),
        ({"model_type": "mistral", "sliding_window": None, "alibi": True}, "a plain Llama"),
        ({"model_type": "llava", "text_config": {}}, "language model alone"),
        ({"model_type": "qwen2"}, "a plain Llama"),
    ],
)
def test_what_to_do_with_another_architecture(changes, hint):
    with pytest.raises(UnsupportedModelError) as caught:
        LlamaConfig.from_hf(PLAIN | changes)
    assert hint in caught.value.hint


def test_a_token_of_minus_one_is_none():
    found = LlamaConfig.from_hf({**PLAIN, "bos_token_id": -1, "eos_token_id": [-1, 3]})
    assert (found.bos_token_id, found.eos_token_id) == (None, (3,))
    assert LlamaConfig.from_hf({**PLAIN, "eos_token_id": -1}).eos_token_id == ()


def test_eos_may_be_many():
    many = replace(TINY, eos_token_id=(1, 2, 3))
    assert LlamaConfig.from_hf({**PLAIN, "eos_token_id": [1, 2, 3]}) == many
