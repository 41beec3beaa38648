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
from dataclasses import dataclass

import torch
from torch import Tensor

from llama_export.calibration.layer_streams import ADDED, STAGE_OF, Stage, Stream
from llama_export.calibration.scratch import Scratch
from llama_export.calibration.sums import OuterSum
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
        self._layer: LlamaDecoderLayer | None = None
        self._original: LlamaDecoderLayer | None = None
        self._place = (0, Stage.ATTENTION)
        self._streams: list[Stream] = []
        self._sums: tuple[str, InputStatistics, Tensor | None] | None = None
        self._dead: dict[str, int] = {}

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
        key = f"{index}.{stage}"
        if self._sums is None or self._sums[0] != key or stage in ADDED:
            self._sums = None  # before the next ones take as much memory
            self._sums = key, *self._summed(key, path, stage, needs)
        _, found, lost = self._sums
        cross = found.cross
        if lost is not None and needs >= Needs.TARGETS:
            cross = self._weight(path) @ lost
        curvature = self._about.curvature(name) if needs >= Needs.CURVATURE else None
        return InputStatistics(found.gram, found.count, cross, curvature)

    @torch.no_grad()
    def quantised(self, name: str, tensor: Weight) -> None:
        """Use what is stored of a tensor from now on."""
        self._stored[name] = tensor
        if isinstance(tensor, QuantizedTensor) and _PRODUCT.fullmatch(name):
            self._made[name] = tensor
        prefix = f"model.layers.{self._place[0]}."
        if self._layer is not None and name.startswith(prefix):
            weight = {name.removeprefix(prefix): whole(tensor)}
            self._layer.load_state_dict(weight, strict=False, assign=True)

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
            self._enter()
            layer, at = self._place
            for stream in self._streams:
                stream.pass_stage(at)
            if at is Stage.GATED:
                self._leave()
                self._place = layer + 1, Stage.ATTENTION
            else:
                self._place = layer, Stage(at + 1)
        if index < self._config.num_hidden_layers:
            self._enter()

    def _begin(self) -> None:
        """Embed the windows, or go on where an interrupted run was."""
        names = ["quantised", "original"][: 2 if self._about.needs >= Needs.TARGETS else 1]
        windows = self._about.windows
        self._streams = [Stream(name, self._config, windows, self._scratch) for name in names]
        if self._scratch.layer:
            self._place = self._scratch.layer, Stage.ATTENTION
            for stream in self._streams:
                stream.go_on_at(self._scratch.layer)
            self._forget(self._scratch.layer)
            return
        for stream, read in zip(self._streams, (self._read, self._checkpoint.tensor), strict=False):
            stream.begin(read)

    def _enter(self) -> None:
        """Load the layer that is being quantised, for each stream its own."""
        if self._layer is not None:
            return
        index = self._place[0]
        self._layer = load_layer(self._config, self._read, index)
        self._streams[0].enter(self._layer, index)
        if len(self._streams) > 1:
            # What is not quantised yet is one tensor in both.
            with torch.device("meta"):
                self._original = LlamaDecoderLayer(self._config)
            self._original.load_state_dict(self._layer.state_dict(), assign=True)
            self._streams[1].enter(self._original, index)

    def _leave(self) -> None:
        """Note that the layer is done, and drop its weights."""
        index = self._place[0]
        for stream in self._streams:
            stream.leave()
        self._layer = self._original = None
        self._scratch.finish(index, self._made)
        self._forget(index + 1)

    def _forget(self, index: int) -> None:
        """Drop what was noted of the layers before `index`."""
        done = tuple(f"model.layers.{layer}." for layer in range(index))
        self._stored = {k: v for k, v in self._stored.items() if not k.startswith(done)}
        self._made = {}

    def _read(self, name: str) -> Weight:
        stored = self._stored.get(name)
        return self._checkpoint.tensor(name) if stored is None else stored

    def _weight(self, path: str) -> Tensor:
        """Return an original weight of the layer, float32 `[N, K]`."""
        return self._unquantised().get_parameter(f"{path}.weight")

    def _unquantised(self) -> LlamaDecoderLayer:
        if self._original is None:
            message = "targets were not announced"
            raise RuntimeError(message)
        return self._original

    def _summed(
        self, key: str, path: str, stage: Stage, needs: Needs
    ) -> tuple[InputStatistics, Tensor | None]:
        """Add up over all tokens: the statistics, and what the inputs lack, `[K, K]`."""
        stream = self._streams[0]
        if not path:
            columns = self._config.hidden_size
            gram = OuterSum(columns, columns)
            for part in stream.parts:
                inputs = normed(self._config, self._read, stream.before(part))
                gram.add(inputs, inputs)
            return InputStatistics(gram.total(), gram.count), None
        columns = stream.inputs(stage, slice(0, 0)).shape[-1]
        gram = OuterSum(columns, columns)
        targets = len(self._streams) > 1 and needs >= Needs.TARGETS
        rows = self._config.hidden_size if stage in ADDED else columns
        lost = OuterSum(rows, columns) if targets else None
        for part in stream.parts:
            inputs = stream.inputs(stage, part)
            gram.add(inputs, inputs)
            if lost is not None:
                lost.add(self._missing(path, stage, part, inputs), inputs)
        found = gram.total()
        self._count_dead(key, found)
        if lost is None:
            return InputStatistics(found, gram.count), None
        if stage in ADDED:
            return InputStatistics(found, gram.count, lost.total()), None
        return InputStatistics(found, gram.count), lost.total()

    def _missing(self, path: str, stage: Stage, part: slice, inputs: Tensor) -> Tensor:
        """Return what the quantised stream lacks before a product, or behind one that is added."""
        quantised, original = self._streams
        wanted = original.inputs(stage, part)
        if stage not in ADDED:
            return wanted - inputs
        product = self._unquantised().get_submodule(path)
        residual = original.residual(stage, part) - quantised.residual(stage, part)
        lacking: Tensor = product(wanted) - product(inputs) + residual
        return lacking

    def _count_dead(self, key: str, gram: Tensor) -> None:
        """Count the channels that never fire."""
        diagonal = gram.diagonal()
        if dead := int((diagonal <= _DEAD * diagonal.mean()).sum()):
            self._dead[key] = dead
