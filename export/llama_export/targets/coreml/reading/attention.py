"""Follow one layer's attention in a package: rotation, cache, softmax, in both forms of each.

It knows MIL's operators for it; it knows no weights and no products.
"""

from __future__ import annotations

import numpy as np

from coreml_evaluator.program import Operation
from llama_export.llama.config import LlamaConfig
from llama_export.targets.coreml.names import COS_TABLE, SIN_TABLE
from llama_export.targets.coreml.reading.operations import (
    Expression,
    Operations,
)
from llama_export.targets.coreml.reading.positions import Expected, first_difference
from llama_export.targets.coreml.signature import KEY_CACHE, VALUE_CACHE
from llama_export.targets.wiring import OtherGraphError

_FUSED = "scaled_dot_product_attention"
_BY_HEAD = {"perm": (0.0, 2.0, 1.0, 3.0)}
_LAST = {"axis": -1.0, "interleave": 0.0}


class AttentionWalk:
    """The way back through attentions, from the last layer to the first.

    Args:
        operations: operations of the function.
        config: shape of the model.
        expected: what the slots of a call should be computed as.
        kv_io: whether the caches are inputs and outputs, and not states.
    """

    def __init__(
        self, operations: Operations, config: LlamaConfig, expected: Expected, *, kv_io: bool
    ) -> None:
        self._ops = operations
        self._config = config
        self._expected = expected
        self._kv_io = kv_io
        self._joined: list[tuple[str, str]] = []
        self._shared: dict[str, str] = {}
        # Of each cache: what the layer above takes for it, which this one has to give.
        self._above: dict[str, str] = {}

    def layer(self, value: str, layer: int) -> tuple[str, str, str]:
        """Follow a layer's attention from what `o_proj` takes.

        Args:
            value: name of the mixed values.
            layer: index of the layer.

        Returns:
            Names of the products for query, key and value.

        Raises:
            OtherGraphError: an operator is not what a Llama has there.
        """
        place, config = f"model.layers.{layer}.self_attn (attention)", self._config
        query_heads, heads, size = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        flat = self._reshaped(value, (1, -1, query_heads * size), place)
        by_token = self._transposed(flat, place)
        mixed = self._reshaped(by_token, (1, query_heads, -1, size), place)
        folded, keys, values = self._mixed(mixed, place)
        query = self._rotated(self._reshaped(folded, (1, heads, -1, size), place), place)
        key_rows = self._cached(keys, KEY_CACHE, layer, place)
        value_rows = self._cached(values, VALUE_CACHE, layer, place)
        self._joined.insert(0, (keys, values))
        key = self._rotated(key_rows, place)
        return (
            self._in_heads(query, query_heads, place),
            self._in_heads(key, heads, place),
            self._in_heads(value_rows, heads, place),
        )

    def outputs(self, keys: str, values: str) -> None:
        """Follow the caches that come out: every layer's, in order.

        Raises:
            OtherGraphError: one is missing, or in another place.
        """
        for part, name in enumerate((keys, values)):
            settings = {"axis": 0.0, "interleave": 0.0}
            joined = self._ops.take(name, "concat", name, settings, ("values",))
            layers = [
                self._ops.ref(self._expanded(each, name), "x", name)
                for each in joined.refs("values")
            ]
            if layers != [pair[part] for pair in self._joined]:
                raise OtherGraphError(name, f"it joins {', '.join(layers)}")

    def _mixed(self, value: str, place: str) -> tuple[str, str, str]:
        """Follow attention itself to query, keys and values."""
        ops, parts = self._ops, ("query", "key", "value", "attn_mask")
        maker = ops.maker(value)
        if maker is not None and maker.type == "matmul":
            return self._mixed_in_parts(value, place)
        made = ops.take(value, _FUSED, place, {}, parts)
        self._share("mask", ops.ref(made, "attn_mask", place), place)
        query, key, given = (ops.ref(made, part, place) for part in parts[:3])
        return query, key, given

    def _mixed_in_parts(self, value: str, place: str) -> tuple[str, str, str]:
        ops = self._ops
        plain = {"transpose_x": 0.0, "transpose_y": 0.0}
        mixed = ops.take(value, "matmul", place, plain, ("x", "y"))
        softmax = ops.take(ops.ref(mixed, "x", place), "softmax", place, {"axis": -1.0}, ("x",))
        masked = ops.take(ops.ref(softmax, "x", place), "add", place, {}, ("x", "y"))
        self._share("mask", ops.ref(masked, "y", place), place)
        turned = {"transpose_x": 0.0, "transpose_y": 1.0}
        scores = ops.take(ops.ref(masked, "x", place), "matmul", place, turned, ("x", "y"))
        scale = float(np.float16(self._config.head_dim**-0.5))
        scaled = ops.take(ops.ref(scores, "x", place), "mul", place, {"y": scale}, ("x",))
        return (
            ops.ref(scaled, "x", place),
            ops.ref(scores, "y", place),
            ops.ref(mixed, "y", place),
        )

    def _share(self, what: str, value: str, place: str) -> None:
        """Refuse a layer whose mask or angles are not those of the others."""
        if self._shared.setdefault(what, value) != value:
            raise OtherGraphError(place, f"its {what} are {value}, not {self._shared[what]}")

    def _require(self, value: str, expected: Expression, place: str) -> None:
        found = self._ops.expression(value)
        if found != expected:
            raise OtherGraphError(place, f"{value}: {first_difference(found, expected)}")

    def positions(self) -> None:
        """Follow mask, cosines and sines, which all layers share.

        Raises:
            OtherGraphError: an operator is not what a Llama has there.
        """
        ops = self._ops
        indices = set()
        for what, table in (("cosines", COS_TABLE), ("sines", SIN_TABLE)):
            whole = ops.take(self._shared[what], "concat", what, _LAST, ("values",))
            first, rows = whole.refs("values")
            if table == SIN_TABLE:
                negated = ops.take(first, "mul", what, {"y": -1.0}, ("x",))
                first = ops.ref(negated, "x", what)
            if first != rows:
                raise OtherGraphError(what, f"{whole.label} joins {first} and {rows}")
            narrow = ops.take(rows, "cast", what, {"dtype": "fp16"}, ("x",))
            settings = {"axis": 0.0, "batch_dims": 0.0}
            found = ops.take(ops.ref(narrow, "x", what), "gather", what, settings, ("x", "indices"))
            ops.require_weight(found, "x", table, what)
            indices.add(ops.ref(found, "indices", what))
        if len(indices) != 1:
            raise OtherGraphError(what, f"they are of {' and '.join(sorted(indices))}")
        self._require(indices.pop(), self._expected.positions, what)
        self._require(self._shared["mask"], self._expected.mask, "mask")

    def _cached(self, value: str, cache: str, layer: int, place: str) -> str:
        """Follow a layer's keys or values to the new rows among them."""
        ops = self._ops
        if self._kv_io:
            made = ops.take(value, "concat", place, {"axis": 2.0, "interleave": 0.0}, ("values",))
            before, rows = made.refs("values")
            found = ops.ref(self._sliced(before, layer, place), "x", place)
            self._require_cache(found, cache, place)
            return rows
        state = ops.ref(self._sliced(value, layer, place), "x", place)
        written = ops.written_before(state, place)
        read = ops.maker(state)
        self._require_cache(read.refs("input")[0] if read else state, cache, place)
        parts = ("x", "update", "begin", "end")
        made = ops.take(written, "slice_update", place, {}, parts)
        for part, slot in zip(
            ("begin", "end"), self._expected.slots(layer, self._config), strict=True
        ):
            self._require(ops.ref(made, part, place), slot, place)
        if self._above.get(cache, state) != state:
            raise OtherGraphError(place, f"layer {layer + 1} does not go on from {state}")
        self._above[cache] = ops.ref(made, "x", place)
        if layer == 0:
            self._require(self._above[cache], ("read_state", (("input", (cache,)),)), place)
        return ops.ref(self._expanded(ops.ref(made, "update", place), place), "x", place)

    def _require_cache(self, found: str, expected: str, place: str) -> None:
        if found != expected:
            raise OtherGraphError(place, f"it takes {found} where {expected} was expected")

    def _sliced(self, value: str, layer: int, place: str) -> Operation:
        """Follow one layer's slice of a cache: up to the last new token, or all of it."""
        ops, config = self._ops, self._config
        settings = {
            "begin": (float(layer), 0.0, 0.0, 0.0, 0.0),
            "squeeze_mask": (1.0, 0.0, 0.0, 0.0, 0.0),
        }
        maker = ops.maker(value)
        if maker is None or "end_mask" not in maker.inputs:
            made = ops.take(value, "slice_by_index", place, settings, ("x", "end"))
            _, end = self._expected.slots(layer, config)
            self._require(ops.ref(made, "end", place), end, place)
            return made
        heads, size = float(config.num_key_value_heads), float(config.head_dim)
        settings["end"] = (layer + 1.0, 1.0, heads, 1.0, size)
        settings["end_mask"] = (0.0, 1.0, 1.0, 1.0, 1.0)
        return ops.take(value, "slice_by_index", place, settings, ("x",))

    def _rotated(self, value: str, place: str) -> str:
        """Follow a rotation of the pairs `(i, i + D/2)` to what is rotated."""
        ops = self._ops
        summed = ops.take(value, "add", place, {}, ("x", "y"))
        plain = ops.take(ops.ref(summed, "x", place), "mul", place, {}, ("x", "y"))
        turned = ops.take(ops.ref(summed, "y", place), "mul", place, {}, ("x", "y"))
        self._share("cosines", ops.ref(plain, "y", place), place)
        self._share("sines", ops.ref(turned, "y", place), place)
        rows = ops.ref(plain, "x", place)
        swapped = ops.take(ops.ref(turned, "x", place), "concat", place, _LAST, ("values",))
        second, first = swapped.refs("values")
        settings = {"axis": -1.0, "num_splits": 2.0}
        halves = ops.take(first, "split", place, settings, ("x",))
        if [name for name, _ in halves.outputs] != [first, second]:
            raise OtherGraphError(place, f"{swapped.label} does not swap the halves")
        if ops.ref(halves, "x", place) != rows:
            raise OtherGraphError(place, f"{summed.label} adds what are not the same rows")
        return rows

    def _in_heads(self, value: str, heads: int, place: str) -> str:
        return self._reshaped(
            self._transposed(value, place), (1, -1, heads, self._config.head_dim), place
        )

    def _expanded(self, value: str, place: str) -> Operation:
        return self._ops.take(value, "expand_dims", place, {"axes": 0.0}, ("x",))

    def _transposed(self, value: str, place: str) -> str:
        made = self._ops.take(value, "transpose", place, _BY_HEAD, ("x",))
        return self._ops.ref(made, "x", place)

    def _reshaped(self, value: str, shape: tuple[int, ...], place: str) -> str:
        settings = {"shape": tuple(float(size) for size in shape)}
        made = self._ops.take(value, "reshape", place, settings, ("x",))
        return self._ops.ref(made, "x", place)
