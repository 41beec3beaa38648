"""Find a Llama's intermediate values in a package's program, by its shape and not by names.

So a faulty package is read as what it is; a point that has no place is left out. The way goes from
each attention outwards. It knows MIL's operators, not what they should compute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from coreml_evaluator.program import Function, Operation
from llama_export.llama import intermediates
from llama_export.llama.intermediates import in_layer
from llama_export.targets.coreml.signature import INPUT_IDS, LOGITS

_FUSED, _PARTS = "scaled_dot_product_attention", "softmax"
# Where an attention has its query, key and value.
_OPERANDS = ("query", "key", "value")


@dataclass(frozen=True)
class Points:
    """Which value of a program is which point.

    Args:
        single: name of its value, by point.
        joined: names of the values whose rows stand side by side, by point.
    """

    single: Mapping[str, str]
    joined: Mapping[str, tuple[str, ...]]


def find_intermediates(function: Function) -> Points:
    """Return the points that the program has."""
    walk = Walk(function)
    single, joined = dict(walk.ends()), {}
    for layer, attention in enumerate(walk.attentions):
        found = dict(walk.layer(attention))
        single |= {in_layer(layer, part): name for part, name in found.items()}
        projected = walk.projected(attention)
        if projected:
            joined[in_layer(layer, intermediates.QKV)] = projected
    return Points(single, joined)


class Walk:
    """Steps from an operator to its neighbours; a step that leads nowhere ends the way."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self._maker: dict[str, Operation] = {}
        self._users: dict[str, list[Operation]] = {}
        # What was written into a state stands for what is read from it next.
        self._written: dict[str, str] = {}
        self._states: dict[str, str] = {}
        for operation in function.operations:
            for name, _ in operation.outputs:
                self._maker[name] = operation
            for name in dict.fromkeys(operation.refs()):
                self._users.setdefault(name, []).append(operation)
            self._follow_state(operation)
        kinds = {operation.type for operation in function.operations}
        kind = _FUSED if _FUSED in kinds else _PARTS
        self.attentions = [each for each in function.operations if each.type == kind]

    def _follow_state(self, operation: Operation) -> None:
        state = next(iter(operation.refs("input")), "")
        if operation.type == "write_state":
            self._states[state] = operation.refs("data")[0]
        elif operation.type == "read_state" and state in self._states:
            self._written[operation.label] = self._states[state]

    def ends(self) -> Iterator[tuple[str, str]]:
        """Yield the embedding, the final norm and the logits."""
        for operation in self._users.get(INPUT_IDS, ()):
            if operation.type == "gather":
                yield intermediates.EMBEDDING, operation.label
        head = self._maker.get(LOGITS)
        if head is not None:
            yield intermediates.HEAD, LOGITS
            yield from ((intermediates.FINAL_NORM, name) for name in self._norm_behind(head))

    def projected(self, attention: Operation) -> tuple[str, ...]:
        """Return query, key and value before rotation; empty where one is missing."""
        return tuple(self._whole(each.label) for each in self._projections(attention))

    def _projections(self, attention: Operation) -> list[Operation]:
        """Return the products behind query, key and value; empty where one is missing."""
        parts = _OPERANDS if attention.type == _FUSED else ()
        starts = [next(iter(attention.refs(part)), "") for part in parts]
        if attention.type == _PARTS:
            starts = self._unfused(attention)
        found = [self._product_behind(start) for start in starts]
        products = [product for product in found if product is not None]
        return products if len(products) == len(_OPERANDS) else []

    def layer(self, attention: Operation) -> Iterator[tuple[str, str]]:
        """Yield a layer's points as pairs of part and value."""
        products = self._projections(attention)
        if products:
            yield intermediates.INPUT_NORM, products[0].refs("x")[0]
        output = self._next(attention.label, "linear")
        if output is None:
            return
        yield intermediates.MIXED, output.refs("x")[0]
        attended = self._whole(output.label)
        yield intermediates.OUTPUT, attended
        total = self._next(attended, "add")
        if total is None:
            return
        yield intermediates.ATTENTION_SUM, total.label
        yield from self._feed_forward(total)

    def _feed_forward(self, total: Operation) -> Iterator[tuple[str, str]]:
        gates = [user for user in self._normed_users(total) if self._activated(user) is not None]
        if not gates:
            return
        gate = gates[0]
        yield intermediates.POST_NORM, gate.refs("x")[0]
        yield intermediates.GATE, self._whole(gate.label)
        silu = self._activated(gate)
        product = self._used_by(silu.label, "mul") if silu else None
        if silu is None or product is None:
            return
        yield from ((intermediates.UP, name) for name in product.refs() if name != silu.label)
        yield intermediates.ACTIVATION, product.label
        down = self._next(product.label, "linear")
        if down is None:
            return
        rotated = down.refs("x")[0]
        if rotated != product.label:
            yield intermediates.ROTATED, rotated
        result = self._whole(down.label)
        yield intermediates.DOWN, result
        residual = self._next(result, "add")
        if residual is not None:
            yield intermediates.MLP_SUM, residual.label

    def _normed_users(self, total: Operation) -> list[Operation]:
        """Return the products that take what a norm makes of a sum."""
        for operation in self._users.get(total.label, ()):
            if operation.type != "mul":
                continue
            weighted = self._used_by(operation.label, "mul")
            cast = self._used_by(weighted.label, "cast") if weighted else None
            if cast is not None:
                return [user for user in self._users.get(cast.label, ()) if user.type == "linear"]
        return []

    def _norm_behind(self, head: Operation) -> Iterator[str]:
        """Yield what the head multiplies, before its last row is taken."""
        name = head.refs("x")[0]
        made = self._maker.get(name)
        yield made.refs("x")[0] if made is not None and made.type == "gather" else name

    def _unfused(self, softmax: Operation) -> list[str]:
        """Return query, key and value of an attention in parts."""
        mixed = self._used_by(softmax.label, "matmul")
        masked = self._maker.get(softmax.refs("x")[0])
        scores = self._maker.get(masked.refs("x")[0]) if masked else None
        if mixed is None or scores is None or scores.type != "matmul":
            return []
        return [scores.refs("x")[0], scores.refs("y")[0], mixed.refs("y")[0]]

    def _product_behind(self, name: str) -> Operation | None:
        """Go back to the nearest product, through rotation, cache and reshaping."""
        waiting, seen = [name], set()
        while waiting:
            current = self._written.get(waiting[0], waiting[0])
            waiting = waiting[1:]
            made = self._maker.get(current)
            if made is None or current in seen:
                continue
            seen.add(current)
            if made.type == "linear":
                return made
            # Of a cache that grows, the new rows; what was there before belongs to other layers.
            update = made.refs("update") if made.type == "slice_update" else []
            update = made.refs("x") if self._is_beside(made) else update
            waiting += update or [each for each in made.refs() if each not in seen]
        return None

    def _next(self, name: str, kind: str) -> Operation | None:
        """Go forward to the nearest operator of a kind."""
        waiting, seen = [name], {name}
        while waiting:
            for operation in self._users.get(waiting[0], ()):
                if operation.type == kind:
                    return operation
                waiting += [each for each, _ in operation.outputs if each not in seen]
                seen |= {each for each, _ in operation.outputs}
            waiting = waiting[1:]
        return None

    def _used_by(self, name: str, kind: str) -> Operation | None:
        return next((user for user in self._users.get(name, ()) if user.type == kind), None)

    def _activated(self, gate: Operation) -> Operation | None:
        """Return the activation of a product, over the sums beside it and a cast."""
        whole = self._whole(gate.label)
        cast = self._used_by(whole, "cast") if whole != gate.label else None
        return self._used_by(cast.label if cast else whole, "silu")

    def _whole(self, product: str) -> str:
        """Return what a product has become when its bias and its side branch are added."""
        cast, whole = self._used_by(product, "cast"), product
        waiting = [cast.label] if cast else []
        while waiting:
            name = waiting.pop()
            for user in self._users.get(name, ()):
                if self._is_beside(user) and user.refs("x")[:1] == [name] and user.label != whole:
                    whole, waiting = user.label, [user.label]
        return whole

    def _is_beside(self, operation: Operation) -> bool:
        """Whether an operation adds a bias, which is a constant, or a side branch."""
        if operation.type != "add":
            return False
        scaled = self._maker.get(next(iter(operation.refs("y")), ""))
        if scaled is None:
            return not operation.refs("y")
        behind = self._maker.get(next(iter(scaled.refs("x")), ""))
        return scaled.type == "mul" and behind is not None and behind.type == "linear"
