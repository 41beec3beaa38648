"""The keys of config.json: which are known, which would change the maths, and typed reads of them.

It knows no shape and no limit; it is data about Hugging Face's file, and how its values are named
in an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_export.errors import ConfigError, UnsupportedModelError
from llama_quantize.printable import shown_name

_LARGEST_INTEGER = 2**40  # more than any shape has, and exact as a float
_MOST_TOKEN_IDS = 256
_SHOWN_KEYS = 12

# Keys whose one accepted value means "as in Llama 3"; any other value changes the maths.
_ONLY_VALUE: dict[str, object] = {
    "model_type": "llama",
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0.0,
    "quantization_config": None,
    "sliding_window": None,
    "partial_rotary_factor": 1.0,
}

# Keys that are read, or that do not change a forward pass.
_HARMLESS_KEYS = """
    architectures bos_token_id eos_token_id pad_token_id vocab_size hidden_size intermediate_size
    num_hidden_layers num_attention_heads num_key_value_heads head_dim max_position_embeddings
    rms_norm_eps rope_theta rope_scaling rope_parameters tie_word_embeddings
    initializer_range pretraining_tp use_cache torch_dtype dtype transformers_version
    _name_or_path name_or_path return_dict output_attentions output_hidden_states torchscript
    is_decoder is_encoder_decoder add_cross_attention chunk_size_feed_forward id2label label2id
    problem_type task_specific_params finetuning_task use_bfloat16 _attn_implementation_autoset
    transformers.js_config unsloth_fixed unsloth_version
"""
_HARMLESS = frozenset(_HARMLESS_KEYS.split())


def shown(value: object) -> str:
    """Render a value of the file in one short line."""
    return shown_name(repr(value))


def refuse_other_maths(raw: Mapping[str, Any], where: str) -> None:
    """Refuse keys and values that would change a forward pass, all of them at once.

    Args:
        raw: keys of config.json.
        where: name of the file, for messages.

    Raises:
        UnsupportedModelError: there is such a key.
    """
    faults = [
        f"{key} = {shown(raw[key])} (only {accepted!r} is implemented)"
        for key, accepted in _ONLY_VALUE.items()
        if raw.get(key, accepted) not in (accepted, None)
    ]
    unknown = sorted(set(raw) - _HARMLESS - set(_ONLY_VALUE))
    faults += [
        f"{shown_name(key)} = {shown(raw[key])} (unknown: it may change the maths)"
        for key in unknown[:_SHOWN_KEYS]
    ]
    if len(unknown) > _SHOWN_KEYS:
        faults.append(f"and {len(unknown) - _SHOWN_KEYS} more unknown keys")
    if faults:
        listed = "; ".join(faults)
        message = f"{where} describes a model that would not be computed right: {listed}"
        hint = "use a plain Llama 3 checkpoint; a key that changes nothing can be deleted"
        raise UnsupportedModelError(message, hint)


class Fields:
    """Typed reads of a JSON object; the error names the file and the key.

    Args:
        raw: parsed object.
        where: name of the file and of the object in it, for messages.

    Raises:
        ConfigError: from each read, where the key is missing or its value is of another type.
    """

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        self._raw = raw
        self._where = where

    def integer(self, key: str, default: int | None = None) -> int:
        """Read a whole number."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(key, "a whole number", value)
        if abs(value) > _LARGEST_INTEGER:
            raise self._wrong(key, f"at most {_LARGEST_INTEGER}", value)
        return value

    def number(self, key: str) -> float:
        """Read a number, whole or not."""
        value = self._get(key, None)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, "a number", value)
        return float(self.integer(key)) if isinstance(value, int) else value

    def boolean(self, key: str, *, default: bool) -> bool:
        """Read true or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def token_ids(self, key: str) -> tuple[int, ...]:
        """Read one token id, or a list of them."""
        value = self._get(key, None)
        ids = value if isinstance(value, list) else [value]
        if not ids or not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
            raise self._wrong(key, "a token id or a list of them", value)
        if len(ids) > _MOST_TOKEN_IDS:
            raise self._wrong(key, f"at most {_MOST_TOKEN_IDS} token ids", value)
        return tuple(ids)

    def _get(self, key: str, default: object) -> object:
        value = self._raw.get(key)
        value = default if value is None else value
        if value is None:
            message = f"{self._where}: the key {key!r} is missing"
            raise ConfigError(message, "take config.json from the model's repository")
        return value

    def _wrong(self, key: str, expected: str, found: object) -> ConfigError:
        message = f"{self._where}: {key} must be {expected}, found {shown(found)}"
        return ConfigError(message, "correct config.json")
