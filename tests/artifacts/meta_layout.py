"""Checkpoints in Meta's own layout, written from Hugging Face's by an inverse of our own.

Meta publishes no writer. Names, permutation and splits are written down here a second time, so that
a fault in the reader is not repeated.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from llama_export.llama.config import LlamaConfig

RENAMED = {
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}
ROWS = ("wq", "wk", "wv", "w1", "w3", "output")
COLUMNS = ("wo", "w2")


def to_pairs(weight: Tensor, heads: int) -> Tensor:
    """Put the rows of `[heads * width, ...]` into Meta's order."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2).contiguous()


def meta_name(name: str) -> str:
    """Return what Meta calls one of Hugging Face's tensors."""
    name = name.removeprefix("model.").replace("embed_tokens", "tok_embeddings")
    for theirs, metas in RENAMED.items():
        name = name.replace(theirs, metas)
    return name.replace("lm_head", "output")


def meta_state(state: Mapping[str, Tensor], config: LlamaConfig) -> dict[str, Tensor]:
    """Rename a model's tensors and put queries and keys into Meta's order; a tied head shares."""
    found = {}
    for name, weight in state.items():
        if ".q_proj." in name and "adaptor.A" not in name:
            weight = to_pairs(weight, config.num_attention_heads)
        elif ".k_proj." in name and "adaptor.A" not in name:
            weight = to_pairs(weight, config.num_key_value_heads)
        found[meta_name(name)] = weight
    if config.tie_word_embeddings:
        found["output.weight"] = found["tok_embeddings.weight"]
    return found


def meta_params(config: LlamaConfig, **others: object) -> dict[str, object]:
    """Return the keys of params.json."""
    params = {
        "dim": config.hidden_size,
        "n_layers": config.num_hidden_layers,
        "n_heads": config.num_attention_heads,
        "n_kv_heads": config.num_key_value_heads,
        "vocab_size": config.vocab_size,
        "ffn_dim_multiplier": config.intermediate_size / (8 * config.hidden_size // 3),
        "multiple_of": 32,
        "norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
    }
    if config.head_dim != config.hidden_size // config.num_attention_heads:
        params["head_dim"] = config.head_dim
    if config.rope_scaling is not None:
        params["use_scaled_rope"] = True
    return params | others


def split(state: Mapping[str, Tensor], shards: int, table_dim: int = 0) -> list[dict[str, Tensor]]:
    """Split tensors as Meta's model parallel training does."""
    parts: list[dict[str, Tensor]] = [{} for _ in range(shards)]
    for name, weight in state.items():
        stem = name.split(".adaptor")[0].removesuffix(".weight").removesuffix(".scales")
        stem = stem.rsplit(".", 1)[-1]
        dim = None
        if stem == "tok_embeddings":
            dim = None if table_dim and name.endswith("scales") else table_dim
        elif stem in ROWS:
            dim = None if ".adaptor.A" in name else 0
        elif stem in COLUMNS:
            dim = None if ".adaptor.B" in name else 1
        for number in range(shards):
            piece = weight if dim is None else weight.chunk(shards, dim)[number]
            # torch.save keeps the whole storage of a view.
            parts[number][name] = piece.clone() if shards > 1 else weight
    return parts


def write_meta(
    folder: Path,
    state: Mapping[str, Tensor],
    params: Mapping[str, object],
    tokenizer: Path,
    shards: int = 1,
    table_dim: int = 0,
) -> Path:
    """Write params.json, consolidated.NN.pth and tokenizer.model."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(split(state, shards, table_dim)):
        torch.save(part, folder / f"consolidated.{number:02}.pth")
    (folder / "params.json").write_text(json.dumps(params))
    shutil.copyfile(tokenizer, folder / "tokenizer.model")
    return folder


def from_hugging_face(
    source: Path, folder: Path, shards: int = 1, table_dim: int = 0, **params: object
) -> Path:
    """Write a folder in Meta's layout from one in Hugging Face's."""
    config = LlamaConfig.read(source / "config.json")
    state = meta_state(load_file(source / "model.safetensors"), config)
    described = meta_params(config, **params)
    return write_meta(folder, state, described, source / "tokenizer.model", shards, table_dim)
