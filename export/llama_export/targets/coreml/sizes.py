"""Predict a Core ML package's parts, from shapes and schemes alone.

It repeats the layout of weight.bin: a header, and for each constant a record of 64 bytes and its
data, filled up to 64. The parts are exact but for the graph; a test compares them with packages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from llama_export.llama.config import LlamaConfig
from llama_export.llama.names import HEAD, TABLE, Shapes, is_adaptor, is_bias
from llama_export.targets.coreml.options import CoremlOptions
from llama_export.targets.coreml.signature import prefill_tokens
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
from llama_quantize.scheme import Float, GroupedInt, Scheme

FILES: Mapping[str, str] = {
    "model.mlpackage/Data/com.apple.CoreML/model.mlmodel": "the graph, without weights",
    "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin": "the weights",
    "model.mlpackage/Manifest.json": "the package's table of contents",
}
COUNTED = tuple(FILES)
_HEADER_BYTES, _RECORD_BYTES, _ALIGNMENT = 64, 64, 64
_HALF, _SINGLE = 2, 4
# model.mlmodel, from packages of 2 to 28 layers: a function's beginning and end, and a layer.
_GRAPH_BYTES, _GRAPH_LAYER_BYTES = 13_400, 17_400


def predict(
    config: LlamaConfig,
    shapes: Shapes,
    schemes: Mapping[str, Scheme],
    max_context: int,
    options: CoremlOptions,
) -> Footprint:
    """Add up the package that an export would write.

    Args:
        config: shape of the model.
        shapes: shape of each unique tensor.
        schemes: storage form of each unique tensor.
        max_context: number of rows of the rotary tables.
        options: the user's choices.
    """
    constants = list(_constants(config, shapes, schemes, max_context, options))
    padding = _HEADER_BYTES + sum(
        _RECORD_BYTES + -part.size_bytes % _ALIGNMENT for part in constants
    )
    functions = 2 if options.fixed else 1
    graph = functions * (_GRAPH_BYTES + config.num_hidden_layers * _GRAPH_LAYER_BYTES)
    parts = merge([*constants, Part(PADDING, padding, 0), Part(GRAPH, graph, 0)])
    # A loaded package holds at least its weights, as the GPU takes them. Nothing was measured on a
    # phone; on the CPU alone Core ML may spread int4 to float16.
    resident = sum(part.size_bytes for part in parts)
    return Footprint(parts, kv_bytes_per_token(config), FILES, COUNTED, resident)


def kv_bytes_per_token(config: LlamaConfig) -> int:
    """Return what one position takes: keys and values of all layers, in float16."""
    return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * _HALF


def scratch_bytes(shapes: Shapes, schemes: Mapping[str, Scheme]) -> int:
    """Return what the disk holds meanwhile: int4 codes one a byte, and the weights once more."""
    total = 0
    for name, scheme in schemes.items():
        weights = math.prod(shapes[name])
        if not isinstance(scheme, GroupedInt):
            total += weights * (_SINGLE if is_adaptor(name) else _HALF)
            continue
        unpacked = weights if scheme.bits == 4 else 0
        total += unpacked + weights * scheme.bits // 8
        total += shapes[name][0] * scheme.groups(shapes[name][1]) * _HALF
    return total


def _constants(
    config: LlamaConfig,
    shapes: Shapes,
    schemes: Mapping[str, Scheme],
    max_context: int,
    options: CoremlOptions,
) -> Iterator[Part]:
    row_bytes = config.head_dim // 2 * _SINGLE
    for _ in ("cos", "sin"):
        yield Part(ROTARY, max_context * row_bytes, row_bytes)
    for name, shape in shapes.items():
        if len(shape) == 1 or is_adaptor(name):
            size_bytes = math.prod(shape) * _SINGLE
            yield Part(_kind_beside(name), size_bytes, size_bytes)
            continue
        # A token's lookup reads one row; a tied table is the head too, which reads them all.
        by_row = name == TABLE and HEAD in shapes
        yield from _matrix(name, shape, schemes[name], by_row=by_row)
    # Of each width one bias of zeros: float16, and float32 for the adaptors.
    for adapts, item_bytes in ((False, _HALF), (True, _SINGLE)):
        widths = {
            shape[0]
            for name, shape in shapes.items()
            if len(shape) == 2 and is_adaptor(name) == adapts
        }
        yield from (Part(GRAPH, size * item_bytes, 0) for size in sorted(widths))
    if config.down_proj_rotation:
        yield from (Part(GRAPH, order**2 * _SINGLE, 0) for order in config.rotation_orders)
    if options.fixed:
        yield Part(GRAPH, max_context * _SINGLE, 0)
        yield Part(GRAPH, prefill_tokens(max_context) * _SINGLE, 0)


def _kind_beside(name: str) -> str:
    if is_adaptor(name):
        return ADAPTORS
    return BIASES if is_bias(name) else NORMS


def _matrix(name: str, shape: tuple[int, ...], scheme: Scheme, *, by_row: bool) -> Iterator[Part]:
    is_table = name in (TABLE, HEAD)
    if isinstance(scheme, Float):
        kind = weights_kind("float16", is_table=is_table)
        yield _stored(kind, shape, math.prod(shape) * _HALF, by_row=by_row)
        return
    kind = weights_kind(f"int{scheme.bits}", is_table=is_table)
    yield _stored(kind, shape, math.prod(shape) * scheme.bits // 8, by_row=by_row)
    yield _stored(SCALES, shape, shape[0] * scheme.groups(shape[1]) * _HALF, by_row=by_row)


def _stored(kind: str, shape: tuple[int, ...], size_bytes: int, *, by_row: bool) -> Part:
    return Part(kind, size_bytes, size_bytes // shape[0] if by_row else size_bytes)
