"""Follow the lookup of token rows in an ONNX graph: codes and scales, or floats, by the ids.

It shares no code with the lowering. Codes of 8 bits are looked up and have their zero taken off;
of 4 bits, a byte is looked up, and then what its two codes are. It runs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_export.llama.names import TABLE
from llama_export.targets.onnx.reading.nodes import (
    MUL,
    RESHAPE,
    ROWS,
    SUB,
    TO_FLOAT,
    TO_INT32,
    Graph,
)

if TYPE_CHECKING:
    import onnx

IDS = "input_ids"
_PLACE = "model.embed_tokens"
_INT8_ZERO, _INT4_ZERO = 128, 8


def follow_lookup(graph: Graph, value: str, hidden_size: int) -> None:
    """Follow the token rows back to the ids as they were given.

    Args:
        graph: nodes, of which those of the lookup are followed.
        value: name of the rows.
        hidden_size: columns of a row.

    Raises:
        OtherGraphError: an operator is another than a Llama's.
    """
    made = graph.take(value, {**RESHAPE, **TO_FLOAT}, _PLACE)
    if made.op_type == "Cast":
        graph.require_weights(_rows(graph, made.input[0]), [TABLE], _PLACE)
        return
    graph.require_constant(made.input[1], [0, 0, hidden_size], _PLACE)
    product = graph.take(made.input[0], MUL, _PLACE)
    graph.require_weights(product, [TABLE], _PLACE)
    signed = graph.take(product.input[0], {**SUB, **ROWS}, _PLACE)
    if signed.op_type == "Gather":
        graph.require_constant(signed.input[0], _pairs(), _PLACE)
        cast = graph.take(signed.input[1], TO_INT32, _PLACE)
    else:
        graph.require_constant(signed.input[1], [_INT8_ZERO], _PLACE)
        cast = graph.take(signed.input[0], TO_FLOAT, _PLACE)
    _rows(graph, cast.input[0])
    scales = graph.take(product.input[1], TO_FLOAT, _PLACE)
    _rows(graph, scales.input[0])


def _rows(graph: Graph, value: str) -> onnx.NodeProto:
    node = graph.take(value, ROWS, _PLACE)
    graph.require_inputs(node, [None, IDS], _PLACE)
    graph.require_weight(node.input[0], _PLACE)
    return node


def _pairs() -> list[int]:
    """Return what the two codes of each byte are, the low one first."""
    return [nibble - _INT4_ZERO for byte in range(256) for nibble in (byte % 16, byte // 16)]
