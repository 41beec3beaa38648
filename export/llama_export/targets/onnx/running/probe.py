"""Tap an ONNX artifact: find a Llama's intermediate values in its graph, and run it for them.

The points are found by the graph's own shape, from each attention node outwards and not by the
names of values, so that a faulty artifact is read as what it is. Where the shape is another one,
the points that cannot be found are left out. It knows operators, not what they should compute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from llama_export.errors import BundleError
from llama_export.llama import intermediates
from llama_export.llama.intermediates import FloatArray, Intermediates, in_layer, own_columns
from llama_export.targets.onnx.padding import after_padding, before_padding, half_padding
from llama_export.targets.onnx.running.runtime import load_runtime
from llama_export.targets.onnx.running.steps import product_of, rotated_from, whole_of
from llama_export.targets.onnx.signature import require_signature
from llama_export.targets.stored import StoredArtifact

if TYPE_CHECKING:
    import onnx
    import onnxruntime

_ATTENTION = "GroupQueryAttention"
_PRODUCTS = frozenset({"MatMulNBits", "FusedMatMul"})
_NORMS = frozenset({"RMSNormalization", "SkipSimplifiedLayerNormalization"})
_SKIP_NORM = "SkipSimplifiedLayerNormalization"
# Of `SkipSimplifiedLayerNormalization`: the output that is the residual sum itself.
_SUM_OUTPUT = 3

_CACHES = (
    intermediates.PAST_KEY,
    intermediates.PAST_VALUE,
    intermediates.KEY,
    intermediates.VALUE,
)
_Found = Iterator[tuple[str, str]]


def probe(
    artifact: StoredArtifact,
    chunks: Sequence[Sequence[int]],
    *,
    threads: int | None = None,
) -> tuple[Intermediates, ...]:
    """Run chunks of tokens one after the other in exact float32, from an empty cache.

    Args:
        artifact: model.onnx, with its data file beside it.
        chunks: tokens of each call; together at most the artifact's context.
        threads: number of runtime threads; None leaves it to onnxruntime.

    Returns:
        What each chunk held.

    Raises:
        BackendUnavailableError: the toolkit is not installed.
        BundleError: the runtime cannot load or run the artifact.
    """
    import onnx

    require_signature(artifact.spec)
    proto = onnx.load(str(artifact.path), load_external_data=False)
    points, padding = find_intermediates(proto.graph), half_padding(proto.graph)
    outputs = {value.name for value in proto.graph.output}
    extra = sorted(set(points.values()) - outputs)
    runtime = load_runtime(artifact.path, threads=threads, exact=True, extra_outputs=extra)
    past = {
        tensor.name: np.zeros((1, int(tensor.shape[1]), 0, int(tensor.shape[3])), np.float32)
        for tensor in artifact.spec.inputs
        if tensor.name.startswith("past_key_values.")
    }
    tapped = []
    for chunk in chunks:
        found = _run(runtime, chunk, past, sorted({*points.values(), *outputs}))
        values = {point: found[name] for point, name in points.items()} | _past_points(past)
        values = {point: _own(point, rows, padding) for point, rows in values.items()}
        names = points | {point: _past_name(point) for point in _past_points(past)}
        tapped.append(Intermediates(values, names))
        past = {name: found[name.replace("past_key_values", "present")][None] for name in past}
    return tuple(tapped)


def find_intermediates(graph: onnx.GraphProto) -> dict[str, str]:
    """Return which value of a graph is which point; a point that has no place is absent."""
    walk = _Walk(graph)
    points = dict(walk.ends())
    for layer, node in enumerate(node for node in graph.node if node.op_type == _ATTENTION):
        points |= {in_layer(layer, part): name for part, name in walk.layer(layer, node)}
    return points


class _Walk:
    """Steps from a node to its neighbours; a step that leads nowhere ends the way."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._outputs = {value.name for value in graph.output}
        self._maker: dict[str, onnx.NodeProto] = {}
        self._users: dict[str, list[onnx.NodeProto]] = {}
        self._attentions = [node for node in graph.node if node.op_type == _ATTENTION]
        for node in graph.node:
            self._maker.update(dict.fromkeys(filter(None, node.output), node))
            for name in dict.fromkeys(node.input):
                self._users.setdefault(name, []).append(node)

    def ends(self) -> _Found:
        """Yield the embedding, the final norm and the logits."""
        if "logits" in self._outputs:
            yield intermediates.HEAD, "logits"
        if not self._attentions:
            return
        first = self._product_of(self._packed(self._attentions[0]))
        norm = self._made_by(first.input[0], _NORMS) if first else None
        if norm:
            yield intermediates.EMBEDDING, norm.input[0]
        last = dict(self.layer(len(self._attentions) - 1, self._attentions[-1]))
        final = self._maker.get(last.get(intermediates.MLP_SUM, ""))
        if final:
            yield intermediates.FINAL_NORM, final.output[0]

    def layer(self, layer: int, attention: onnx.NodeProto) -> _Found:
        """Yield a layer's points as pairs of part and value."""
        packed = self._packed(attention)
        yield intermediates.QKV, packed
        product = self._product_of(packed)
        if product:
            yield intermediates.INPUT_NORM, product.input[0]
        # By name: the next call gets them back by these names, whatever the node calls them.
        for part, suffix in ((intermediates.KEY, "key"), (intermediates.VALUE, "value")):
            if f"present.{layer}.{suffix}" in self._outputs:
                yield part, f"present.{layer}.{suffix}"
        mixed = after_padding(self._graph, attention.output[0])
        yield intermediates.MIXED, mixed
        output = self._used_by(mixed, _PRODUCTS)
        if output:
            attended = whole_of(self._users, output.output[0])
            yield intermediates.OUTPUT, attended
            yield from self._feed_forward(attended)

    def _feed_forward(self, attended: str) -> _Found:
        norm = self._used_by(attended, {_SKIP_NORM})
        if norm is None or len(norm.output) <= _SUM_OUTPUT:
            return
        yield intermediates.ATTENTION_SUM, norm.output[_SUM_OUTPUT]
        yield intermediates.POST_NORM, norm.output[0]
        for gate in self._users.get(norm.output[0], []):
            activated = whole_of(self._users, gate.output[0])
            silu = self._used_by(activated, {"QuickGelu"})
            multiplied = self._used_by(silu.output[0], {"Mul"}) if silu else None
            if silu and multiplied:
                yield intermediates.GATE, activated
                yield intermediates.ACTIVATION, multiplied.output[0]
                yield from self._gated(silu.output[0], multiplied)

    def _gated(self, gate: str, multiplied: onnx.NodeProto) -> _Found:
        for name in multiplied.input:
            if name != gate:
                yield intermediates.UP, name
        rotated = rotated_from(self._users, multiplied.output[0])
        if rotated != multiplied.output[0]:
            yield intermediates.ROTATED, rotated
        down = self._used_by(rotated, _PRODUCTS)
        if down is None:
            return
        result = whole_of(self._users, down.output[0])
        yield intermediates.DOWN, result
        norm = self._used_by(result, {_SKIP_NORM})
        if norm and len(norm.output) > _SUM_OUTPUT:
            yield intermediates.MLP_SUM, norm.output[_SUM_OUTPUT]

    def _product_of(self, value: str) -> onnx.NodeProto | None:
        return self._made_by(product_of(self._maker, value), _PRODUCTS)

    def _packed(self, attention: onnx.NodeProto) -> str:
        return before_padding(self._graph, attention.input[0])

    def _made_by(self, value: str, kinds: frozenset[str]) -> onnx.NodeProto | None:
        node = self._maker.get(value)
        return node if node and node.op_type in kinds else None

    def _used_by(self, value: str, kinds: frozenset[str] | set[str]) -> onnx.NodeProto | None:
        return next((node for node in self._users.get(value, ()) if node.op_type in kinds), None)


def _run(
    runtime: onnxruntime.InferenceSession,
    chunk: Sequence[int],
    past: Mapping[str, FloatArray],
    outputs: Sequence[str],
) -> dict[str, FloatArray]:
    """Run one chunk and return every output without its batch axis."""
    total = len(chunk) + next((rows.shape[2] for rows in past.values()), 0)
    feeds = {
        "input_ids": np.asarray([chunk], dtype=np.int64),
        "attention_mask": np.ones((1, total), dtype=np.int64),
        **past,
    }
    try:
        found = runtime.run(list(outputs), feeds)
    except Exception as error:  # its classes share no base but this; it is re-raised as ours
        message = f"onnxruntime cannot run the artifact over {len(chunk)} tokens: {error}"
        raise BundleError(message, "export the bundle again") from error
    return {name: array[0] for name, array in zip(outputs, found, strict=True)}


def _own(point: str, rows: FloatArray, padding: int) -> FloatArray:
    """Leave out the zeros in a cache's rows."""
    if not padding or not point.endswith(_CACHES):
        return rows
    return own_columns(rows, rows.shape[-1] - 2 * padding)


def _past_points(past: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    points = {}
    for name, rows in past.items():
        _, layer, part = name.split(".")
        points[in_layer(int(layer), f"self_attn.past_{part}")] = rows[0]
    return points


def _past_name(point: str) -> str:
    _, _, layer, _, part = point.split(".")
    return f"past_key_values.{layer}.{part.removeprefix('past_')}"
