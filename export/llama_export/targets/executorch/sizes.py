"""Predict a `.pte`'s parts and its memory when loaded, from shapes and schemes alone.

It repeats the layout of the lowering without weights and without the toolkit; a test compares it
with real artifacts of XNNPACK, and those of other delegates are about as large. Weights, tables and
norms are exact; the program and the delegates are fitted to artifacts of 2 to 28 layers. The memory
is a model of what was measured, see docs/performance.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from llama_export.llama.config import LlamaConfig
from llama_export.llama.names import HEAD, TABLE, Shapes, is_adaptor, is_bias
from llama_export.targets.executorch.options import COREML, VULKAN, XNNPACK, ExecutorchOptions
from llama_export.targets.executorch.xnnpack.product_form import product_form
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
from llama_quantize.scheme import GroupedInt, Scheme

_FLOAT_BYTES, _INT64_BYTES = 4, 8
# Program and delegates, from artifacts of 2 to 28 layers.
_GRAPH_BYTES, _GRAPH_LAYER_BYTES = 13_900, 11_350
# Padding, the mean's row and epsilons.
_PADDING_BYTES, _PADDING_LAYER_BYTES = 500, 80
# Python, torch and ExecuTorch's libraries: what is left of the measured memory.
_RUNTIME_BYTES = 330_000_000
# Packed for the CPU, a row has its scale and the sum of its codes.
_PACKED_ROW_BYTES = 8


def predict(
    config: LlamaConfig,
    shapes: Shapes,
    schemes: Mapping[str, Scheme],
    max_context: int,
    options: ExecutorchOptions,
) -> Footprint:
    """Add up the artifact that an export would write.

    Args:
        config: shape of the model.
        shapes: shape of each unique tensor.
        schemes: storage form of each unique tensor.
        max_context: number of rows of the rotary tables.
        options: the user's choices.

    Raises:
        LoweringError: a scheme that no kernel has.
    """
    row_bytes = config.head_dim // 2 * _FLOAT_BYTES
    parts = [Part(ROTARY, 2 * max_context * row_bytes, 2 * row_bytes)]
    tied = HEAD not in shapes
    # Vulkan's delegate holds a table of its own.
    once = tied and options.share_table and options.delegate != VULKAN
    for name, shape in shapes.items():
        if len(shape) == 1 or is_adaptor(name):
            kind = ADAPTORS if is_adaptor(name) else BIASES if is_bias(name) else NORMS
            size_bytes = math.prod(shape) * _FLOAT_BYTES
            parts.append(Part(kind, size_bytes, size_bytes))
        else:
            # The head reads the table's own bytes, all of them; or a copy.
            parts += _matrix(name, shape, schemes[name], looked_up=name == TABLE and not once)
    table = product_form(TABLE, schemes[TABLE], shapes[TABLE])
    is_int4 = table.bits == 4
    if once and is_int4 and options.delegate == XNNPACK:
        # The lookup wants its scales in float16, and the head in bfloat16.
        row_bytes = table.groups * 2
        parts.append(Part(SCALES, table.rows * row_bytes, row_bytes))
    if tied and not once:
        parts += _matrix(HEAD, shapes[TABLE], schemes[TABLE], looked_up=False)
    layers = config.num_hidden_layers
    parts.append(Part(GRAPH, _GRAPH_BYTES + layers * _GRAPH_LAYER_BYTES, 0))
    padding = _PADDING_BYTES + layers * _PADDING_LAYER_BYTES
    if config.down_proj_rotation:
        padding += sum(order**2 for order in config.rotation_orders) * _FLOAT_BYTES
    # The mean's row; and of an int4 lookup, where each column belongs.
    padding += config.hidden_size * (_FLOAT_BYTES + (_INT64_BYTES if is_int4 else 0))
    parts.append(Part(PADDING, padding, 0))
    heads_bytes = (
        config.num_key_value_heads * config.head_dim * CACHE_ITEM_BYTES[_kv_dtype(options)]
    )
    resident = resident_bytes(shapes, schemes)
    return Footprint(merge(parts), 2 * layers * heads_bytes, resident_bytes=resident)


def _kv_dtype(options: ExecutorchOptions) -> str:
    return "float16" if options.delegate == COREML else options.kv_dtype


def resident_bytes(shapes: Shapes, schemes: Mapping[str, Scheme]) -> int:
    """Model the memory of a loaded session, without what its cache takes as it fills.

    Products are packed: their codes, bfloat16 scales, and eight bytes a row; of a side branch,
    float32.
    """
    total = _RUNTIME_BYTES
    for name, shape in shapes.items():
        if len(shape) != 2 or (name == TABLE and HEAD in shapes):
            continue
        scheme, (rows, columns) = schemes[name], shape
        if is_adaptor(name):
            total += rows * columns * _FLOAT_BYTES
        if isinstance(scheme, GroupedInt):
            scales = scheme.groups(columns) * 2
            total += rows * (columns * scheme.bits // 8 + scales + _PACKED_ROW_BYTES)
    return total


def _matrix(name: str, shape: tuple[int, ...], scheme: Scheme, *, looked_up: bool) -> list[Part]:
    """Return a matrix's codes and scales; of a lookup a row is read, of a product all."""
    form = product_form(name, scheme, shape)
    kind = weights_kind(f"int{form.bits}", is_table=name in (TABLE, HEAD))
    scale_bytes = 2 if form.bits == 4 else _FLOAT_BYTES
    found = []
    for part, row_bytes in (
        (kind, form.columns * form.bits // 8),
        (SCALES, form.groups * scale_bytes),
    ):
        size_bytes = form.rows * row_bytes
        found.append(Part(part, size_bytes, row_bytes if looked_up else size_bytes))
    return found
