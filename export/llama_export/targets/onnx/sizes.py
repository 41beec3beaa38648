"""Predict an ONNX artifact's parts and its memory when loaded, from shapes and schemes alone.

It repeats the layout of the lowering (what is stacked, what is shared, page borders), without
weights and without the toolkit. The parts are exact; a test compares them with real artifacts.
What onnxruntime holds in memory is a model of what was measured, see docs/performance.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from llama_export.llama.config import LlamaConfig
from llama_export.llama.names import FINAL_NORM, HEAD, TABLE, Shapes
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
from llama_export.targets.onnx.layout import block_size, padded_head
from llama_quantize.scheme import Float, GroupedInt, Scheme

_PAGE_BYTES = 4096
_FLOAT_BYTES = 4
# model.onnx, from artifacts of 2 to 32 layers: names of weights, mostly.
_GRAPH_BYTES, _GRAPH_LAYER_BYTES = 2_200, 5_850
# What the two codes of each byte are, for a lookup in an int4 table.
_PAIRS_BYTES = 2 * 256 * 4
# Python, onnxruntime's library and its own tables: what is left of the measured memory.
_RUNTIME_BYTES = 75_000_000
_SCALE_BYTES = 2
# Packed for the CPU, a block of weights has its scale and the sum of its codes, float32 both.
_PACKED_BLOCK_BYTES = 8


def predict(
    config: LlamaConfig, shapes: Shapes, schemes: Mapping[str, Scheme], max_context: int
) -> Footprint:
    """Add up the artifact that an export would write.

    Args:
        config: shape of the model.
        shapes: shape of each unique tensor.
        schemes: storage form of each unique tensor.
        max_context: number of rows of the rotary tables.

    Raises:
        LoweringError: a width that no operator can run.
    """
    regions = list(_regions(config, shapes, schemes, max_context))
    # Each region begins on a page border; after the last one nothing is filled up.
    padding = sum(-part.size_bytes % _PAGE_BYTES for part in regions[:-1])
    graph_bytes = _GRAPH_BYTES + config.num_hidden_layers * _GRAPH_LAYER_BYTES
    if config.down_proj_rotation:
        graph_bytes += sum(order**2 for order in set(config.rotation_orders)) * 4
    table = schemes[TABLE]
    if isinstance(table, GroupedInt) and table.bits == 4:
        graph_bytes += _PAIRS_BYTES
    parts = [*regions, Part(PADDING, padding, 0), Part(GRAPH, graph_bytes, 0)]
    resident = resident_bytes(shapes, schemes)
    return Footprint(merge(parts), kv_bytes_per_token(config), resident_bytes=resident)


def kv_bytes_per_token(config: LlamaConfig) -> int:
    """Return what one position takes: keys and values of all layers, in float32."""
    heads_bytes = config.num_key_value_heads * padded_head(config.head_dim) * _FLOAT_BYTES
    return 2 * config.num_hidden_layers * heads_bytes


def resident_bytes(shapes: Shapes, schemes: Mapping[str, Scheme]) -> int:
    """Model the memory of a loaded session without its KV cache.

    Quantised products are packed: their codes, and eight bytes a block; the float32 scales that
    the packing was made from stay. An embedding that no product shares stays mapped, and a row
    of it comes in when it is used. Float weights become float32.
    """
    total = _RUNTIME_BYTES
    for name, shape in shapes.items():
        if len(shape) != 2 or (name == TABLE and HEAD in shapes):
            continue
        scheme = schemes[name]
        weights = math.prod(shape)
        if isinstance(scheme, GroupedInt):
            blocks = weights // block_size(scheme, shape[1], name)
            total += weights * scheme.bits // 8 + blocks * (_PACKED_BLOCK_BYTES + _FLOAT_BYTES)
        else:
            total += weights * _FLOAT_BYTES
    return total


def _regions(
    config: LlamaConfig, shapes: Shapes, schemes: Mapping[str, Scheme], max_context: int
) -> Iterator[Part]:
    """Yield the regions of the data file, the last one last."""
    for _ in ("cos", "sin"):
        row_bytes = padded_head(config.head_dim) // 2 * _FLOAT_BYTES
        yield Part(ROTARY, max_context * row_bytes, row_bytes)
    tied = HEAD not in shapes
    yield from _matrix([TABLE], shapes, schemes, by_row=not tied)
    for layer in range(config.num_hidden_layers):
        stem = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield _norm(shapes[f"{stem}.{norm}.weight"])
        heads = [f"{stem}.self_attn.{part}_proj" for part in "qkv"]
        labels = {schemes[f"{each}.weight"].label for each in heads}
        stacked = not config.adaptor_rank and len(labels) == 1
        for modules in [heads] if stacked else [[each] for each in heads]:
            yield from _linear(modules, shapes, schemes)
        yield from _linear([f"{stem}.self_attn.o_proj"], shapes, schemes)
        for part in ("gate", "up", "down"):
            yield from _linear([f"{stem}.mlp.{part}_proj"], shapes, schemes)
    yield _norm(shapes[FINAL_NORM])
    if not tied:
        yield from _matrix([HEAD], shapes, schemes)


def _linear(modules: list[str], shapes: Shapes, schemes: Mapping[str, Scheme]) -> Iterator[Part]:
    """Yield the regions of products that run as one, with what is added to them."""
    yield from _matrix([f"{each}.weight" for each in modules], shapes, schemes)
    biases = [shape[0] for each in modules if (shape := shapes.get(f"{each}.bias"))]
    if biases:
        yield _whole(BIASES, sum(biases))
    for part in "AB":
        for each in modules:
            if shape := shapes.get(f"{each}.adaptor.{part}.weight"):
                yield _whole(ADAPTORS, math.prod(shape))


def _whole(kind: str, numbers: int) -> Part:
    return Part(kind, numbers * _FLOAT_BYTES, numbers * _FLOAT_BYTES)


def _norm(shape: tuple[int, ...]) -> Part:
    size_bytes = math.prod(shape) * _FLOAT_BYTES
    return Part(NORMS, size_bytes, size_bytes)


def _matrix(
    names: list[str], shapes: Shapes, schemes: Mapping[str, Scheme], *, by_row: bool = False
) -> Iterator[Part]:
    """Yield the regions of some weights stacked along their rows: codes and scales, or floats."""
    scheme, columns = schemes[names[0]], shapes[names[0]][1]
    rows = sum(shapes[name][0] for name in names)
    is_table = names[0] in (TABLE, HEAD)
    if isinstance(scheme, Float):
        kind = weights_kind(scheme.dtype, is_table=is_table)
        yield _region(kind, rows, columns * _SCALE_BYTES, by_row=by_row)
        return
    kind = weights_kind(f"int{scheme.bits}", is_table=is_table)
    yield _region(kind, rows, columns * scheme.bits // 8, by_row=by_row)
    scales = columns // block_size(scheme, columns, names[0])
    yield _region(SCALES, rows, scales * _SCALE_BYTES, by_row=by_row)


def _region(kind: str, rows: int, row_bytes: int, *, by_row: bool) -> Part:
    return Part(kind, rows * row_bytes, row_bytes if by_row else rows * row_bytes)
