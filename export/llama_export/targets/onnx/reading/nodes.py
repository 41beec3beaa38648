"""A graph of ONNX nodes to be followed backwards: what makes a value, and what must be true of it.

It knows nodes, initializers and attributes; it does not know what a Llama is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llama_export.targets.onnx.layout import WEIGHTS_KEY
from llama_export.targets.wiring import Attribute, OtherGraphError

if TYPE_CHECKING:
    import onnx

# By an attribute's name: its value where it is not written, and the value that is right. None:
# any value will do.
Settings = Mapping[str, tuple[float, float] | None]
# Which operators may stand in a place, each with its attributes.
Kinds = Mapping[str, Settings]
NOTHING: Settings = {}
_FLOAT32, _INT32 = 1, 6
TO_FLOAT: Kinds = {"Cast": {"to": (0, _FLOAT32), "saturate": (1, 1)}}
TO_INT32: Kinds = {"Cast": {"to": (0, _INT32), "saturate": (1, 1)}}
ROWS: Kinds = {"Gather": {"axis": (0, 0)}}
RESHAPE: Kinds = {"Reshape": {"allowzero": (0, 0)}}
MUL: Kinds = {"Mul": NOTHING}
SUB: Kinds = {"Sub": NOTHING}

_MICROSOFT = "com.microsoft"
_DOMAINS: Mapping[str, str] = dict.fromkeys(
    (
        "MatMulNBits",
        "FusedMatMul",
        "SkipSimplifiedLayerNormalization",
        "GroupQueryAttention",
        "QuickGelu",
    ),
    _MICROSOFT,
) | dict.fromkeys(
    (
        *("RMSNormalization", "Mul", "Sub", "Cast", "Gather"),
        *("Add", "Concat"),
        *("Slice", "Reshape", "ReduceSum", "Shape", "Pad"),
        *("Min", "Unsqueeze", "GatherND"),
    ),
    "",
)
_NOT_WRITTEN = "not written"


class Graph:
    """Nodes by what they make; `followed` and `attributes` grow on the way.

    Args:
        proto: the graph.
    """

    def __init__(self, proto: onnx.GraphProto) -> None:
        self._nodes = list(proto.node)
        self._maker = {
            name: index for index, node in enumerate(self._nodes) for name in node.output if name
        }
        self._initializers = {tensor.name: tensor for tensor in proto.initializer}
        self.followed: set[int] = set()
        self.attributes: list[Attribute] = []

    def take(self, value: str, kinds: Kinds, place: str) -> onnx.NodeProto:
        """Return the node that makes a value, and keep its attributes.

        Args:
            value: name of the value.
            kinds: operators that may make it, with their attributes.
            place: where a Llama has it.

        Raises:
            OtherGraphError: nothing makes it, or another operator.
        """
        index = self._maker.get(value)
        wanted = " or ".join(kinds)
        if index is None:
            raise OtherGraphError(place, f"expected a {wanted}, found {value or 'nothing'}")
        node: onnx.NodeProto = self._nodes[index]
        if node.op_type not in kinds or node.domain != _DOMAINS.get(node.op_type):
            raise OtherGraphError(place, f"expected a {wanted}, found {_named(node)}")
        if index not in self.followed:
            self.followed.add(index)
            self._keep(node, place, kinds[node.op_type])
        return node

    def is_made_by(self, value: str, kind: str) -> bool:
        """Whether an operator of a kind makes a value."""
        index = self._maker.get(value)
        return index is not None and self._nodes[index].op_type == kind

    def _keep(self, node: onnx.NodeProto, place: str, settings: Settings) -> None:
        written = {attribute.name: attribute for attribute in node.attribute}
        for name, attribute in written.items():
            if name not in settings:
                self.attributes.append(Attribute(place, name, _number(attribute), _NOT_WRITTEN))
        for name, values in settings.items():
            if values is not None:
                default, expected = values
                found = _number(written[name]) if name in written else default
                self.attributes.append(Attribute(place, name, found, expected))

    def require_inputs(
        self, node: onnx.NodeProto, expected: Sequence[str | None], place: str
    ) -> None:
        """Refuse other inputs than those named, in their order; None stands for any value.

        Raises:
            OtherGraphError: an input is another, missing, or one too many.
        """
        found = list(node.input)
        while found and not found[-1]:
            found.pop()
        if len(found) != len(expected):
            raise OtherGraphError(place, f"{_named(node)} takes {', '.join(found) or 'nothing'}")
        for wanted, name in zip(expected, found, strict=True):
            if wanted is not None:
                self.require_same(name, wanted, place)

    def require_same(self, found: str, expected: str, place: str) -> None:
        """Refuse another value than the one that a Llama has here.

        Raises:
            OtherGraphError: it is another.
        """
        if found != expected:
            maker = self._maker.get(found)
            made = f", made by {_named(self._nodes[maker])}" if maker is not None else ""
            what = f"expected {expected or 'nothing'}, found {found or 'nothing'}{made}"
            raise OtherGraphError(place, what)

    def require_constant(self, value: str, expected: Sequence[float], place: str) -> None:
        """Refuse another constant.

        Raises:
            OtherGraphError: it is none, or holds other numbers.
        """
        from onnx import numpy_helper

        tensor = self._initializers.get(value)
        if tensor is None or value in self._maker or tensor.external_data:
            raise OtherGraphError(place, f"expected a constant, found {value}")
        numbers = numpy_helper.to_array(tensor).reshape(-1).tolist()
        if numbers != list(expected):
            found = f"{value} of {numbers[:4]}"
            raise OtherGraphError(place, f"expected {list(expected)}, found {found}")

    def require_weight(self, value: str, place: str) -> None:
        """Refuse what is no array in the data file.

        Raises:
            OtherGraphError: it is computed, or stands in the graph.
        """
        tensor = self._initializers.get(value)
        if tensor is None or value in self._maker or not tensor.external_data:
            raise OtherGraphError(place, f"expected an array of the data file, found {value}")

    def require_weights(self, node: onnx.NodeProto, names: Sequence[str], place: str) -> None:
        """Refuse a node whose metadata name other weights, which are not those that are hashed.

        Raises:
            OtherGraphError: it has none, or others.
        """
        described = {entry.key: entry.value for entry in node.metadata_props}.get(WEIGHTS_KEY, "")
        found = [entry.split(":")[0] for entry in described.split()]
        if found != list(names):
            raise OtherGraphError(place, f"{_named(node)} holds {', '.join(found) or 'nothing'}")

    def unknown(self) -> list[str]:
        """Name the nodes of kinds that a Llama does not have anywhere."""
        return [
            f"the graph holds {_named(node)}"
            for node in self._nodes
            if _DOMAINS.get(node.op_type) != node.domain
        ]

    def left_over(self) -> list[str]:
        """Name the nodes that were never come by."""
        return [
            f"{_named(node)} leads nowhere that a Llama goes"
            for index, node in enumerate(self._nodes)
            if index not in self.followed
        ]


def _named(node: onnx.NodeProto) -> str:
    domain = f"{node.domain}." if node.domain not in ("", _MICROSOFT) else ""
    return f"the {domain}{node.op_type} {node.name or ', '.join(map(str, node.output))}"


def _number(attribute: onnx.AttributeProto) -> float | str:
    """Return an attribute's number; of another kind, a word for it."""
    kind: str = attribute.AttributeType.Name(attribute.type)
    if kind == "INT":
        return float(attribute.i)
    if kind == "FLOAT":
        return float(attribute.f)
    return kind.lower()
