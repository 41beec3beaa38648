"""The eager model, run with one layer in memory: what comparisons and calibrations are made with.

It runs the very modules of `llama_export.llama.model`, in float32, over weights that are read one
by one; the two tables are never upcast whole. Several passes over the same weights share the
reading, which costs more than a short pass. It knows no runtime and no file format.

Shapes: B batch, S tokens, E hidden_size, V num_logits, K key/value heads, C capacity, D head_dim.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from llama_export.llama.activations import EXACT_INPUTS, RoundedInputs
from llama_export.llama.attention import KeyValue
from llama_export.llama.config import LlamaConfig
from llama_export.llama.linear import AdaptedLinear
from llama_export.llama.model import LlamaDecoderLayer
from llama_export.llama.names import FINAL_NORM, HEAD, TABLE
from llama_export.llama.rope import inverse_frequencies
from llama_export.llama.rounding import round_activations
from llama_export.llama.teacher_forced import teacher_forced_layer
from llama_quantize.lazy import LazyTensor
from llama_quantize.tensor import QuantizedTensor
from llama_quantize.workers import worker_pool

Weight = Tensor | LazyTensor | QuantizedTensor
ReadWeight = Callable[[str], Weight]

# 8192 rows of 2048 columns are 64 MB in float32.
_HEAD_ROWS = 8192


@dataclasses.dataclass(frozen=True)
class Pass:
    """One run of the model.

    Args:
        input_ids: int64 `[B, S]`.
        after: position of its first token. Before it stand the first pass's keys and values,
            repeated as often as it takes; the first pass itself begins at 0.
        rounding: products whose input is rounded as a runtime does it.
        keep_cache: whether every layer's keys and values are kept.
        artifact_cache: an artifact's keys and values `[K, S, D]` of each layer, which every token
            attends to instead of its predecessors' own; None: a token attends to those.
    """

    input_ids: Tensor
    after: int = 0
    rounding: RoundedInputs = dataclasses.field(default_factory=lambda: EXACT_INPUTS)
    keep_cache: bool = False
    artifact_cache: Sequence[KeyValue] | None = None


@dataclasses.dataclass(frozen=True)
class ReferenceStates:
    """What the eager model computes below its head.

    Args:
        hidden: hidden states after the last norm, float32 `[B, S, E]`.
        cache: keys and values of each layer, float32 `[B, K, S, D]`; empty unless asked for.
    """

    hidden: Tensor
    cache: tuple[KeyValue, ...]


def reference_logits(config: LlamaConfig, read: ReadWeight, input_ids: Tensor) -> Tensor:
    """Compute the eager model's logits in float32, with one layer in memory at a time.

    Args:
        config: shape of the model.
        read: function that returns a weight by its Hugging Face name, as a tensor of any float
            dtype or quantised: `Checkpoint.tensor`, `QuantizedWeights.get`.
        input_ids: int64 `[B, S]`.

    Returns:
        float32 `[B, S, V]`.
    """
    states = reference_states(config, read, input_ids)
    return reference_head(config, read, states.hidden)


def reference_states(
    config: LlamaConfig, read: ReadWeight, input_ids: Tensor, *, keep_cache: bool = False
) -> ReferenceStates:
    """Compute everything below the head, as `reference_logits` does.

    Args:
        config: shape of the model.
        read: as in `reference_logits`.
        input_ids: int64 `[B, S]`.
        keep_cache: whether every layer's keys and values are returned.
    """
    return run_passes(config, read, [Pass(input_ids, keep_cache=keep_cache)])[0]


@torch.inference_mode()
def run_passes(
    config: LlamaConfig, read: ReadWeight, passes: Sequence[Pass]
) -> tuple[ReferenceStates, ...]:
    """Compute several passes below the head, layer by layer, each weight read once.

    Args:
        config: shape of the model.
        read: as in `reference_logits`.
        passes: passes in the order in which they run within a layer.
    """
    hidden = [embed(config, read, each.input_ids) for each in passes]
    inv_freq = inverse_frequencies(config)
    caches: list[list[KeyValue]] = [[] for _ in passes]
    for index in range(config.num_hidden_layers):
        presents = _run_layer(config, read, index, passes, hidden, inv_freq)
        for each, cache, present in zip(passes, caches, presents, strict=True):
            if each.keep_cache:
                cache.append(present)
    return tuple(
        ReferenceStates(normed(config, read, rows), tuple(cache))
        for rows, cache in zip(hidden, caches, strict=True)
    )


@torch.inference_mode()
def reference_head(
    config: LlamaConfig, read: ReadWeight, hidden: Tensor, rounding: RoundedInputs = EXACT_INPUTS
) -> Tensor:
    """Compute the logits of normed hidden states, a block of the head's rows at a time.

    Args:
        config: shape of the model.
        read: as in `reference_logits`.
        hidden: hidden states after the last norm, float32 `[..., E]`.
        rounding: products whose input is rounded, the head's perhaps among them.

    Returns:
        float32 `[..., V]`.
    """
    name = TABLE if config.tie_word_embeddings else HEAD
    weight = read(name)
    rounded = round_activations(hidden, rounding[name]) if name in rounding else hidden
    logits = torch.empty(*hidden.shape[:-1], config.num_logits)

    @torch.inference_mode()
    def fill(start: int) -> None:
        rows = slice(start, min(start + _HEAD_ROWS, config.num_logits))
        logits[..., rows] = functional.linear(rounded, weight_rows(weight, rows))

    with worker_pool() as pool:
        list(pool.map(fill, range(0, config.num_logits, _HEAD_ROWS)))
    return logits


def weight_rows(weight: Weight, rows: slice | Tensor) -> Tensor:
    """Upcast or dequantise some rows only: a whole table of 128256 rows is 1 GB in float32."""
    if not isinstance(weight, QuantizedTensor):
        return weight[rows].to(torch.float32)
    codes, scales = weight.codes[rows], weight.scales[rows]
    shape = (codes.shape[0], weight.shape[1])
    part = dataclasses.replace(weight, shape=shape, codes=codes, scales=scales)
    return part.dequantize(torch.float32)


def embed(config: LlamaConfig, read: ReadWeight, input_ids: Tensor) -> Tensor:
    """Look tokens `[B, S]` up in the table; float32 `[B, S, E]`."""
    rows = weight_rows(read(TABLE), input_ids.flatten())
    return rows.reshape(*input_ids.shape, config.hidden_size)


def normed(config: LlamaConfig, read: ReadWeight, hidden: Tensor) -> Tensor:
    """Apply the norm before the head to `[..., E]`."""
    norm = whole(read(FINAL_NORM))
    return functional.rms_norm(hidden, norm.shape, norm, config.rms_norm_eps)


def load_layer(config: LlamaConfig, read: ReadWeight, index: int) -> LlamaDecoderLayer:
    """Build one layer in float32 from weights that are read by name.

    Args:
        config: shape of the model.
        read: as in `reference_logits`.
        index: number of the layer, from 0.
    """
    with torch.device("meta"):
        layer = LlamaDecoderLayer(config)
    stored = {name: read(f"model.layers.{index}.{name}") for name in layer.state_dict()}
    # A thread a weight: torch's own threads, which share each small product, cost nine times the
    # work on a busy machine.
    with worker_pool() as pool:
        weights = dict(zip(stored, pool.map(whole, stored.values()), strict=True))
    layer.load_state_dict(weights, assign=True)
    return layer


def whole(weight: Weight) -> Tensor:
    """Upcast or dequantise a weight to float32."""
    if isinstance(weight, QuantizedTensor):
        return weight.dequantize(torch.float32)
    return (weight.whole() if isinstance(weight, LazyTensor) else weight).to(torch.float32)


def repeated(rows: Tensor, count: int) -> Tensor:
    """Repeat a cache's positions until there are `count`: `[..., S, D]` to `[..., count, D]`."""
    return rows.index_select(-2, torch.arange(count) % rows.shape[-2])


def _run_layer(
    config: LlamaConfig,
    read: ReadWeight,
    index: int,
    passes: Sequence[Pass],
    hidden: list[Tensor],
    inv_freq: Tensor,
) -> list[KeyValue]:
    """Take every pass through one layer, in place; the layer's weights are gone afterwards."""
    layer = load_layer(config, read, index)
    presents: list[KeyValue] = []
    for number, each in enumerate(passes):
        position, past = None, None
        if each.after and presents:
            past = _padded(presents[0], each.after, hidden[number].shape[1])
            position = torch.tensor(each.after)
        with _rounded_inputs(layer, index, each.rounding):
            if each.artifact_cache is not None:
                hidden[number], present = teacher_forced_layer(
                    layer, hidden[number], each.artifact_cache[index], inv_freq
                )
            else:
                hidden[number], present = layer(hidden[number], position, past, inv_freq)
        presents.append(present)
    return presents


def _padded(cache: KeyValue, count: int, slots: int) -> KeyValue:
    """Repeat a cache's positions until there are `count`, with empty slots behind."""
    empty = torch.zeros(*cache[0].shape[:2], slots, cache[0].shape[3])
    key, value = (torch.cat((repeated(rows, count), empty), dim=2) for rows in cache)
    return key, value


@contextmanager
def _rounded_inputs(
    layer: LlamaDecoderLayer, index: int, rounding: RoundedInputs
) -> Iterator[None]:
    """Round the inputs of a layer's products meanwhile."""
    hooks = [
        product.register_forward_pre_hook(_rounding_hook(rounding, name))
        for path, product in layer.named_modules()
        if (name := f"model.layers.{index}.{path}.weight") in rounding
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _rounding_hook(
    rounding: RoundedInputs, name: str
) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        rounded = round_activations(inputs[0], rounding[name])
        # A side branch is floats, and takes its input as it is.
        return (rounded, inputs[0]) if isinstance(module, AdaptedLinear) else (rounded,)

    return hook
