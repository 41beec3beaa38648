"""Lower a traced Llama to ONNX: one handler per kind of node, one pass.

A linear and an add are not emitted where they stand but where they are used, so that q, k and v
become one packed product, and an add followed by a norm becomes one operator. It knows the traced
operators and onnxruntime's best forms of them; weights' bytes are `weights.py`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.fx import Node

from llama_export.bundle.graph_spec import GraphSpec
from llama_export.errors import LoweringError
from llama_export.llama import trace
from llama_export.llama.config import LlamaConfig
from llama_export.llama.rope import inverse_frequencies, rope_tables
from llama_export.llama.trace import TracedLlama
from llama_export.targets.onnx.layout import padded_head
from llama_export.targets.onnx.lowering.data import DataWriter
from llama_export.targets.onnx.lowering.graph_builder import MICROSOFT, GraphBuilder
from llama_export.targets.onnx.lowering.hadamard import emit_hadamard
from llama_export.targets.onnx.lowering.heads import Heads
from llama_export.targets.onnx.lowering.weights import WeightEmitter
from llama_export.targets.onnx.options import OnnxOptions
from llama_export.targets.onnx.signature import signature
from llama_quantize.checkpoint.weights import QuantizedWeights

MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx_data"


@dataclass(frozen=True)
class _Linear:
    """A product that is not emitted yet."""

    x: str
    linear: trace.Linear
    name: str


@dataclass(frozen=True)
class _Add:
    """A residual sum that is not emitted yet."""

    left: str
    right: str
    name: str


_Value = str | _Linear | _Add


def lower(
    traced: TracedLlama,
    weights: QuantizedWeights,
    folder: Path,
    options: OnnxOptions,
) -> GraphSpec:
    """Write model.onnx and its data file.

    Args:
        traced: graph of the model; its `max_context` is the number of rows in the rotary tables.
        weights: the quantised checkpoint, mapped.
        folder: existing folder that gets the two files.
        options: the user's choices.

    Raises:
        LoweringError: a node or a scheme has no ONNX form.
    """
    spec = graph_spec(traced.config, traced.max_context, all_logits=options.all_logits)
    with (folder / DATA_FILE).open("wb") as file:
        builder = GraphBuilder(DataWriter(file), DATA_FILE)
        emitter = WeightEmitter(builder, weights, options.accuracy_level)
        _Lowering(traced, builder, emitter, all_logits=options.all_logits).run()
    builder.write(folder / MODEL_FILE, spec)
    return spec


def graph_spec(config: LlamaConfig, max_context: int, *, all_logits: bool) -> GraphSpec:
    """Return the artifact's signature: the names that onnxruntime's clients expect."""
    rows: int | str = "sequence_length" if all_logits else 1
    cache_shape = config.num_key_value_heads, padded_head(config.head_dim)
    return signature(config.num_hidden_layers, cache_shape, config.num_logits, max_context, rows)


class _Lowering:
    """The state of one walk: which value each traced node has become."""

    def __init__(
        self,
        traced: TracedLlama,
        builder: GraphBuilder,
        emitter: WeightEmitter,
        *,
        all_logits: bool,
    ) -> None:
        self._traced = traced
        self._builder = builder
        self._emitter = emitter
        self._all_logits = all_logits
        self._heads = Heads(builder, traced.config.head_dim)
        self._values: dict[str, _Value] = {traced.input_names[0]: "input_ids"}
        self._tuples: dict[str, tuple[str, ...]] = {}
        self._layers = 0

    def run(self) -> None:
        self._emit_positions()
        self._traced.walk(self)

    def _emit_positions(self) -> None:
        """Derive what `GroupQueryAttention` wants to know from the attention mask."""
        build = self._builder
        one = build.constant("one", "int64", [1], [1])
        total = build.node("ReduceSum", ["attention_mask", one], ["tokens"], {"keepdims": 0})
        last = build.node("Sub", [total, one], ["last_token"])
        build.node("Cast", [last], ["seqlens_k"], {"to": 6})
        shape = build.node("Shape", ["attention_mask"], ["mask_shape"])
        index = build.constant("length_axis", "int64", [], [1])
        length = build.node("Gather", [shape, index], ["mask_length"], {"axis": 0})
        build.node("Cast", [length], ["total_sequence_length_int32"], {"to": 6})
        config, positions = self._traced.config, torch.arange(self._traced.max_context)
        tables = rope_tables(inverse_frequencies(config), positions, config.attention_factor)
        for name, own in zip(("cos_cache", "sin_cache"), tables, strict=True):
            table = self._heads.table(own)
            build.weight(name, "float32", table.shape, [table])

    def embedding(self, node: Node) -> None:
        table, ids = node.args[0], node.args[1]
        self._values[node.name] = self._emitter.embedding(
            self._traced.weight_name(table), self._value(ids), node.name
        )

    def linear(self, node: Node) -> None:
        linear = self._traced.linear(node)
        self._values[node.name] = _Linear(self._value(linear.x), linear, node.name)

    adapted_linear = linear

    def hadamard(self, node: Node) -> None:
        self._values[node.name] = emit_hadamard(
            self._builder,
            self._value(node.args[0]),
            self._traced.config.rotation_orders,
            node.name,
        )

    def add(self, node: Node) -> None:
        left, right = node.args[0], node.args[1]
        self._values[node.name] = _Add(self._value(left), self._value(right), node.name)

    def rms_norm(self, node: Node) -> None:
        x, _, weight, eps = node.args
        gamma = self._emitter.vector(self._traced.weight_name(weight))
        pending = self._values.get(str(x))
        epsilon = {"epsilon": trace.number(eps)}
        if isinstance(pending, _Add):
            outputs = [node.name, "", "", pending.name]
            inputs = [pending.left, pending.right, gamma]
            self._builder.node(
                "SkipSimplifiedLayerNormalization", inputs, outputs, epsilon, MICROSOFT
            )
            self._values[str(x)] = pending.name
        else:
            attributes = {"axis": -1, **epsilon}
            self._builder.node("RMSNormalization", [self._value(x), gamma], [node.name], attributes)
        self._values[node.name] = node.name

    def attention(self, node: Node) -> None:
        config, layer = self._traced.config, self._layers
        self._layers += 1
        projections = [self._values.get(str(argument)) for argument in node.args[:3]]
        linears = [value for value in projections if isinstance(value, _Linear)]
        if len(linears) != 3 or len({linear.x for linear in linears}) != 1:
            message = f"{node.name}: expected q, k and v to be three products of one input"
            raise LoweringError(message, "report it with the model's config.json")
        packed = self._products(linears, f"{node.name}.qkv")
        query, shared = config.num_attention_heads, config.num_key_value_heads
        packed = self._heads.padded(packed, query + 2 * shared)
        presents = (f"present.{layer}.key", f"present.{layer}.value")
        pasts = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
        positions = ["seqlens_k", "total_sequence_length_int32", "cos_cache", "sin_cache"]
        self._builder.node(
            "GroupQueryAttention",
            [packed, "", "", *pasts, *positions],
            [self._heads.mixed(node.name), *presents],
            {
                "num_heads": query,
                "kv_num_heads": shared,
                "scale": config.head_dim**-0.5,
                "do_rotary": 1,
                "rotary_interleaved": 0,
                "local_window_size": -1,
            },
            MICROSOFT,
        )
        self._heads.cut(node.name, query)
        self._tuples[node.name] = (node.name, *presents)

    def getitem(self, node: Node) -> None:
        source, index = node.args
        self._values[node.name] = self._tuples[str(source)][int(str(index))]

    def silu(self, node: Node) -> None:
        x = self._value(node.args[0])
        self._values[node.name] = self._builder.node(
            "QuickGelu", [x], [node.name], {"alpha": 1.0}, MICROSOFT
        )

    def mul(self, node: Node) -> None:
        inputs = [self._value(argument) for argument in node.args]
        self._values[node.name] = self._builder.node("Mul", inputs, [node.name])

    def output(self, node: Node) -> None:
        logits, *presents = _flatten(node.args[0])
        head = self._values.get(str(logits))
        if not isinstance(head, _Linear):
            message = f"expected the first output to be a product, found {head!r}"
            raise LoweringError(message, "report it with the model's config.json")
        x = head.x if self._all_logits else self._last_row(head.x)
        self._emitter.linear([head.linear.weight], x, "logits")
        expected = [
            f"present.{layer}.{part}" for layer in range(self._layers) for part in ("key", "value")
        ]
        found = [self._value(present) for present in presents]
        if found != expected:
            message = f"the traced graph's caches come out in another order: {found[:4]}"
            raise LoweringError(message, "report it with the model's config.json")

    def _products(self, linears: Sequence[_Linear], output: str) -> str:
        """Emit products of one input as one, or where they cannot be, side by side."""
        weights = [each.linear.weight for each in linears]
        biases = [each.linear.bias for each in linears if each.linear.bias is not None]
        sides = [each.linear.side for each in linears if each.linear.side is not None]
        if sides or len(biases) not in (0, len(linears)) or not self._emitter.stack(weights):
            parts = [self._product(each, each.name) for each in linears]
            return self._builder.node("Concat", parts, [output], {"axis": -1})
        product = f"{output}.product" if biases else output
        self._emitter.linear(weights, linears[0].x, product)
        return self._emitter.bias(biases, product, output) if biases else product

    def _product(self, pending: _Linear, output: str) -> str:
        """Emit a product, its bias and its side branch."""
        linear, x = pending.linear, pending.x
        beside = linear.bias or linear.side
        value = self._emitter.linear([linear.weight], x, f"{output}.product" if beside else output)
        if linear.bias:
            biased = f"{output}.biased" if linear.side else output
            value = self._emitter.bias([linear.bias], value, biased)
        if linear.side:
            value = self._emitter.side(linear.side, x, value, output)
        return value

    def _last_row(self, x: str) -> str:
        """Keep each text's last position alone: a prefill then pays the head once.

        Texts of a batch are padded on the right, so a text's last position is where its mask ends,
        and not the last column; after the first prefill every column is a token.
        """
        build = self._builder
        one = build.constant("one", "int64", [1], [1])
        rows = build.node("Shape", ["input_ids"], ["columns"], {"start": 1, "end": 2})
        column = build.node("Sub", [rows, one], ["last_column"])
        row = build.node("Min", ["last_token", column], ["last_row"])
        axes = build.constant("index_axes", "int64", [2], [1, 2])
        index = build.node("Unsqueeze", [row, axes], ["last_row_index"])
        return build.node("GatherND", [x, index], ["last_hidden"], {"batch_dims": 1})

    def _value(self, argument: object) -> str:
        """Return the ONNX value of a traced node, emitting it now if it was pending."""
        key = str(argument)
        value = self._values.get(key)
        if isinstance(value, _Linear):
            value = self._product(value, value.name)
        elif isinstance(value, _Add):
            value = self._builder.node("Add", [value.left, value.right], [value.name])
        elif value is None:
            message = f"the traced graph uses {key}, which has no ONNX value"
            raise LoweringError(message, "report it with the model's config.json")
        self._values[key] = value
        return value


def _flatten(outputs: object) -> list[object]:
    """Flatten the nested output tuple of the traced graph."""
    if isinstance(outputs, list | tuple):
        return [leaf for item in outputs for leaf in _flatten(item)]
    return [outputs]
