"""The shape of a Llama, read from Hugging Face's config.json and written back.

It knows the fields and what each may be; it refuses a key that would change the maths and is not
implemented here. It knows nothing of weights, files' tensors or runtimes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_export.errors import ConfigError
from llama_export.llama.config_bounds import MOST_PARAMETERS, beyond_bounds, head_faults
from llama_export.llama.config_keys import Fields, refuse_other_maths, shown
from llama_export.llama.own_keys import PLAIN_ARCHITECTURE, read_own_keys, with_own_keys
from llama_export.llama.rope_scaling import (
    AnyScaling,
    LongRopeScaling,
    RopeScaling,
    read_rope,
    scaling_keys,
)
from llama_quantize.strict_json import JsonFault, read_object

__all__ = ["LlamaConfig", "RopeScaling", "read_keys"]

_SHOWN_TOKENS = 4
_MOST_RANK, _MOST_SCALE = 2**20, 1e12
_MOST_BYTES = 2**20  # a real config.json is about 1 kB


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
    rope_scaling: AnyScaling | None
    tie_word_embeddings: bool
    bos_token_id: int | None
    eos_token_id: tuple[int, ...]
    attention_bias: bool = False
    mlp_bias: bool = False
    # SpinQuant's R4: down_proj takes its input multiplied by Hadamard's matrix.
    down_proj_rotation: bool = False
    # QLoRA: every linear of the blocks has a side branch of this rank; 0: none has.
    adaptor_rank: int = 0
    adaptor_scale: float = 0.0
    # Ids whose rows the head keeps, ascending: logit i is that of head_tokens[i]. Empty: of id i.
    head_tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a shape that no Llama can have, with every fault named at once."""
        faults = beyond_bounds(vars(self))
        if not faults and self.num_attention_heads % self.num_key_value_heads:
            faults.append(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.head_dim % 2:
            faults.append(f"head_dim must be even, found {self.head_dim}")
        if isinstance(self.rope_scaling, LongRopeScaling):
            held = len(self.rope_scaling.short_factor)
            if held != self.head_dim // 2:
                faults.append(f"short_factor must hold {self.head_dim // 2} numbers, found {held}")
        if not faults and self.num_parameters > MOST_PARAMETERS:
            faults.append(f"it has {self.num_parameters} parameters, more than {MOST_PARAMETERS}")
        faults += self._faults_beside()
        for key, tokens in (
            ("bos_token_id", () if self.bos_token_id is None else (self.bos_token_id,)),
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

    def _faults_beside(self) -> list[str]:
        """List what is wrong with the rotation, the adaptors and the pruned head."""
        width, rank, scale = self.intermediate_size, self.adaptor_rank, self.adaptor_scale
        faults = []
        if self.down_proj_rotation and width & (width - 1):
            faults.append(f"down_proj_rotation wants a power of two, intermediate_size is {width}")
        if not 0 <= rank <= _MOST_RANK or not 0 <= scale <= _MOST_SCALE:
            faults.append(f"adaptors of rank {rank} and scale {shown(scale)}")
        elif bool(rank) != bool(scale):
            faults.append(f"adaptors of rank {rank} need a scale, found {shown(scale)}")
        return faults + head_faults(self.head_tokens, self.vocab_size, self.tie_word_embeddings)

    @property
    def num_logits(self) -> int:
        """Rows of the head: all tokens, or those that were kept."""
        return len(self.head_tokens) or self.vocab_size

    @property
    def num_parameters(self) -> int:
        """Unique parameters: a tied table counts once."""
        query, key_value = self.num_attention_heads, self.num_key_value_heads
        attention = self.hidden_size * self.head_dim * 2 * (query + key_value)
        layer = attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size
        head = 0 if self.tie_word_embeddings else self.num_logits
        tables = (self.vocab_size + head) * self.hidden_size
        layer += self._parameters_beside
        return tables + self.num_hidden_layers * layer + self.hidden_size

    @property
    def attention_factor(self) -> float:
        """Return what cosines and sines are multiplied with; 1 for most."""
        return 1.0 if self.rope_scaling is None else self.rope_scaling.attention_factor

    @property
    def longest_context(self) -> int:
        """Return how many positions the model knows by one set of rotary frequencies."""
        if isinstance(self.rope_scaling, LongRopeScaling):
            original = self.rope_scaling.original_max_position_embeddings
            return min(original, self.max_position_embeddings)
        return self.max_position_embeddings

    @property
    def rotation_orders(self) -> tuple[int, int]:
        """Orders a <= b whose product is that of the rotation: 64 and 128 for a width of 8192.

        The rotation is the Kronecker product of theirs, so that two small products compute it.
        """
        bits = self.intermediate_size.bit_length() - 1
        return 1 << bits // 2, 1 << (bits - bits // 2)

    @property
    def _parameters_beside(self) -> int:
        """Parameters of a layer's biases and adaptors."""
        hidden, inner = self.hidden_size, self.intermediate_size
        query, key_value = (
            heads * self.head_dim for heads in (self.num_attention_heads, self.num_key_value_heads)
        )
        attention, mlp = query + 2 * key_value + hidden, 2 * inner + hidden
        columns = 3 * hidden + query + 2 * hidden + inner
        adaptors = self.adaptor_rank * (attention + mlp + columns)
        return adaptors + attention * self.attention_bias + mlp * self.mlp_bias

    @classmethod
    def read(cls, path: Path) -> LlamaConfig:
        """Read a config.json.

        Raises:
            ConfigError: the file is missing, is no JSON object, or a field is missing or wrong.
            UnsupportedModelError: it is another architecture or uses a feature not implemented.
        """
        return cls.from_hf(read_keys(path), where=str(path))

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], where: str = "config.json") -> LlamaConfig:
        """Build from the keys of config.json; one that is absent has transformers' default.

        How weights are quantised (`quantization_config`) is the checkpoint's business, not the
        shape's, and is passed over.

        Raises:
            ConfigError: a field is of the wrong type, or no Llama's.
            UnsupportedModelError: a key asks for maths that is not implemented.
        """
        refuse_other_maths(raw, where)
        field = Fields(raw, where)
        heads = field.integer("num_attention_heads", 32)
        hidden = field.integer("hidden_size", 4096)
        positions = field.integer("max_position_embeddings", 2048)
        theta, scaling = read_rope(raw, positions, where)
        return cls(
            vocab_size=field.integer("vocab_size", 32000),
            hidden_size=hidden,
            intermediate_size=field.integer("intermediate_size", 11008),
            num_hidden_layers=field.integer("num_hidden_layers", 32),
            num_attention_heads=heads,
            num_key_value_heads=field.integer("num_key_value_heads", heads),
            head_dim=field.integer("head_dim", hidden // heads if heads > 0 else 0),
            max_position_embeddings=positions,
            rms_norm_eps=field.number("rms_norm_eps", 1e-6),
            rope_theta=theta,
            rope_scaling=scaling,
            tie_word_embeddings=field.boolean("tie_word_embeddings", default=False),
            bos_token_id=field.token_id("bos_token_id"),
            eos_token_id=field.token_ids("eos_token_id"),
            attention_bias=field.boolean("attention_bias", default=False),
            mlp_bias=field.boolean("mlp_bias", default=False),
            **read_own_keys(raw, where),
        )

    def to_hf(self) -> dict[str, Any]:
        """Return the keys of a config.json that transformers 4 and 5 both read."""
        scaling = None if self.rope_scaling is None else scaling_keys(self.rope_scaling)
        eos = self.eos_token_id
        keys = {
            "architectures": [PLAIN_ARCHITECTURE],
            "model_type": "llama",
            "hidden_act": "silu",
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
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
            "eos_token_id": list(eos) if len(eos) > 1 else eos[0] if eos else None,
            "torch_dtype": "bfloat16",
        }
        return with_own_keys(keys, self)


def read_keys(path: Path) -> dict[str, Any]:
    """Read the keys of a config.json, none of which is judged here.

    Raises:
        ConfigError: the file is missing, or is no JSON object.
    """
    try:
        return read_object(path, most_bytes=_MOST_BYTES)
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
