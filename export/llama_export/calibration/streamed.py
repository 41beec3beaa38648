"""Compute what flows into a model's weights while it is being quantised, one layer in memory.

Two streams of hidden states (`layer_streams`) stand before the same stage. The quantised one gives
the Gram matrix of a weight's inputs: a layer's inputs come from quantised layers, and within a
layer the output projection sees the attention of quantised projections. The other says what the
unquantised model has there, and so what the weight's output lacks. Sums are made when a method
asks, and none is kept longer than its stage. It knows no method, and neither text nor tokenizer.

Shapes: B windows, S tokens of one, N rows of a weight, K columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from llama_export.calibration.layer_streams import ADDED, STAGE_OF, LayerPass, Stage, Stream
from llama_export.calibration.scratch import Scratch
from llama_export.calibration.sums import OuterSum, SquareSum
from llama_export.calibration.table_inputs import table_inputs
from llama_export.checkpoints.checkpoint import Checkpoint
from llama_export.llama.model import LlamaDecoderLayer
from llama_export.llama.names import HEAD, TABLE
from llama_export.llama.streamed import Weight, load_layer, normed, whole
from llama_quantize.calibration import InputStatistics, Needs
from llama_quantize.errors import QuantizationError
from llama_quantize.scheme import GroupedInt
from llama_quantize.tensor import QuantizedTensor

_PRODUCT = re.compile(r"model\.layers\.(\d+)\.((?:self_attn|mlp)\.\w+_proj)\.weight")
_DEAD = 1e-12  # of the mean diagonal: such a channel never fires


@dataclass(frozen=True, eq=False)
class CalibrationInputs:
    """What a calibration is made from.

    Args:
        windows: token ids int64 `[B, S]`, every window a text of its own.
        needs: the most that a method asks for.
        curvature: function that returns the curvature at a weight's output, float32 `[N, N]`, or
            None where it is not known.
        about: what decides the answers besides; kept in the record.
    """

    windows: Tensor
    needs: Needs
    curvature: Callable[[str], Tensor | None] = lambda name: None
    about: Mapping[str, str] | None = None


@dataclass(frozen=True, eq=False)
class _Entered:
    """The layer that is being quantised: as it is so far, and as it was where that is asked for."""

    quantised: LayerPass
    original: LayerPass | None

    def both(self) -> tuple[LayerPass, ...]:
        return (self.quantised,) if self.original is None else (self.quantised, self.original)


class StreamedCalibration:
    """Answers `quantize_to` for one checkpoint; see `llama_quantize.calibration.Calibration`.

    In memory are one layer in float32 (two of them, where targets are asked for) and the sums of
    one stage; the hidden states of all tokens are in `scratch`.

    Args:
        checkpoint: model whose weights are quantised, in the order of its names.
        inputs: tokens, and what is asked.
        scratch: folder to work in, and to go on from.
    """

    def __init__(self, checkpoint: Checkpoint, inputs: CalibrationInputs, scratch: Scratch) -> None:
        self._checkpoint, self._config = checkpoint, checkpoint.config
        self._about, self._scratch = inputs, scratch
        self._stored: dict[str, Weight] = {}
        self._made: dict[str, QuantizedTensor] = {}
        self._entered: _Entered | None = None
        self._place = (0, Stage.ATTENTION)
        self._streams: list[Stream] = []
        self._sums: tuple[str, InputStatistics, Tensor | None] | None = None
        self._dead = dict(scratch.counts)

    @property
    def layers_done(self) -> int:
        """Number of layers whose weights are quantised, by an interrupted run or by this one."""
        return self._scratch.layer

    @property
    def origin(self) -> Mapping[str, str]:
        """What decides the statistics: the tokens, and what orders the floating-point sums."""
        dead = sum(self._dead.values())
        return {
            **(self._about.about or {}),
            "torch": torch.__version__,
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "threads": str(torch.get_num_threads()),
            "dead_channels": f"{dead} in {len(self._dead)} inputs" if dead else "0",
        }

    def finished(self, name: str, scheme: GroupedInt) -> QuantizedTensor | None:
        """Return what an interrupted run already made of a weight; None: it is to be made."""
        product = _PRODUCT.fullmatch(name)
        if product is None or int(product[1]) >= self._scratch.layer:
            return None
        return self._scratch.made(int(product[1]), name, scheme)

    @torch.no_grad()
    def inputs(self, name: str, needs: Needs) -> InputStatistics:
        """Compute the statistics of a product's inputs; products of one input share sums.

        Raises:
            QuantizationError: the tensor is not the weight of a product, or its layer is done.
        """
        if name == TABLE:
            return table_inputs(self._config, self._checkpoint.tensor, self._about.windows)
        index, path, stage = self._locate(name)
        self._go_to(name, index, stage)
        if name == HEAD:
            return self._head_inputs()
        entered = self._enter()
        key = f"{index}.{stage}"
        if self._sums is None or self._sums[0] != key:
            self._sums = None  # before the next ones take as much memory
            self._sums = key, *self._summed(entered, path, stage)
            self._count_dead(key, self._sums[1].gram)
        _, found, lost = self._sums
        if needs < Needs.TARGETS:
            return InputStatistics(found.gram, found.count)
        cross = found.cross
        if lost is not None and entered.original is not None:
            cross = _through(entered.original.layer.get_submodule(path), lost)
        curvature = self._about.curvature(name) if needs >= Needs.CURVATURE else None
        return replace(found, cross=cross, curvature=curvature)

    @torch.no_grad()
    def quantised(self, name: str, tensor: Weight) -> None:
        """Use what is stored of a tensor from now on."""
        self._stored[name] = tensor
        if isinstance(tensor, QuantizedTensor) and _PRODUCT.fullmatch(name):
            self._made[name] = tensor
        prefix = f"model.layers.{self._place[0]}."
        if self._entered is not None and name.startswith(prefix):
            weight = {name.removeprefix(prefix): whole(tensor)}
            layer = self._entered.quantised.layer
            layer.load_state_dict(weight, strict=False, assign=True)

    def _locate(self, name: str) -> tuple[int, str, Stage]:
        """Return a weight's layer, its path in it, and its stage; of a head, those behind all."""
        product = _PRODUCT.fullmatch(name)
        if product is not None:
            return int(product[1]), product[2], STAGE_OF[product[2]]
        if name != HEAD:
            message = f"{name} has no inputs: it is not the weight of a matrix product"
            raise QuantizationError(message, "name a method for it that needs no inputs")
        return self._config.num_hidden_layers, "", Stage.ATTENTION

    def _go_to(self, name: str, index: int, stage: Stage) -> None:
        """Take the streams through what is quantised, up to a stage."""
        if not self._streams:
            self._begin()
        if (index, stage) < self._place:
            message = (
                f"{name}: its inputs were discarded: layer {self._place[0]} is being quantised"
            )
            raise QuantizationError(message, "go through the tensors in model order")
        while self._place < (index, stage):
            layer, at = self._place
            for each in self._enter().both():
                each.pass_stage(at)
            if at is Stage.GATED:
                self._leave()
                self._place = layer + 1, Stage.ATTENTION
            else:
                self._place = layer, Stage(at + 1)

    def _begin(self) -> None:
        """Embed the windows, or go on where an interrupted run was."""
        names = ["quantised", "original"][: 2 if self._about.needs >= Needs.TARGETS else 1]
        windows = self._about.windows
        self._streams = [Stream(name, self._config, windows, self._scratch) for name in names]
        if self._scratch.layer:
            self._place = self._scratch.layer, Stage.ATTENTION
            self._forget(self._scratch.layer)
            return
        for stream, read in zip(self._streams, (self._read, self._checkpoint.tensor), strict=False):
            stream.begin(read)

    def _enter(self) -> _Entered:
        """Return the layer that is being quantised, which is loaded once."""
        if self._entered is None:
            index = self._place[0]
            layer = load_layer(self._config, self._read, index)
            original = None
            if len(self._streams) > 1:
                original = self._streams[1].enter(self._original_of(layer, index), index)
            self._entered = _Entered(self._streams[0].enter(layer, index), original)
        return self._entered

    def _original_of(self, layer: LlamaDecoderLayer, index: int) -> LlamaDecoderLayer:
        """Build the original layer; what is not quantised yet is one tensor in both."""
        with torch.device("meta"):
            original = LlamaDecoderLayer(self._config)
        weights = dict(layer.state_dict())
        for path in weights:
            if (name := f"model.layers.{index}.{path}") in self._stored:
                weights[path] = whole(self._checkpoint.tensor(name))
        original.load_state_dict(weights, assign=True)
        return original

    def _leave(self) -> None:
        """Note that the layer is done, and drop its weights."""
        index = self._place[0]
        self._entered = None
        self._scratch.finish(index, self._made, self._dead)
        self._forget(index + 1)

    def _forget(self, index: int) -> None:
        """Drop what was noted of the layers before `index`."""
        done = tuple(f"model.layers.{layer}." for layer in range(index))
        self._stored = {k: v for k, v in self._stored.items() if not k.startswith(done)}
        self._made = {}

    def _read(self, name: str) -> Weight:
        stored = self._stored.get(name)
        return self._checkpoint.tensor(name) if stored is None else stored

    def _head_inputs(self) -> InputStatistics:
        """Add up what the head takes: nothing comes after it to make up for."""
        stream, index = self._streams[0], self._place[0]
        gram = SquareSum(self._config.hidden_size)
        for part in stream.parts:
            inputs = normed(self._config, self._read, stream.before(index, part))
            gram.add(inputs)
        return InputStatistics(gram.total(), gram.count)

    def _summed(
        self, entered: _Entered, path: str, stage: Stage
    ) -> tuple[InputStatistics, Tensor | None]:
        """Add up over all tokens: the statistics, and what the inputs lack, `[K, K]`."""
        quantised, original = entered.quantised, entered.original
        columns = quantised.inputs(stage, slice(0, 0)).shape[-1]
        gram = SquareSum(columns)
        lost = OuterSum(self._config.hidden_size if stage in ADDED else columns, columns)
        for part in quantised.parts:
            inputs = quantised.inputs(stage, part)
            gram.add(inputs)
            if original is not None:
                lost.add(_missing(quantised, original, path, stage, part), inputs)
        found = InputStatistics(gram.total(), gram.count)
        if original is None:
            return found, None
        if stage in ADDED:
            return replace(found, cross=lost.total()), None
        return found, lost.total()

    def _count_dead(self, key: str, gram: Tensor) -> None:
        """Count the channels that never fire."""
        diagonal = gram.diagonal()
        if dead := int((diagonal <= _DEAD * diagonal.mean()).sum()):
            self._dead[key] = dead


def _missing(
    quantised: LayerPass, original: LayerPass, path: str, stage: Stage, part: slice
) -> Tensor:
    """Return what the quantised stream lacks before a product, or behind one that is added."""
    inputs, wanted = quantised.inputs(stage, part), original.inputs(stage, part)
    if stage not in ADDED:
        return wanted - inputs
    product = original.layer.get_submodule(path)
    residual = original.residual(stage, part) - quantised.residual(stage, part)
    return _linear_part(product, wanted - inputs) + residual


def _through(product: nn.Module, lost: Tensor) -> Tensor:
    """Take what the inputs lack `[K, K]` through a product, side branch and all; `[N, K]`."""
    return _linear_part(product, lost.t()).t()


def _linear_part(product: nn.Module, inputs: Tensor) -> Tensor:
    """Take rows `[..., K]` through a product without its bias; `[..., N]`."""
    bias: Tensor = product(torch.zeros(1, inputs.shape[-1]))
    outputs: Tensor = product(inputs)
    return outputs - bias.squeeze(0)
