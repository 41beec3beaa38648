"""One layer of the eager model, every token of which attends to an artifact's own cache.

An artifact that rounds activations cannot be followed for long: one float32 sum in another order
tips an int8 code, and every later token sees the difference. So each token is computed on its own,
from the keys and values that the artifact itself had before it: what then differs began in this
very step. It knows a layer's modules; it knows no runtime.

Shapes: S tokens, E hidden_size, H query heads, K key/value heads, D head_dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llama_export.llama.attention import KeyValue
from llama_export.llama.model import LlamaDecoderLayer
from llama_export.llama.rope import rope_tables, rotate


def teacher_forced_layer(
    layer: LlamaDecoderLayer, hidden: Tensor, artifact_cache: KeyValue, inv_freq: Tensor
) -> tuple[Tensor, KeyValue]:
    """Take all tokens through a layer, each after the artifact's keys and values before it.

    Args:
        layer: layer of the model; its modules are called, so that hooks on them work.
        hidden: hidden states `[1, S, E]`.
        artifact_cache: keys and values `[K, S, D]`; a token reads the rows before its own.
        inv_freq: float32 `[D/2]`.

    Returns:
        Hidden states `[1, S, E]`, and each token's own keys and values `[1, K, S, D]`.
    """
    attention = layer.self_attn
    normed = layer.input_layernorm(hidden)
    positions = torch.arange(hidden.shape[1])
    tables = rope_tables(inv_freq, positions, attention.attention_factor)
    query = rotate(_heads(attention.q_proj(normed), attention.head_dim), *tables)
    key = rotate(_heads(attention.k_proj(normed), attention.head_dim), *tables)
    value = _heads(attention.v_proj(normed), attention.head_dim)
    mixed = _attend(query[0], (key[0], value[0]), artifact_cache)
    hidden = hidden + attention.o_proj(mixed.transpose(0, 1).flatten(1)[None])
    hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return hidden, (key, value)


def _heads(x: Tensor, head_dim: int) -> Tensor:
    """Turn `[1, S, heads * D]` into `[1, heads, S, D]`."""
    heads: Tensor = x.unflatten(-1, (-1, head_dim))
    return heads.transpose(1, 2)


def _attend(query: Tensor, own: KeyValue, artifact_cache: KeyValue) -> Tensor:
    """Attend to the artifact's rows before a token, and to the token's own: `[H, S, D]`."""
    groups = query.shape[0] // own[0].shape[0]
    key, value, past_key, past_value = (
        rows.repeat_interleave(groups, 0) for rows in (*own, *artifact_cache)
    )
    scale = query.shape[-1] ** -0.5
    scores = (query @ past_key.transpose(1, 2)) * scale
    before = torch.ones(scores.shape[1:], dtype=torch.bool).tril(-1)
    scores = scores.masked_fill(~before, -torch.inf)
    scores.diagonal(dim1=1, dim2=2).copy_((query * key).sum(-1) * scale)
    shares = scores.softmax(-1)
    self_share = shares.diagonal(dim1=1, dim2=2)[..., None].clone()
    mixed: Tensor = (shares * before) @ past_value + self_share * value
    return mixed
