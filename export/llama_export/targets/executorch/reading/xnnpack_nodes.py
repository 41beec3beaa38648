"""Read the operators of a serialised XNNPACK delegate, and what each takes and gives.

The format is XNNPACK's part of ExecuTorch: backends/xnnpack/serialization/schema.fbs. It knows the
kinds that a Llama's delegates are made of; another kind has its number for a name, and no inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llama_export.targets.executorch.reading.flatbuffer import Table, read_number

_FLATBUFFER_AT = 10
# Fields of XNNGraph, of XNode, of a union.
_NODES, _VALUES = 1, 2
_TYPE, _TABLE, _BOUNDS = 0, 1, 3
_QUANTIZED_VALUE = 2
# Fields of XNNTensorValue.
_DATATYPE, _EXTERNAL, _ID = 0, 4, 6
NO_VALUE = 2**32 - 1

FULLY_CONNECTED, RESHAPE, CONCATENATE = "FullyConnected", "StaticReshape", "Concatenate2"
TRANSPOSE = "StaticTranspose"
# Numbers of the union's members.
_KINDS: Mapping[int, str] = {
    1: "Add",
    2: FULLY_CONNECTED,
    4: "Sigmoid",
    5: TRANSPOSE,
    15: "Multiply",
    16: "Subtract",
    18: "Convert",
    20: RESHAPE,
    32: CONCATENATE,
    40: "ReciprocalSquareRoot",
}
# Fields of a node that hold its inputs, and those of its output and its flags.
_FIELDS: Mapping[str, tuple[tuple[int, ...], int, int]] = {
    "Add": ((0, 1), 2, 3),
    "Multiply": ((0, 1), 2, 3),
    "Subtract": ((0, 1), 2, 3),
    FULLY_CONNECTED: ((0, 1, 2), 3, 4),
    "Sigmoid": ((0,), 1, 2),
    "Convert": ((0,), 1, 2),
    "ReciprocalSquareRoot": ((0,), 1, 2),
    RESHAPE: ((2,), 3, 4),
    TRANSPOSE: ((2,), 3, 4),
    CONCATENATE: ((1, 2), 5, 6),
}


@dataclass(frozen=True)
class Node:
    """One operator.

    Args:
        kind: name of its kind; its number where the kind is not known.
        inputs: numbers of the values that it takes.
        output: number of the value that it gives.
        settings: shape of a reshape, axes of a transpose or a concatenation; empty for others.
        is_plain: whether it has no flags and does not bound its result.
    """

    kind: str
    inputs: tuple[int, ...]
    output: int
    settings: tuple[int, ...]
    is_plain: bool


@dataclass(frozen=True)
class DelegateGraph:
    """The operators of a delegate.

    Args:
        nodes: operators in the order of computation.
        external: place among the call's arguments of each value that comes in or goes out.
        datatypes: XNNPACK's number of each value's type.
    """

    nodes: tuple[Node, ...]
    external: Mapping[int, int]
    datatypes: Mapping[int, int]


def read_nodes(data: bytes) -> DelegateGraph:
    """Read a delegate's operators.

    Raises:
        ValueError: it is damaged.
    """
    graph = Table.root(data, read_number(data, _FLATBUFFER_AT, "I"))
    external, datatypes = {}, {}
    for tensor in _tensors(graph):
        number = tensor.number(_ID, "I")
        datatypes[number] = tensor.number(_DATATYPE, "h")
        if tensor.number(_EXTERNAL, "I") != NO_VALUE:
            external[number] = tensor.number(_EXTERNAL, "I")
    return DelegateGraph(tuple(map(_node, graph.tables(_NODES))), external, datatypes)


def _tensors(graph: Table) -> Iterator[Table]:
    for value in graph.tables(_VALUES):
        found = value.table(_TABLE)
        if found is not None and value.number(_TYPE, "B") == _QUANTIZED_VALUE:
            found = found.table(0)
        if found is not None:
            yield found


def _node(table: Table) -> Node:
    number, content = table.number(_TYPE, "B"), table.table(_TABLE)
    kind = _KINDS.get(number, "")
    if not kind or content is None:
        return Node(f"of kind {number}", (), NO_VALUE, (), is_plain=False)
    inputs, output, flags = _FIELDS[kind]
    settings: tuple[int, ...] = ()
    if kind in (RESHAPE, TRANSPOSE):
        settings = tuple(content.numbers(1, "I"))
    elif kind == CONCATENATE:
        settings = (content.number(0, "I"),)
    return Node(
        kind,
        tuple(content.number(field, "I") for field in inputs),
        content.number(output, "I"),
        settings,
        content.number(flags, "I") == 0 and table.table(_BOUNDS) is None,
    )
