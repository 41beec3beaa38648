"""Read codes, scales, norms and rotary tables back out of an ONNX artifact, from its bytes alone.

It shares no code with the lowering but the metadata key that says which weights a node holds, so
that a fault of the lowering shows here. It knows the operators' byte layouts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from llama_export.errors import BundleError
from llama_export.llama.intermediates import FloatArray
from llama_export.targets.onnx.layout import WEIGHTS_KEY
from llama_export.targets.onnx.padding import half_padding
from llama_export.targets.stored import StoredWeights
from llama_quantize.tensor import sha256_of

if TYPE_CHECKING:
    import onnx

# Where an operator that carries the metadata has its codes and its scales. `Mul` is the last step
# of a lookup in a table.
_CODES_AND_SCALES = {"MatMulNBits": (1, 2), "Mul": (0, 1)}
_STEPS_FROM_A_WEIGHT = frozenset({"Cast", "Sub", "Gather"})
_CHUNK_ROWS = 1024
_TORCH_TYPES = {1: torch.float32, 2: torch.uint8, 10: torch.float16, 16: torch.bfloat16}
_NORM_INPUTS = {"RMSNormalization": 1, "SkipSimplifiedLayerNormalization": 2}
_FLOAT_INPUTS = {"FusedMatMul": 1, "Gather": 0, "Add": 1}
_ROTARY_INPUTS = {"cos": 7, "sin": 8}


@dataclass(frozen=True)
class _Initializer:
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    length: int


def read_back(model: Path) -> StoredWeights:
    """Read the weights that an artifact holds.

    Raises:
        BundleError: a region is outside the data file.
    """
    import onnx

    graph = onnx.load(str(model), load_external_data=False).graph
    stored = _Stored(_map_data(model), dict(_initializers(graph)))
    return StoredWeights(_quantized(graph, stored), _floats(graph, stored), _rotary(graph, stored))


@dataclass(frozen=True)
class _Stored:
    """The data file, mapped, and where in it each initializer lies."""

    data: Tensor
    places: Mapping[str, _Initializer]

    def view(self, name: str) -> Tensor:
        place = self.places.get(name)
        if place is None or not 0 <= place.offset <= place.offset + place.length <= len(self.data):
            message = f"the artifact's initializer {name!r} is missing or outside its data file"
            raise BundleError(message, "export the bundle again")
        flat = self.data[place.offset : place.offset + place.length].view(place.dtype)
        return flat.reshape(place.shape)

    def view_or_nothing(self, name: str) -> Tensor:
        """Return what is stored; nothing where the graph computes what should be stored."""
        return self.view(name) if name in self.places else torch.empty(0, 0)


def _quantized(graph: onnx.GraphProto, stored: _Stored) -> dict[str, tuple[str, str]]:
    constants = {proto.name for proto in graph.initializer if not proto.external_data}
    steps, pairs = dict[str, str](), set[str]()
    for node in graph.node:
        if node.op_type in _STEPS_FROM_A_WEIGHT:
            # What a constant of the graph says of stored bytes: two codes of each.
            is_pair = node.op_type == "Gather" and node.input[0] in constants
            steps[node.output[0]] = node.input[int(is_pair)]
            pairs |= {node.output[0]} if is_pair else set()
    hashes: dict[str, tuple[str, str]] = {}
    for node in graph.node:
        stacked = {entry.key: entry.value for entry in node.metadata_props}.get(WEIGHTS_KEY)
        inputs = _CODES_AND_SCALES.get(node.op_type)
        if stacked is None or inputs is None:
            continue
        codes, scales = (
            stored.view(_weight_behind(node.input[index], steps)).flatten(1) for index in inputs
        )
        looked_up = 4 if node.input[inputs[0]] in pairs else 8
        written = (attribute.i for attribute in node.attribute if attribute.name == "bits")
        bits = next(written, looked_up)
        for name, found in _hash_stacked(stacked, bits, codes, scales):
            if hashes.setdefault(name, found) != found:
                hashes[f"{name} in {node.name}"] = found
    return hashes


def _floats(graph: onnx.GraphProto, stored: _Stored) -> dict[str, str]:
    casts = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    hashes: dict[str, str] = {}
    for node in graph.node:
        for name, values in _float_weights(node, stored, casts):
            found = sha256_of(chunk.float() for chunk in values.split(_CHUNK_ROWS))
            if hashes.setdefault(name, found) != found:
                hashes[f"{name} in {node.name}"] = found
    return hashes


def _rotary(graph: onnx.GraphProto, stored: _Stored) -> dict[str, FloatArray]:
    tables: dict[str, FloatArray] = {}
    padding = half_padding(graph)
    for node in graph.node:
        if node.op_type == "GroupQueryAttention":
            for part, index in _ROTARY_INPUTS.items():
                table = stored.view_or_nothing(node.input[index])
                table = table[:, : table.shape[1] - padding]
                tables[f"{part} {node.input[index]}"] = table.float().numpy()
    return tables


def _float_weights(
    node: onnx.NodeProto, stored: _Stored, casts: Mapping[str, str]
) -> Iterator[tuple[str, Tensor]]:
    """Yield the float weights of a node with their names."""
    if node.op_type in _NORM_INPUTS:
        name = node.input[_NORM_INPUTS[node.op_type]]
        yield name, stored.view_or_nothing(name)
        return
    stacked = {entry.key: entry.value for entry in node.metadata_props}.get(WEIGHTS_KEY)
    index = _FLOAT_INPUTS.get(node.op_type)
    if stacked is None or index is None:
        return
    values = stored.view_or_nothing(casts.get(node.input[index], node.input[index]))
    first = 0
    for entry in stacked.split():
        name, count, _ = entry.rsplit(":", 2)
        yield name, values[first : first + int(count)]
        first += int(count)


def _weight_behind(value: str, steps: Mapping[str, str]) -> str:
    """Go back from an operator's input to the initializer that it comes from."""
    for _ in steps:  # a damaged graph may run in a circle
        if value not in steps:
            break
        value = steps[value]
    return value


def _hash_stacked(
    stacked: str, bits: int, codes: Tensor, scales: Tensor
) -> Iterator[tuple[str, tuple[str, str]]]:
    """Hash each weight of a node that holds several along its rows."""
    first = 0
    for entry in stacked.split():
        name, count, groups = entry.rsplit(":", 2)
        rows = slice(first, first + int(count))
        first = rows.stop
        chunks = (_canonical(chunk, bits) for chunk in codes[rows].split(_CHUNK_ROWS))
        kept = _one_a_row(scales[rows]) if groups == "1" else scales[rows]
        yield name, (sha256_of(chunks), sha256_of([_as_bfloat16(kept)]))


def _canonical(chunk: Tensor, bits: int) -> Tensor:
    """Turn operator bytes into the form that is hashed.

    `MatMulNBits` keeps two 4-bit codes a byte, each plus 8, the even one in the low nibble, which
    is that form; its 8-bit codes are unsigned with their zero at 128.
    """
    return chunk if bits == 4 else (chunk ^ 0x80).view(torch.int8)


def _as_bfloat16(scales: Tensor) -> Tensor:
    """Turn scales into the form that is hashed; where one would be rounded, leave all as found."""
    rounded = scales.to(torch.bfloat16)
    return rounded if bool((rounded.to(scales.dtype) == scales).all()) else scales


def _one_a_row(scales: Tensor) -> Tensor:
    """Undo the spreading of a row's one scale over its blocks; if they differ, keep all."""
    return scales[:, :1] if bool((scales == scales[:, :1]).all()) else scales


def _initializers(graph: onnx.GraphProto) -> Iterator[tuple[str, _Initializer]]:
    for proto in graph.initializer:
        place: Mapping[str, str] = {entry.key: entry.value for entry in proto.external_data}
        if place:
            dtype = _TORCH_TYPES[proto.data_type]
            offset, length = int(place["offset"]), int(place["length"])
            yield proto.name, _Initializer(dtype, tuple(proto.dims), offset, length)


def _map_data(model: Path) -> Tensor:
    path = model.with_name(f"{model.name}_data")
    size = path.stat().st_size
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
