"""Follow a delegate's operators: each must be a step of the half layers that it computes.

What a Llama computes there is written down as expressions, apart from the lowering, and the
delegate's operators are turned into expressions in their order. It knows no host program.

Shapes: E hidden_size, H query heads, K key/value heads, D head_dim.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence

from llama_export.llama.config import LlamaConfig
from llama_export.targets.executorch.reading.float_products import HADAMARD, MEAN, SIDE, recognised
from llama_export.targets.executorch.reading.instructions import Call
from llama_export.targets.executorch.reading.pte import Pte
from llama_export.targets.executorch.reading.weights import delegate_blob
from llama_export.targets.executorch.reading.xnnpack_blob import XnnpackBlob
from llama_export.targets.executorch.reading.xnnpack_nodes import (
    CONCATENATE,
    FULLY_CONNECTED,
    NO_VALUE,
    RESHAPE,
    TRANSPOSE,
    Node,
    read_nodes,
)

HIDDEN, MIXED, EPSILON, COS, SIN = "hidden", "mixed", "epsilon", "cosines", "sines"
QUERY, KEY, VALUE, LOGITS = "query", "key", "value", "logits"
SCALE = "scale"
# XNNPACK's number of int8 that is quantised at run time, a row at a time.
_ROUNDED = 9
_COMMUTES = frozenset({"Add", "Multiply"})


class _Expressions:
    """Expressions by number: equal ones have one number, so that comparing them is cheap."""

    def __init__(self) -> None:
        self._numbers: dict[object, int] = {}

    def of(self, *parts: object) -> int:
        """Return the number of an operator's name followed by numbers of expressions."""
        if parts[0] in _COMMUTES:
            parts = (parts[0], *sorted(parts[1:], key=str))
        return self._numbers.setdefault(parts, len(self._numbers))

    def __len__(self) -> int:
        return len(self._numbers)


class _Llama:
    """What a Llama computes between two attentions, as expressions.

    Args:
        expressions: where they are kept.
        config: shape of the model.
    """

    def __init__(self, expressions: _Expressions, config: LlamaConfig) -> None:
        self._of = expressions.of
        self._config = config
        self._products = self._norms = self._sides = 0

    def results(self, *, first: bool, last: bool) -> dict[str, int]:
        """Return the results by what they are.

        Args:
            first: whether nothing but the embedding is before it.
            last: whether the head is in it.
        """
        config, of = self._config, self._of
        hidden = of(HIDDEN)
        if not first:
            mixed = config.num_attention_heads * config.head_dim
            attended = of(RESHAPE, (1, 0, mixed), of(MIXED))
            hidden = of("Add", hidden, self._module(attended, has_bias=config.attention_bias))
            hidden = of("Add", hidden, self._feed_forward(self._norm(hidden)))
        normed = self._norm(hidden)
        if last:
            return {LOGITS: self._product(of("Convert", normed), has_bias=False)}
        heads = config.num_key_value_heads
        results = {
            HIDDEN: hidden,
            QUERY: self._rotated(normed, config.num_attention_heads),
            KEY: self._rotated(normed, heads),
            VALUE: of(
                RESHAPE,
                (1, 0, heads, config.head_dim),
                self._module(normed, has_bias=config.attention_bias),
            ),
        }
        if first:
            del results[HIDDEN]
        return results

    def _product(self, x: int, *, has_bias: bool) -> int:
        self._products += 1
        bias = [self._of("bias")] if has_bias else []
        return self._of(FULLY_CONNECTED, x, self._of("weight", self._products), *bias)

    def _module(self, x: int, *, has_bias: bool) -> int:
        return self._parts(x, 1, has_bias=has_bias)[0]

    def _parts(self, x: int, count: int, *, has_bias: bool) -> list[int]:
        """Return the products of a module, of which a rotated one has two, with what is beside."""
        of = self._of
        parts = [self._product(of("Convert", x), has_bias=has_bias) for _ in range(count)]
        if self._config.adaptor_rank:
            down, scale = self._side(x), of(SCALE)
            parts = [of("Add", part, of("Multiply", self._side(down), scale)) for part in parts]
        return parts

    def _side(self, x: int) -> int:
        self._sides += 1
        return self._of(FULLY_CONNECTED, x, self._of(SIDE, self._sides))

    def _norm(self, x: int) -> int:
        of = self._of
        mean = of(FULLY_CONNECTED, of("Multiply", x, x), of(MEAN))
        scale = of("ReciprocalSquareRoot", of("Add", mean, of(EPSILON)))
        self._norms += 1
        return of("Multiply", of("Multiply", x, scale), of("norm", self._norms))

    def _feed_forward(self, x: int) -> int:
        of, has_bias = self._of, self._config.mlp_bias
        gate = self._module(x, has_bias=has_bias)
        activated = of("Multiply", gate, of("Sigmoid", gate))
        gated = of("Multiply", activated, self._module(x, has_bias=has_bias))
        if self._config.down_proj_rotation:
            gated = self._hadamard(gated)
        return self._module(gated, has_bias=has_bias)

    def _hadamard(self, x: int) -> int:
        """Rotate by two products with constant matrices, the second one scaled."""
        of, width = self._of, self._config.intermediate_size
        bits = width.bit_length() - 1
        left, right = 2 ** (bits // 2), 2 ** (bits - bits // 2)
        (scale,) = struct.unpack("<f", struct.pack("<f", width**-0.5))
        x = of(RESHAPE, (1, 0, left, right), x)
        for order, ones in ((right, 1.0), (left, scale)):
            product = of(FULLY_CONNECTED, x, of(HADAMARD, order, ones))
            x = of(TRANSPOSE, (0, 1, 3, 2), product)
        return of(RESHAPE, (1, 0, width), x)

    def _rotated(self, x: int, heads: int) -> int:
        of, shape = self._of, (1, 0, heads, self._config.head_dim // 2)
        parts = self._parts(x, 2, has_bias=self._config.attention_bias)
        one, two = (of(RESHAPE, shape, part) for part in parts)
        cos, sin = of(COS), of(SIN)
        first = of("Subtract", of("Multiply", one, cos), of("Multiply", two, sin))
        second = of("Add", of("Multiply", two, cos), of("Multiply", one, sin))
        return of(CONCATENATE, (3,), first, second)


def follow_delegate(
    pte: Pte, call: Call, given: Mapping[int, str], config: LlamaConfig, *, first: bool, last: bool
) -> tuple[list[str], list[str], int]:
    """Follow the delegate of a call.

    Args:
        pte: the program.
        call: the instruction.
        given: what each argument is, by its place: `HIDDEN`, `MIXED`, `EPSILON`, `SCALE`, `COS`,
            `SIN`, and "norm 1" and "norm 2" for the norms' weights.
        config: shape of the model.
        first: whether nothing but the embedding is before it.
        last: whether the head is in it.

    Returns:
        Sentences on what is not a Llama's, the results in the order of the arguments, and the
        number of operators.

    Raises:
        ValueError: the delegate is damaged.
    """
    blob = delegate_blob(pte, call)
    graph = read_nodes(pte.segment(pte.delegates[call.delegate][1]))
    expressions = _Expressions()
    expected = _Llama(expressions, config).results(first=first, last=last)
    known = len(expressions)
    found = {
        value: expressions.of(*_parsed(given[place]))
        for value, place in graph.external.items()
        if place in given
    }
    strangers = []
    weights = iter(_weights(pte, blob))
    for number, node in enumerate(graph.nodes):
        values = [found.get(value, -1) for value in node.inputs]
        if node.kind == FULLY_CONNECTED:
            bias = [] if node.inputs[-1] == NO_VALUE else [expressions.of("bias")]
            values = [values[0], expressions.of(*next(weights)), *bias]
        settings = [node.settings] if node.settings else []
        expression = expressions.of(node.kind, *settings, *values)
        plain = node.is_plain and _is_rounded_or_not(node, graph.datatypes)
        if not plain or expression >= known:
            strangers.append(f"its operator {number}, {node.kind}, is not a Llama's there")
            break
        found[node.output] = expression
    outputs = sorted((place, v) for v, place in graph.external.items() if place not in given)
    names = {number: name for name, number in expected.items()}
    results = [names.get(found.get(value, -1), "") for _, value in outputs]
    if not strangers and results != list(expected):
        strangers.append(
            f"it gives {', '.join(r or 'another value' for r in results) or 'nothing'}"
        )
    return strangers, results, len(graph.nodes)


def _parsed(name: str) -> tuple[object, ...]:
    """Return a leaf's expression: "norm 1" is the first of the norms' weights."""
    word, _, number = name.partition(" ")
    return (word, int(number)) if number.isdecimal() else (name,)


def _is_rounded_or_not(node: Node, datatypes: Mapping[int, int]) -> bool:
    """Return whether a node rounds to int8 at run time if, and only if, it is there to do so."""
    return (datatypes.get(node.output) == _ROUNDED) == (node.kind == "Convert")


def _weights(pte: Pte, blob: XnnpackBlob) -> Iterator[tuple[object, ...]]:
    """Yield what each product multiplies with: the next weight, or a matrix of floats."""
    weights = sides = 0
    for product in blob.products:
        if product.scales is not None:
            weights += 1
            yield "weight", weights
            continue
        matrix = recognised(product, _constant(pte, blob, product.codes))
        if matrix.role == SIDE:
            sides += 1
            yield SIDE, sides
        elif matrix.role == HADAMARD:
            yield HADAMARD, matrix.order, matrix.scale
        else:
            yield (matrix.role,)


def _constant(pte: Pte, blob: XnnpackBlob, index: int) -> bytes:
    key = blob.constants[index].key
    return pte.segment(pte.named[key])


def norm_words(count: int) -> Sequence[str]:
    """Return the words for a delegate's norms, in their order."""
    return [f"norm {number}" for number in range(1, count + 1)]
