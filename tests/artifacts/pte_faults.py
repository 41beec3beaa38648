"""Faults written into the bytes of a real `.pte`, each with words that name it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from llama_export.targets.executorch.reading.flatbuffer import Table, read_number, write_number
from llama_export.targets.executorch.reading.pte import Pte

ADD, CLAMP, MULTIPLY = 1, 6, 15


class Edited:
    """A `.pte` whose bytes are overwritten in place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pte = Pte.open(path)
        self.content = bytearray(path.read_bytes())

    def call(self, operator: str, index: int = 0):
        return [call for call in self.pte.calls if call.operator == operator][index]

    def argument_at(self, call, place: int) -> int:
        """Return where the number of an argument stands."""
        index = self.pte.instructions.index(call)
        at = self.pte.chain_at + 4 * index
        instruction = Table(self.pte.program, at + read_number(self.pte.program, at, "I"))
        return instruction.table(1).vector(1)[0] + 4 * place

    def write_argument(self, call, place: int, value: int) -> None:
        write_number(self.content, self.argument_at(call, place), "i", value)

    def constant_at(self, value: int) -> int:
        return self.pte.segments_at + self.pte.constant_at(self.pte.tensors[value].constant)

    def nodes(self, delegate: int) -> list[tuple[int, Table]]:
        """Return a delegate's nodes, each with the place where its delegate stands in the file."""
        segment = self.pte.segments[self.pte.delegates[delegate][1]]
        begin = self.pte.segments_at + segment.offset
        data = bytes(self.content[begin : begin + segment.size_bytes])
        graph = Table.root(data, read_number(data, 10, "I"))
        return [(begin, node) for node in graph.tables(1)]

    def node(self, delegate: int, kind: int, index: int) -> tuple[int, Table]:
        found = [each for each in self.nodes(delegate) if each[1].number(0, "B") == kind]
        return found[index]

    def write(self) -> Path:
        self.path.write_bytes(self.content)
        return self.path


def smaller_epsilon(edited: Edited) -> None:
    last = [call for call in edited.pte.calls if call.delegate >= 0][-1]
    (single,) = (v for v in last.arguments if edited.pte.tensors[v].sizes == (1,))
    at = edited.constant_at(single)
    edited.content[at : at + 4] = np.float32(1.2e-5).tobytes()


def without_causality(edited: Edited) -> None:
    call = edited.call("llama::custom_sdpa.out", 1)
    at = edited.pte.values[call.arguments[6]].table(1).place(0)
    edited.content[at] = 0


def later_start(edited: Edited) -> None:
    """Let a cache be written at the end of the new tokens."""
    call = edited.call("llama::update_cache.out", 2)
    end = edited.call("executorch_prim::add.Scalar").arguments[-1]
    edited.write_argument(call, 2, end)


def residual_of_two_layers_before(edited: Edited) -> None:
    first, _, third = [call for call in edited.pte.calls if call.delegate >= 0][:3]
    place = next(p for p, v in enumerate(third.arguments) if len(sizes_of(edited, v)) == 3)
    edited.write_argument(third, place, first.arguments[0])


def sizes_of(edited: Edited, value: int) -> tuple[int, ...]:
    tensor = edited.pte.tensors.get(value)
    return () if tensor is None else tensor.sizes


def product_for_sum(delegate: int, index: int):
    """Turn an addition inside a delegate into a product."""

    def edit(edited: Edited) -> None:
        begin, node = edited.node(delegate, ADD, index)
        edited.content[begin + node.place(0)] = MULTIPLY

    return edit


def square_of_another(edited: Edited) -> None:
    """Let the last norm square what was before the last sum."""
    squares = [each for each in edited.nodes(2) if each[1].number(0, "B") == MULTIPLY]
    begin, node = next(e for e in reversed(squares) if _one(e[1], 0) == _one(e[1], 1))
    first = next(e for e in squares if _one(e[1], 0) == _one(e[1], 1))[1]
    write_number(edited.content, begin + node.table(1).place(1), "I", _one(first, 0))


def _one(node: Table, field: int) -> int:
    return node.table(1).number(field, "I")


def heads_another_way(edited: Edited) -> None:
    begin, node = edited.node(0, 20, 0)
    start, _ = node.table(1).vector(1)
    heads, size = (read_number(node.data, start + 4 * axis, "I") for axis in (2, 3))
    write_number(edited.content, begin + start + 8, "I", size)
    write_number(edited.content, begin + start + 12, "I", heads)


BYTES = {
    "epsilon of the last norms": (smaller_epsilon, "", "epsilon is 1.2e-05"),
    "without causality": (without_causality, "", "is_causal is 0"),
    "a later slot": (later_start, "llama::update_cache.out of key 1, key_cache_1, end", ""),
    "an older residual": (residual_of_two_layers_before, "delegate 2", ""),
    "a product for a sum": (product_for_sum(1, 0), "delegate 1: its operator 3, Multiply", ""),
    "a product for a rotation's sum": (product_for_sum(0, 1), "delegate 0: its operator", ""),
    "the square of another value": (square_of_another, "delegate 2: its operator", ""),
    "heads taken another way": (heads_another_way, "delegate 0: its operator 8, Static", ""),
}
