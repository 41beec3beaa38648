"""Trace `Llama` once, without weights, into a graph of about ten kinds of node.

`torch.export` in the pre-decomposition ATen IR keeps `linear`, `embedding`, `rms_norm` and `silu`
whole, and attention, Hadamard's rotation and a product with a side branch are one node each. The
weights stay on the meta device: a lowering looks them up by name. It knows nothing of any target.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.export import Dim, ExportedProgram, export
from torch.fx import Node

from llama_export.errors import LoweringError
from llama_export.llama.config import LlamaConfig
from llama_export.llama.model import Llama

EMBEDDING = torch.ops.aten.embedding.default
LINEAR = torch.ops.aten.linear.default
RMS_NORM = torch.ops.aten.rms_norm.default
SILU = torch.ops.aten.silu.default
MUL = torch.ops.aten.mul.Tensor
ADD = torch.ops.aten.add.Tensor
ATTENTION = torch.ops.llama_export.attention.default
ADAPTED_LINEAR = torch.ops.llama_export.adapted_linear.default
HADAMARD = torch.ops.llama_export.hadamard.default
GETITEM = operator.getitem


class NodeHandlers(Protocol):
    """What a lowering does with each kind of node; `TracedLlama.walk` calls them in order."""

    def embedding(self, node: Node) -> None:
        """Look tokens up: `(table, input_ids)`."""

    def rms_norm(self, node: Node) -> None:
        """Normalise: `(x, shape, weight, epsilon)`."""

    def linear(self, node: Node) -> None:
        """Multiply: `(x, weight)`, or `(x, weight, bias)`."""

    def adapted_linear(self, node: Node) -> None:
        """Multiply with a side branch: `(x, weight, bias or None, A, B, scale)`."""

    def hadamard(self, node: Node) -> None:
        """Rotate the last axis: `(x,)`."""

    def attention(self, node: Node) -> None:
        """Attend: query, key and value come first; results are a tuple."""

    def getitem(self, node: Node) -> None:
        """Take one result of attention: `(node, index)`."""

    def silu(self, node: Node) -> None:
        """Apply SiLU: `(x,)`."""

    def mul(self, node: Node) -> None:
        """Multiply elementwise: `(left, right)`."""

    def add(self, node: Node) -> None:
        """Add elementwise: `(left, right)`."""

    def output(self, node: Node) -> None:
        """Finish: the logits, then the caches."""


@dataclass(frozen=True)
class Side:
    """The side branch of a product: `scale * B(A x)`.

    Args:
        a: name of A.
        b: name of B.
        scale: factor.
    """

    a: str
    b: str
    scale: float


@dataclass(frozen=True)
class Linear:
    """A product with a weight, and what is added to it.

    Args:
        x: name of the node that it multiplies.
        weight: Hugging Face's name of the weight.
        bias: name of its bias; None: it has none.
        side: its side branch; None: it has none.
    """

    x: str
    weight: str
    bias: str | None = None
    side: Side | None = None


@dataclass(frozen=True)
class TracedLlama:
    """The graph of one forward pass with a KV cache of `max_context` slots.

    Args:
        config: shape of the model.
        max_context: number of slots in the cache.
        program: exported graph; user inputs are `input_ids` `[B, S]`, `position` `[]`, then per
            layer the keys and the values `[B, K, C, D]`; outputs are the logits, then the caches
            in the same order.
        weight_names: Hugging Face name of the weight behind each placeholder.
    """

    config: LlamaConfig
    max_context: int
    program: ExportedProgram
    weight_names: Mapping[str, str]

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the user-input placeholders, in the order of the call."""
        return tuple(str(name) for name in self.program.graph_signature.user_inputs)

    def weight_name(self, argument: object) -> str:
        """Return the Hugging Face name of a node's argument.

        Raises:
            LoweringError: the argument is not a weight.
        """
        name = self.weight_names.get(str(argument))
        if name is None:
            message = f"the traced graph uses {argument} as a weight, but it is none"
            raise LoweringError(message, "report it with the model's config.json")
        return name

    def linear(self, node: Node) -> Linear:
        """Return what a node multiplies with, of the kind `linear` or `adapted_linear`.

        Raises:
            LoweringError: an argument is not a weight.
        """
        arguments = (*node.args, *(None,) * 6)[:6]
        x, weight, bias, a, b, scale = arguments
        return Linear(
            str(x),
            self.weight_name(weight),
            None if bias is None else self.weight_name(bias),
            None if a is None else Side(self.weight_name(a), self.weight_name(b), number(scale)),
        )

    def walk(self, handlers: NodeHandlers) -> None:
        """Call the handler of every computing node, in order, and that of the output last.

        Raises:
            LoweringError: a node has no handler; nothing falls back silently.
        """
        by_kind: Mapping[object, Callable[[Node], None]] = {
            EMBEDDING: handlers.embedding,
            RMS_NORM: handlers.rms_norm,
            LINEAR: handlers.linear,
            ADAPTED_LINEAR: handlers.adapted_linear,
            HADAMARD: handlers.hadamard,
            ATTENTION: handlers.attention,
            GETITEM: handlers.getitem,
            SILU: handlers.silu,
            MUL: handlers.mul,
            ADD: handlers.add,
            "output": handlers.output,
        }
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                continue
            handler = by_kind.get(node.op if node.op == "output" else node.target)
            if handler is None:
                message = (
                    f"the traced graph has a node that this target cannot lower: {node.target}"
                )
                raise LoweringError(message, "report it with the model's config.json")
            handler(node)


def trace(config: LlamaConfig, max_context: int) -> TracedLlama:
    """Trace the model of a config; batch size and sequence length stay dynamic."""
    with torch.device("meta"):
        model = Llama(config).eval()
        input_ids = torch.zeros(2, 8, dtype=torch.int64)
        position = torch.zeros((), dtype=torch.int64)
        past = model.empty_cache(max_context, batch_size=2)
    batch, sequence = Dim("batch"), Dim("sequence")
    program = export(
        model,
        (input_ids, position, past),
        dynamic_shapes=(
            {0: batch, 1: sequence},
            {},
            [({0: batch}, {0: batch}) for _ in past],
        ),
        strict=False,
    )
    names = program.graph_signature.inputs_to_parameters
    return TracedLlama(config, max_context, program, dict(names))


def number(value: object) -> float:
    """Return an argument of a node as the number that it must be.

    Raises:
        LoweringError: it is not a number.
    """
    if not isinstance(value, int | float):
        message = f"expected a number in the traced graph, found {value!r}"
        raise LoweringError(message)
    return float(value)
