"""How much a model's answers change with what each of its linears computes.

The model runs once, unquantised, over some windows. At each position a label is drawn from its own
softmax, and the cross-entropy is taken back through the layers. The mean of `g gᵀ` over the
gradients g at a linear's output is then the Fisher information there, the curvature of the
Kullback-Leibler divergence: only labels that the model itself draws give that, not the text's
(Kunstner et al. 2019). A layer's inputs are kept on disk, and its pass is computed again on the way
back: in memory are one layer and a chunk.

It knows no method and no text.

Shapes: B windows, S tokens of one, E hidden_size, V num_logits, N rows of a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from llama_export.calibration.layer_streams import STAGE_OF, chunks
from llama_export.calibration.scratch import Scratch
from llama_export.calibration.sums import DiagonalSum, HalvedSum
from llama_export.llama.config import LlamaConfig
from llama_export.llama.model import LlamaDecoderLayer
from llama_export.llama.names import FINAL_NORM, HEAD, TABLE
from llama_export.llama.rope import inverse_frequencies
from llama_export.llama.streamed import ReadWeight, Weight, embed, load_layer, weight_rows, whole

_HEAD_TOKENS = 256  # 256 rows of 128256 logits are 131 MB
_HEAD_ROWS = 8192
_MOST_ROWS = 4096
_AGREEMENT = "agreement"


@dataclass(frozen=True)
class Curvature:
    """Curvature at the outputs of a model's linears, in mapped files.

    Args:
        scratch: folder of the files.
        shapes: shape of what is kept of each linear, by the weight's name: the curvature, or its
            diagonal where there are too many rows.
        agreement: share of its off-diagonal elements that is not chance, by the weight's name.
    """

    scratch: Scratch
    shapes: Mapping[str, tuple[int, ...]]
    agreement: Mapping[str, float]

    def of(self, name: str) -> Tensor | None:
        """Return the curvature at a weight's output, float32 `[N, N]`; None: it is not known."""
        shape = self.shapes.get(name, ())
        return self.scratch.array(_file(name), shape) if len(shape) == 2 else None

    def agreed(self, name: str) -> Tensor | None:
        """Return the curvature as far as it is not chance; None: it is not known.

        Few tokens make rows look as if they went together. A method that believed it would put
        errors where they do harm on other text.
        """
        found = self.of(name)
        if found is None:
            return None
        diagonal = found.diagonal().clone()
        agreed = found * self.agreement[name]
        agreed.diagonal().copy_(diagonal)
        return agreed

    def diagonal(self, name: str) -> Tensor | None:
        """Return the diagonal of the curvature, float32 `[N]`; None: there is no such linear."""
        if name not in self.shapes:
            return None
        found = self.scratch.array(_file(name), self.shapes[name])
        return found.diagonal() if found.ndim == 2 else found


def measure_curvature(
    config: LlamaConfig,
    read: ReadWeight,
    windows: Tensor,
    seed: int,
    scratch: Scratch,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Curvature:
    """Measure the curvature at every linear of a block.

    Args:
        config: shape of the model.
        read: function that returns an original weight by its name.
        windows: token ids int64 `[B, S]`.
        seed: seed of the drawn labels.
        scratch: folder for what does not fit into memory; what an earlier run measured there is
            taken.
        progress: called with the layers done, and those to do, there and back.

    Raises:
        OSError: the disk is full.
    """
    if scratch.layer:
        names, rows = list(scratch.counts), scratch.counts.values()
        kept = scratch.array(_AGREEMENT, (len(names),)).tolist()
        shapes = dict(zip(names, map(_kept_shape, rows), strict=True))
        return Curvature(scratch, shapes, dict(zip(names, kept, strict=True)))
    inv_freq = inverse_frequencies(config)
    layers, total = config.num_hidden_layers, 2 * config.num_hidden_layers
    shape = (*windows.shape, config.hidden_size)
    states = [scratch.array(f"states-{index}", shape) for index in range(layers + 1)]
    parts = chunks(windows)
    with torch.no_grad():
        for part in parts:
            states[0][part] = embed(config, read, windows[part])
        for index in range(layers):
            layer = load_layer(config, read, index)
            for part in parts:
                states[index + 1][part] = layer(states[index][part], None, None, inv_freq)[0]
            progress(index + 1, total)
    gradient = scratch.array("gradient", shape)
    _head_gradient(config, read, states[layers], gradient, seed)
    shapes, agreement = {}, {}
    for index in reversed(range(layers)):
        layer = load_layer(config, read, index)
        sums = _Sums(layer)
        for part in parts:
            gradient[part] = sums.take_back(states[index][part], gradient[part], inv_freq)
        for path, total_sum in sums.found.items():
            name = f"model.layers.{index}.{path}.weight"
            mean = total_sum.total() / total_sum.count
            shapes[name] = tuple(mean.shape)
            agreement[name] = total_sum.agreement()
            scratch.array(_file(name), shapes[name]).copy_(mean)
        progress(total - index, total)
    del states, gradient
    for name in ("gradient", *(f"states-{index}" for index in range(layers + 1))):
        scratch.drop(name)
    scratch.array(_AGREEMENT, (len(agreement),)).copy_(torch.tensor(list(agreement.values())))
    scratch.finish(layers - 1, {}, {name: shape[0] for name, shape in shapes.items()})
    return Curvature(scratch, shapes, agreement)


def _kept_shape(rows: int) -> tuple[int, ...]:
    """Return the shape of what is kept of a linear with so many rows."""
    return (rows, rows) if rows <= _MOST_ROWS else (rows,)


class _Sums:
    """Sums over the gradients at the outputs of one layer's linears."""

    def __init__(self, layer: LlamaDecoderLayer) -> None:
        self._layer = layer.requires_grad_(requires_grad=False)
        self.found: dict[str, HalvedSum | DiagonalSum] = {}
        for path in STAGE_OF:
            linear = layer.get_submodule(path)
            rows = len(layer.get_parameter(f"{path}.weight"))
            total = HalvedSum(rows) if rows <= _MOST_ROWS else DiagonalSum(rows)
            self.found[path] = total
            linear.register_forward_hook(partial(_watch, total))

    def take_back(self, before: Tensor, gradient: Tensor, inv_freq: Tensor) -> Tensor:
        """Return the gradient before the layer from the one behind it, `[b, S, E]` both."""
        hidden = before.clone().requires_grad_()
        with torch.enable_grad():
            output = self._layer(hidden, None, None, inv_freq)[0]
        (found,) = torch.autograd.grad(output, hidden, gradient)
        return found


def _watch(
    total: HalvedSum | DiagonalSum, _module: nn.Module, _inputs: object, output: Tensor
) -> None:
    """Add up the gradients at an output, once they come."""
    output.register_hook(total.add)


def _head_gradient(
    config: LlamaConfig, read: ReadWeight, hidden: Tensor, gradient: Tensor, seed: int
) -> None:
    """Fill the gradient `[B, S, E]` of the summed cross-entropy with drawn labels."""
    weight = read(TABLE if config.tie_word_embeddings else HEAD)
    norm = whole(read(FINAL_NORM))
    generator = torch.Generator().manual_seed(seed)
    rows, target = hidden.flatten(0, 1), gradient.view(-1, hidden.shape[-1])
    for start in range(0, len(rows), _HEAD_TOKENS):
        part = slice(start, start + _HEAD_TOKENS)
        before = rows[part].clone().requires_grad_()
        with torch.enable_grad():
            after = functional.rms_norm(before, norm.shape, norm, config.rms_norm_eps)
        shares = _logits(config, weight, after.detach()).softmax(1)
        labels = torch.multinomial(shares, 1, generator=generator)
        shares.scatter_add_(1, labels, torch.full_like(labels, -1.0, dtype=shares.dtype))
        lead = _through_head(config, weight, shares)
        (target[part],) = torch.autograd.grad(after, before, lead)


def _logits(config: LlamaConfig, weight: Weight, hidden: Tensor) -> Tensor:
    """Compute the logits `[t, V]` of normed states `[t, E]`."""
    logits = torch.empty(len(hidden), config.num_logits)
    for start in range(0, config.num_logits, _HEAD_ROWS):
        rows = slice(start, min(start + _HEAD_ROWS, config.num_logits))
        torch.mm(hidden, weight_rows(weight, rows).t(), out=logits[:, rows])
    return logits


def _through_head(config: LlamaConfig, weight: Weight, shares: Tensor) -> Tensor:
    """Take a gradient at the logits `[t, V]` back to the states `[t, E]`."""
    found = torch.zeros(len(shares), config.hidden_size)
    for start in range(0, config.num_logits, _HEAD_ROWS):
        rows = slice(start, min(start + _HEAD_ROWS, config.num_logits))
        found.addmm_(shares[:, rows], weight_rows(weight, rows))
    return found


def _file(name: str) -> str:
    return f"curvature-{name}"
