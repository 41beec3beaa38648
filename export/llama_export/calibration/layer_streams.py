"""The hidden states of all tokens on their way through a model that is being quantised.

There are two streams: one goes through what is quantised so far, the other through the original
weights. Both stand before the same stage of the same layer: the products of a layer that take their
input together. What they carry lies in mapped files; in memory are the layer's weights and a chunk.
It knows no method and no Gram matrix.

Shapes: B windows, S tokens of one, E hidden_size, K columns of a weight, N rows.
"""

from __future__ import annotations

from collections.abc import Mapping
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


class Stream:
    """The hidden states of all windows before one stage of one layer.

    Args:
        name: name of its files.
        config: shape of the model.
        windows: token ids int64 `[B, S]`.
        scratch: folder of the arrays.
    """

    def __init__(self, name: str, config: LlamaConfig, windows: Tensor, scratch: Scratch) -> None:
        self._name, self._config, self._scratch = name, config, scratch
        self._windows = windows
        self._inv_freq = inverse_frequencies(config)
        self._layer: LlamaDecoderLayer | None = None
        shape = tuple(windows.shape)
        # The states before a layer stay until the states behind it are whole.
        states = (*shape, config.hidden_size)
        self._before = [scratch.array(f"{name}-{side}", states) for side in (0, 1)]
        self._middle = scratch.array(f"{name}-middle", states)
        attended = config.num_attention_heads * config.head_dim
        self._mixed = scratch.array(f"{name}-mixed", (*shape, attended))
        self._gated = scratch.array(f"{name}-gated", (*shape, config.intermediate_size))
        self._side = 0
        self.parts = chunks(windows)

    def begin(self, read: ReadWeight) -> None:
        """Fill the states before the first layer."""
        for part in self.parts:
            self._before[0][part] = embed(self._config, read, self._windows[part])

    def enter(self, layer: LlamaDecoderLayer, index: int) -> None:
        """Use a layer's weights, whose states before it are there."""
        self._layer, self._side = layer, index % 2

    def inputs(self, stage: Stage, part: slice) -> Tensor:
        """Return what the products of a stage take, `[b, S, K]`."""
        layer = self._entered()
        if stage is Stage.ATTENTION:
            normed: Tensor = layer.input_layernorm(self._before[self._side][part])
            return normed
        if stage is Stage.FEED_FORWARD:
            normed = layer.post_attention_layernorm(self._middle[part])
        else:
            normed = (self._mixed if stage is Stage.MIXED else self._gated)[part]
        return normed

    def residual(self, stage: Stage, part: slice) -> Tensor:
        """Return what the product of a stage is added to, `[b, S, E]`."""
        return self._before[self._side][part] if stage is Stage.MIXED else self._middle[part]

    def pass_stage(self, stage: Stage) -> None:
        """Compute what the next stage takes."""
        layer = self._entered()
        for part in self.parts:
            inputs = self.inputs(stage, part)
            if stage is Stage.ATTENTION:
                self._mixed[part] = layer.self_attn.mix(inputs, None, None, self._inv_freq)[0]
            elif stage is Stage.MIXED:
                output = layer.self_attn.o_proj(inputs)
                self._middle[part] = self.residual(stage, part) + output
            elif stage is Stage.FEED_FORWARD:
                self._gated[part] = layer.mlp.gate(inputs)
            else:
                output = layer.mlp.down_proj(inputs)
                self._before[1 - self._side][part] = self.residual(stage, part) + output

    def leave(self) -> None:
        """Drop the layer's weights."""
        self._layer = None
        self._side = 1 - self._side

    def go_on_at(self, index: int) -> None:
        """Stand before a layer whose states an interrupted run left."""
        self._side = index % 2

    def before(self, part: slice) -> Tensor:
        """Return the states before the next layer, or behind the last, `[b, S, E]`."""
        return self._before[self._side][part]

    def _entered(self) -> LlamaDecoderLayer:
        if self._layer is None:
            message = "no layer is entered"
            raise RuntimeError(message)
        return self._layer


def chunks(windows: Tensor) -> tuple[slice, ...]:
    """Split windows `[B, S]` into what goes through a layer at a time."""
    step = max(1, _CHUNK_TOKENS // windows.shape[1])
    return tuple(slice(start, start + step) for start in range(0, len(windows), step))
