"""Ops on each element alone: arithmetic, comparison, logic, activations, casts.

The semantics are those of MIL's documentation; where it leaves a case open, the op refuses it. It
knows values; it does not know programs or files.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional

from coreml_evaluator.arguments import Arguments, Op, OpError, computing
from coreml_evaluator.types import FLOATS, HELD
from coreml_evaluator.values import Value

_Unary = Callable[[torch.Tensor], torch.Tensor]
_Binary = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_CASTS = {"int8", "uint8", "int16", "uint16", "int32", "fp16", "fp32", "bool"}
_CAST_RANGES = {
    "int8": (-(2**7), 2**7 - 1),
    "uint8": (0, 2**8 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "uint16": (0, 2**16 - 1),
    "int32": (-(2**31), 2**31 - 1),
}


def _unary(compute: _Unary, *, floats_only: bool = True) -> Op:
    def run(given: Arguments) -> Value:
        x = given.value("x")
        if floats_only and x.dtype not in FLOATS:
            raise OpError(expected="a float x", found=x.dtype)
        return x.like(compute(x.data))

    return computing(run)


def _binary(compute: _Binary, dtype: str | None = None) -> Op:
    """Describe an op on two broadcast tensors of one dtype; a fixed result's dtype is `dtype`."""

    def run(given: Arguments) -> Value:
        x, y = given.broadcast_pair("x", "y")
        return Value(compute(x.data, y.data), dtype or x.dtype)

    return computing(run)


def _logical(compute: _Binary) -> Op:
    def run(given: Arguments) -> Value:
        x, y = given.broadcast_pair("x", "y")
        if x.dtype != "bool":
            raise OpError(expected="truth values", found=x.dtype)
        return x.like(compute(x.data, y.data))

    return computing(run)


def _divide(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    if x.is_floating_point():
        return x / y
    _require_divisor(y)
    if bool((torch.remainder(x, y) != 0).any()):
        raise OpError(
            expected="integers that divide (real_div of others is not defined)", found="a remainder"
        )
    return torch.div(x, y, rounding_mode="floor")


def _floor_divide(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    _require_divisor(y)
    return torch.div(x, y, rounding_mode="floor")


def _modulo(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    _require_divisor(y)
    return torch.remainder(x, y)


def _power(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    if not x.is_floating_point() and bool((y < 0).any()):
        raise OpError(expected="exponents from 0 on for integers", found="a negative one")
    return torch.pow(x, y)


def _require_divisor(y: torch.Tensor) -> None:
    if not y.is_floating_point() and bool((y == 0).any()):
        raise OpError(expected="integer divisors that are not 0", found="a 0")


def _with_epsilon(compute: _Unary, default: float) -> Op:
    def run(given: Arguments) -> Value:
        x = given.value("x")
        return x.like(compute(x.data + given.number("epsilon", default)))

    return computing(run)


def _clip(given: Arguments) -> Value:
    x = given.value("x")
    return x.like(x.data.clamp(given.number("alpha", -math.inf), given.number("beta", math.inf)))


def _threshold(given: Arguments) -> Value:
    x = given.value("x")
    return x.like(x.data.clamp(min=given.number("alpha", 0.0)))


def _gelu(given: Arguments) -> Value:
    x = given.value("x")
    mode = given.text("mode", "EXACT")
    if mode == "EXACT":
        return x.like(functional.gelu(x.data))
    if mode == "TANH_APPROXIMATION":
        return x.like(functional.gelu(x.data, approximate="tanh"))
    if mode == "SIGMOID_APPROXIMATION":
        return x.like(x.data * torch.sigmoid(1.702 * x.data))
    raise OpError(expected="a known mode of gelu", found=mode)


def _leaky_relu(given: Arguments) -> Value:
    x = given.value("x")
    return x.like(functional.leaky_relu(x.data, given.number("alpha", 0.01)))


def _elu(given: Arguments) -> Value:
    x = given.value("x")
    return x.like(functional.elu(x.data, given.number("alpha", 1.0)))


def _linear_activation(given: Arguments) -> Value:
    x = given.value("x")
    return x.like(x.data * given.number("alpha", 1.0) + given.number("beta", 0.0))


def _sigmoid_hard(given: Arguments) -> Value:
    x = given.value("x")
    line = x.data * given.number("alpha", 0.2) + given.number("beta", 0.5)
    return x.like(line.clamp(0, 1))


def _cast(given: Arguments) -> Value:
    x, dtype = given.value("x"), given.text("dtype")
    if dtype not in _CASTS:
        raise OpError(expected=f"one of the dtypes {', '.join(sorted(_CASTS))}", found=dtype)
    if dtype == "bool":
        return Value(x.data != 0, dtype)
    data = x.data
    if dtype in _CAST_RANGES:
        # What a backend makes of a number that does not fit is not defined.
        low, high = _CAST_RANGES[dtype]
        whole = data.double().trunc()
        if bool(((whole < low) | (whole > high)).any()):
            raise OpError(
                expected=f"numbers in [{low}, {high}] for a cast to {dtype}", found="others"
            )
    return Value(data.to(HELD[dtype]), dtype)


def _select(given: Arguments) -> Value:
    condition = given.value("cond")
    if condition.dtype != "bool":
        raise OpError(expected="truth values as cond", found=condition.dtype)
    a, b = given.pair("a", "b")
    return a.like(torch.where(condition.data, a.data, b.data))


def _logical_not(given: Arguments) -> Value:
    x = given.value("x")
    if x.dtype != "bool":
        raise OpError(expected="truth values", found=x.dtype)
    return x.like(~x.data)


OPS: dict[str, Op] = {
    "abs": _unary(torch.abs, floats_only=False),
    "acos": _unary(torch.acos),
    "add": _binary(torch.add),
    "asin": _unary(torch.asin),
    "atan": _unary(torch.atan),
    "atanh": _unary(torch.atanh),
    # Between dtypes that are held alike it gives its input back.
    "cast": Op(_cast, aliases=True),
    "ceil": _unary(torch.ceil),
    "clip": computing(_clip),
    "cos": _unary(torch.cos),
    "cosh": _unary(torch.cosh),
    "elu": computing(_elu),
    "equal": _binary(torch.eq, "bool"),
    "erf": _unary(torch.erf),
    "exp": _unary(torch.exp),
    "exp2": _unary(torch.exp2),
    "floor": _unary(torch.floor),
    "floor_div": _binary(_floor_divide),
    "gelu": computing(_gelu),
    "greater": _binary(torch.gt, "bool"),
    "greater_equal": _binary(torch.ge, "bool"),
    "inverse": _with_epsilon(torch.reciprocal, 1e-4),
    "leaky_relu": computing(_leaky_relu),
    "less": _binary(torch.lt, "bool"),
    "less_equal": _binary(torch.le, "bool"),
    "linear_activation": computing(_linear_activation),
    "log": _with_epsilon(torch.log, 1e-45),
    "logical_and": _logical(torch.logical_and),
    "logical_not": computing(_logical_not),
    "logical_or": _logical(torch.logical_or),
    "logical_xor": _logical(torch.logical_xor),
    "maximum": _binary(torch.maximum),
    "minimum": _binary(torch.minimum),
    "mod": _binary(_modulo),
    "mul": _binary(torch.mul),
    "not_equal": _binary(torch.ne, "bool"),
    "pow": _binary(_power),
    "real_div": _binary(_divide),
    "relu": _unary(torch.relu),
    "relu6": _unary(functional.relu6),
    "round": _unary(torch.round),
    "rsqrt": _with_epsilon(torch.rsqrt, 1e-12),
    "select": computing(_select),
    "sigmoid": _unary(torch.sigmoid),
    "sigmoid_hard": computing(_sigmoid_hard),
    "sign": _unary(torch.sign, floats_only=False),
    "silu": _unary(functional.silu),
    "sin": _unary(torch.sin),
    "sinh": _unary(torch.sinh),
    "softplus": _unary(functional.softplus),
    "softsign": _unary(functional.softsign),
    "sqrt": _unary(torch.sqrt),
    "square": _unary(torch.square, floats_only=False),
    "sub": _binary(torch.sub),
    "tan": _unary(torch.tan),
    "tanh": _unary(torch.tanh),
    "threshold": computing(_threshold),
}
