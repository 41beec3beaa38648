"""The hidden states of all tokens on their way through a model that is being quantised.

There are two streams: one goes through what is quantised so far, the other through the original
weights. Both stand before the same stage of the same layer: the products of a layer that take their
input together. What they carry lies in mapped files; in memory are the layer's weights and a chunk.
It knows no method and no Gram matrix.

Shapes: B windows, S tokens of one, E hidden_size, K columns of a weight, N rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from torch import Tensor

from llama_export.calibration.scratch import Scratch
from llama_export.llama.config import LlamaConfig
from llama_export.llama.model import LlamaDecoderLayer
from llama_export.llama.rope import inverse_frequencies
from llama_export.llama.streamed import ReadWeight, embed

# What one pass through a layer takes: 2048 tokens of 8192 columns are 64 MB in float32.
_CHUNK_TOKENS = 2048


class Stage(IntEnum):
    """Where a layer's products take their input from."""

    ATTENTION = 0
    MIXED = 1
    FEED_FORWARD = 2
    GATED = 3


STAGE_OF: Mapping[str, Stage] = {
    "self_attn.q_proj": Stage.ATTENTION,
    "self_attn.k_proj": Stage.ATTENTION,
    "self_attn.v_proj": Stage.ATTENTION,
    "self_attn.o_proj": Stage.MIXED,
    "mlp.gate_proj": Stage.FEED_FORWARD,
    "mlp.up_proj": Stage.FEED_FORWARD,
    "mlp.down_proj": Stage.GATED,
}
ADDED = (Stage.MIXED, Stage.GATED)
"""Stages whose product is added to the residual stream."""


@dataclass(frozen=True, eq=False)
class _Arrays:
    """The mapped files of a stream, `[B, S, ...]` each."""

    # The states before a layer stay until the states behind it are whole.
    before: tuple[Tensor, Tensor]
    middle: Tensor
    mixed: Tensor
    gated: Tensor


class Stream:
    """The hidden states of all windows between two layers.

    Args:
        name: name of its files.
        config: shape of the model.
        windows: token ids int64 `[B, S]`.
        scratch: folder of the arrays.
    """

    def __init__(self, name: str, config: LlamaConfig, windows: Tensor, scratch: Scratch) -> None:
        self._config, self._windows = config, windows
        shape = tuple(windows.shape)
        states = (*shape, config.hidden_size)
        attended = config.num_attention_heads * config.head_dim
        self._arrays = _Arrays(
            before=(scratch.array(f"{name}-0", states), scratch.array(f"{name}-1", states)),
            middle=scratch.array(f"{name}-middle", states),
            mixed=scratch.array(f"{name}-mixed", (*shape, attended)),
            gated=scratch.array(f"{name}-gated", (*shape, config.intermediate_size)),
        )
        self._inv_freq = inverse_frequencies(config)
        self.parts = chunks(windows)

    def begin(self, read: ReadWeight) -> None:
        """Fill the states before the first layer."""
        for part in self.parts:
            self._arrays.before[0][part] = embed(self._config, read, self._windows[part])

    def enter(self, layer: LlamaDecoderLayer, index: int) -> LayerPass:
        """Return the pass through a layer, whose states before it are there."""
        return LayerPass(self._arrays, self.parts, layer, index, self._inv_freq)

    def before(self, index: int, part: slice) -> Tensor:
        """Return the states before a layer, or behind the last, `[b, S, E]`."""
        return self._arrays.before[index % 2][part]


@dataclass(frozen=True, eq=False)
class LayerPass:
    """The hidden states of all windows before one stage of one layer.

    Args:
        arrays: the stream's files.
        parts: what goes through the layer at a time.
        layer: the layer's weights; those that are replaced meanwhile count from then on.
        index: number of the layer, from 0.
        inv_freq: float32 `[D/2]`.
    """

    arrays: _Arrays
    parts: tuple[slice, ...]
    layer: LlamaDecoderLayer
    index: int
    inv_freq: Tensor

    def inputs(self, stage: Stage, part: slice) -> Tensor:
        """Return what the products of a stage take, `[b, S, K]`."""
        if stage is Stage.MIXED:
            return self.arrays.mixed[part]
        if stage is Stage.GATED:
            return self.arrays.gated[part]
        layer, middle = self.layer, self.arrays.middle
        normed: Tensor = (
            layer.input_layernorm(self._before[part])
            if stage is Stage.ATTENTION
            else layer.post_attention_layernorm(middle[part])
        )
        return normed

    def residual(self, stage: Stage, part: slice) -> Tensor:
        """Return what the product of a stage is added to, `[b, S, E]`."""
        return (self._before if stage is Stage.MIXED else self.arrays.middle)[part]

    def pass_stage(self, stage: Stage) -> None:
        """Compute what the next stage takes."""
        attention, mlp = self.layer.self_attn, self.layer.mlp
        for part in self.parts:
            inputs = self.inputs(stage, part)
            if stage is Stage.ATTENTION:
                self.arrays.mixed[part] = attention.mix(inputs, None, None, self.inv_freq)[0]
            elif stage is Stage.MIXED:
                self.arrays.middle[part] = self.residual(stage, part) + attention.o_proj(inputs)
            elif stage is Stage.FEED_FORWARD:
                self.arrays.gated[part] = mlp.gate(inputs)
            else:
                behind = self.arrays.before[1 - self.index % 2]
                behind[part] = self.residual(stage, part) + mlp.down_proj(inputs)

    @property
    def _before(self) -> Tensor:
        return self.arrays.before[self.index % 2]


def chunks(windows: Tensor) -> tuple[slice, ...]:
    """Split windows `[B, S]` into what goes through a layer at a time."""
    step = max(1, _CHUNK_TOKENS // windows.shape[1])
    return tuple(slice(start, start + step) for start in range(0, len(windows), step))
