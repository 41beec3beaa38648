"""Read params.json, Meta's description of a model, which leaves some of what matters unsaid.

It knows the keys, the values that Meta left to its program, and how that program computes the width
of the feed-forward layers. It knows no tensor and guesses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_export.errors import ConfigError, UnsupportedModelError
from llama_quantize.printable import shown_name
from llama_quantize.recipe import GROUP_SIZES
from llama_quantize.strict_json import JsonFault, read_object

INT4_SCHEME = "int4_weight_int8_dynamic_activation"
_MOST_BYTES = 2**16  # a real one has about 200
_LARGEST = 2**40
_MULTIPLE_OF = 256
_THETA, _EPS = 10000.0, 1e-5
_READ_KEYS = """
    dim n_layers n_heads n_kv_heads head_dim vocab_size hidden_dim ffn_dim_multiplier multiple_of
    norm_eps rope_theta rope_freq_base use_scaled_rope rope_scale_factor max_seq_len
    quantization_args lora_args
"""
# Of how a model is run, not of what it computes.
_HARMLESS_KEYS = "max_batch_size model_parallel_size use_kv_cache enable_dynamic_shape"
# Other models, by a key that a plain Llama's file has not.
_FOREIGN: Mapping[str, str] = {
    "moe": "a mixture of experts, such as Mixtral",
    "moe_args": "a mixture of experts, such as Llama 4",
    "vision_chunk_size": "a model of text and images, such as Llama 3.2 11B",
    "vision_num_cross_attention_layers": "a model of text and images, such as Llama 3.2 11B",
    "vision_args": "a model of text and images, such as Llama 4",
    "vision_encoder": "a model of text and images, such as Pixtral",
    "sliding_window": "a model whose attention has a window, such as Mistral 7B v0.1",
    "use_qk_norm": "a model that normalises queries and keys, such as Llama 4",
    "nope_layer_interval": "a model with layers without positions, such as Llama 4",
}
_OFF = (None, False, -1, 0)
_HINT = "take params.json from the model's own download"


@dataclass(frozen=True)
class MetaParams:
    """What params.json says.

    Args:
        dim: width of the hidden states.
        n_layers: number of layers.
        n_heads: number of query heads.
        n_kv_heads: number of heads of keys and values.
        head_dim: width of a head.
        hidden_dim: width of the feed-forward layers, given or computed.
        vocab_size: rows of the token table; None: it leaves them to the table.
        norm_eps: term of the norms.
        rope_theta: base of the rotations.
        scaled_rope: whether the slow rotations are stretched, as from Llama 3.1 on.
        rope_factor: factor of that; None: not recorded, as by Meta.
        max_seq_len: most positions; None: not recorded, as by Meta.
        group_size: number of weights that share a scale; None: the weights are floats.
        spinquant: whether the input of the feed-forward's last product is rotated.
        lora_rank: width of the side branches; 0: there are none.
        lora_scale: factor of their output.
    """

    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    hidden_dim: int
    vocab_size: int | None
    norm_eps: float
    rope_theta: float
    scaled_rope: bool
    rope_factor: float | None
    max_seq_len: int | None
    group_size: int | None = None
    spinquant: bool = False
    lora_rank: int = 0
    lora_scale: float = 0.0

    @classmethod
    def read(cls, path: Path) -> MetaParams:
        """Read a params.json.

        Raises:
            ConfigError: it is missing, damaged, or a value is missing or no number it may be.
            UnsupportedModelError: it describes another kind of model.
        """
        try:
            raw = read_object(path, most_bytes=_MOST_BYTES)
        except FileNotFoundError:
            message = f"{path} does not exist; it says what the weights beside it are"
            raise ConfigError(message, _HINT) from None
        except (OSError, JsonFault) as error:
            message = f"{path} cannot be read: {error}"
            raise ConfigError(message, _HINT) from None
        _refuse_others(raw, path)
        return _params(_Reader(raw, str(path)))


def _refuse_others(raw: Mapping[str, Any], path: Path) -> None:
    """Refuse other models by name, and keys that may change what is computed."""
    for key, kind in _FOREIGN.items():
        if raw.get(key) not in _OFF:
            message = f"{path}: the key {key!r} is of {kind}"
            raise UnsupportedModelError(message, "Llama 1 to 3.2, text alone, can be exported")
    known = {*_READ_KEYS.split(), *_HARMLESS_KEYS.split(), *_FOREIGN}
    unknown = [key for key, value in raw.items() if key not in known and value not in _OFF]
    if unknown:
        names = ", ".join(shown_name(key) for key in sorted(unknown)[:12])
        message = f"{path} has keys that may change what is computed: {names}"
        hint = "Llama 1 to 3.2 can be exported; a key that changes nothing can be deleted"
        raise UnsupportedModelError(message, hint)


class _Reader:
    """Typed reads; the error names the file and the key."""

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        self.raw = raw
        self.where = where

    def count(self, key: str, default: int | None = None) -> int:
        value = self._get(key, default)
        if type(value) is not int or not 0 < value <= _LARGEST:
            raise self._wrong(key, "a whole number above 0", value)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._get(key, default)
        if type(value) not in (int, float) or not 0 < value <= _LARGEST:
            raise self._wrong(key, "a number above 0", value)
        return float(value)

    def flag(self, key: str) -> bool:
        value = self._get(key, default=False)
        if type(value) is not bool:
            raise self._wrong(key, "true or false", value)
        return value

    def part(self, key: str) -> _Reader | None:
        value = self.raw.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._wrong(key, "an object", value)
        return _Reader(value, f"{self.where}: {key}")

    def has(self, key: str) -> bool:
        return self.raw.get(key) is not None

    def _get(self, key: str, default: object) -> Any:  # noqa: ANN401
        value = self.raw.get(key)
        value = default if value is None else value
        if value is None:
            message = f"{self.where}: the key {key!r} is missing"
            raise ConfigError(message, _HINT)
        return value

    def _wrong(self, key: str, expected: str, found: object) -> ConfigError:
        shown = shown_name(repr(found))
        message = f"{self.where}: {key} must be {expected}, found {shown}"
        return ConfigError(message, _HINT)


def _params(read: _Reader) -> MetaParams:
    dim, heads = read.count("dim"), read.count("n_heads")
    vocab_size = None if read.raw.get("vocab_size") in (None, -1) else read.count("vocab_size")
    if not read.has("head_dim") and dim % heads:
        message = f"{read.where}: dim {dim} is no multiple of n_heads {heads}"
        raise ConfigError(message, _HINT)
    group_size, spinquant = _quantization(read.part("quantization_args"))
    lora = read.part("lora_args")
    theta = "rope_freq_base" if read.has("rope_freq_base") else "rope_theta"
    return MetaParams(
        dim=dim,
        n_layers=read.count("n_layers"),
        n_heads=heads,
        n_kv_heads=read.count("n_kv_heads", heads),
        head_dim=read.count("head_dim", dim // heads),
        hidden_dim=_hidden_dim(read, dim),
        vocab_size=vocab_size,
        norm_eps=read.number("norm_eps", _EPS),
        rope_theta=read.number(theta, _THETA),
        scaled_rope=read.flag("use_scaled_rope"),
        rope_factor=read.number("rope_scale_factor") if read.has("rope_scale_factor") else None,
        max_seq_len=read.count("max_seq_len") if read.has("max_seq_len") else None,
        group_size=group_size,
        spinquant=spinquant,
        lora_rank=lora.count("rank") if lora else 0,
        lora_scale=lora.number("scale") if lora else 0.0,
    )


def _hidden_dim(read: _Reader, dim: int) -> int:
    """Compute the width of the feed-forward layers as Meta's program does, unless it is given."""
    if read.has("hidden_dim"):
        return read.count("hidden_dim")
    width = 8 * dim // 3
    if read.has("ffn_dim_multiplier"):
        width = int(read.number("ffn_dim_multiplier") * width)
    multiple = read.count("multiple_of", _MULTIPLE_OF)
    return multiple * -(-width // multiple)


def _quantization(args: _Reader | None) -> tuple[int | None, bool]:
    """Return the group size and whether it is SpinQuant; None: the weights are floats."""
    if args is None:
        return None, False
    scheme = args.raw.get("scheme")
    if scheme != INT4_SCHEME:
        message = f"{args.where}: scheme {shown_name(repr(scheme))} is not implemented"
        raise UnsupportedModelError(message, f"{INT4_SCHEME} is")
    group_size = args.count("group_size")
    if group_size not in GROUP_SIZES:
        expected = ", ".join(map(str, GROUP_SIZES))
        message = f"{args.where}: group_size {group_size} is not one of {expected}"
        raise UnsupportedModelError(message, "start from the original weights, and quantise them")
    return group_size, args.flag("spinquant")
