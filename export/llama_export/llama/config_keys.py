"""The keys of config.json: which would change the maths, and typed reads of those that are read.

It knows no shape and no limit; it is data about Hugging Face's file, and how its values are named
in an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llama_export.errors import ConfigError, UnsupportedModelError
from llama_quantize.printable import shown_name

_LARGEST_INTEGER = 2**40  # more than any shape has, and exact as a float
MOST_TOKEN_IDS = 256
_NO_TOKEN = -1  # what some tools write for a token that a model does not have
_SHOWN_KEYS = 12

# Keys that are read, or that no Llama's forward pass depends on, though a word in them says so.
_HARMLESS_KEYS = """
    attention_dropout attention_probs_dropout_prob chunk_size_feed_forward
    embedding_dropout ffn_dim_multiplier hidden_act model_type num_attention_heads num_hidden_layers
    num_key_value_heads output_attentions output_router_logits max_window_layers
    moe_loss_coef router_aux_loss_coef rope_scaling quantization_config torchscript
"""
_HARMLESS = frozenset(_HARMLESS_KEYS.split())

# Words that stand in the names of keys which change the maths of other models, by what they mean.
# Any other key is passed over, as transformers' LlamaConfig does.
_OTHER_MATHS = re.compile(
    "|".join(
        (
            r"expert|(^|_)moe(_|$)|mixture",  # a choice of feed-forward layers
            r"window|attention_chunk|(^|_)chunk_size|attention_sink|sparse_att",  # less is seen
            r"(^|_)(qk|q|k|kv)_?(layer)?norm(_|$)|query_norm|key_norm|clip_qkv",  # before attention
            r"softcap|multiplier|(^|_)mup(_|$)|scalar|temperature_tuning",  # scales beside norms
            r"(logits?|embed|embeddings?|emb|att|attn|attention|residual|depth|width|query)_scal",
            r"scale_(emb|depth|logits?|attn|width)|dim_model_base|normalize_embed",
            r"no_rope|(^|_)nope|alibi|rope_interleave|position_embedding_type|use_rope|use_rotary",
            r"partial_rotary|rotary_(dim|pct|percent)|rope_local|rope_ratio",
            r"layers?_types?$|layers_block_type|block_configs|per_layer|pattern$",  # unequal layers
            r"norm_type|normalization|(^|_)post_norm|sandwich|unit_offset|parallel_(residual|att)",
            r"mlp_type|hidden_activation|activation_function|glu_limit|gated_(att|mlp)",
            r"(q|kv|o)_lora_rank|(qk_rope|qk_nope|v)_head_dim|kv_shared|cross_layer|cla_share",
            r"pruned_heads|ssm|mamba|conv_(kernel|L_cache)|recurrent",
        )
    )
)
# Values by which such a key says: not here.
_NEUTRAL: tuple[object, ...] = (None, False, 0, 1, "", [], {})
# Values that a Llama's own layers have under such a key.
_OWN_WORDS = re.compile(
    r"full_attention|attention|dense|rope|rotary|rms_?norm|rms|silu|swish|default|", re.IGNORECASE
)
# Of these a Llama has the true ones.
_USED = re.compile(r"use_(rope|rotary\w*)")
_MISTRALS_WINDOW = 4096  # where a config.json does not say it
_ACTIVATIONS = ("silu", "swish")
_ARCHITECTURE = re.compile(r"Llama\w*")


def shown(value: object) -> str:
    """Render a value of the file in one short line."""
    return shown_name(repr(value))


def refuse_other_maths(raw: Mapping[str, Any], where: str) -> None:
    """Refuse another model, and keys that would change a forward pass, all of them at once.

    Args:
        raw: keys of config.json.
        where: name of the file, for messages.

    Raises:
        UnsupportedModelError: it is not a Llama, or there is such a key.
    """
    faults = [*_other_model(raw), *_other_activation(raw)]
    found = [key for key in raw if _changes_maths(key, raw)]
    faults += [f"{shown_name(key)} = {shown(raw[key])}" for key in sorted(found)[:_SHOWN_KEYS]]
    if len(found) > _SHOWN_KEYS:
        faults.append(f"and {len(found) - _SHOWN_KEYS} more such keys")
    if faults:
        listed = "; ".join(faults)
        message = f"{where} describes a model that would not be computed right: {listed}"
        hint = _hint(raw, len(faults))
        raise UnsupportedModelError(message, hint)


def _hint(raw: Mapping[str, Any], faults: int) -> str:
    """Return what to do with a config that is not a Llama's."""
    if "text_config" in raw or "vision_config" in raw:
        return "save its language model alone, with a config.json of its own, if that is a Llama"
    window = raw.get("sliding_window", _MISTRALS_WINDOW)
    if raw.get("model_type") == "mistral" and faults == 1:
        if window is None or _never_reached(window, raw):
            return "a Mistral without a window is computed as a Llama: set model_type to 'llama'"
        return "it looks back over a window of tokens, which no Llama does: use a Llama checkpoint"
    return "use a plain Llama checkpoint; a key that changes nothing can be deleted"


def _other_model(raw: Mapping[str, Any]) -> list[str]:
    """Find another architecture; `model_type` decides, as it does in transformers."""
    if (model_type := raw.get("model_type")) is not None:
        if model_type == "llama":
            return []
        return [f"model_type = {shown(model_type)} (only 'llama' is implemented)"]
    named = raw.get("architectures")
    if not isinstance(named, list) or not named:
        return ["it names neither a model_type nor architectures (a Llama's is 'llama')"]
    if all(isinstance(name, str) and _ARCHITECTURE.fullmatch(name) for name in named):
        return []
    return [f"architectures = {shown(named)} (only 'LlamaForCausalLM' is implemented)"]


def _other_activation(raw: Mapping[str, Any]) -> list[str]:
    value = raw.get("hidden_act", "silu")
    return [] if value in _ACTIVATIONS else [f"hidden_act = {shown(value)} (only 'silu' is)"]


def _changes_maths(key: str, raw: Mapping[str, Any]) -> bool:
    """Judge a key by the words of its name and by its value."""
    value = raw[key]
    if key in _HARMLESS or not _OTHER_MATHS.search(key):
        return False
    if _USED.fullmatch(key):
        return value not in (None, True)
    if "window" in key and (raw.get("use_sliding_window") is False or _never_reached(value, raw)):
        return False
    if key in ("no_rope_layers", "no_rope_layer"):  # 1: the layer has one
        return isinstance(value, list) and not all(each == 1 for each in value)
    return not _is_neutral(value)


def _is_neutral(value: object) -> bool:
    if isinstance(value, str):
        return _OWN_WORDS.fullmatch(value) is not None
    if isinstance(value, list) and value:
        return all(isinstance(each, str) and _OWN_WORDS.fullmatch(each) for each in value)
    return value is not True and value in _NEUTRAL


def _never_reached(value: object, raw: Mapping[str, Any]) -> bool:
    """Whether a window is as long as the longest text."""
    longest = raw.get("max_position_embeddings", 2048)
    numbers = isinstance(value, int | float) and isinstance(longest, int | float)
    return numbers and not isinstance(value, bool) and value >= longest


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
        """Read a whole number, which may be written as 8192.0."""
        value = self._get(key, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(key, "a whole number", value)
        if abs(value) > _LARGEST_INTEGER:
            raise self._wrong(key, f"at most {_LARGEST_INTEGER}", value)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Read a number, whole or not."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, "a number", value)
        if abs(value) > _LARGEST_INTEGER and isinstance(value, int):
            raise self._wrong(key, f"at most {_LARGEST_INTEGER}", value)
        return float(value)

    def numbers(self, key: str, most: int) -> tuple[float, ...]:
        """Read a list of at least one and at most `most` numbers."""
        value = self._get(key, None)
        if not isinstance(value, list) or not 0 < len(value) <= most:
            raise self._wrong(key, f"a list of at most {most} numbers", value)
        return tuple(Fields({key: each}, self._where).number(key) for each in value)

    def boolean(self, key: str, *, default: bool) -> bool:
        """Read true or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def token_id(self, key: str) -> int | None:
        """Read one token id; absent, null or -1: None."""
        return None if self._raw.get(key) in (None, _NO_TOKEN) else self.integer(key)

    def token_ids(self, key: str) -> tuple[int, ...]:
        """Read one token id, or a list of them; absent, null or -1: none."""
        value = self._raw.get(key)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
            raise self._wrong(key, "a token id or a list of them", value)
        if len(ids) > MOST_TOKEN_IDS:
            raise self._wrong(key, f"at most {MOST_TOKEN_IDS} token ids", value)
        return tuple(each for each in ids if each != _NO_TOKEN)

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
