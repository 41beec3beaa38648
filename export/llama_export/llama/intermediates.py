"""Where an artifact can be tapped: names for the values inside a Llama, and what was found there.

The names are those of Hugging Face's modules as far as there is a module, and the same for every
target. It knows no runtime, no weights and no arithmetic.

Shapes: S tokens of a chunk, P tokens before it, E hidden_size, F intermediate_size, H query heads,
K key/value heads, D head_dim, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

EMBEDDING = "model.embed_tokens"  # [S, E]
FINAL_NORM = "model.norm"  # [S, E]
HEAD = "lm_head"  # [R, V]: the last R rows, as many as the artifact gives

# Of each layer, in the order of their computation.
INPUT_NORM = "input_layernorm"  # [S, E]
QKV = "self_attn.qkv"  # [S, (H + 2K) * D], before rotation
PAST_KEY = "self_attn.past_key"  # [K, P, D], as it was handed in
PAST_VALUE = "self_attn.past_value"  # [K, P, D]
KEY = "self_attn.key"  # [K, P + S, D], as it came out
VALUE = "self_attn.value"  # [K, P + S, D]
MIXED = "self_attn.attention"  # [S, H * D]
OUTPUT = "self_attn.o_proj"  # [S, E]
ATTENTION_SUM = "residual_attention"  # [S, E]
POST_NORM = "post_attention_layernorm"  # [S, E]
GATE = "mlp.gate_proj"  # [S, F]
UP = "mlp.up_proj"  # [S, F]
ACTIVATION = "mlp.activation"  # [S, F]: silu(gate) * up
ROTATED = "mlp.rotated"  # [S, F]: the activation rotated, where a model does that
DOWN = "mlp.down_proj"  # [S, E]
MLP_SUM = "residual_mlp"  # [S, E]


def in_layer(layer: int, part: str) -> str:
    """Name a point of a layer, as in "model.layers.3.mlp.gate_proj"."""
    return f"model.layers.{layer}.{part}"


def own_columns(rows: FloatArray, head_dim: int) -> FloatArray:
    """Leave out the zeros with which an artifact fills up each half of a head.

    Args:
        rows: rows of a cache, `[..., D]` or with such zeros in each row.
        head_dim: D.

    Returns:
        The same rows, `[..., D]`.
    """
    size = rows.shape[-1]
    if size == head_dim or size % 2:
        return rows
    halves = rows.reshape(*rows.shape[:-1], 2, size // 2)[..., : head_dim // 2]
    own: FloatArray = halves.reshape(*halves.shape[:-2], head_dim)
    return own


def filled_columns(rows: FloatArray, columns: int) -> FloatArray:
    """Fill up each half of a head with zeros, as `own_columns` takes them away.

    Args:
        rows: rows of a cache, `[..., D]`.
        columns: number of columns of a row of the artifact's cache, at least D.
    """
    size = rows.shape[-1]
    if size == columns:
        return rows
    halves = rows.reshape(*rows.shape[:-1], 2, size // 2)
    zeros = [(0, 0)] * (halves.ndim - 1) + [(0, (columns - size) // 2)]
    return np.pad(halves, zeros).reshape(*rows.shape[:-1], columns)


@dataclass(frozen=True)
class Intermediates:
    """What an artifact held at its points while it ran one chunk of tokens.

    Args:
        values: float32 array by point; a point that the artifact does not have is absent.
        names: what the artifact itself calls the value, by point.
    """

    values: Mapping[str, FloatArray]
    names: Mapping[str, str]


# Runs chunks of tokens one after the other from an empty cache; returns what each chunk held.
Probe = Callable[[Sequence[Sequence[int]]], tuple[Intermediates, ...]]
