"""Read a serialised XNNPACK delegate: its products, and which constants they use.

The format is XNNPACK's part of ExecuTorch: backends/xnnpack/serialization/schema.fbs. Constants are
not in the delegate but beside it, under keys. It knows that layout; it does not know whose weights
they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llama_export.targets.executorch.reading.flatbuffer import Table, read_number

_MAGIC = b"XH00"
_MAGIC_AT, _FLATBUFFER_AT = 4, 10
# Fields of XNNGraph.
_NODES, _VALUES, _CONSTANTS = 1, 2, 8
# Fields of a union: its type, then its table.
_TYPE, _TABLE = 0, 1
_FULLY_CONNECTED, _QUANTIZED_VALUE = 2, 2
_FILTER_ID, _BIAS_ID, _NO_VALUE = 1, 2, 2**32 - 1
# Fields of XNNTensorValue.
_DATATYPE, _DIMS, _CONSTANT, _ID = 0, 2, 3, 6
# Fields of PerChannelQuant and PerChannelGroupQuant: group size and index of the scales.
_SCALE_FIELDS: Mapping[int, tuple[int | None, int]] = {1: (None, 2), 4: (2, 4)}
_BITS = {6: 8, 10: 4, 1: 32}
# Fields of ConstantDataOffset.
_SIZE, _KEY = 1, 2


@dataclass(frozen=True)
class BlobConstant:
    """One constant that a delegate asks for.

    Args:
        key: name under which its bytes stand beside the delegate.
        key_at: offset of the key's first byte in the delegate.
        size_bytes: size of the constant.
    """

    key: str
    key_at: int
    size_bytes: int


@dataclass(frozen=True)
class BlobProduct:
    """One fully connected node.

    Args:
        bits: width of a code; 32 when the filter is float32.
        rows: number of rows of the weight.
        columns: number of columns of the weight.
        group_size: number of columns that share a scale.
        codes: index of the constant with the codes.
        scales: index of the constant with the scales; None for a float filter.
        bias: index of the constant with the bias; None: it has none.
    """

    bits: int
    rows: int
    columns: int
    group_size: int
    codes: int
    scales: int | None
    bias: int | None = None


@dataclass(frozen=True)
class XnnpackBlob:
    """What is inside a delegate.

    Args:
        constants: constants in the order of the delegate; number 0 is not one.
        products: products in the order of computation.
        nodes: number of operators that it runs.
    """

    constants: tuple[BlobConstant, ...]
    products: tuple[BlobProduct, ...]
    nodes: int


def read_blob(data: bytes | bytearray | memoryview) -> XnnpackBlob:
    """Read a delegate.

    Raises:
        ValueError: it is none of XNNPACK's, or damaged.
    """
    if bytes(data[_MAGIC_AT : _MAGIC_AT + 4]) != _MAGIC:
        message = f"expected an XNNPACK delegate, found {bytes(data[:8])!r}"
        raise ValueError(message)
    graph = Table.root(data, read_number(data, _FLATBUFFER_AT, "I"))
    values = dict(_values(graph))
    nodes = list(graph.tables(_NODES))
    return XnnpackBlob(
        constants=tuple(_constant(table) for table in graph.tables(_CONSTANTS)),
        products=tuple(_products(nodes, values)),
        nodes=len(nodes),
    )


def _constant(table: Table) -> BlobConstant:
    return BlobConstant(table.text(_KEY), table.text_place(_KEY) or 0, table.number(_SIZE, "Q"))


def _values(graph: Table) -> Iterator[tuple[int, tuple[Table, Table | None, int]]]:
    """Yield each value's tensor, and its quantisation with the type of that."""
    for value in graph.tables(_VALUES):
        found = value.table(_TABLE)
        if found is None:
            continue
        if value.number(_TYPE, "B") == _QUANTIZED_VALUE:
            tensor = found.table(0)
            if tensor is not None:
                yield tensor.number(_ID, "I"), (tensor, found.table(2), found.number(1, "B"))
        else:
            yield found.number(_ID, "I"), (found, None, 0)


def _products(
    nodes: list[Table], values: Mapping[int, tuple[Table, Table | None, int]]
) -> Iterator[BlobProduct]:
    for node in nodes:
        connected = node.table(_TABLE)
        if node.number(_TYPE, "B") != _FULLY_CONNECTED or connected is None:
            continue
        identity = connected.number(_FILTER_ID, "I")
        if identity not in values:
            message = f"a product's filter {identity} is not among the delegate's values"
            raise ValueError(message)
        tensor, quantisation, kind = values[identity]
        rows, columns = tensor.numbers(_DIMS, "I")
        bits = _BITS.get(tensor.number(_DATATYPE, "h"), 0)
        group_size, scales = columns, None
        if quantisation is not None:
            group_field, scale_field = _SCALE_FIELDS.get(kind, (None, 2))
            scales = quantisation.number(scale_field, "I")
            if group_field is not None:
                group_size = quantisation.number(group_field, "i")
        codes = tensor.number(_CONSTANT, "I")
        added = connected.number(_BIAS_ID, "I")
        if added != _NO_VALUE and added not in values:
            message = f"a product's bias {added} is not among the delegate's values"
            raise ValueError(message)
        bias = None if added == _NO_VALUE else values[added][0].number(_CONSTANT, "I")
        yield BlobProduct(bits, rows, columns, group_size, codes, scales, bias)
