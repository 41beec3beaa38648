"""Describe what an ONNX artifact is made of, from its graph alone; no weight is read.

Each region of the data file gets its kind from the operators that use it, and a region that two
operators share counts once. It knows the operators' inputs; it does not know how weights were
chosen or what a Llama is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.bundle.graph_spec import GraphSpec
from llama_export.errors import BackendUnavailableError, BundleError
from llama_export.llama.names import is_adaptor
from llama_export.targets.footprint import (
    ADAPTORS,
    BIASES,
    CACHE_ITEM_BYTES,
    GRAPH,
    NORMS,
    PADDING,
    ROTARY,
    SCALES,
    Footprint,
    Part,
    merge,
    weights_kind,
)
from llama_export.targets.onnx.layout import WEIGHTS_KEY
from llama_export.targets.onnx.signature import require_signature
from llama_export.targets.stored import StoredArtifact

if TYPE_CHECKING:
    import onnx

DATA_SUFFIX = "_data"
FILES: Mapping[str, str] = {
    "model.onnx": "the graph, without weights",
    "model.onnx_data": "the weights",
    "genai_config.json": "settings of onnxruntime-genai",
}
_STORAGE = {1: "float32", 2: "int8", 10: "float16", 16: "bfloat16"}
_NORM_INPUT = {"RMSNormalization": 1, "SkipSimplifiedLayerNormalization": 2}
_ROTARY_INPUTS = (7, 8)


@dataclass(frozen=True)
class _Region:
    """A region of the data file, and how much of it decoding a token reads."""

    kind: str
    size_bytes: int
    read_bytes: int


def describe(artifact: StoredArtifact) -> Footprint:
    """Add up an artifact by kind.

    Args:
        artifact: model.onnx, with its data file beside it.

    Raises:
        BackendUnavailableError: onnx is not installed.
        BundleError: model.onnx is no graph, or a region is outside its data file.
    """
    require_signature(artifact.spec)
    model = artifact.path
    proto = load_graph(model)
    data_bytes = model.with_name(model.name + DATA_SUFFIX).stat().st_size
    regions: dict[int, _Region] = {}
    for offset, region in _regions(proto.graph):
        if not 0 <= offset <= offset + region.size_bytes <= data_bytes:
            message = f"{model}: a weight ends at byte {offset + region.size_bytes} of {data_bytes}"
            raise BundleError(message, "export the bundle again")
        known = regions.get(offset, region)
        # A tied table: the lookup reads a row, the head reads it all.
        regions[offset] = replace(known, read_bytes=max(known.read_bytes, region.read_bytes))
    parts = [Part(region.kind, region.size_bytes, region.read_bytes) for region in regions.values()]
    parts.append(Part(PADDING, data_bytes - sum(part.size_bytes for part in parts), 0))
    parts.append(Part(GRAPH, model.stat().st_size, 0))
    counted = (model.name, model.name + DATA_SUFFIX)
    return Footprint(merge(parts), kv_bytes_per_token(artifact.spec), FILES, counted)


def kv_bytes_per_token(spec: GraphSpec) -> int:
    """Return what one position takes in the KV caches that the graph is given."""
    return sum(
        CACHE_ITEM_BYTES[tensor.dtype]
        * math.prod(size for size in tensor.shape if isinstance(size, int))
        for tensor in spec.inputs
        if "past_sequence_length" in tensor.shape
    )


def load_graph(model: Path) -> onnx.ModelProto:
    """Parse a graph; its weights stay in their file.

    Raises:
        BackendUnavailableError: onnx is not installed.
        BundleError: model.onnx is no graph.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        message = f"onnx is needed to read {model.name}, and it cannot be imported: {error}"
        raise BackendUnavailableError(message, "pip install onnx, of the extra 'onnx'") from None
    try:
        return onnx.load(str(model), load_external_data=False)
    except DecodeError as error:
        message = f"{model} is no ONNX graph: {error}"
        raise BundleError(message, "export the bundle again") from error


def _regions(graph: onnx.GraphProto) -> Iterator[tuple[int, _Region]]:
    """Yield each use of a weight: where it lies, and what it is to that operator."""
    weights = {proto.name: proto for proto in graph.initializer if proto.external_data}
    casts = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    # Bytes that are looked up themselves hold two codes each.
    pairs = {casts.get(node.input[1]) for node in graph.node if node.op_type == "Gather"}
    for node in graph.node:
        for index, kind, by_row in _uses(node, graph.output[0].name):
            name = casts.get(node.input[index], node.input[index])
            proto = weights.get(name)
            if proto is None:
                continue
            place = {entry.key: entry.value for entry in proto.external_data}
            size_bytes = int(place["length"])
            read = size_bytes // proto.dims[0] if by_row else size_bytes
            storage = "int4" if node.output[0] in pairs else _STORAGE.get(proto.data_type, "")
            # A table's scales are looked up like its rows: `[V, G, 1]`, or one dimension more.
            found = SCALES if by_row and set(proto.dims[2:]) == {1} else kind.format(storage)
            yield int(place["offset"]), _Region(found, size_bytes, read)


def _uses(node: onnx.NodeProto, logits: str) -> Iterator[tuple[int, str, bool]]:
    """Yield the inputs of a node that may be weights: which, of what kind, and whether by row."""
    is_head = node.output[0] == logits
    if node.op_type == "MatMulNBits":
        bits = next(attribute.i for attribute in node.attribute if attribute.name == "bits")
        yield 1, weights_kind(f"int{bits}", is_table=is_head), False
        yield 2, SCALES, False
    elif node.op_type == "Add":
        yield 1, BIASES, False
    elif node.op_type == "FusedMatMul" and is_adaptor(_weights_of(node)):
        yield 1, ADAPTORS, False
    elif node.op_type in ("FusedMatMul", "Gather"):
        lookup = node.op_type == "Gather"
        yield int(not lookup), weights_kind("{}", is_table=is_head or lookup), lookup
    elif node.op_type in _NORM_INPUT:
        yield _NORM_INPUT[node.op_type], NORMS, False
    elif node.op_type == "GroupQueryAttention":
        for index in _ROTARY_INPUTS:
            yield index, ROTARY, True


def _weights_of(node: onnx.NodeProto) -> str:
    """Return what a node's metadata say of its weights."""
    described = {entry.key: entry.value for entry in node.metadata_props}
    return str(described.get(WEIGHTS_KEY, ""))
