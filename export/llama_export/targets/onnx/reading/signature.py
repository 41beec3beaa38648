"""Read what an ONNX graph takes and gives, and how long its cache may grow, from its own bytes.

It knows graphs and the rotary tables' place; it reads no weight.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.bundle.graph_spec import IO, GraphSpec, TensorSpec
from llama_export.targets.damage import damage_named
from llama_export.targets.onnx.reading.describe import load_graph
from llama_export.targets.own_description import OwnDescription, Said

if TYPE_CHECKING:
    import onnx

# onnx's numbers of the dtypes that a signature has.
_DTYPES = {1: "float32", 6: "int32", 7: "int64", 10: "float16", 16: "bfloat16"}
_ATTENTION, _ROTARY_INPUTS = "GroupQueryAttention", (7, 8)


def read_description(path: Path) -> OwnDescription:
    """Read the graph's own signature.

    Raises:
        BackendUnavailableError: onnx is not installed.
        BundleError: model.onnx is no graph, or is not laid out as ours are.
    """
    with damage_named(path):
        model = load_graph(path)
        # A graph of ours has no words of its own, so whatever stands there is another's.
        said = tuple(Said(entry.key, None, entry.value) for entry in model.metadata_props)
        return OwnDescription(_signature(model.graph), said)


def _signature(graph: onnx.GraphProto) -> GraphSpec:
    outputs = tuple(map(_tensor, graph.output))
    rows = outputs[0].shape[1]
    return GraphSpec(
        inputs=tuple(map(_tensor, graph.input)),
        outputs=outputs,
        kv_cache=IO,
        max_context=_capacity(graph),
        all_logits=rows != 1,
    )


def _tensor(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(
        dimension.dim_param if dimension.HasField("dim_param") else int(dimension.dim_value)
        for dimension in kind.shape.dim
    )
    return TensorSpec(value.name, _DTYPES[kind.elem_type], shape)


def _capacity(graph: onnx.GraphProto) -> int:
    """Return the rows of the shortest rotary table: no position beyond them can be computed."""
    rows = {proto.name: int(proto.dims[0]) for proto in graph.initializer if proto.dims}
    return min(
        rows[node.input[index]]
        for node in graph.node
        if node.op_type == _ATTENTION
        for index in _ROTARY_INPUTS
    )
