"""What each form of each linear would cost: the change of the model's answers, in nats.

Where a linear `[N, K]` is stored with an error E and nothing else is, the answers change by about
`tr(H E A Eᵀ) / 2` nats a token, A being the mean of `x xᵀ` over its inputs and H the curvature at
its output. The sum over all linears foretells what they cost together, as long as that is small. It
is too low for values, whose errors at several tokens meet in one attention. The model runs once,
unquantised, with one layer in memory. Codes are those of the search for scales; a calibrated
method's are better, everywhere by about the same share.

It knows no budget and no text.

Shapes: B windows, S tokens of one, N rows of a weight, K columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from llama_export.calibration.layer_streams import chunks
from llama_export.calibration.sums import SquareSum
from llama_export.checkpoints.checkpoint import Checkpoint
from llama_export.llama.names import expected_shapes
from llama_export.llama.rope import inverse_frequencies
from llama_export.llama.streamed import embed, load_layer
from llama_quantize.budget import Choice
from llama_quantize.groupwise import dequantize_groups
from llama_quantize.methods.method import find_method
from llama_quantize.recipe import DEFAULT_METHOD
from llama_quantize.scheme import GroupedInt

# Rows of an error that are multiplied at a time: 1024 of 8192 columns are 32 MB.
_BLOCK_ROWS = 1024
# Linears that take their input together, by the first of them.
_TOGETHER = {
    "self_attn.q_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.gate_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
}


class OutputCurvature(Protocol):
    """How much a model's answers change with what its linears compute."""

    def of(self, name: str) -> Tensor | None:
        """Return the mean of `g gᵀ` over the gradients g at a weight's output, float32 `[N, N]`.

        Args:
            name: name of the weight.

        Returns:
            None: it was too large to be kept.
        """

    def diagonal(self, name: str) -> Tensor | None:
        """Return its diagonal, float32 `[N]`; None: there is no such linear."""


def measure_costs(
    checkpoint: Checkpoint,
    windows: Tensor,
    curvature: OutputCurvature,
    schemes: Sequence[GroupedInt],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, tuple[Choice, ...]]:
    """Measure what every form of every linear of the blocks would cost alone.

    Args:
        checkpoint: model of floats.
        windows: token ids int64 `[B, S]`.
        curvature: curvature at the linears' outputs.
        schemes: forms; those whose groups do not divide a row are left out there.
        progress: called with the layers done, and their number.

    Returns:
        The choices of each linear, in model order.

    Raises:
        LookupError: the curvature of a linear was not measured.
    """
    config = checkpoint.config
    costs: dict[str, tuple[Choice, ...]] = {}
    inv_freq = inverse_frequencies(config)
    with torch.no_grad():
        hidden = embed(config, checkpoint.tensor, windows)
        for index in range(config.num_hidden_layers):
            layer = load_layer(config, checkpoint.tensor, index)
            sums = _pass(layer, hidden, inv_freq)
            for first, paths in _TOGETHER.items():
                gram = _mean(sums.pop(first))
                for path in paths:
                    name = f"model.layers.{index}.{path}.weight"
                    weight = layer.get_parameter(f"{path}.weight")
                    known = curvature.of(name)
                    known = curvature.diagonal(name) if known is None else known
                    if known is None:
                        message = f"the curvature of {name} was not measured"
                        raise LookupError(message)
                    costs[name] = _choices(weight, gram, known, schemes)
            progress(index + 1, config.num_hidden_layers)
    order = [name for name in expected_shapes(config) if name in costs]
    return {name: costs[name] for name in order}


def _mean(summed: SquareSum) -> Tensor:
    return summed.total().div_(summed.count)


def _pass(layer: nn.Module, hidden: Tensor, inv_freq: Tensor) -> dict[str, SquareSum]:
    """Take the hidden states `[B, S, E]` through a layer, and add up what its linears take."""
    sums, hooks = {}, []
    for path in _TOGETHER:
        columns = layer.get_parameter(f"{path}.weight").shape[1]
        total = sums[path] = SquareSum(columns)

        def take(_: nn.Module, inputs: tuple[Tensor, ...], total: SquareSum = total) -> None:
            total.add(inputs[0])

        hooks.append(layer.get_submodule(path).register_forward_pre_hook(take))
    for windows in chunks(hidden):
        part = hidden[windows]
        part.copy_(layer(part, None, None, inv_freq)[0])
    for hook in hooks:
        hook.remove()  # with it goes the sum, when it was used
    return sums


def _choices(
    weight: Tensor, gram: Tensor, curvature: Tensor, schemes: Sequence[GroupedInt]
) -> tuple[Choice, ...]:
    rows, columns = weight.shape
    return tuple(
        Choice(
            scheme,
            scheme.size_bytes((rows, columns)),
            _cost(_error(weight, scheme), gram, curvature),
        )
        for scheme in schemes
        if columns % (scheme.group_size or 1) == 0
    )


def _error(weight: Tensor, scheme: GroupedInt) -> Tensor:
    """Return what a form leaves of a weight, float32 `[N, K]`."""
    method = find_method("nearest" if scheme.group_size is None else DEFAULT_METHOD)
    codes, scales = method.quantize(weight, scheme)
    return weight - dequantize_groups(codes, scales, torch.float32)


def _cost(error: Tensor, gram: Tensor, curvature: Tensor) -> float:
    """Compute `tr(H E A Eᵀ) / 2`."""
    through = error @ gram
    if curvature.ndim == 1:
        return float((through.mul_(error).sum(1).double() * curvature.double()).sum()) / 2
    total = 0.0
    for start in range(0, len(error), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        total += float(((curvature[rows] @ through) * error[rows]).sum(dtype=torch.float64))
    return total / 2
