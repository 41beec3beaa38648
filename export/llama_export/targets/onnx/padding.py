"""How the heads of an ONNX graph are filled up with zeros, from its own nodes.

It shares no code with the lowering. It knows the nodes around an attention, and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_ATTENTION = "GroupQueryAttention"
# In front of attention, and behind it.
_STEPS = frozenset({"Reshape", "Pad", "Slice"})


def half_padding(graph: onnx.GraphProto) -> int:
    """Return how many zeros follow each half of a head; 0: the heads are as they were."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer if not tensor.external_data}
    attentions = [node for node in graph.node if node.op_type == _ATTENTION and node.input]
    for attention in attentions[:1]:
        for node in _before(graph, attention.input[0]):
            if node.op_type == "Pad" and node.input[1] in constants:
                return int(numpy_helper.to_array(constants[node.input[1]]).reshape(-1)[-1])
    return 0


def before_padding(graph: onnx.GraphProto, value: str) -> str:
    """Go back from what attention takes to what was filled up."""
    for node in _before(graph, value):
        value = str(node.input[0])
    return value


def after_padding(graph: onnx.GraphProto, value: str) -> str:
    """Go on from what attention gives to where the zeros have fallen away."""
    users = {node.input[0]: node for node in graph.node if node.op_type in _STEPS}
    for _ in users:  # a damaged graph may run in a circle
        if value not in users:
            break
        value = str(users[value].output[0])
    return value


def _before(graph: onnx.GraphProto, value: str) -> list[onnx.NodeProto]:
    makers = {node.output[0]: node for node in graph.node if node.op_type in _STEPS}
    found: list[onnx.NodeProto] = []
    while value in makers and len(found) < len(makers):
        found.append(makers[value])
        value = makers[value].input[0]
    return found
