"""Follow an ONNX graph from its logits back to its inputs: each operator must be a Llama's.

It shares no code with the lowering but the metadata key of the weights. It knows the operators and
their settings; it runs nothing, and does not look into the weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.llama.config import LlamaConfig
from llama_export.llama.names import FINAL_NORM, HEAD, TABLE
from llama_export.targets.onnx.reading.heads import FollowedHeads
from llama_export.targets.onnx.reading.nodes import (
    MUL,
    NOTHING,
    RESHAPE,
    ROWS,
    SUB,
    TO_FLOAT,
    TO_INT32,
    Graph,
    Kinds,
    Settings,
)
from llama_export.targets.onnx.reading.token_lookup import IDS, follow_lookup
from llama_export.targets.wiring import Attribute, OtherGraphError, Wiring

if TYPE_CHECKING:
    import onnx

_MASK, _LOGITS = "attention_mask", "logits"
_SUM_NORM, _NORM = "SkipSimplifiedLayerNormalization", "RMSNormalization"
# Of `SkipSimplifiedLayerNormalization`: the output that is the residual sum itself.
_SUM_OUTPUT = 3
_KEY_VALUE = ("key", "value")

# Settings without an expected value are the products' sizes and forms, which their bytes prove.
_PRODUCTS: Kinds = {
    "MatMulNBits": dict.fromkeys(("K", "N", "bits", "block_size", "accuracy_level")),
    "FusedMatMul": {
        "alpha": (1, 1),
        "transA": (0, 0),
        "transB": (0, 1),
        "transBatchA": (0, 0),
        "transBatchB": (0, 0),
    },
}
_PLAIN_PRODUCT: Settings = {**_PRODUCTS["FusedMatMul"], "transB": (0, 0)}
_ADD: Kinds = {"Add": NOTHING}
_JOIN: Kinds = {"Concat": {"axis": (0, -1)}}
_COUNT: Kinds = {"ReduceSum": {"keepdims": (1, 0), "noop_with_empty_axes": (0, 0)}}
_SILU: Kinds = {"QuickGelu": {"alpha": (1.702, 1)}}
_CHOICE: Kinds = {"GatherND": {"batch_dims": (0, 1)}}
_COLUMNS: Kinds = {"Shape": {"start": (0, 1), "end": (2, 2)}}


def read_wiring(model: Path, config: LlamaConfig, *, all_logits: bool) -> Wiring:
    """Follow an artifact's graph.

    Args:
        model: path of model.onnx.
        config: shape of the model that it should compute.
        all_logits: whether it should give the logits of every position.
    """
    import onnx

    proto = onnx.load(str(model), load_external_data=False)
    graph = Graph(proto.graph)
    strangers = list(_outside(proto, config))
    try:
        _Walk(graph, config).model(all_logits=all_logits)
    except (OtherGraphError, LookupError, ValueError, TypeError) as error:
        # A node with too few inputs, or a name that is no text, is not a Llama's either.
        strangers.append(str(error))
        strangers += graph.unknown()
    else:
        strangers += graph.left_over()
    attributes = (*graph.attributes, *_accuracy_levels(proto.graph))
    return Wiring(tuple(strangers), len(graph.followed), attributes)


def _accuracy_levels(graph: onnx.GraphProto) -> Iterator[Attribute]:
    """Yield each product's accuracy level, of which one is right for one number of bits: most's."""
    products = {}
    for node in graph.node:
        if node.op_type == "MatMulNBits":
            numbers = {each.name: each.i for each in node.attribute}
            products[node.name] = (numbers.get("bits", 4), numbers.get("accuracy_level", 0))
    counts = Counter(products.values())
    for name, (bits, level) in products.items():
        expected = max((count, held) for (b, held), count in counts.items() if b == bits)[1]
        yield Attribute(name, "accuracy_level", level, expected)


def _outside(proto: onnx.ModelProto, config: LlamaConfig) -> Iterator[str]:
    """Name functions, and inputs and outputs, that such a model does not have."""
    for function in proto.functions:
        yield f"the model brings an operator of its own: {function.domain}.{function.name}"
    parts = [(layer, part) for layer in range(config.num_hidden_layers) for part in _KEY_VALUE]
    inputs = {IDS, _MASK, *(f"past_key_values.{layer}.{part}" for layer, part in parts)}
    outputs = {_LOGITS, *(f"present.{layer}.{part}" for layer, part in parts)}
    for what, names, values in (
        ("input", inputs, proto.graph.input),
        ("output", outputs, proto.graph.output),
    ):
        for name in sorted(names ^ {str(value.name) for value in values}):
            yield f"the graph's {what} {name} is {'missing' if name in names else 'unknown'}"


class _Walk:
    """The way back through a graph; it ends with `OtherGraphError` where an operator is another."""

    def __init__(self, graph: Graph, config: LlamaConfig) -> None:
        self._graph = graph
        self._heads = FollowedHeads(graph, config.head_dim)
        self._config = config
        epsilon = (1e-5, config.rms_norm_eps)
        self._sum_norms: Kinds = {_SUM_NORM: {"epsilon": epsilon}}
        self._norms: Kinds = {_NORM: {"epsilon": epsilon, "axis": (-1, -1), "stash_type": (1, 1)}}

    def model(self, *, all_logits: bool) -> None:
        """Follow everything, from the logits to the ids."""
        config = self._config
        head = TABLE if config.tie_word_embeddings else HEAD
        normed = self._product(_LOGITS, [head], "lm_head")
        if not all_logits:
            normed = self._last_row(normed)
        norm = self._sum_norm(normed, FINAL_NORM)
        for layer in reversed(range(config.num_hidden_layers)):
            stem = f"model.layers.{layer}"
            sooner = self._feed_forward(norm.input[1], norm.input[0], stem)
            normed = self._attention(sooner.input[1], layer)
            gamma = f"{stem}.input_layernorm.weight"
            if layer == 0:
                embedded = self._first_norm(normed, gamma)
                self._graph.require_same(sooner.input[0], embedded, f"{stem}: the first sum")
                follow_lookup(self._graph, embedded, self._config.hidden_size)
            else:
                norm = self._sum_norm(normed, gamma)
                self._is_sum_of(sooner.input[0], norm, stem)

    def _sum_norm(self, value: str, gamma: str) -> onnx.NodeProto:
        place = gamma.removesuffix(".weight")
        node = self._graph.take(value, self._sum_norms, place)
        self._graph.require_inputs(node, [None, None, gamma], place)
        self._graph.require_same(value, node.output[0], place)
        return node

    def _first_norm(self, value: str, gamma: str) -> str:
        place = gamma.removesuffix(".weight")
        node = self._graph.take(value, self._norms, place)
        self._graph.require_inputs(node, [None, gamma], place)
        return str(node.input[0])

    def _is_sum_of(self, value: str, norm: onnx.NodeProto, stem: str) -> None:
        found = norm.output[_SUM_OUTPUT] if len(norm.output) > _SUM_OUTPUT else ""
        self._graph.require_same(value, found, f"{stem}: the residual sum")

    def _feed_forward(self, value: str, residual: str, stem: str) -> onnx.NodeProto:
        """Follow a layer's second half; return the norm in front of it."""
        graph, place = self._graph, f"{stem}.mlp"
        gated = self._linear(value, [f"{place}.down_proj"], f"{place}.down_proj")
        if self._config.down_proj_rotation:
            gated = self._rotation(gated, f"{place} (rotation)")
        product = graph.take(gated, MUL, f"{place} (gate)")
        graph.require_inputs(product, [None, None], f"{place} (gate)")
        silu = graph.take(product.input[0], _SILU, f"{place} (silu)")
        normed = self._linear(silu.input[0], [f"{place}.gate_proj"], f"{place}.gate_proj")
        up = self._linear(product.input[1], [f"{place}.up_proj"], f"{place}.up_proj")
        graph.require_same(up, normed, f"{place}.up_proj")
        norm = self._sum_norm(normed, f"{stem}.post_attention_layernorm.weight")
        self._is_sum_of(residual, norm, stem)
        return norm

    def _attention(self, value: str, layer: int) -> str:
        """Follow a layer's first half; return what its norm gives."""
        graph, config = self._graph, self._config
        stem = f"model.layers.{layer}.self_attn"
        mixed = self._linear(value, [f"{stem}.o_proj"], f"{stem}.o_proj")
        place = f"{stem} (attention)"
        mixed = self._heads.cut(mixed, config.num_attention_heads, place)
        settings = {
            "num_heads": (0, config.num_attention_heads),
            "kv_num_heads": (0, config.num_key_value_heads),
            "scale": (0, config.head_dim**-0.5),
            "do_rotary": (0, 1),
            "rotary_interleaved": (0, 0),
            "local_window_size": (-1, -1),
            "softcap": (0, 0),
            "smooth_softmax": (0, 0),
        }
        node = graph.take(mixed, {"GroupQueryAttention": settings}, place)
        names = [f"{layer}.{part}" for part in _KEY_VALUE]
        pasts = [f"past_key_values.{name}" for name in names]
        graph.require_inputs(node, [None, "", "", *pasts, None, None, None, None], place)
        outputs = [mixed, *(f"present.{name}" for name in names)]
        for wanted, found in zip(outputs, node.output, strict=False):
            graph.require_same(found, wanted, place)
        self._positions(node.input[5], node.input[6])
        for table in node.input[7:9]:
            graph.require_weight(table, place)
        modules = [f"{stem}.{part}_proj" for part in "qkv"]
        heads = config.num_attention_heads + 2 * config.num_key_value_heads
        packed = self._heads.padded(str(node.input[0]), heads, place)
        return self._linears(packed, modules, f"{stem}.qkv")

    def _positions(self, last: str, total: str) -> None:
        """Follow what attention is told of positions: both come from the mask's ones."""
        graph, place = self._graph, "positions"
        cast = graph.take(last, TO_INT32, place)
        self._last_token(cast.input[0], place)
        cast = graph.take(total, TO_INT32, place)
        size = graph.take(cast.input[0], ROWS, place)
        graph.require_constant(size.input[1], [1], place)
        shape = graph.take(size.input[0], {"Shape": NOTHING}, place)
        graph.require_inputs(shape, [_MASK], place)

    def _last_token(self, value: str, place: str) -> None:
        """Follow the position of each text's last token: the mask's ones, less one."""
        graph = self._graph
        minus = graph.take(value, SUB, place)
        graph.require_constant(minus.input[1], [1], place)
        summed = graph.take(minus.input[0], _COUNT, place)
        graph.require_inputs(summed, [_MASK, None], place)
        graph.require_constant(summed.input[1], [1], place)

    def _last_row(self, value: str) -> str:
        """Follow the choice of each text's last token: its last column, or where its mask ends."""
        graph, place = self._graph, "lm_head (last position)"
        node = graph.take(value, _CHOICE, place)
        graph.require_inputs(node, [None, None], place)
        index = graph.take(node.input[1], {"Unsqueeze": NOTHING}, place)
        graph.require_inputs(index, [None, None], place)
        graph.require_constant(index.input[1], [1, 2], place)
        row = graph.take(index.input[0], {"Min": NOTHING}, place)
        graph.require_inputs(row, [None, None], place)
        self._last_token(row.input[0], place)
        column = graph.take(row.input[1], SUB, place)
        graph.require_constant(column.input[1], [1], place)
        columns = graph.take(column.input[0], _COLUMNS, place)
        graph.require_inputs(columns, [IDS], place)
        return str(node.input[0])

    def _linears(self, value: str, modules: Sequence[str], place: str) -> str:
        """Follow products of one input, stacked or side by side, to that input."""
        if not self._graph.is_made_by(value, "Concat"):
            return self._linear(value, modules, place)
        node = self._graph.take(value, _JOIN, place)
        self._graph.require_inputs(node, [None] * len(modules), place)
        found = [
            self._linear(each, [module], module)
            for each, module in zip(node.input, modules, strict=True)
        ]
        for other in found[1:]:
            self._graph.require_same(other, found[0], place)
        return found[0]

    def _linear(self, value: str, modules: Sequence[str], place: str) -> str:
        """Follow a product, with its bias and its side branch, to what it multiplies."""
        config, graph, side = self._config, self._graph, None
        if config.adaptor_rank:
            node = graph.take(value, _ADD, place)
            value, branch = node.input
            (module,) = modules
            side = self._side(branch, f"{module}.adaptor")
        if config.mlp_bias if ".mlp." in modules[0] else config.attention_bias:
            node = graph.take(value, _ADD, place)
            graph.require_weights(node, [f"{module}.bias" for module in modules], place)
            graph.require_inputs(node, [None, None], place)
            graph.require_weight(node.input[1], place)
            value = node.input[0]
        x = self._product(value, [f"{module}.weight" for module in modules], place)
        if side is not None:
            graph.require_same(side, x, place)
        return x

    def _side(self, value: str, place: str) -> str:
        graph = self._graph
        for part, alpha in (("B", self._config.adaptor_scale), ("A", 1.0)):
            settings = {**_PRODUCTS["FusedMatMul"], "alpha": (1, alpha)}
            node = graph.take(value, {"FusedMatMul": settings}, f"{place}.{part}")
            graph.require_weights(node, [f"{place}.{part}.weight"], place)
            graph.require_inputs(node, [None, None], place)
            graph.require_weight(node.input[1], place)
            value = node.input[0]
        return str(value)

    def _rotation(self, value: str, place: str) -> str:
        """Follow Hadamard's rotation: two products with matrices of ones and minus ones."""
        graph, width = self._graph, self._config.intermediate_size
        left, right = _factors(width)
        node = graph.take(value, RESHAPE, place)
        graph.require_constant(node.input[1], [0, 0, width], place)
        settings = {**_PLAIN_PRODUCT, "alpha": (1, width**-0.5)}
        outer = graph.take(node.input[0], {"FusedMatMul": settings}, place)
        graph.require_constant(outer.input[0], _hadamard(left), place)
        inner = graph.take(outer.input[1], {"FusedMatMul": _PLAIN_PRODUCT}, place)
        graph.require_constant(inner.input[1], _hadamard(right), place)
        node = graph.take(inner.input[0], RESHAPE, place)
        graph.require_constant(node.input[1], [0, 0, left, right], place)
        return str(node.input[0])

    def _product(self, value: str, weights: Sequence[str], place: str) -> str:
        """Follow a product with the named weights to what it multiplies."""
        graph = self._graph
        node = graph.take(value, _PRODUCTS, place)
        graph.require_weights(node, weights, place)
        if node.op_type == "MatMulNBits":
            graph.require_inputs(node, [None, None, None], place)
            graph.require_weight(node.input[1], place)
        else:
            graph.require_inputs(node, [None, None], place)
        cast = graph.take(node.input[-1], TO_FLOAT, place)
        graph.require_weight(cast.input[0], place)
        return str(node.input[0])


def _hadamard(order: int) -> list[float]:
    """Return Sylvester's matrix row by row: -1 where the indices share an odd number of bits."""
    return [1.0 - 2.0 * ((i & j).bit_count() % 2) for i in range(order) for j in range(order)]


def _factors(width: int) -> tuple[int, int]:
    """Split a power of two into the orders of both matrices, the smaller one first."""
    bits = width.bit_length() - 1
    return 2 ** (bits // 2), 2 ** (bits - bits // 2)
