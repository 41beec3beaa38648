"""Follow a package's functions from their logits back to the ids: each operator must be a Llama's.

It shares no code with the lowering but the names of constants, inputs and outputs, and runs
nothing. Attention has a module of its own, and so has what says where the tokens stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from coreml_evaluator.ops import KNOWN
from coreml_evaluator.package import Package
from coreml_evaluator.program import Function, Operation, read_functions
from llama_export.bundle.graph_spec import IO, GraphSpec
from llama_export.llama.config import LlamaConfig
from llama_export.llama.names import FINAL_NORM, HEAD, TABLE
from llama_export.targets.coreml.names import const_name
from llama_export.targets.coreml.options import MAIN
from llama_export.targets.coreml.reading.attention import AttentionWalk
from llama_export.targets.coreml.reading.linears import Linears
from llama_export.targets.coreml.reading.operations import Operations
from llama_export.targets.coreml.reading.positions import Expected, fixed, flexible
from llama_export.targets.coreml.signature import (
    CAUSAL_MASK,
    INPUT_IDS,
    LENGTH,
    LOGITS,
    PRESENT_KEYS,
    PRESENT_VALUES,
)
from llama_export.targets.wiring import OtherGraphError, Wiring


def read_wiring(path: Path, config: LlamaConfig, spec: GraphSpec) -> Wiring:
    """Follow every function of a package.

    Args:
        path: path of model.mlpackage.
        config: shape of the model that it should compute.
        spec: signature of the package.

    Raises:
        BundleError: the package is damaged.
        EvaluationError: it has operators that nobody knows.
    """
    functions = read_functions(Package.open(path), KNOWN, rounds=False)
    calls = dict(spec.functions) or {MAIN: 0}
    strangers = [f"the function {name} is unknown" for name in sorted(set(functions) ^ set(calls))]
    followed, attributes = 0, []
    for name in sorted(set(functions) & set(calls)):
        operations = Operations(functions[name])
        walk = _Walk(functions[name], operations, config, spec.max_context, tokens=calls[name])
        whose = f"{name}, " if len(functions) > 1 else ""
        strangers += [f"{whose}{each}" for each in _followed(walk, operations, spec)]
        followed += len(operations.followed)
        attributes += operations.attributes
    return Wiring(tuple(strangers), followed, tuple(attributes))


def _followed(walk: _Walk, operations: Operations, spec: GraphSpec) -> Iterator[str]:
    try:
        walk.model(kv_io=spec.kv_cache == IO)
    except (OtherGraphError, LookupError, ValueError) as error:
        # An operation with too few operands is not what a Llama has there either.
        yield str(error)
    else:
        yield from operations.left_over()


class _Walk:
    """The way back through a function; ends with `OtherGraphError` where it is another.

    Args:
        function: the function.
        operations: its operations.
        config: shape of the model.
        max_context: slots of the cache.
        tokens: number of tokens of a call; 0: any.
    """

    def __init__(
        self,
        function: Function,
        operations: Operations,
        config: LlamaConfig,
        max_context: int,
        *,
        tokens: int,
    ) -> None:
        self._function = function
        self._ops = operations
        self._config = config
        self._max_context = max_context
        self._tokens = tokens
        self._linears = Linears(operations, config)

    def model(self, *, kv_io: bool) -> None:
        """Follow everything, from the outputs to the ids."""
        config, ops = self._config, self._ops
        self._outputs(kv_io=kv_io)
        linears = self._linears
        attention = AttentionWalk(ops, config, self._expected(kv_io=kv_io), kv_io=kv_io)
        head = TABLE if config.tie_word_embeddings else HEAD
        value = linears.product(LOGITS, head, "lm_head")
        if self._tokens > 1:
            value = self._last_row(value)
        total = self._norm(value, FINAL_NORM)
        for layer in reversed(range(config.num_hidden_layers)):
            stem = f"model.layers.{layer}"
            total = self._feed_forward(total, stem)
            summed = ops.take(total, "add", f"{stem} (sum after self_attn)", {}, ("x", "y"))
            place, value = f"{stem}.self_attn", ops.ref(summed, "y", stem)
            output = linears.module(value, f"{place}.o_proj", place, is_wide=True)
            sources = attention.layer(output, layer)
            normed = {
                linears.module(each, f"{place}.{part}_proj", place)
                for each, part in zip(sources, "qkv", strict=True)
            }
            if len(normed) != 1:
                raise OtherGraphError(stem, f"q, k and v take {', '.join(sorted(normed))}")
            total = self._norm(normed.pop(), f"{stem}.input_layernorm.weight")
            residual = ops.ref(summed, "x", stem)
            if residual != total:
                what = f"the first sum takes {residual}, the norm {total}"
                raise OtherGraphError(stem, what)
        if kv_io:
            attention.outputs(PRESENT_KEYS, PRESENT_VALUES)
        self._embedding(total)
        attention.positions()

    def _expected(self, *, kv_io: bool) -> Expected:
        """Return what says where the tokens of a call should stand."""
        if self._tokens:
            return fixed(self._config, self._tokens, self._max_context)
        masked = CAUSAL_MASK in self._function.inputs
        return flexible(self._config, masked=masked, kv_io=kv_io)

    def _outputs(self, *, kv_io: bool) -> None:
        wanted = [LOGITS, *((PRESENT_KEYS, PRESENT_VALUES) if kv_io else ())]
        found = [name for name, _ in self._function.outputs]
        if found != wanted:
            what = f"expected {', '.join(wanted)}, found {', '.join(found)}"
            raise OtherGraphError(self._function.name, what)

    def _last_row(self, value: str) -> str:
        ops, place = self._ops, "lm_head (last position)"
        settings = {"axis": 1.0, "batch_dims": 0.0}
        made = ops.take(value, "gather", place, settings, ("x", "indices"))
        last = ops.ref(made, "indices", place)
        minus = ops.take(last, "sub", place, {"y": 1.0}, ("x",))
        if ops.ref(minus, "x", place) != LENGTH:
            raise OtherGraphError(place, f"{last} is not {LENGTH} less one")
        return ops.ref(made, "x", place)

    def _norm(self, value: str, gamma: str) -> str:
        """Follow a norm to what it takes, by both of its ways."""
        ops, place = self._ops, gamma.removesuffix(".weight")
        narrow = ops.take(value, "cast", place, {"dtype": "fp16"}, ("x",))
        weighted = self._product(ops.ref(narrow, "x", place), place)
        ops.require_weight(weighted, "y", const_name(gamma), place)
        scaled = self._product(ops.ref(weighted, "x", place), place)
        settings = {"epsilon": self._config.rms_norm_eps}
        root = ops.take(ops.ref(scaled, "y", place), "rsqrt", place, settings, ("x",))
        settings = {"axes": -1.0, "keep_dims": 1.0}
        mean = ops.take(ops.ref(root, "x", place), "reduce_mean", place, settings, ("x",))
        square = ops.take(ops.ref(mean, "x", place), "square", place, {}, ("x",))
        wide = ops.ref(scaled, "x", place)
        if ops.ref(square, "x", place) != wide:
            raise OtherGraphError(place, f"it scales {wide} by the size of another value")
        return wide

    def _product(self, value: str, place: str) -> Operation:
        return self._ops.take(value, "mul", place, {}, ("x", "y"))

    def _narrow(self, value: str, place: str) -> str:
        """Follow the cast of a module's result to the residual's float32."""
        made = self._ops.take(value, "cast", place, {"dtype": "fp32"}, ("x",))
        return self._ops.ref(made, "x", place)

    def _feed_forward(self, value: str, stem: str) -> str:
        """Follow a layer's second half to the sum before it."""
        ops, place = self._ops, f"{stem}.mlp"
        summed = ops.take(value, "add", f"{stem} (sum after mlp)", {}, ("x", "y"))
        linears, down = self._linears, ops.ref(summed, "y", stem)
        gated = linears.module(down, f"{place}.down_proj", place, is_wide=True)
        if self._config.down_proj_rotation:
            gated = linears.rotation(gated, f"{place} (rotation)")
        product = self._product(gated, place)
        silu = ops.take(ops.ref(product, "x", place), "silu", place, {}, ("x",))
        gate = linears.module(ops.ref(silu, "x", place), f"{place}.gate_proj", place)
        up = linears.module(ops.ref(product, "y", place), f"{place}.up_proj", place)
        total = self._norm(gate, f"{stem}.post_attention_layernorm.weight")
        residual = ops.ref(summed, "x", stem)
        if up != gate or residual != total:
            what = f"gate, up, norm and sum take {gate}, {up}, {total} and {residual}"
            raise OtherGraphError(place, what)
        return total

    def _embedding(self, value: str) -> None:
        """Follow the lookup: the table's rows, by the ids as they were given."""
        ops, place = self._ops, "model.embed_tokens"
        rows = self._narrow(value, place)
        settings = {"axis": 0.0, "batch_dims": 0.0}
        made = ops.take(rows, "gather", place, settings, ("x", "indices"))
        ops.require_weight(made, "x", const_name(TABLE), place)
        ids = ops.ref(made, "indices", place)
        if ids != INPUT_IDS:
            raise OtherGraphError(place, f"it looks {ids} up, not {INPUT_IDS}")
