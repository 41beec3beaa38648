"""The shape of a Llama, read from Hugging Face's config.json and written back.

It knows the fields and what each may be; it refuses a key that would change the maths and is not
implemented here. It knows nothing of weights, files' tensors or runtimes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_export.errors import ConfigError, UnsupportedModelError


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's stretching of the slow rotary frequencies (`rope_type: llama3`)."""

    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192

    def __post_init__(self) -> None:
        """Refuse factors that divide by zero, or that take the fast frequencies for the slow."""
        faults = [
            f"{name} must be a positive number, found {value!r}"
            for name, value in vars(self).items()
            if not 0 < value < math.inf
        ]
        if not faults and self.low_freq_factor >= self.high_freq_factor:
            faults.append(
                f"low_freq_factor ({self.low_freq_factor}) must be below high_freq_factor "
                f"({self.high_freq_factor})"
            )
        if faults:
            message = "rope_scaling cannot be computed: " + "; ".join(faults)
            raise ConfigError(message, "correct config.json")


@dataclass(frozen=True)
class LlamaConfig:
    """The fields of config.json that the maths needs, under Hugging Face's names."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    tie_word_embeddings: bool
    bos_token_id: int
    eos_token_id: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse a shape that no Llama can have, with every fault named at once."""
        faults = [
            f"{name} must be a positive number, found {getattr(self, name)!r}"
            for name in _POSITIVE
            if not 0 < getattr(self, name) < math.inf
        ]
        if not faults and self.num_attention_heads % self.num_key_value_heads:
            faults.append(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.head_dim % 2:
            faults.append(f"head_dim must be even, found {self.head_dim}")
        for token in (self.bos_token_id, *self.eos_token_id):
            if not 0 <= token < self.vocab_size:
                faults.append(f"token id {token} is outside the vocabulary of {self.vocab_size}")
        if faults:
            message = "this is not a Llama's shape: " + "; ".join(faults)
            raise ConfigError(message, "correct config.json")

    @property
    def num_parameters(self) -> int:
        """Unique parameters: a tied table counts once."""
        query, key_value = self.num_attention_heads, self.num_key_value_heads
        attention = self.hidden_size * self.head_dim * 2 * (query + key_value)
        layer = attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size
        tables = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return tables + self.num_hidden_layers * layer + self.hidden_size

    @classmethod
    def read(cls, path: Path) -> LlamaConfig:
        """Read a config.json.

        Raises:
            ConfigError: the file is missing, is no JSON object, or a field is missing or wrong.
            UnsupportedModelError: it is another architecture or uses a feature not implemented.
        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            message = f"{path} does not exist"
            hint = "a checkpoint folder holds config.json beside its .safetensors files"
            raise ConfigError(message, hint) from None
        except (ValueError, RecursionError) as error:
            message = f"{path} is not valid JSON: {error}"
            raise ConfigError(message, "download the file again") from None
        except OSError as error:
            message = f"{path} cannot be read: {error.strerror}"
            raise ConfigError(message) from None
        if not isinstance(raw, dict):
            message = f"{path}: expected a JSON object, found {type(raw).__name__}"
            raise ConfigError(message, "download the file again")
        return cls.from_hf(raw, where=str(path))

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], where: str = "config.json") -> LlamaConfig:
        """Build from the keys of config.json.

        Raises:
            ConfigError: a field is missing or of the wrong type.
            UnsupportedModelError: a key asks for maths that is not implemented.
        """
        _refuse_other_maths(raw, where)
        field = _Fields(raw, where)
        heads = field.integer("num_attention_heads")
        hidden = field.integer("hidden_size")
        theta, scaling = _read_rope(raw, where)
        return cls(
            vocab_size=field.integer("vocab_size"),
            hidden_size=hidden,
            intermediate_size=field.integer("intermediate_size"),
            num_hidden_layers=field.integer("num_hidden_layers"),
            num_attention_heads=heads,
            num_key_value_heads=field.integer("num_key_value_heads", heads),
            head_dim=field.integer("head_dim", hidden // heads if heads > 0 else 0),
            max_position_embeddings=field.integer("max_position_embeddings"),
            rms_norm_eps=field.number("rms_norm_eps"),
            rope_theta=theta,
            rope_scaling=scaling,
            tie_word_embeddings=field.boolean("tie_word_embeddings", default=False),
            bos_token_id=field.integer("bos_token_id"),
            eos_token_id=field.token_ids("eos_token_id"),
        )

    def to_hf(self) -> dict[str, Any]:
        """Return the keys of a config.json that transformers 4 and 5 both read."""
        scaling: dict[str, Any] | None = None
        if self.rope_scaling is not None:
            scaling = {"rope_type": "llama3", **vars(self.rope_scaling)}
        eos = list(self.eos_token_id) if len(self.eos_token_id) > 1 else self.eos_token_id[0]
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": scaling,
            "tie_word_embeddings": self.tie_word_embeddings,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos,
            "torch_dtype": "bfloat16",
        }


_POSITIVE = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
)

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


def _refuse_other_maths(raw: Mapping[str, Any], where: str) -> None:
    faults = [
        f"{key} = {raw[key]!r} (only {accepted!r} is implemented)"
        for key, accepted in _ONLY_VALUE.items()
        if raw.get(key, accepted) not in (accepted, None)
    ]
    unknown = sorted(set(raw) - _HARMLESS - set(_ONLY_VALUE))
    faults += [f"{key} = {raw[key]!r} (unknown: it may change the maths)" for key in unknown]
    if faults:
        message = f"{where} describes a model that would not be computed right: " + "; ".join(
            faults
        )
        hint = "use a plain Llama 3 checkpoint; a key that changes nothing can be deleted"
        raise UnsupportedModelError(message, hint)


def _require_equal(what: str, one: object, other: object) -> None:
    if one != other:
        message = f"{what} is given twice, as {one!r} and as {other!r}"
        raise ConfigError(message, "keep the right one")


def _read_rope(raw: Mapping[str, Any], where: str) -> tuple[float, RopeScaling | None]:
    """Read both spellings: `rope_parameters` (transformers 5), or `rope_scaling` + `rope_theta`."""
    merged: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        value = raw.get(key)
        if value is not None and not isinstance(value, dict):
            message = f"{where}: {key} must be an object, found {value!r}"
            raise ConfigError(message)
        for name, new in (value or {}).items():
            _require_equal(f"{where}: {name}", merged.setdefault(name, new), new)
    theta = merged.pop("rope_theta", raw.get("rope_theta", 10000.0))
    _require_equal(f"{where}: rope_theta", raw.get("rope_theta", theta), theta)
    rope_type, old_type = merged.pop("rope_type", None), merged.pop("type", None)
    _require_equal(f"{where}: rope_type", rope_type or old_type, old_type or rope_type)
    rope_type = rope_type or old_type or "default"
    if rope_type not in ("default", "llama3"):
        message = f"{where}: rope_type {rope_type!r} is not implemented"
        raise UnsupportedModelError(message, "'default' and 'llama3' are")
    field = _Fields(merged, f"{where}: rope_scaling")
    if rope_type == "default":
        scaling = None
    else:
        scaling = RopeScaling(
            factor=field.number("factor"),
            low_freq_factor=field.number("low_freq_factor"),
            high_freq_factor=field.number("high_freq_factor"),
            original_max_position_embeddings=field.integer("original_max_position_embeddings"),
        )
    known = set(vars(scaling)) if scaling else set()
    if unknown := sorted(set(merged) - known):
        message = f"{where}: rope_scaling has keys that are not implemented: {', '.join(unknown)}"
        raise UnsupportedModelError(message, "'default' and 'llama3' scaling are implemented")
    return _Fields({"rope_theta": theta}, where).number("rope_theta"), scaling


_LARGEST_INTEGER = 2**40  # more than any shape has, and exact as a float


class _Fields:
    """Typed reads of a JSON object; the error names the file and the key."""

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        self._raw = raw
        self._where = where

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(key, "a whole number", value)
        if abs(value) > _LARGEST_INTEGER:
            raise self._wrong(key, f"at most {_LARGEST_INTEGER}", "a longer number")
        return value

    def number(self, key: str) -> float:
        value = self._get(key, None)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, "a number", value)
        if isinstance(value, int):
            return float(self.integer(key))
        return value

    def boolean(self, key: str, *, default: bool) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def token_ids(self, key: str) -> tuple[int, ...]:
        value = self._get(key, None)
        ids = value if isinstance(value, list) else [value]
        if not ids or not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
            raise self._wrong(key, "a token id or a list of them", value)
        return tuple(ids)

    def _get(self, key: str, default: object) -> object:
        value = self._raw.get(key)
        value = default if value is None else value
        if value is None:
            message = f"{self._where}: the key {key!r} is missing"
            raise ConfigError(message, "take config.json from the model's repository")
        return value

    def _wrong(self, key: str, expected: str, found: object) -> ConfigError:
        return ConfigError(f"{self._where}: {key} must be {expected}, found {found!r}")


def _preset(hidden: int, intermediate: int, layers: int, heads: int, rope: float) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=128256,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=hidden // heads,
        max_position_embeddings=131072 if rope else 8192,
        rms_norm_eps=1e-5,
        rope_theta=500000.0,
        rope_scaling=RopeScaling(factor=rope) if rope else None,
        tie_word_embeddings=rope == 32.0,
        bos_token_id=128000,
        eos_token_id=(128001, 128008, 128009) if rope else (128001, 128009),
    )


PRESETS: Mapping[str, LlamaConfig] = {
    "3.2-1B": _preset(2048, 8192, 16, 32, 32.0),
    "3.2-3B": _preset(3072, 8192, 28, 24, 32.0),
    "3.1-8B": _preset(4096, 14336, 32, 32, 8.0),
    "3-8B": _preset(4096, 14336, 32, 32, 0.0),
}
