"""Attention with its rotary embedding and cache update, as one operator.

Every runtime has its own fused form of this, so the trace keeps it whole. `attention` runs the
reference in eager mode and leaves one `llama_export::attention` node in an exported graph. It
knows nothing of layers, weights or runtimes.

Shapes: B batch, S query length, C cache capacity, H query heads, K key/value heads, D head_dim.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from llama_export.llama.rope import rope_tables, rotate

KeyValue = tuple[Tensor, Tensor]


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past: KeyValue,
    position: Tensor,
    inv_freq: Tensor,
    attention_factor: float = 1.0,
) -> tuple[Tensor, KeyValue]:
    """Attend causally over the cache and the new tokens.

    Args:
        query: `[B, S, H*D]`, before rotation.
        key: `[B, S, K*D]`, before rotation.
        value: `[B, S, K*D]`.
        past: keys and values so far, `[B, K, C, D]` each; slots from `position` on are not read.
        position: int64 `[]`, the slot of the first new token.
        inv_freq: float32 `[D/2]`.
        attention_factor: number that cosines and sines are multiplied with.

    Returns:
        The mixed values `[B, S, H*D]`, and the cache with slots `position .. position+S-1` written.
    """
    op = _attention_op if torch.compiler.is_exporting() else _attend
    mixed, present_key, present_value = op(
        query, key, value, *past, position, inv_freq, attention_factor
    )
    return mixed, (present_key, present_value)


def self_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    head_dim: int,
    inv_freq: Tensor,
    attention_factor: float = 1.0,
) -> tuple[Tensor, KeyValue]:
    """Attend causally over the new tokens alone, from position 0: `attention` with no past."""
    positions = torch.arange(query.shape[1], device=query.device)
    tables = rope_tables(inv_freq, positions, attention_factor)
    q, k, v = _rotated_heads(query, key, value, head_dim, tables)
    mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return mixed.transpose(1, 2).flatten(2), (k, v)


def attention_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past: KeyValue,
    position: Tensor,
    inv_freq: Tensor,
    attention_factor: float = 1.0,
) -> tuple[Tensor, KeyValue]:
    """Compute `attention` in plain PyTorch; differentiable, and slow on purpose.

    Raises:
        IndexError: the new tokens do not fit into the cache.
    """
    mixed, *present = _attend(query, key, value, *past, position, inv_freq, attention_factor)
    return mixed, (present[0], present[1])


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    position: Tensor,
    inv_freq: Tensor,
    attention_factor: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    start, length, capacity = int(position), query.shape[1], past_key.shape[2]
    stop = start + length
    if start < 0 or stop > capacity:
        message = f"positions {start}..{stop - 1} are outside a cache of {capacity} slots"
        raise IndexError(message)
    positions = torch.arange(start, stop, device=query.device)
    tables = rope_tables(inv_freq, positions, attention_factor)
    q, k, v = _rotated_heads(query, key, value, past_key.shape[3], tables)
    present_key, present_value = past_key.clone(), past_value.clone()
    present_key[:, :, start:stop] = k
    present_value[:, :, start:stop] = v
    visible = torch.ones(length, stop, dtype=torch.bool, device=q.device).tril(diagonal=start)
    mixed = functional.scaled_dot_product_attention(
        q, present_key[:, :, :stop], present_value[:, :, :stop], attn_mask=visible, enable_gqa=True
    )
    return mixed.transpose(1, 2).flatten(2), present_key, present_value


def _rotated_heads(
    query: Tensor, key: Tensor, value: Tensor, head_dim: int, tables: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Split into heads `[B, heads, S, D]` and rotate the query and the key."""
    # The tables are rounded to the model's dtype, as Hugging Face does: bf16 results stay equal.
    cos, sin = (table.to(query.dtype) for table in tables)
    q, k, v = (x.reshape(*x.shape[:2], -1, head_dim).transpose(1, 2) for x in (query, key, value))
    return rotate(q, cos, sin), rotate(k, cos, sin), v


_attention_op = torch.library.custom_op("llama_export::attention", _attend, mutates_args=())


@_attention_op.register_fake
def _attention_shapes(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    position: Tensor,
    inv_freq: Tensor,
    attention_factor: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(past_key), torch.empty_like(past_value)
