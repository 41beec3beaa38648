"""The eager model, run with one layer in memory: the reference of every comparison.

It runs the very modules of `llama_export.model`, in float32, over weights that are read one by
one; the two tables are never upcast whole. It knows no runtime and no file format.

Shapes: B batch, S tokens, E hidden_size, V vocab_size, K key/value heads, D head_dim.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from llama_export.checkpoints.hf import HEAD, TABLE
from llama_export.config import LlamaConfig
from llama_export.model import LlamaDecoderLayer
from llama_export.ops import KeyValue
from llama_export.rope import inverse_frequencies
from llama_quantize.tensor import QuantizedTensor
from llama_quantize.workers import worker_pool

Weight = Tensor | QuantizedTensor
ReadWeight = Callable[[str], Weight]

# 8192 rows of 2048 columns are 64 MB in float32.
_HEAD_ROWS = 8192


@dataclasses.dataclass(frozen=True)
class ReferenceStates:
    """What the eager model computes below its head.

    Args:
        hidden: the normed hidden states, float32 `[B, S, E]`.
        cache: per layer keys and values, float32 `[B, K, S, D]` each; empty unless asked for.
    """

    hidden: Tensor
    cache: tuple[KeyValue, ...]


def reference_logits(config: LlamaConfig, read: ReadWeight, input_ids: Tensor) -> Tensor:
    """Compute the eager model's logits in float32, with one layer in memory at a time.

    Args:
        config: the shape.
        read: gives a weight by its Hugging Face name, as a tensor of any float dtype or quantised:
            `HfCheckpoint.tensor`, `QuantizedWeights.get`.
        input_ids: int64 `[B, S]`.

    Returns:
        float32 `[B, S, V]`.
    """
    states = reference_states(config, read, input_ids)
    return reference_head(config, read, states.hidden)


@torch.inference_mode()
def reference_states(
    config: LlamaConfig, read: ReadWeight, input_ids: Tensor, *, keep_cache: bool = False
) -> ReferenceStates:
    """Compute everything below the head, as `reference_logits` does.

    Args:
        config: the shape.
        read: see `reference_logits`.
        input_ids: int64 `[B, S]`.
        keep_cache: return every layer's keys and values.
    """
    embedded = _rows(read(TABLE), input_ids.flatten())
    hidden = embedded.reshape(*input_ids.shape, config.hidden_size)
    inv_freq = inverse_frequencies(config)
    cache: list[KeyValue] = []
    for index in range(config.num_hidden_layers):
        hidden, present = _layer(config, read, index)(hidden, None, None, inv_freq)
        if keep_cache:
            cache.append(present)
    norm = _whole(read("model.norm.weight"))
    hidden = functional.rms_norm(hidden, norm.shape, norm, config.rms_norm_eps)
    return ReferenceStates(hidden, tuple(cache))


@torch.inference_mode()
def reference_head(config: LlamaConfig, read: ReadWeight, hidden: Tensor) -> Tensor:
    """Compute the logits of normed hidden states, a block of the head's rows at a time.

    Args:
        config: the shape.
        read: see `reference_logits`.
        hidden: float32 `[..., E]`.

    Returns:
        float32 `[..., V]`.
    """
    weight = read(TABLE if config.tie_word_embeddings else HEAD)
    logits = torch.empty(*hidden.shape[:-1], config.vocab_size)

    @torch.inference_mode()
    def fill(start: int) -> None:
        rows = slice(start, min(start + _HEAD_ROWS, config.vocab_size))
        logits[..., rows] = functional.linear(hidden, _rows(weight, rows))

    with worker_pool() as pool:
        list(pool.map(fill, range(0, config.vocab_size, _HEAD_ROWS)))
    return logits


def _layer(config: LlamaConfig, read: ReadWeight, index: int) -> LlamaDecoderLayer:
    with torch.device("meta"):
        layer = LlamaDecoderLayer(config)
    stored = {name: read(f"model.layers.{index}.{name}") for name in layer.state_dict()}
    # A thread a weight: torch's own threads, which share each small product, cost nine times the
    # work on a busy machine.
    with worker_pool() as pool:
        weights = dict(zip(stored, pool.map(_whole, stored.values()), strict=True))
    layer.load_state_dict(weights, assign=True)
    return layer


def _whole(weight: Weight) -> Tensor:
    if isinstance(weight, Tensor):
        return weight.to(torch.float32)
    return weight.dequantize(torch.float32)


def _rows(weight: Weight, rows: slice | Tensor) -> Tensor:
    """Upcast or dequantise some rows only: a whole table of 128256 rows is 1 GB in float32."""
    if isinstance(weight, Tensor):
        return weight[rows].to(torch.float32)
    codes, scales = weight.codes[rows], weight.scales[rows]
    shape = (codes.shape[0], weight.shape[1])
    part = dataclasses.replace(weight, shape=shape, codes=codes, scales=scales)
    return part.dequantize(torch.float32)
