"""Faults in the weights, constants and bindings of a real Core ML program, beyond `coreml_faults`.

The model has three layers, and the package one function and state.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from artifacts.coreml_faults import Saved

Fault = Callable[[Saved], None]
_TABLE, _NORM = "model__embed_tokens__weight", "model__norm__weight"


def _layer(index: int, name: str) -> str:
    return f"model__layers__{index}__{name}__weight"


def _put(index, value):
    def change(values: np.ndarray) -> np.ndarray:
        values[index] = value(values[index])
        return values

    return change


def data(name: str, change: Callable[[np.ndarray], np.ndarray], dtype: str) -> Fault:
    return lambda saved: saved.change(saved.stored[name].data, change, dtype)


def scales(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    return lambda saved: saved.change(saved.stored[name].scales, change, "<f2")


def binding(kind: str, index: int, parameter: str, value: Callable[[Saved], str]) -> Fault:
    """Let an operator take another value."""

    def edit(saved: Saved) -> None:
        operation = saved.of_type(kind)[index]
        operation.inputs[parameter].arguments[0].name = value(saved)

    return edit


def _made_by(kind: str, index: int):
    return lambda saved: saved.of_type(kind)[index].outputs[0].name


def _taken_by(kind: str, index: int, parameter: str):
    return lambda saved: saved.of_type(kind)[index].inputs[parameter].arguments[0].name


def exchanged(kind: str, one: int, other: int, parameter: str, its_own: str = "") -> Fault:
    """Exchange what two operators, or one of them twice, take."""

    def edit(saved: Saved) -> None:
        operations = saved.of_type(kind)
        first = operations[one].inputs[parameter].arguments[0]
        second = operations[other].inputs[its_own or parameter].arguments[0]
        first.name, second.name = second.name, first.name

    return edit


def number(kind: str, index: int, parameter: str, value: float | list[int]) -> Fault:
    """Write another constant."""

    def edit(saved: Saved) -> None:
        tensor = saved.const(saved.of_type(kind)[index], parameter)
        if isinstance(value, list):
            tensor.ints.values[:] = value
        elif tensor.WhichOneof("value") == "bytes":
            tensor.bytes.values = np.float16(value).tobytes()
        elif tensor.WhichOneof("value") == "ints":
            tensor.ints.values[:] = [int(value)]
        else:
            tensor.floats.values[:] = [value]

    return edit


def renamed(kind: str, index: int, other: str) -> Fault:
    """Turn an operator into another one that takes and gives the same."""

    def edit(saved: Saved) -> None:
        saved.of_type(kind)[index].type = other

    return edit


def a_bias(saved: Saved) -> None:
    """Give the products that share a bias of nothing another one."""
    saved.change(saved.stored["zeros_128"].data, _one, "<f2")


def _one(values: np.ndarray) -> np.ndarray:
    values[5] = 1e-3
    return values


WEIGHTS: dict[str, Fault] = {
    "one code of a product": data(
        _layer(2, "self_attn__o_proj"), _put((3, 3), lambda c: c ^ 16), "u1"
    ),
    "one code of the first product": data(
        _layer(0, "self_attn__q_proj"), _put((0, 0), lambda c: c ^ 1), "u1"
    ),
    "one scale of the last product": scales(
        _layer(2, "mlp__down_proj"), _put((1, 0), lambda s: s * np.float16(1.01))
    ),
    "one code of the table": data(_TABLE, _put((500, 3), lambda c: c ^ 8), "i1"),
    "two special rows exchanged": data(
        _TABLE, lambda rows: _put([510, 511], lambda r: r[::-1])(rows), "i1"
    ),
    "one scale of the table": scales(_TABLE, _put((300, 0), lambda s: s * np.float16(1.01))),
    "one weight of a norm": data(
        _layer(1, "input_layernorm"), _put((5, 0), lambda w: w * np.float32(1.001)), "<f4"
    ),
    "one weight of the last norm": data(
        _NORM, _put((5, 0), lambda w: w * np.float32(1.0001)), "<f4"
    ),
    "the last row of the cosines": data(
        "rotary__cos", _put(-1, lambda row: row * np.float32(0.5)), "<f4"
    ),
    "sines the other way round": data("rotary__sin", lambda rows: -rows, "<f4"),
    "cosines a little larger": data("rotary__cos", lambda rows: rows * np.float32(1.0001), "<f4"),
    "a bias": a_bias,
}
PROGRAM: dict[str, Fault] = {
    "weights of k for v": exchanged("linear", 8, 9, "weight"),
    "weights of gate for up": exchanged("linear", 11, 12, "weight"),
    "a product of another layer": exchanged("linear", 6, 13, "weight"),
    "norms of a layer exchanged": binding(
        "mul", 12, "y", lambda saved: _layer(0, "input_layernorm")
    ),
    "cosines for sines": binding("mul", 4, "y", lambda saved: "sin"),
    "the first half not negated": number("mul", 2, "y", 1.0),
    "what is hidden is seen a little": number("mul", 1, "y", -8.0),
    "a mask that hides the first position": renamed("greater_equal", 0, "greater"),
    "a mask of later positions": renamed("less_equal", 0, "greater_equal"),
    "silu becomes a sigmoid": renamed("silu", 1, "sigmoid"),
    "silu becomes a relu": renamed("silu", 2, "relu"),
    "a mean over positions": number("reduce_mean", 2, "axes", [1]),
    "heads transposed another way": number("transpose", 4, "perm", [0, 1, 2, 3]),
    "values of the layer before": binding(
        "scaled_dot_product_attention",
        1,
        "value",
        _taken_by("scaled_dot_product_attention", 0, "value"),
    ),
    "keys of the layer before": binding(
        "scaled_dot_product_attention",
        2,
        "key",
        _taken_by("scaled_dot_product_attention", 1, "key"),
    ),
    "attention without a mask": lambda saved: saved.of_type("scaled_dot_product_attention")[
        1
    ].inputs.pop("attn_mask"),
    "the query not rotated": binding("reshape", 9, "x", _made_by("transpose", 4)),
    "positions from the first slot": binding("gather", 0, "indices", _made_by("range_1d", 0)),
    "the input's norm left out": binding("linear", 7, "x", _taken_by("linear", 0, "x")),
    "the stream of the layer before": binding("add", 6, "x", _made_by("add", 2)),
}
