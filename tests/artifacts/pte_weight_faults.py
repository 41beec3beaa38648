"""Faults in the weights, tables and arguments of a real `.pte`: what `pte_faults` does not hold.

Each is written into the bytes of the file and keeps its length. The model has three layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from artifacts import tiny
from artifacts.pte_faults import Edited

from llama_export.llama.rope import inverse_frequencies, rope_tables
from llama_export.targets.executorch.reading.flatbuffer import read_number, write_number
from llama_export.targets.executorch.reading.weights import ATTENTION, LOOKUP, SLICE, read_weights

Fault = Callable[[Edited], None]
# Fields of a method, and of a tensor.
_BUFFER_SIZES, _ALLOCATION = 8, 6
_CACHE, _DELEGATE = "llama::update_cache.out", ""
# Of an attention's arguments.
_QUERY, _KEYS, _VALUES, _START, _MASK, _SCALE = 0, 1, 2, 3, 4, 7


def _product(edited: Edited, name: str):
    return next(each for each in read_weights(edited.pte).products if name in each.weight)


def _segment(edited: Edited, index: int) -> slice:
    segment = edited.pte.segments[index]
    begin = edited.pte.segments_at + segment.offset
    return slice(begin, begin + segment.size_bytes)


def _change(edited: Edited, place: slice, change: Callable[[np.ndarray], object], dtype) -> None:
    values = np.frombuffer(bytes(edited.content[place]), dtype).copy()
    change(values)
    edited.content[place] = values.tobytes()


def codes(name: str, change: Callable[[np.ndarray], object]) -> Fault:
    def edit(edited: Edited) -> None:
        _change(edited, _segment(edited, _product(edited, name).codes_segment), change, np.uint8)

    return edit


def scales(name: str, change: Callable[[np.ndarray], object]) -> Fault:
    def edit(edited: Edited) -> None:
        place = _segment(edited, _product(edited, name).scales_segment)
        _change(edited, place, change, np.uint16)

    return edit


def exchanged(one: str, other: str) -> Fault:
    """Exchange two products' weights of one shape."""

    def edit(edited: Edited) -> None:
        first, second = (_product(edited, name) for name in (one, other))
        for part in ("codes_segment", "scales_segment"):
            a, b = (_segment(edited, getattr(each, part)) for each in (first, second))
            edited.content[a], edited.content[b] = edited.content[b], edited.content[a]

    return edit


def constant(value: Callable[[Edited], int], change: Callable[[np.ndarray], object], dtype=None):
    """Change a constant that an instruction takes."""

    def edit(edited: Edited) -> None:
        number = value(edited)
        begin = edited.constant_at(number)
        place = slice(begin, begin + edited.pte.tensors[number].size_bytes)
        _change(edited, place, change, dtype or np.float32)

    return edit


def _norm(index: int):
    def find(edited: Edited) -> int:
        tensors = read_weights(edited.pte).norms[index][1]
        return next(number for number, each in edited.pte.tensors.items() if each is tensors)

    return find


def _table(part: int):
    return lambda edited: edited.call(LOOKUP).arguments[part]


def _rotary(part: int):
    return lambda edited: edited.call(SLICE, part).arguments[0]


def argument(operator: str, index: int, place: int, of: tuple[str, int, int]) -> Fault:
    """Let an instruction take what another one takes."""

    def edit(edited: Edited) -> None:
        other, its_index, its_place = of
        value = edited.call(other, its_index).arguments[its_place]
        edited.write_argument(edited.call(operator, index), place, value)

    return edit


def exchanged_arguments(operator: str, index: int, one: int, other: int) -> Fault:
    def edit(edited: Edited) -> None:
        call = edited.call(operator, index)
        first, second = call.arguments[one], call.arguments[other]
        edited.write_argument(call, one, second)
        edited.write_argument(call, other, first)

    return edit


def of_type(value: Callable[[Edited], int], scalar_type: int) -> Fault:
    """Declare a value to be of another type, by ExecuTorch's number."""

    def edit(edited: Edited) -> None:
        tensor = edited.pte.values[value(edited)].table(1)
        edited.content[tensor.place(0)] = scalar_type

    return edit


def _rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, 32)


def _without_scaling(part: int):
    def change(values: np.ndarray) -> None:
        plain = inverse_frequencies(replace(tiny.TINY, rope_scaling=None))
        table = rope_tables(plain, torch.arange(len(_rows(values))))[part]
        _rows(values)[:] = table.numpy().reshape(-1, 32)

    return change


def _turned(values: np.ndarray) -> None:
    values[:] = values >> 4 | values << 4


def _put(index, value):
    def change(values: np.ndarray) -> None:
        values[index] = value(values[index])

    return change


def _row_exchange(one: int, other: int, width: int):
    def change(values: np.ndarray) -> None:
        rows = values.reshape(-1, width)
        rows[[one, other]] = rows[[other, one]]

    return change


WEIGHTS: dict[str, Fault] = {
    "nibbles of a product swapped": codes("layers.1.mlp.down_proj", _turned),
    "one code of a product": codes("layers.2.self_attn.o_proj", _put(77, lambda b: b ^ 0x10)),
    "one code of the first product": codes("layers.0.self_attn.q_proj", _put(0, lambda b: b ^ 1)),
    "two rows of a product exchanged": codes("layers.1.mlp.up_proj", _row_exchange(3, 4, 64)),
    "one scale of a product": scales("layers.1.mlp.gate_proj", _put(9, lambda s: s + 1)),
    "one scale of the head": scales("lm_head", _put(70, lambda s: s + 1)),
    "all scales of a product": scales("layers.2.mlp.down_proj", _put(slice(None), lambda s: s + 2)),
    "gate for up": exchanged("layers.1.mlp.gate_proj", "layers.1.mlp.up_proj"),
    "a product of another layer": exchanged("layers.0.mlp.down_proj", "layers.2.mlp.down_proj"),
    "key products of two layers": exchanged("layers.0.self_attn.k", "layers.1.self_attn.k"),
    "one weight of a norm": constant(_norm(2), _put(5, lambda w: w * 1.001)),
    "one weight of the last norm": constant(_norm(-1), _put(5, lambda w: w * 1.0001)),
    "two rows of the table exchanged": constant(_table(0), _row_exchange(200, 213, 128), np.int8),
    "two special rows exchanged": constant(_table(0), _row_exchange(510, 511, 128), np.int8),
    "one code of the table": constant(_table(0), _put(500 * 128 + 3, lambda c: c ^ 8), np.int8),
    "one scale of the table": constant(_table(1), _put(300, lambda s: s * 1.01)),
    "no scaling of cosines": constant(_rotary(0), _without_scaling(0)),
    "no scaling of sines": constant(_rotary(1), _without_scaling(1)),
    "sines the other way round": constant(_rotary(1), _put(slice(None), lambda s: -s)),
    "cosines of the next position": constant(
        _rotary(0), lambda v: _rows(v).__setitem__(slice(None), np.roll(_rows(v), -1, axis=0))
    ),
    "the last row of the cosines": constant(
        _rotary(0), lambda v: _rows(v).__setitem__(-1, _rows(v)[-2])
    ),
    "cosines a little larger": constant(_rotary(0), _put(slice(None), lambda c: c * 1.0001)),
}
ARGUMENTS: dict[str, Fault] = {
    "keys for values in attention": exchanged_arguments(ATTENTION, 1, _KEYS, _VALUES),
    "values of another layer": argument(ATTENTION, 1, _VALUES, (ATTENTION, 0, _VALUES)),
    "keys of another layer": argument(ATTENTION, 2, _KEYS, (ATTENTION, 1, _KEYS)),
    "another layer's query": argument(ATTENTION, 1, _QUERY, (ATTENTION, 0, _QUERY)),
    "attention begins later": argument(ATTENTION, 0, _START, ("executorch_prim::add.Scalar", 0, 2)),
    "a mask": argument(ATTENTION, 0, _MASK, (ATTENTION, 0, _KEYS)),
    "scale of nothing": argument(ATTENTION, 1, _SCALE, (ATTENTION, 1, 5)),
    "a scale that is a whole number": argument(ATTENTION, 1, _SCALE, (SLICE, 0, 1)),
    "a scale that is no number": argument(ATTENTION, 1, _SCALE, (ATTENTION, 1, _QUERY)),
    "keys written for values": argument(_CACHE, 3, 0, (_CACHE, 2, 0)),
    "keys written for another layer": argument(_CACHE, 2, 1, (_CACHE, 0, 1)),
    "written at the end": argument(_CACHE, 0, 2, ("executorch_prim::add.Scalar", 0, 2)),
    "rows of the tables from zero": argument(SLICE, 0, 2, (SLICE, 0, 1)),
    "a slice by a truth": argument(SLICE, 0, 4, (ATTENTION, 0, 6)),
    "cosines for sines": argument(SLICE, 1, 0, (SLICE, 0, 0)),
    "the first row's logits": argument(SLICE, 2, 2, (SLICE, 0, 1)),
    "norms of a delegate exchanged": exchanged_arguments(_DELEGATE, 1, 3, 4),
    "tables of a delegate exchanged": exchanged_arguments(_DELEGATE, 2, 5, 6),
    "attention's result of the layer before": argument(_DELEGATE, 2, 0, (_DELEGATE, 1, 0)),
    "the stream of the layer before": argument(_DELEGATE, 2, 1, (_DELEGATE, 1, 1)),
}


def no_plan(edited: Edited) -> None:
    """Let forward say nothing of the memory that it needs."""
    method = edited.pte.method("forward")
    vtable = method.at - read_number(method.data, method.at, "i")
    write_number(edited.content, vtable + 4 + 2 * _BUFFER_SIZES, "H", 0)


def outside_the_plan(edited: Edited) -> None:
    value = edited.pte.values[edited.call(ATTENTION, 0).arguments[-1]].table(1)
    place = value.table(_ALLOCATION)
    write_number(edited.content, place.place(1), "I", 2**31)


MEMORY: dict[str, Fault] = {
    "no plan of its memory": no_plan,
    "a value outside of the memory": outside_the_plan,
}
TYPES: dict[str, Fault] = {
    "attention's result as int16": of_type(lambda e: e.call(ATTENTION, 1).arguments[-1], 2),
    "a cache as float16": of_type(lambda e: e.call(ATTENTION, 0).arguments[_KEYS], 5),
    "what a delegate gives as int32": of_type(lambda e: e.call(_DELEGATE, 1).arguments[-1], 3),
    "ids as int32": of_type(lambda e: e.pte.inputs[0], 3),
    "the table as uint8": of_type(_table(0), 0),
}
