"""Heads of any size for an operator that takes multiples of 16: zeros after each of their halves.

`GroupQueryAttention` rotates the pairs `(i, i + P/2)` of its heads of P columns. A head of D is
laid out as its two halves, each filled up to P/2, so that its own pairs `(i, i + D/2)` are those;
zeros change no score and no sum. Activations are padded and never weights, whose groups straddle
heads. It knows shapes and nodes; it does not know what attention computes.

Shapes: B batch, S tokens, N heads, D head_dim, P padded head_dim.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from llama_export.targets.onnx.layout import padded_head
from llama_export.targets.onnx.lowering.graph_builder import GraphBuilder


class Heads:
    """Pads heads and cuts them again; where their size fits, it leaves them alone.

    Args:
        builder: graph that gets the nodes.
        head_dim: D.
    """

    def __init__(self, builder: GraphBuilder, head_dim: int) -> None:
        self._builder = builder
        self._own, self._padded = head_dim // 2, padded_head(head_dim) // 2

    @property
    def fit(self) -> bool:
        """Whether the operator takes the heads as they are."""
        return self._own == self._padded

    def padded(self, x: str, heads: int) -> str:
        """Turn `[B, S, N * D]` into `[B, S, N * P]`."""
        if self.fit:
            return x
        build = self._builder
        split = build.node("Reshape", [x, self._shape(2 * heads, self._own)], [f"{x}.halves"])
        pads = build.constant("head_pads", "int64", [8], [*[0] * 7, self._padded - self._own])
        filled = build.node("Pad", [split, pads], [f"{x}.padded_halves"])
        whole = self._shape(2 * heads * self._padded)
        return build.node("Reshape", [filled, whole], [f"{x}.padded"])

    def mixed(self, name: str) -> str:
        """Return the name of what attention gives before `cut` makes `name` of it."""
        return name if self.fit else f"{name}.padded"

    def cut(self, name: str, heads: int) -> None:
        """Turn `[B, S, N * P]`, named by `mixed`, into `name`, `[B, S, N * D]`."""
        if self.fit:
            return
        build, x = self._builder, self.mixed(name)
        split = build.node("Reshape", [x, self._shape(2 * heads, self._padded)], [f"{x}_halves"])
        bounds = [
            build.constant("head_start", "int64", [1], [0]),
            build.constant("half_head", "int64", [1], [self._own]),
            build.constant("head_axis", "int64", [1], [3]),
        ]
        own = build.node("Slice", [split, *bounds], [f"{name}.halves"])
        build.node("Reshape", [own, self._shape(2 * heads * self._own)], [name])

    def table(self, table: Tensor) -> Tensor:
        """Fill a rotary table `[C, D/2]` up to `[C, P/2]`; the zeros turn zeros."""
        return functional.pad(table, (0, self._padded - self._own))

    def _shape(self, *sizes: int) -> str:
        """Return a shape that keeps batch and tokens."""
        name = "_".join(["heads", *map(str, sizes)])
        return self._builder.constant(name, "int64", [2 + len(sizes)], [0, 0, *sizes])
