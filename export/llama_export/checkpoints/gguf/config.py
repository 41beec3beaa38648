"""The shape of a model in GGUF: its metadata in config.json's words.

What has no such word and would change the maths is refused by name. It reads keys and the names
of tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from llama_export.checkpoints.gguf.files import GgufModel
from llama_export.checkpoints.gguf.metadata import Metadata
from llama_export.checkpoints.gguf.rope import ROPE_KEYS, rope_keys
from llama_export.checkpoints.gguf.vocabulary import TOKENS_KEY, begin_id, end_ids
from llama_export.errors import ConfigError, UnsupportedModelError
from llama_export.llama.config import LlamaConfig
from llama_quantize.printable import shown_name

ARCHITECTURE = "llama"
_PREFIX = f"{ARCHITECTURE}."
_READ = (
    "vocab_size",
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "tensor_data_layout",  # the rows of q and k are in Meta's order whatever it says
    *ROPE_KEYS,
)
# What a key says where it changes nothing; models of other kinds are called llama too.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "attention.sliding_window": (0,),
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "use_parallel_residual": (False,),
    "embedding_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "logit_scale": (0.0, 1.0),
    "rope.scaling.attn_factor": (1.0,),
    "rope.scaling.yarn_attn_factor": (1.0,),
    "rope.scaling.yarn_ext_factor": (1.0, -1.0),
}
_ROWS = re.compile(r"blk\.\d+\.(attn|ffn)_\w+\.bias")
_QUANTIZATION_VERSION = 2
_MOST_SHOWN = 8
_TYPE_HINTS: Mapping[str, str] = {
    "adapter": "merge it into its model first, with llama.cpp's export-lora",
    "mmproj": "name the file of the language model that lies beside it",
    "imatrix": "name the file of the model that it was made for",
}


def read_config(model: GgufModel) -> LlamaConfig:
    """Read the shape of a model.

    Raises:
        ConfigError: a key is missing or of the wrong kind.
        CheckpointError: the tokens or the rotary divisors are damaged.
        UnsupportedModelError: it is no Llama, or has what is not implemented.
    """
    metadata = Metadata(model.path, model.metadata)
    _require_llama(metadata)
    _refuse_other_maths(metadata)
    heads = metadata.integer(f"{_PREFIX}attention.head_count")
    hidden = metadata.integer(f"{_PREFIX}embedding_length")
    head_dim = metadata.integer_or_none(f"{_PREFIX}attention.key_length")
    if head_dim is None:
        head_dim = hidden // max(1, heads)
    _require_same(metadata, head_dim)
    kv_heads = metadata.integer_or_none(f"{_PREFIX}attention.head_count_kv")
    raw: dict[str, object] = {
        "model_type": "llama",
        "vocab_size": _vocab_size(metadata),
        "hidden_size": hidden,
        "intermediate_size": metadata.integer(f"{_PREFIX}feed_forward_length"),
        "num_hidden_layers": metadata.integer(f"{_PREFIX}block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": heads if kv_heads is None else kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": metadata.integer(f"{_PREFIX}context_length"),
        "rms_norm_eps": metadata.number(f"{_PREFIX}attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in model.tensors,
        "bos_token_id": begin_id(metadata),
        "eos_token_id": list(end_ids(metadata)) or None,
        **_biases(model),
        **rope_keys(model, metadata, _PREFIX, head_dim),
    }
    return LlamaConfig.from_hf(raw, where=str(model.path))


def _require_llama(metadata: Metadata) -> None:
    kind = metadata.text("general.type")
    if kind not in (None, "model"):
        message = f"{metadata.path} holds no model: its general.type is {shown_name(repr(kind))}"
        hint = _TYPE_HINTS.get(str(kind), "name the file of a model")
        raise UnsupportedModelError(message, hint)
    found = metadata.text("general.architecture")
    if found != ARCHITECTURE:
        message = (
            f"{metadata.path} is a model of the architecture {shown_name(repr(found))}, expected "
            f"{ARCHITECTURE!r}"
        )
        raise UnsupportedModelError(message, "only Llamas are exported")
    version = metadata.integer_or_none("general.quantization_version")
    if version not in (None, _QUANTIZATION_VERSION):
        message = (
            f"{metadata.path}: general.quantization_version is {version}, expected "
            f"{_QUANTIZATION_VERSION}"
        )
        raise UnsupportedModelError(message, "convert the model with another llama.cpp")


def _refuse_other_maths(metadata: Metadata) -> None:
    """Refuse each key of the model's that is not read and is not known to change nothing."""
    faults = []
    for key, value in sorted(metadata.values.items(), key=lambda item: item[0]):
        name = key.removeprefix(_PREFIX)
        if name == key or name in _READ:
            continue
        if value not in _NEUTRAL.get(name, ()):
            shown = repr(value) if isinstance(value, (bool, int, float, str)) else "a list"
            faults.append(f"{shown_name(key)} = {shown_name(shown)}")
    if faults:
        more = f" and {len(faults) - _MOST_SHOWN} more" if len(faults) > _MOST_SHOWN else ""
        message = (
            f"{metadata.path} has keys that may change what is computed and are not implemented: "
            f"{', '.join(faults[:_MOST_SHOWN])}{more}"
        )
        raise UnsupportedModelError(message, "export the model that it was converted from")


def _require_same(metadata: Metadata, head_dim: int) -> None:
    """Refuse heads of which only a part is rotated, and values of another size than keys."""
    for name in ("rope.dimension_count", "attention.value_length"):
        found = metadata.integer_or_none(f"{_PREFIX}{name}")
        if found not in (None, head_dim):
            message = f"{metadata.path}: {_PREFIX}{name} is {found}, and a head is {head_dim}"
            raise UnsupportedModelError(message, "they must be the same")


def _vocab_size(metadata: Metadata) -> int:
    size = metadata.integer_or_none(f"{_PREFIX}vocab_size")
    if size is None:
        size = metadata.length(TOKENS_KEY)
    if size is None:
        message = f"{metadata.path} says neither {_PREFIX}vocab_size nor {TOKENS_KEY}"
        raise ConfigError(message, "convert the model again, with its tokenizer")
    return size


def _biases(model: GgufModel) -> dict[str, object]:
    """Return whether the linears have biases: those of a kind have one all or none."""
    found = {match[1] for name in model.tensors if (match := _ROWS.fullmatch(name))}
    keys = {"attn": "attention_bias", "ffn": "mlp_bias"}
    return {key: kind in found for kind, key in keys.items()}
