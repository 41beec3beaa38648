"""Compute the inputs of a model's weights while it is being quantised, with one layer in memory.

It runs `llama.streamed`'s layers over token ids. What was quantised before is used for what comes
after it: a layer's inputs come from quantised layers, and within a layer the output projection sees
the attention of quantised projections. Gram matrices are computed when a method asks, and none is
kept longer than its stage. It knows no method, and neither text nor tokenizer.

Shapes: B windows, S tokens, E hidden_size, K columns of a weight, T tokens of a chunk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from llama_export.checkpoints.checkpoint import Checkpoint
from llama_export.llama.model import LlamaDecoderLayer
from llama_export.llama.names import HEAD
from llama_export.llama.rope import inverse_frequencies
from llama_export.llama.streamed import Weight, embed, load_layer, normed, whole
from llama_quantize.calibration import InputStatistics
from llama_quantize.errors import QuantizationError
from llama_quantize.methods.method import find_method
from llama_quantize.recipe import QuantRecipe
from llama_quantize.scheme import GroupedInt
from llama_quantize.tensor import sha256_of

# What one pass through a layer takes: 2048 tokens of 8192 columns are 64 MB in float32.
_CHUNK_TOKENS = 2048
# The float32 products that are added to a float64 Gram matrix at a time: 64 MB.
_BLOCK_PRODUCTS = 1 << 24
_PRODUCT = re.compile(r"model\.layers\.(\d+)\.((?:self_attn|mlp)\.\w+_proj)\.weight")
# Products that share their input, by the first of them.
_SAME_INPUT = {
    "self_attn.k_proj": "self_attn.q_proj",
    "self_attn.v_proj": "self_attn.q_proj",
    "mlp.up_proj": "mlp.gate_proj",
}


def calibration_for(
    recipe: QuantRecipe, checkpoint: Checkpoint, windows: Sequence[Sequence[int]]
) -> StreamedCalibration | None:
    """Return what a recipe needs to know of the inputs; None: its methods ask for nothing.

    Args:
        recipe: rules that the checkpoint will be quantised by.
        checkpoint: model.
        windows: token ids, each window of the same length; none: nothing can be computed.

    Raises:
        QuantizationError: a method is unknown, or the windows are empty or of different lengths.
    """
    rules = [rule for rule in recipe.rules if isinstance(rule.scheme, GroupedInt)]
    if not windows or not any(find_method(rule.method).needs_inputs for rule in rules):
        return None
    lengths = {len(window) for window in windows}
    if len(lengths) != 1 or not lengths.pop():
        message = "the windows of calibration tokens are empty or of different lengths"
        raise QuantizationError(message, "cut them to one length")
    return StreamedCalibration(checkpoint, torch.tensor([list(window) for window in windows]))


class StreamedCalibration:
    """Answers `quantize_to` for one checkpoint; see `llama_quantize.calibration.Calibration`.

    In memory are the hidden states of all tokens, one layer in float32 and one Gram matrix.

    Args:
        checkpoint: model whose weights are quantised, in the order of its names.
        windows: token ids int64 `[B, S]`, every window a text of its own.
    """

    def __init__(self, checkpoint: Checkpoint, windows: Tensor) -> None:
        self._checkpoint = checkpoint
        self._windows = windows
        self._inv_freq = inverse_frequencies(checkpoint.config)
        self._stored: dict[str, Weight] = {}
        self._hidden: Tensor | None = None
        self._index = 0
        self._layer: LlamaDecoderLayer | None = None
        self._latest: tuple[str, InputStatistics] | None = None

    @property
    def origin(self) -> Mapping[str, str]:
        """What decides the statistics: the tokens, and what orders the floating-point sums."""
        return {
            "tokens": str(self._windows.numel()),
            "tokens_sha256": sha256_of([self._windows]),
            "torch": torch.__version__,
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "threads": str(torch.get_num_threads()),
        }

    @torch.no_grad()
    def inputs(self, name: str) -> InputStatistics:
        """Compute the statistics of a product's inputs; products of one input share them.

        Raises:
            QuantizationError: the tensor is not the weight of a product, or its layer is done.
        """
        layers = self._checkpoint.config.num_hidden_layers
        product = _PRODUCT.fullmatch(name)
        if product is None and name != HEAD:
            message = f"{name} has no inputs: it is not the weight of a matrix product"
            raise QuantizationError(message, "name a method for it that needs no inputs")
        index = layers if product is None else int(product[1])
        path = "" if product is None else _SAME_INPUT.get(product[2], product[2])
        stage = f"{index}.{path}"
        if self._latest is None or self._latest[0] != stage:
            self._latest = None  # before the next one takes as much memory
            self._advance(name, index)
            found = self._head_inputs() if index == layers else self._layer_inputs(path)
            self._latest = stage, found
        return self._latest[1]

    @torch.no_grad()
    def quantised(self, name: str, tensor: Weight) -> None:
        """Use what is stored of a tensor from now on."""
        self._stored[name] = tensor
        prefix = f"model.layers.{self._index}."
        if self._layer is not None and name.startswith(prefix):
            weight = {name.removeprefix(prefix): whole(tensor)}
            self._layer.load_state_dict(weight, strict=False, assign=True)

    def _read(self, name: str) -> Weight:
        stored = self._stored.get(name)
        return self._checkpoint.tensor(name) if stored is None else stored

    def _states(self) -> Tensor:
        """Return the hidden states before the layer that is being quantised, `[B, S, E]`."""
        if self._hidden is None:
            self._hidden = embed(self._checkpoint.config, self._read, self._windows)
        return self._hidden

    def _chunks(self) -> tuple[Tensor, ...]:
        """Split the hidden states by windows; the parts share their memory with the whole."""
        windows = max(1, _CHUNK_TOKENS // self._windows.shape[1])
        parts: tuple[Tensor, ...] = self._states().split(windows)
        return parts

    def _current(self) -> LlamaDecoderLayer:
        if self._layer is None:
            self._layer = load_layer(self._checkpoint.config, self._read, self._index)
        return self._layer

    def _advance(self, name: str, index: int) -> None:
        """Take the hidden states through the layers before `index`, which are quantised now."""
        if index < self._index:
            message = f"{name}: its inputs were discarded: layer {self._index} is being quantised"
            raise QuantizationError(message, "go through the tensors in model order")
        while self._index < index:
            for part in self._chunks():
                part.copy_(self._current()(part, None, None, self._inv_freq)[0])
            prefix = f"model.layers.{self._index}."
            self._stored = {
                key: value for key, value in self._stored.items() if not key.startswith(prefix)
            }
            self._layer = None
            self._index += 1

    def _layer_inputs(self, path: str) -> InputStatistics:
        """Run the layer as far as a product, and add up what flows into it."""
        layer = self._current()
        product = layer.get_submodule(path)
        gram = _Gram()

        def take(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            gram.add(inputs[0])
            raise _ReachedError

        hook = product.register_forward_pre_hook(take)
        try:
            for part in self._chunks():
                with suppress(_ReachedError):
                    layer(part, None, None, self._inv_freq)
        finally:
            hook.remove()
        return gram.statistics()

    def _head_inputs(self) -> InputStatistics:
        gram = _Gram()
        for part in self._chunks():
            gram.add(normed(self._checkpoint.config, self._read, part))
        return gram.statistics()


class _ReachedError(Exception):
    """The product whose inputs are wanted was reached: the rest of the layer is not needed."""


@dataclass
class _Gram:
    """A running sum of `x xᵀ`: products in float32, sums in float64."""

    total: Tensor | None = None
    count: int = 0

    def add(self, inputs: Tensor) -> None:
        """Add inputs `[..., K]`."""
        rows = inputs.flatten(0, -2)
        columns = rows.shape[1]
        if self.total is None:
            self.total = torch.zeros(columns, columns, dtype=torch.float64)
        step = max(1, _BLOCK_PRODUCTS // columns)
        for start in range(0, columns, step):
            block = slice(start, start + step)
            self.total[block] += rows[:, block].t() @ rows
        self.count += rows.shape[0]

    def statistics(self) -> InputStatistics:
        """Return the sum over what was added."""
        total = torch.zeros(0, 0, dtype=torch.float64) if self.total is None else self.total
        return InputStatistics(total, self.count)
