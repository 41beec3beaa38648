"""Run the way from ids to the first layer alone, cut out of an ONNX artifact's own graph.

Its end is found from the first attention: what the norm before it takes, and what is added to its
result. So whatever stands between the ids and these two is run, be it known or not.

Shapes: n ids, E hidden_size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_export.errors import BundleError
from llama_export.llama.intermediates import FloatArray
from llama_export.targets.onnx.padding import after_padding, before_padding
from llama_export.targets.onnx.running.runtime import load_runtime
from llama_export.targets.onnx.running.steps import is_beside, product_of, whole_of

if TYPE_CHECKING:
    import onnx
    import onnxruntime

_FIRST_KEYS = "present.0.key"
NORM, SUM = "model.layers.0.input_layernorm", "model.layers.0 (sum after self_attn)"
_SUMS = frozenset({"SkipSimplifiedLayerNormalization", "Add"})


class OnnxLookup:
    """The cut graph in onnxruntime; satisfies `Lookup`.

    Args:
        runtime: the loaded graph.
        ends: name of the value that each consumer takes.
    """

    def __init__(self, runtime: onnxruntime.InferenceSession, ends: Mapping[str, str]) -> None:
        self._runtime: onnxruntime.InferenceSession | None = runtime
        self._ends = ends

    @classmethod
    def open(cls, model: Path, *, threads: int | None = None) -> OnnxLookup:
        """Cut the graph and load it.

        Args:
            model: path of model.onnx.
            threads: number of runtime threads; None leaves it to onnxruntime.

        Raises:
            BundleError: the first layer has another form, or the runtime cannot load the graph.
        """
        import onnx

        proto = onnx.load(str(model), load_external_data=False)
        ends = find_ends(proto.graph)
        part = _cut(proto, sorted(set(ends.values())))
        return cls(load_runtime(model, threads=threads, graph=part), ends)

    def rows(self, input_ids: Sequence[int]) -> Mapping[str, FloatArray]:
        """Look ids up, `[n, E]` for each consumer.

        Raises:
            BundleError: the runtime cannot run the graph.
        """
        if self._runtime is None:
            message = "the lookup is closed"
            raise BundleError(message, "open it again")
        names = sorted(set(self._ends.values()))
        feeds = {
            each.name: _fed(each.name, each.shape, input_ids) for each in self._runtime.get_inputs()
        }
        try:
            found = self._runtime.run(names, feeds)
        except Exception as error:  # its classes share no base but this; it is re-raised as ours
            message = f"onnxruntime cannot look {len(input_ids)} ids up: {error}"
            raise BundleError(message, "export the bundle again") from error
        by_name = {name: array[0] for name, array in zip(names, found, strict=True)}
        return {consumer: by_name[name] for consumer, name in self._ends.items()}

    def close(self) -> None:
        """Let go of the runtime."""
        self._runtime = None


def find_ends(graph: onnx.GraphProto) -> dict[str, str]:
    """Return which value the first norm takes, and which one is added to the first attention.

    Raises:
        BundleError: the first layer has another form.
    """
    maker = {name: node for node in graph.node for name in node.output if name}
    attention = maker.get(_FIRST_KEYS)
    packed = before_padding(graph, attention.input[0]) if attention else ""
    product = maker.get(product_of(maker, packed))
    norm = maker.get(product.input[0]) if product else None
    if attention is None or norm is None or not norm.input:
        message = "model.onnx: the first attention does not begin with a norm and a product"
        raise BundleError(message, "export the bundle again")
    ends = {NORM: str(norm.input[0])}
    for residual in _added(graph, after_padding(graph, attention.output[0])):
        ends[SUM] = residual
    if SUM not in ends:
        message = "model.onnx: nothing is added to what the first attention gives"
        raise BundleError(message, "export the bundle again")
    return ends


def _added(graph: onnx.GraphProto, mixed: str) -> Iterator[str]:
    """Yield what is added to the product of an attention's result."""
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    for product in users.get(mixed, ()):
        result = whole_of(users, product.output[0])
        for node in users.get(result, ()):
            if node.op_type in _SUMS and result in node.input[:2] and not is_beside(node):
                yield from (str(name) for name in node.input[:2] if name != result)


def _cut(proto: onnx.ModelProto, ends: Sequence[str]) -> bytes:
    """Return a model of the nodes that some values need, and of nothing else."""
    import onnx

    graph = proto.graph
    maker = {name: index for index, node in enumerate(graph.node) for name in node.output}
    needed, values, waiting = set[int](), set[str](), list(ends)
    while waiting:
        name = waiting.pop()
        if name in values:
            continue
        values.add(name)
        if name in maker:
            needed.add(maker[name])
            waiting += graph.node[maker[name]].input
    part = onnx.ModelProto()
    part.CopyFrom(proto)
    _keep(part.graph.node, [graph.node[index] for index in sorted(needed)])
    _keep(part.graph.initializer, [each for each in graph.initializer if each.name in values])
    _keep(part.graph.input, [each for each in graph.input if each.name in values])
    outputs = [onnx.helper.make_tensor_value_info(name, 1, None) for name in ends]
    _keep(part.graph.output, outputs)
    serialized: bytes = part.SerializeToString(deterministic=True)
    return serialized


def _keep(field: Any, kept: list[Any]) -> None:  # noqa: ANN401 - protobuf's lists have no types
    del field[:]
    field.extend(kept)


def _fed(name: str, shape: Sequence[Any], input_ids: Sequence[int]) -> np.ndarray:
    """Return what an input of the graph is given: the ids, a mask of ones, or an empty cache."""
    if name == "input_ids":
        return np.asarray([input_ids], dtype=np.int64)
    if name == "attention_mask":
        return np.ones((1, len(input_ids)), dtype=np.int64)
    sizes = [size if isinstance(size, int) else 0 for size in shape]
    return np.zeros([1, *sizes[1:]], dtype=np.float32)
