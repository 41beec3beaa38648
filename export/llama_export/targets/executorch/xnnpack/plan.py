"""Cut a traced Llama into segments between attentions, each of which becomes one delegate call.

Attention and the token lookup are operators of the runtime; everything between two attentions is
one `Segment` of norms, products and elementwise steps (the segments of a `.pte` file are another
thing). Layers are alike, so their segments are equal but for the names of their weights, and each
kind is lowered once. It knows the traced operators; it does not know what the delegate calls them.

Shapes: S tokens, E hidden_size, H query heads, K key/value heads, D head_dim.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch.fx import Node

from llama_export.errors import LoweringError
from llama_export.llama.trace import TracedLlama

# The values that enter and leave a segment.
HIDDEN = "hidden"  # [1, S, E]
MIXED = "mixed"  # [1, S, H, D], what attention gave
QUERY = "query"  # [1, S, H, D], rotated
KEY = "key"  # [1, S, K, D], rotated
VALUE = "value"  # [1, S, K, D]
LOGITS = "logits"  # [1, S, V]

_HINT = "report it with the model's config.json"


@dataclass(frozen=True)
class Step:
    """One computation inside a segment.

    Args:
        kind: name of the computation: "norm", "linear", "rotated", "heads", "silu", "mul", "add" or
            "hadamard".
        inputs: names of the values that it takes: a segment's input, or an earlier step's result.
        output: name of the result.
        weight: index among the segment's weights; None when it uses none.
        epsilon: epsilon of a norm.
        bias: index among the segment's weights of a product's bias; None: it has none.
        side: indices of the side branch's A and B beside a product; None: it has none.
        width: width of a rotation.
    """

    kind: str
    inputs: tuple[str, ...]
    output: str
    weight: int | None = None
    epsilon: float = 0.0
    bias: int | None = None
    side: tuple[int, int] | None = None
    width: int = 0


@dataclass(frozen=True)
class Segment:
    """What is computed between two attentions.

    Args:
        inputs: names of the values that come in, in the order of the call.
        steps: steps in the order of computation.
        outputs: names of the values that go out: the residual sum if it was computed here, then
            the query, the key and the value; or the logits.
        weights: names of the checkpoint's tensors, in the order of `Step.weight`.
        last_row: whether only the last token's row is computed.
    """

    inputs: tuple[str, ...]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    weights: tuple[str, ...]
    last_row: bool = False


@dataclass(frozen=True)
class Plan:
    """A whole forward pass: a lookup, then segments with an attention between each two.

    Args:
        table: name of the embedding's weight.
        segments: segments in their order, one more than there are layers.
    """

    table: str
    segments: tuple[Segment, ...]


def plan(traced: TracedLlama, *, all_logits: bool) -> Plan:
    """Cut a traced model.

    Args:
        traced: graph of the model.
        all_logits: whether the logits of every position are computed; if not, all that follows
            the last attention is computed for the last token alone.

    Raises:
        LoweringError: the graph is not the one of a Llama.
    """
    cutter = _Cutter(traced, all_logits=all_logits)
    traced.walk(cutter)
    return Plan(cutter.table, tuple(cutter.segments))


class _Cutter:
    """The state of one walk: which value of the open segment each traced node has become."""

    def __init__(self, traced: TracedLlama, *, all_logits: bool) -> None:
        self.table = ""
        self.segments: list[Segment] = []
        self._traced = traced
        self._all_logits = all_logits
        self._layers = traced.config.num_hidden_layers
        self._values: dict[str, str] = {}
        self._steps: list[Step] = []
        self._weights: list[str] = []
        self._inputs: tuple[str, ...] = (HIDDEN,)

    def embedding(self, node: Node) -> None:
        self.table = self._traced.weight_name(node.args[0])
        self._values[node.name] = HIDDEN

    def rms_norm(self, node: Node) -> None:
        x, _, weight, epsilon = node.args
        if not isinstance(epsilon, float):
            message = f"{node.name}: expected a number as epsilon, found {epsilon!r}"
            raise LoweringError(message, _HINT)
        slot = self._slot(self._traced.weight_name(weight))
        self._add_step(node, Step("norm", (self._value(x),), "", slot, epsilon))

    def linear(self, node: Node) -> None:
        linear = self._traced.linear(node)
        slot = self._slot(linear.weight)
        bias = None if linear.bias is None else self._slot(linear.bias)
        side = None
        if linear.side is not None:
            side = (self._slot(linear.side.a), self._slot(linear.side.b))
        step = Step("linear", (self._value(linear.x),), "", slot, bias=bias, side=side)
        self._add_step(node, step)

    adapted_linear = linear

    def hadamard(self, node: Node) -> None:
        width = self._traced.config.intermediate_size
        self._add_step(node, Step("hadamard", (self._value(node.args[0]),), "", width=width))

    def attention(self, node: Node) -> None:
        """Close the segment: the query and the key leave it rotated, all three in heads."""
        names = [str(argument) for argument in node.args[:3]]
        for name, kind, output in zip(
            names, ("rotated", "rotated", "heads"), (QUERY, KEY, VALUE), strict=True
        ):
            self._into_heads(name, kind, output)
        # The residual sum is the one value that is used again on the other side: the last one,
        # or the embedding itself, which does not pass through the segment.
        sums = [step.output for step in self._steps if step.kind == "add"]
        hidden = sums[-1] if sums else HIDDEN
        kept = next(name for name, value in self._values.items() if value == hidden)
        self._close((*sums[-1:], QUERY, KEY, VALUE))
        self._inputs = (HIDDEN, MIXED)
        self._values = {kept: HIDDEN, f"{node.name}:0": MIXED}

    def getitem(self, node: Node) -> None:
        source, index = node.args
        if index == 0:
            self._values[node.name] = self._values[f"{source}:0"]

    def silu(self, node: Node) -> None:
        self._add_step(node, Step("silu", (self._value(node.args[0]),), ""))

    def mul(self, node: Node) -> None:
        self._add_step(node, Step("mul", tuple(map(self._value, node.args)), ""))

    def add(self, node: Node) -> None:
        self._add_step(node, Step("add", tuple(map(self._value, node.args)), ""))

    def output(self, node: Node) -> None:
        outputs = node.args[0]
        logits = outputs[0] if isinstance(outputs, list | tuple) else outputs
        if self._layers != len(self.segments):
            message = f"expected {self._layers} attentions, found {len(self.segments)}"
            raise LoweringError(message, _HINT)
        last = self._steps[-1]
        if last.kind != "linear" or self._value(logits) != last.output:
            message = f"expected the first output to be the last product, found {logits}"
            raise LoweringError(message, _HINT)
        self._close((last.output,), last_row=not self._all_logits)

    def _into_heads(self, name: str, kind: str, output: str) -> None:
        """Turn a product that attention takes into one that leaves the segment in heads."""
        found = [i for i, step in enumerate(self._steps) if step.output == self._values.get(name)]
        if len(found) != 1 or self._steps[found[0]].kind != "linear":
            message = f"{name}: expected attention's {output} to be a product with a weight"
            raise LoweringError(message, _HINT)
        self._steps[found[0]] = replace(self._steps[found[0]], kind=kind, output=output)

    def _add_step(self, node: Node, step: Step) -> None:
        output = f"v{len(self._steps)}"
        self._steps.append(replace(step, output=output))
        self._values[node.name] = output

    def _close(self, outputs: tuple[str, ...], *, last_row: bool = False) -> None:
        self.segments.append(
            Segment(self._inputs, tuple(self._steps), outputs, tuple(self._weights), last_row)
        )
        self._steps, self._weights = [], []

    def _slot(self, weight: str) -> int:
        self._weights.append(weight)
        return len(self._weights) - 1

    def _value(self, argument: object) -> str:
        value = self._values.get(str(argument))
        if value is None:
            message = f"the traced graph uses {argument}, which this segment does not have"
            raise LoweringError(message, _HINT)
        return value
