"""Describe what a package is made of, from its program alone; no weight is read.

Each array of the weight file gets its kind from what uses it, and one that two functions share
counts once. It knows constants and operators; it does not know what a Llama is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from coreml_evaluator.package import Package
from llama_export.bundle.graph_spec import GraphSpec
from llama_export.errors import BundleError
from llama_export.llama.names import HEAD, is_adaptor, is_bias
from llama_export.targets.coreml.names import COS_TABLE, SIN_TABLE, ZEROS, const_name, weight_name
from llama_export.targets.coreml.reading.stored_weights import (
    StoredConstant,
    Tensor,
    stored_constants,
)
from llama_export.targets.coreml.signature import KEY_CACHE, VALUE_CACHE
from llama_export.targets.coreml.sizes import COUNTED, FILES
from llama_export.targets.footprint import (
    ADAPTORS,
    BIASES,
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
from llama_export.targets.stored import StoredArtifact

_STORAGE = {"fp16": "float16", "fp32": "float32"}
_HALF_BYTES = 2


@dataclass(frozen=True)
class _Use:
    """The kind of an array, and how much of it decoding a token reads."""

    kind: str
    tensor: Tensor
    read_bytes: int


def describe(artifact: StoredArtifact) -> Footprint:
    """Add up a package by kind.

    Raises:
        BundleError: the package is damaged, or an array is outside its file.
    """
    path = artifact.path
    package = Package.open(path)
    uses: dict[tuple[str, int], _Use] = {}
    files: dict[str, int] = {}
    for each in stored_constants(package):
        for use in _uses(each):
            place = use.tensor.file, use.tensor.offset
            known = uses.get(place)
            if known is None or known.read_bytes < use.read_bytes:
                uses[place] = use
            files[use.tensor.file] = len(package.blobs(use.tensor.file).content)
    parts = [Part(use.kind, use.tensor.size_bytes, use.read_bytes) for use in uses.values()]
    rest = sum(files.values()) - sum(part.size_bytes for part in parts)
    if rest < 0:
        message = f"{path}: the program's weights are {-rest} bytes more than its weight file"
        raise BundleError(message, "export the bundle again")
    graph = package.model_file.stat().st_size + (path / "Manifest.json").stat().st_size
    parts += [Part(PADDING, rest, 0), Part(GRAPH, graph, 0)]
    return Footprint(merge(parts), kv_bytes_per_token(artifact.spec), FILES, COUNTED)


def kv_bytes_per_token(spec: GraphSpec) -> int:
    """Return what one position takes in the caches, float16 `[L, 1, K, length, D]` each."""
    tensors = (*spec.inputs, *spec.states)
    shapes = [tensor.shape for tensor in tensors if tensor.name in (KEY_CACHE, VALUE_CACHE)]
    rows = (
        math.prod(int(size) for axis, size in enumerate(shape) if axis != 3) for shape in shapes
    )
    return _HALF_BYTES * sum(rows)


def _uses(each: StoredConstant) -> list[_Use]:
    rows = each.data.shape[0]
    if each.name.startswith(ZEROS):
        return [_Use(GRAPH, each.data, 0)]
    if each.name in (COS_TABLE, SIN_TABLE):
        return [_Use(ROTARY, each.data, each.data.size_bytes // rows)]
    if each.users <= {"mul"} and len(each.data.shape) == 1 and each.data.dtype == "fp32":
        return [_Use(NORMS, each.data, each.data.size_bytes)]
    if is_bias(weight_name(each.name)):
        return [_Use(BIASES, each.data, each.data.size_bytes)]
    if is_adaptor(weight_name(each.name)):
        return [_Use(ADAPTORS, each.data, each.data.size_bytes)]
    if not each.users & {"gather", "linear"}:
        return [_Use(GRAPH, each.data, 0)]
    # What is looked up only is read by row.
    shared = rows if "linear" not in each.users else 1
    storage = _STORAGE.get(each.data.dtype, each.data.dtype)
    is_table = "gather" in each.users or each.name == const_name(HEAD)
    kind = weights_kind(storage, is_table=is_table)
    uses = [_Use(kind, each.data, each.data.size_bytes // shared)]
    if each.scales is not None and not each.scales.held:
        uses.append(_Use(SCALES, each.scales, each.scales.size_bytes // shared))
    return uses
