"""Lower a traced Llama to a Core ML package: one handler per kind of node, one walk a function.

Products, attention and activations are float16. The residual stream and the norms are float32, so
that no square can overflow and a hundred sums do not round; they are small. It knows the traced
operators and MIL's forms of them; weights, caches and the file are its neighbours' business.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.fx import Node

from llama_export.bundle.graph_spec import IO, GraphSpec
from llama_export.errors import LoweringError
from llama_export.llama import trace
from llama_export.llama.trace import TracedLlama
from llama_export.targets.coreml import signature
from llama_export.targets.coreml.lowering.attention import IoCache, StateCache, attend
from llama_export.targets.coreml.lowering.code_store import code_store
from llama_export.targets.coreml.lowering.package import (
    PackageFunction,
    full_disk_named,
    save_package,
)
from llama_export.targets.coreml.lowering.positions import (
    Positions,
    fixed_positions,
    flexible_positions,
)
from llama_export.targets.coreml.lowering.toolkit import import_coremltools
from llama_export.targets.coreml.lowering.weights import WeightEmitter, WeightSet
from llama_export.targets.coreml.options import IOS17, MAIN, CoremlOptions
from llama_export.targets.coreml.signature import graph_spec
from llama_export.targets.target import ArtifactMetadata
from llama_quantize.checkpoint.weights import QuantizedWeights

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Var

PACKAGE = "model.mlpackage"
_REPORT = "report it with the model's config.json"


def lower(
    traced: TracedLlama,
    weights: QuantizedWeights,
    folder: Path,
    options: CoremlOptions,
    metadata: ArtifactMetadata,
) -> GraphSpec:
    """Write model.mlpackage.

    Args:
        traced: graph of the model; its `max_context` is the length of the caches.
        weights: the quantised checkpoint, mapped.
        folder: existing folder that gets the package; meanwhile the codes lie in it, one a byte.
        options: the user's choices.
        metadata: description of the model.

    Raises:
        BackendUnavailableError: coremltools cannot be imported.
        LoweringError: a node or a scheme has no form in Core ML.
        OutputError: the disk is full.
    """
    import_coremltools()
    spec = graph_spec(traced.config, traced.max_context, options)
    calls: Mapping[str, int | None] = spec.functions or {MAIN: None}
    path = folder / PACKAGE
    with full_disk_named(path), tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        with code_store(scratch) as store:
            arrays = WeightSet(weights, store)
            parts = [
                _function(name, count, traced, arrays, options) for name, count in calls.items()
            ]
            save_package(parts, spec, path, scratch, options, metadata)
    return spec


def _function(
    name: str, count: int | None, traced: TracedLlama, arrays: WeightSet, options: CoremlOptions
) -> PackageFunction:
    """Build one function.

    Args:
        name: name of the function.
        count: number of tokens of a call; None: any number.
        traced: graph of the model.
        arrays: arrays of the weights.
        options: the user's choices.
    """
    from coremltools.converters.mil.mil import Function

    from llama_export.targets.coreml.lowering.inputs import declare, opset

    declared = declare(traced.config, traced.max_context, count, options)
    with Function(declared.placeholders, opset(options)) as function:
        outputs = _Lowering(traced, arrays, options, function.inputs, count).run()
        function.set_outputs(outputs)
    return PackageFunction(name, function, declared.types)


class _Lowering:
    """The state of one walk: which value each traced node has become."""

    def __init__(
        self,
        traced: TracedLlama,
        arrays: WeightSet,
        options: CoremlOptions,
        inputs: Mapping[str, Var],
        count: int | None,
    ) -> None:
        self._traced = traced
        self._emitter = WeightEmitter(arrays)
        self._options = options
        self._inputs = inputs
        self._count = count
        self._values: dict[str, Any] = {traced.input_names[0]: inputs[signature.INPUT_IDS]}
        self._layers = 0
        self._outputs: list[Var] = []
        # In the order of the graph: what a call is about comes before the first layer.
        self._cache = IoCache(inputs) if options.kv_cache == IO else StateCache(inputs)
        self._positions = self._derive_positions()
        self._head = _first_output(traced)

    def run(self) -> Sequence[Var]:
        """Emit the function and return its outputs."""
        self._traced.walk(self)
        return self._outputs

    def _derive_positions(self) -> Positions:
        config, max_context = self._traced.config, self._traced.max_context
        if self._count is None:
            return flexible_positions(self._inputs, self._cache.before, config, max_context)
        return fixed_positions(self._inputs, self._count, config, max_context)

    def embedding(self, node: Node) -> None:
        from coremltools.converters.mil.mil import Builder as mb

        table = self._emitter.matrix(self._traced.weight_name(node.args[0]))
        self._values[node.name] = mb.gather(x=table, indices=self._value(node.args[1]), axis=0)

    def rms_norm(self, node: Node) -> None:
        """Normalise in float32: in float16 a square overflows beyond 256."""
        from coremltools.converters.mil.mil import Builder as mb

        x, _, weight, eps = node.args
        wide = self._as(x, "fp32")
        mean = mb.reduce_mean(x=mb.square(x=wide), axes=[-1], keep_dims=True)
        scale = mb.rsqrt(x=mean, epsilon=trace.number(eps))
        gamma = self._emitter.vector(self._traced.weight_name(weight))
        normed = mb.mul(x=mb.mul(x=wide, y=scale), y=gamma)
        self._values[node.name] = mb.cast(x=normed, dtype="fp16")

    def linear(self, node: Node) -> None:
        from coremltools.converters.mil.mil import Builder as mb

        x = self._as(node.args[0], "fp16")
        is_head = node.name == self._head
        if is_head and self._count is not None and self._count > 1:
            last = mb.sub(x=self._inputs[signature.LENGTH], y=1, name="last_token")
            x = mb.gather(x=x, indices=last, axis=1, name="last_hidden")
        linear = self._traced.linear(node)
        matrix = self._emitter.matrix(linear.weight)
        name = signature.LOGITS if is_head else node.name
        bias = self._emitter.zeros(matrix.shape[0])
        product = mb.linear(x=x, weight=matrix, bias=bias, name=name)
        if linear.bias or linear.side:
            product = self._with_beside(linear, product)
        self._values[node.name] = product

    adapted_linear = linear

    def _with_beside(self, linear: trace.Linear, product: Var) -> Var:
        """Add a bias and a side branch in float32, which holds whatever bfloat16 does."""
        from coremltools.converters.mil.mil import Builder as mb

        total = mb.cast(x=product, dtype="fp32")
        if linear.bias:
            total = mb.add(x=total, y=self._emitter.vector(linear.bias))
        if linear.side:
            value = self._as(linear.x, "fp32")
            for name in (linear.side.a, linear.side.b):
                value = self._emitter.float32_product(name, value)
            total = mb.add(x=total, y=mb.mul(x=value, y=np.float32(linear.side.scale)))
        return total

    def hadamard(self, node: Node) -> None:
        """Rotate in float32, by two small products: a sum of all channels has no bound."""
        from coremltools.converters.mil.mil import Builder as mb

        left, right = self._traced.config.rotation_orders
        blocks = mb.reshape(x=self._as(node.args[0], "fp32"), shape=[1, -1, left, right])
        half = mb.matmul(x=blocks, y=self._emitter.hadamard("right", right, 1.0))
        whole = mb.matmul(x=self._emitter.hadamard("left", left, (left * right) ** -0.5), y=half)
        rows = mb.reshape(x=whole, shape=[1, -1, left * right])
        self._values[node.name] = mb.cast(x=rows, dtype="fp16")

    def attention(self, node: Node) -> None:
        query, key, value = (self._as(argument, "fp16") for argument in node.args[:3])
        self._values[node.name] = attend(
            (query, key, value),
            self._layers,
            self._cache,
            self._positions,
            self._traced.config,
            fused=self._options.deployment_target != IOS17,
        )
        self._layers += 1

    def getitem(self, node: Node) -> None:
        """Take the mixed values; the caches are the cache's own business."""
        source, index = node.args
        self._values[node.name] = self._values[str(source)] if index == 0 else None

    def silu(self, node: Node) -> None:
        from coremltools.converters.mil.mil import Builder as mb

        self._values[node.name] = mb.silu(x=self._as(node.args[0], "fp16"))

    def mul(self, node: Node) -> None:
        from coremltools.converters.mil.mil import Builder as mb

        left, right = (self._as(argument, "fp16") for argument in node.args)
        self._values[node.name] = mb.mul(x=left, y=right)

    def add(self, node: Node) -> None:
        """Add to the residual stream, in float32."""
        from coremltools.converters.mil.mil import Builder as mb

        left, right = (self._as(argument, "fp32") for argument in node.args)
        self._values[node.name] = mb.add(x=left, y=right)

    def output(self, node: Node) -> None:
        self._outputs = [self._value(self._head)]
        if isinstance(self._cache, IoCache):
            self._outputs += self._cache.outputs()

    def _as(self, argument: object, dtype: str) -> Var:
        """Return the value of a traced node in a type, casting it once."""
        from coremltools.converters.mil.mil import Builder as mb
        from coremltools.converters.mil.mil import types

        value = self._value(argument)
        if value.dtype == types.string_to_builtin(dtype):
            return value
        key = f"{argument} as {dtype}"
        if key not in self._values:
            self._values[key] = mb.cast(x=value, dtype=dtype)
        return self._values[key]

    def _value(self, argument: object) -> Var:
        value = self._values.get(str(argument))
        if value is None:
            message = f"the traced graph uses {argument}, which has no value in Core ML"
            raise LoweringError(message, _REPORT)
        return value


def _first_output(traced: TracedLlama) -> str:
    """Return the name of the node that gives the logits.

    Raises:
        LoweringError: it is not a product.
    """
    (output,) = (node for node in traced.program.graph.nodes if node.op == "output")
    first: Any = output.args[0]
    while isinstance(first, list | tuple):
        first = first[0]
    if first.target != trace.LINEAR:
        message = f"expected the first output to be a product, found {first.target}"
        raise LoweringError(message, _REPORT)
    return str(first)
