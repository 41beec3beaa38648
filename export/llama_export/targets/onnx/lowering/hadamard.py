"""The rotation before down_proj as two small products, with matrices of ones and minus ones.

Of order F = a * b it is `A @ x.reshape(a, b) @ B`, A and B being the matrices of orders a and b.
"""

from __future__ import annotations

from llama_export.llama.hadamard import sylvester
from llama_export.targets.onnx.lowering.graph_builder import MICROSOFT, GraphBuilder


def emit_hadamard(build: GraphBuilder, x: str, orders: tuple[int, int], output: str) -> str:
    """Rotate the last axis of `[B, S, F]`.

    Args:
        build: graph that gets the nodes.
        x: name of the value.
        orders: a and b, whose product is F.
        output: name of the result.
    """
    left, right = orders
    width = left * right
    blocks = build.constant("hadamard_blocks", "int64", [4], [0, 0, left, right])
    rows = build.constant("hadamard_rows", "int64", [3], [0, 0, width])
    cut = build.node("Reshape", [x, blocks], [f"{output}.blocks"])
    inner = [cut, _matrix(build, right)]
    half = build.node("FusedMatMul", inner, [f"{output}.half"], {"alpha": 1.0}, MICROSOFT)
    outer = [_matrix(build, left), half]
    attributes = {"alpha": width**-0.5}
    whole = build.node("FusedMatMul", outer, [f"{output}.whole"], attributes, MICROSOFT)
    return build.node("Reshape", [whole, rows], [output])


def _matrix(build: GraphBuilder, order: int) -> str:
    values = sylvester(order).flatten().tolist()
    return build.constant(f"hadamard_{order}", "float32", [order, order], values)
