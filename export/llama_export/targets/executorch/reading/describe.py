"""Describe what a `.pte` is made of, from its program and its delegates; no weight is read.

It knows the layout; it does not know how weights were chosen or what a Llama is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llama_export.bundle.graph_spec import GraphSpec
from llama_export.llama.names import HEAD
from llama_export.targets.damage import damage_named
from llama_export.targets.executorch.reading.pte import Pte, PteTensor
from llama_export.targets.executorch.reading.signature import require_signature
from llama_export.targets.executorch.reading.weights import PteWeights, read_weights
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
from llama_export.targets.stored import StoredArtifact

FILES: Mapping[str, str] = {"model.pte": "the program, its delegates and the weights"}
_XNNPACK = "XnnpackBackend"
_DELEGATE, _CONSTANTS = "delegate and its weights", "constants beside it"


def describe(artifact: StoredArtifact) -> Footprint:
    """Add up an artifact by kind.

    Raises:
        BundleError: the file is damaged or laid out in another way.
    """
    model, spec = artifact.path, artifact.spec
    require_signature(spec)
    pte = Pte.open(model)
    with damage_named(model):
        if {backend for backend, _ in pte.delegates} != {_XNNPACK}:
            return _opaque(pte, model.stat().st_size, spec)
    weights = read_weights(pte)
    with damage_named(model):
        return _described(artifact, pte, weights)


def _described(artifact: StoredArtifact, pte: Pte, weights: PteWeights) -> Footprint:
    model = artifact.path
    regions = dict(_regions(pte, weights))
    parts = list(regions.values())
    delegates = {segment for _, segment in pte.delegates}
    graph = pte.segments_at + sum(pte.segments[number].size_bytes for number in delegates)
    parts.append(Part(GRAPH, graph, 0))
    known = sum(part.size_bytes for part in parts)
    parts.append(Part(PADDING, model.stat().st_size - known, 0))
    return Footprint(merge(parts), kv_bytes_per_token(pte, artifact.spec), FILES, (model.name,))


def _opaque(pte: Pte, size_bytes: int, spec: GraphSpec) -> Footprint:
    """Add up a file whose delegate is a format of its own: program, constants, and the rest."""
    number, _, _ = pte.constant_segment
    constants = pte.segments[number].size_bytes
    rest = size_bytes - pte.segments_at - constants
    parts = (
        Part(_DELEGATE, rest, rest),
        Part(_CONSTANTS, constants, 0),
        Part(GRAPH, pte.segments_at, 0),
    )
    per_token = int(spec.delegate.get("kv_bytes_per_token", 0))
    return Footprint(merge(parts), per_token, FILES, (next(iter(FILES)),))


def kv_bytes_per_token(pte: Pte, spec: GraphSpec) -> int:
    """Return what one position takes in all caches, inside the program or beside it."""
    caches = [tensor for tensor in pte.tensors.values() if "_cache_" in tensor.name]
    if caches:
        return sum(tensor.size_bytes // tensor.sizes[1] for tensor in caches)
    total = 0
    for tensor in spec.inputs[2:]:
        heads, size = (int(number) for number in tensor.shape[2:])
        total += CACHE_ITEM_BYTES[tensor.dtype] * heads * size
    return total


def _regions(pte: Pte, weights: PteWeights) -> Iterator[tuple[int, Part]]:
    """Yield each region of the file by its offset, with what decoding a token reads of it."""
    codes, scales = weights.lookup
    for tensor, kind in (
        (codes, weights_kind(f"int{weights.lookup_bits}", is_table=True)),
        (scales, SCALES),
    ):
        yield _constant(pte, tensor, kind, by_row=True)
    for tensor in weights.rotary:
        yield _constant(pte, tensor, ROTARY, by_row=True)
    for _, tensor in weights.norms:
        yield _constant(pte, tensor, NORMS, by_row=False)
    # After the lookup: where the head shares its table, the head's share counts, which is all.
    for product in weights.products:
        kind = weights_kind(f"int{product.blob.bits}", is_table=product.weight == HEAD)
        for number, named in ((product.codes_segment, kind), (product.scales_segment, SCALES)):
            yield _segment(pte, number, named)
        if product.bias_segment is not None:
            yield _segment(pte, product.bias_segment, BIASES)
    for side in weights.sides:
        yield _segment(pte, side.segment, ADAPTORS)


def _segment(pte: Pte, number: int, kind: str) -> tuple[int, Part]:
    segment = pte.segments[number]
    return segment.offset, Part(kind, segment.size_bytes, segment.size_bytes)


def _constant(pte: Pte, tensor: PteTensor, kind: str, *, by_row: bool) -> tuple[int, Part]:
    size_bytes = tensor.size_bytes
    read = size_bytes // tensor.sizes[0] if by_row else size_bytes
    return pte.constant_at(tensor.constant), Part(kind, size_bytes, read)
