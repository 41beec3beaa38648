"""A thin layer over `onnx.helper`: collect nodes and initializers, then write model.onnx.

Names of values are made from names of weights, so they are stable. It knows nothing of Llama.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper
from torch import Tensor

from llama_export.bundle.graph_spec import GraphSpec, TensorSpec
from llama_export.targets.onnx.lowering.data import DataRegion, DataWriter
from llama_export.version import __version__

MICROSOFT = "com.microsoft"
OPSET = 23
IR_VERSION = 10

Attribute = int | float | str

_ELEMENT_TYPES: Mapping[str, int] = {
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
}


class GraphBuilder:
    """Nodes in the order of their making; weights go to the data writer at once."""

    def __init__(self, writer: DataWriter, data_file_name: str) -> None:
        self._writer = writer
        self._data_file_name = data_file_name
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        attributes: Mapping[str, Attribute] | None = None,
        domain: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Add a node and return the name of its first output; the node is named after it."""
        proto = helper.make_node(op, inputs, outputs, name=f"{outputs[0]}/{op}", domain=domain)
        for key, value in sorted((attributes or {}).items()):
            proto.attribute.append(helper.make_attribute(key, value))
        for key, text in sorted((metadata or {}).items()):
            proto.metadata_props.append(onnx.StringStringEntryProto(key=key, value=text))
        self._nodes.append(proto)
        return outputs[0]

    def constant(self, name: str, dtype: str, shape: Sequence[int], values: Sequence[float]) -> str:
        """Add a small constant, kept inside model.onnx; the same name is added once."""
        if name not in self._initializers:
            proto = helper.make_tensor(name, _ELEMENT_TYPES[dtype], shape, values)
            self._initializers[name] = proto
        return name

    def weight(
        self, name: str, dtype: str, shape: Sequence[int], chunks: Iterable[Tensor] | DataRegion
    ) -> DataRegion:
        """Add an initializer in the data file.

        Args:
            name: name of the value.
            dtype: element type, as in "bfloat16".
            shape: shape of the whole tensor.
            chunks: rows that are written now, or a region written before, which is then shared.
        """
        region = chunks if isinstance(chunks, DataRegion) else self._writer.append(chunks)
        proto = TensorProto(name=name, data_type=_ELEMENT_TYPES[dtype], dims=list(shape))
        proto.data_location = TensorProto.EXTERNAL
        fields = {
            "location": self._data_file_name,
            "offset": str(region.offset),
            "length": str(region.length),
        }
        for key, value in fields.items():
            proto.external_data.append(onnx.StringStringEntryProto(key=key, value=value))
        self._initializers[name] = proto
        return region

    def has(self, name: str) -> bool:
        """Return whether an initializer of that name exists."""
        return name in self._initializers

    def write(self, path: Path, spec: GraphSpec) -> None:
        """Check the graph and write model.onnx; the same graph gives the same bytes."""
        graph = helper.make_graph(
            self._nodes,
            "llama",
            [_value_info(tensor) for tensor in spec.inputs],
            [_value_info(tensor) for tensor in spec.outputs],
            list(self._initializers.values()),
        )
        model = helper.make_model(
            graph,
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)],
            producer_name="llama-export",
            producer_version=__version__,
        )
        path.write_bytes(model.SerializeToString(deterministic=True))
        onnx.checker.check_model(str(path), full_check=True)


def _value_info(spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, _ELEMENT_TYPES[spec.dtype], spec.shape)
