"""Steps over what stands beside a product: its bias, its side branch, the joining of q, k and v.

They are told by what the lowering wrote on them, so that a residual sum is never passed over. It
knows operators and names; it runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from llama_export.targets.onnx.layout import BESIDE_KEY

if TYPE_CHECKING:
    import onnx

_ROTATION = ("Reshape", "FusedMatMul", "FusedMatMul", "Reshape")


def product_of(maker: Mapping[str, onnx.NodeProto], value: str) -> str:
    """Return the product behind a value: of q, k and v side by side, the first."""
    for _ in range(len(maker)):  # a damaged graph may run in a circle
        node = maker.get(value)
        if node is None or not (node.op_type == "Concat" or is_beside(node)):
            break
        value = node.input[0]
    return value


def whole_of(users: Mapping[str, Iterable[onnx.NodeProto]], value: str) -> str:
    """Return what a product has become when its bias and its side branch are added."""
    for _ in range(len(users)):
        beside = [node for node in users.get(value, ()) if is_beside(node)]
        if not beside or beside[0].input[0] != value:
            break
        value = beside[0].output[0]
    return value


def rotated_from(users: Mapping[str, Iterable[onnx.NodeProto]], value: str) -> str:
    """Return a value after Hadamard's rotation; itself where there is none."""
    found = value
    for kind in _ROTATION:
        node = next((each for each in users.get(found, ()) if each.op_type == kind), None)
        if node is None:
            return value
        found = node.output[0]
    return found


def is_beside(node: onnx.NodeProto) -> bool:
    """Whether a node adds a bias or a side branch."""
    return node.op_type == "Add" and any(each.key == BESIDE_KEY for each in node.metadata_props)
