"""The shape of a Llama, read from Hugging Face's config.json and written back.

It knows the fields and what each may be; it refuses a key that would change the maths and is not
implemented here. It knows nothing of weights, files' tensors or runtimes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_export.errors import ConfigError, UnsupportedModelError
from llama_export.llama.config_keys import Fields, refuse_other_maths, shown
from llama_quantize.printable import shown_name
from llama_quantize.strict_json import JsonFault, read_object

# Numbers between these, their squares and their products with a position are finite in float32,
# and not zero. No model has been trained with an epsilon or a rotation beyond them.
_LEAST_NUMBER, _MOST_NUMBER = 1e-12, 1e12
_MOST_POSITIONS = 2**31 - 1  # the runtimes count them in 32 bits
# Far above every Llama (126 layers, 2^38.6 parameters), and so low that its tensors are listed in
# milliseconds: a config.json of some bytes must not keep a machine busy for hours.
_MOST_PARAMETERS = 2**40
_MOST: Mapping[str, float] = {
    "vocab_size": 2**24,
    "hidden_size": 2**20,
    "intermediate_size": 2**20,
    "num_hidden_layers": 1000,
    "num_attention_heads": 2**14,
    "num_key_value_heads": 2**14,
    "head_dim": 2**14,
    "max_position_embeddings": _MOST_POSITIONS,
    "original_max_position_embeddings": _MOST_POSITIONS,
    "rms_norm_eps": _MOST_NUMBER,
    "rope_theta": _MOST_NUMBER,
    "factor": _MOST_NUMBER,
    "low_freq_factor": _MOST_NUMBER,
    "high_freq_factor": _MOST_NUMBER,
}
_SHOWN_TOKENS = 4
_MOST_BYTES = 2**20  # a real config.json is about 1 kB


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's stretching of the slow rotary frequencies (`rope_type: llama3`)."""

    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192

    def __post_init__(self) -> None:
        """Refuse factors that divide by zero, or that take the fast frequencies for the slow."""
        faults = _beyond_bounds(vars(self))
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
        faults = _beyond_bounds(vars(self))
        if not faults and self.num_attention_heads % self.num_key_value_heads:
            faults.append(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.head_dim % 2:
            faults.append(f"head_dim must be even, found {self.head_dim}")
        if not faults and self.num_parameters > _MOST_PARAMETERS:
            faults.append(f"it has {self.num_parameters} parameters, more than {_MOST_PARAMETERS}")
        for key, tokens in (
            ("bos_token_id", (self.bos_token_id,)),
            ("eos_token_id", self.eos_token_id),
        ):
            outside = sorted({token for token in tokens if not 0 <= token < self.vocab_size})
            faults += [
                f"{key} {token} is outside the vocabulary of {self.vocab_size}"
                for token in outside[:_SHOWN_TOKENS]
            ]
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
            raw = read_object(path, most_bytes=_MOST_BYTES)
        except FileNotFoundError:
            message = f"{path} does not exist"
            hint = "a checkpoint folder holds config.json beside its .safetensors files"
            raise ConfigError(message, hint) from None
        except JsonFault as fault:
            message = f"{path} is not valid JSON: {fault}"
            raise ConfigError(message, "correct it, or download the file again") from None
        except OSError as error:
            message = f"{path} cannot be read: {error.strerror}"
            raise ConfigError(message) from None
        return cls.from_hf(raw, where=str(path))

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], where: str = "config.json") -> LlamaConfig:
        """Build from the keys of config.json.

        Raises:
            ConfigError: a field is missing or of the wrong type.
            UnsupportedModelError: a key asks for maths that is not implemented.
        """
        refuse_other_maths(raw, where)
        field = Fields(raw, where)
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


def _beyond_bounds(values: Mapping[str, Any]) -> list[str]:
    """List the fields whose number is not above zero, or beyond what any model has."""
    least = {name: 1 if isinstance(_MOST[name], int) else _LEAST_NUMBER for name in _MOST}
    return [
        f"{name} must be between {least[name]} and {_MOST[name]}, found {shown(value)}"
        for name, value in values.items()
        if name in _MOST and not least[name] <= value <= _MOST[name]
    ]


def _require_equal(what: str, one: object, other: object) -> None:
    if one != other:
        message = f"{what} is given twice, as {shown(one)} and as {shown(other)}"
        raise ConfigError(message, "keep the right one")


def _read_rope(raw: Mapping[str, Any], where: str) -> tuple[float, RopeScaling | None]:
    """Read both spellings: `rope_parameters` (transformers 5), or `rope_scaling` + `rope_theta`."""
    merged: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        value = raw.get(key)
        if value is not None and not isinstance(value, dict):
            message = f"{where}: {key} must be an object, found {shown(value)}"
            raise ConfigError(message)
        for name, new in (value or {}).items():
            _require_equal(f"{where}: {shown_name(name)}", merged.setdefault(name, new), new)
    theta = merged.pop("rope_theta", raw.get("rope_theta", 10000.0))
    _require_equal(f"{where}: rope_theta", raw.get("rope_theta", theta), theta)
    rope_type, old_type = merged.pop("rope_type", None), merged.pop("type", None)
    rope_type, old_type = rope_type or old_type, old_type or rope_type
    _require_equal(f"{where}: rope_type", rope_type, old_type)
    rope_type = "default" if rope_type is None else rope_type
    if rope_type not in ("default", "llama3"):
        message = f"{where}: rope_type {shown(rope_type)} is not implemented"
        raise UnsupportedModelError(message, "'default' and 'llama3' are")
    field = Fields(merged, f"{where}: rope_scaling")
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
        names = ", ".join(map(shown_name, unknown))
        message = f"{where}: rope_scaling has keys that are not implemented: {names}"
        raise UnsupportedModelError(message, "'default' and 'llama3' scaling are implemented")
    return Fields({"rope_theta": theta}, where).number("rope_theta"), scaling
