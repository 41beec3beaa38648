"""Cases of the Core ML evaluator's ops: inputs, how MIL builds it, what numpy or torch gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from artifacts.coreml_programs import mb
from torch.nn import functional

RANDOM = np.random.default_rng(7)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return RANDOM.uniform(0.1, 3, shape).astype(np.float32)


def ints(low: int, high: int, *shape: int) -> np.ndarray:
    return RANDOM.integers(low, high, shape).astype(np.int32)


@dataclass(frozen=True)
class Case:
    """Inputs, what is built of them, and what must come out."""

    name: str
    inputs: tuple[np.ndarray, ...]
    graph: Callable
    reference: Callable


def torch_case(name: str, x: np.ndarray, reference: Callable, **parameters) -> Case:
    return Case(
        name,
        (x,),
        lambda x: getattr(mb, name)(x=x, **parameters),
        lambda x: reference(torch.from_numpy(x)).numpy(),
    )


X, P, SMALL = floats(3, 4, 5), positive(3, 4), RANDOM.uniform(-0.9, 0.9, (3, 4)).astype(np.float32)
A, B = ints(-20, 20, 4, 5), ints(1, 6, 1, 5)

UNARY = [
    torch_case("abs", X, torch.abs),
    Case("abs of integers", (A,), lambda x: mb.abs(x=x), np.abs),
    torch_case("acos", SMALL, torch.acos),
    torch_case("asin", SMALL, torch.asin),
    torch_case("atan", X, torch.atan),
    torch_case("atanh", SMALL, torch.atanh),
    torch_case("ceil", X, torch.ceil),
    torch_case("clip", X, lambda x: x.clamp(-0.5, 0.25), alpha=-0.5, beta=0.25),
    torch_case("cos", X, torch.cos),
    torch_case("cosh", X, torch.cosh),
    torch_case("elu", X, lambda x: functional.elu(x, 0.7), alpha=0.7),
    torch_case("erf", X, torch.erf),
    torch_case("exp", X, torch.exp),
    torch_case("exp2", X, torch.exp2),
    torch_case("floor", X, torch.floor),
    torch_case("gelu", X, functional.gelu, mode="EXACT"),
    torch_case(
        "gelu", X, lambda x: functional.gelu(x, approximate="tanh"), mode="TANH_APPROXIMATION"
    ),
    torch_case("gelu", X, lambda x: x * torch.sigmoid(1.702 * x), mode="SIGMOID_APPROXIMATION"),
    torch_case("inverse", P, lambda x: 1 / (x + 0.5), epsilon=0.5),
    torch_case("leaky_relu", X, lambda x: functional.leaky_relu(x, 0.3), alpha=0.3),
    torch_case("linear_activation", X, lambda x: 2 * x + 3, alpha=2.0, beta=3.0),
    torch_case("log", P, lambda x: torch.log(x + 0.25), epsilon=0.25),
    torch_case("relu", X, torch.relu),
    torch_case("relu6", 9 * X, functional.relu6),
    torch_case("round", X, torch.round),
    torch_case("rsqrt", P, lambda x: 1 / torch.sqrt(x + 0.125), epsilon=0.125),
    torch_case("sigmoid", X, torch.sigmoid),
    torch_case("sigmoid_hard", X, lambda x: (x * 0.4 + 0.1).clamp(0, 1), alpha=0.4, beta=0.1),
    torch_case("sign", X, torch.sign),
    torch_case("silu", X, functional.silu),
    torch_case("sin", X, torch.sin),
    torch_case("sinh", X, torch.sinh),
    torch_case("softplus", X, functional.softplus),
    torch_case("softsign", X, functional.softsign),
    torch_case("sqrt", P, torch.sqrt),
    torch_case("square", X, torch.square),
    torch_case("tan", SMALL, torch.tan),
    torch_case("tanh", X, torch.tanh),
    torch_case("threshold", X, lambda x: x.clamp(min=0.4), alpha=0.4),
    Case("identity", (X,), lambda x: mb.identity(x=x), lambda x: x),
    Case("cast down", (9 * X,), lambda x: mb.cast(x=x, dtype="int32"), lambda x: np.trunc(9 * X)),
    Case("cast up", (A,), lambda x: mb.cast(x=x, dtype="fp32"), lambda x: x.astype(np.float32)),
    Case("cast to bool", (A,), lambda x: mb.cast(x=x, dtype="bool"), lambda x: x != 0),
    Case(
        "cast to float16 and back",
        (X,),
        lambda x: mb.cast(x=mb.cast(x=x, dtype="fp16"), dtype="fp32"),
        lambda x: x,
    ),
]


def binary(name: str, reference: Callable, x=X, y=None) -> Case:
    y = floats(4, 1) if y is None else y
    return Case(name, (x, y), lambda x, y: getattr(mb, name)(x=x, y=y), reference)


def logical(name: str, reference: Callable) -> Case:
    return Case(
        name,
        (ints(0, 2, 4, 4), ints(0, 2, 4, 4)),
        lambda x, y: getattr(mb, name)(x=mb.cast(x=x, dtype="bool"), y=mb.cast(x=y, dtype="bool")),
        reference,
    )


BINARY = [
    binary("add", np.add),
    binary("add", np.add, A, B),
    binary("equal", np.equal, A, B),
    binary("floor_div", np.floor_divide, A, B),
    binary("floor_div", np.floor_divide, X, positive(4, 5)),
    binary("greater", np.greater),
    binary("greater_equal", np.greater_equal, A, B),
    binary("less", np.less),
    binary("less_equal", np.less_equal, A, B),
    logical("logical_and", np.logical_and),
    logical("logical_or", np.logical_or),
    logical("logical_xor", np.logical_xor),
    Case(
        "logical_not",
        (ints(0, 2, 9),),
        lambda x: mb.logical_not(x=mb.cast(x=x, dtype="bool")),
        np.logical_not,
    ),
    binary("maximum", np.maximum),
    binary("minimum", np.minimum, A, B),
    binary("mod", np.mod, A, B),
    binary("mod", np.mod, A, -B),
    binary("mul", np.multiply),
    binary("not_equal", np.not_equal, A, B),
    binary("pow", np.power, P, floats(3, 1)),
    binary("pow", np.power, A, B),
    binary("real_div", np.divide, X, positive(4, 5)),
    binary("real_div", np.floor_divide, A * 60, B),
    binary("sub", np.subtract),
    Case(
        "select",
        (ints(0, 2, 4, 1), floats(4, 5), floats(1, 5)),
        lambda c, a, b: mb.select(cond=mb.cast(x=c, dtype="bool"), a=a, b=b),
        lambda c, a, b: np.where(c != 0, a, b),
    ),
]


def moved(name: str, x: np.ndarray, reference: Callable, **parameters) -> Case:
    return Case(name, (x,), lambda x: getattr(mb, name)(x=x, **parameters), reference)


SHAPE = [
    moved("reshape", X, lambda x: x.reshape(5, 12), shape=[5, -1]),
    moved("reshape", X, lambda x: x.reshape(12, 5), shape=[-1, 0]),
    moved("reshape", X, lambda x: x.reshape(1, 3, 4, 5), shape=[1, 3, 0, 0]),
    Case(
        "reshape to a shape that is computed",
        (X, ints(5, 6, 1)),
        lambda x, n: mb.reshape(x=x, shape=mb.concat(values=[n, np.array([-1], np.int32)], axis=0)),
        lambda x, n: x.reshape(5, 12),
    ),
    moved("transpose", X, lambda x: x.transpose(2, 0, 1), perm=[2, 0, 1]),
    moved("transpose", X, lambda x: x.transpose(2, 0, 1), perm=[-1, 0, 1]),
    moved("expand_dims", X, lambda x: x[None, ..., None], axes=[0, -1]),
    moved("squeeze", floats(1, 3, 1), lambda x: x.reshape(3, 1), axes=[0]),
    moved("squeeze", floats(1, 3, 1), np.squeeze),
    Case(
        "concat",
        (floats(2, 3), floats(2, 4)),
        lambda a, b: mb.concat(values=[a, b], axis=-1),
        lambda a, b: np.concatenate([a, b], axis=-1),
    ),
    Case(
        "concat interleaved",
        (floats(2, 3), floats(2, 3)),
        lambda a, b: mb.concat(values=[a, b], axis=0, interleave=True),
        lambda a, b: np.stack([a, b], axis=1).reshape(4, 3),
    ),
    Case(
        "concat of scalars",
        (ints(0, 9, 1), ints(0, 9, 1)),
        lambda a, b: mb.concat(values=[mb.squeeze(x=a), mb.squeeze(x=b), 7], axis=0),
        lambda a, b: np.array([a[0], b[0], 7]),
    ),
    Case(
        "split evenly",
        (floats(6, 2),),
        lambda x: mb.split(x=x, num_splits=3, axis=0)[1],
        lambda x: x[2:4],
    ),
    Case(
        "split by sizes",
        (floats(2, 7),),
        lambda x: mb.split(x=x, split_sizes=[1, 4, 2], axis=-1)[1],
        lambda x: x[:, 1:5],
    ),
    Case(
        "stack",
        (floats(2, 3), floats(2, 3)),
        lambda a, b: mb.stack(values=[a, b], axis=1),
        lambda a, b: np.stack([a, b], axis=1),
    ),
    moved("tile", floats(2, 3), lambda x: np.tile(x, (2, 3)), reps=[2, 3]),
    Case(
        "reshape_like",
        (X, floats(6, 2), floats(3, 5)),
        lambda x, a, b: mb.reshape_like(
            x=x,
            ref_tensors=[a, b],
            begins=[np.int32(0), np.int32(1)],
            ends=[np.int32(2), np.int32(0)],
            end_masks=[False, True],
        ),
        lambda x, a, b: x.reshape(6, 2, 5),
    ),
    moved("flatten2d", X, lambda x: x.reshape(12, 5), axis=-1),
    moved("shape", X, lambda x: np.array(x.shape)),
    moved("reverse", X, lambda x: np.flip(x, (0, 2)), axes=[0, -1]),
    moved(
        "pad",
        X,
        lambda x: np.pad(x, ((0, 0), (1, 2), (0, 3)), constant_values=0.5),
        pad=[1, 2, 0, 3],
        constant_val=0.5,
    ),
    moved(
        "pad",
        X,
        lambda x: np.pad(x, ((0, 0), (1, 2), (3, 4)), mode="reflect"),
        pad=[1, 2, 3, 4],
        mode="reflect",
    ),
    moved(
        "pad",
        X,
        lambda x: np.pad(x, ((0, 0), (1, 2), (3, 4)), mode="edge"),
        pad=[1, 2, 3, 4],
        mode="replicate",
    ),
]
SLICING = [
    moved("slice_by_index", X, lambda x: x[1:3, :2, -3:], begin=[1, 0, -3], end=[3, 2, 5]),
    moved(
        "slice_by_index",
        X,
        lambda x: x[:, 2, ::2],
        begin=[9, -2, 0],
        end=[9, 99, 9],
        stride=[1, 1, 2],
        begin_mask=[True, False, True],
        end_mask=[True, False, True],
        squeeze_mask=[False, True, False],
    ),
    moved(
        "slice_by_index",
        X,
        lambda x: x[:, ::-1, 4:1:-2],
        begin=[0, 0, 4],
        end=[3, 0, 1],
        stride=[1, -1, -2],
        begin_mask=[False, True, False],
        end_mask=[False, True, False],
    ),
    moved("slice_by_size", X, lambda x: x[1:3, 2:, 1:2], begin=[1, 2, 1], size=[2, -1, 1]),
    Case(
        "slice_update",
        (X, floats(2, 5)),
        lambda x, u: mb.slice_update(
            x=x,
            update=u,
            begin=[1, 1, 0],
            end=[3, 0, 0],
            end_mask=[False, False, True],
            squeeze_mask=[False, True, False],
        ),
        lambda x, u: updated(x, (slice(1, 3), 1, slice(None)), u),
    ),
    Case(
        "slice_update backwards",
        (X, floats(3, 2, 5)),
        lambda x, u: mb.slice_update(
            x=x, update=u, begin=[0, 3, 0], end=[3, 0, 5], stride=[1, -2, 1]
        ),
        lambda x, u: updated(x, (slice(None), slice(3, 0, -2)), u),
    ),
]


def updated(x: np.ndarray, where: object, new: np.ndarray) -> np.ndarray:
    result = x.copy()
    result[where] = new
    return result


def added(x: np.ndarray, where: object, new: np.ndarray) -> np.ndarray:
    result = x.copy()
    np.add.at(result, where, new)
    return result


I23 = ints(0, 4, 2, 3)
GATHERING = [
    Case(
        "gather",
        (X, I23),
        lambda x, i: mb.gather(x=x, indices=i, axis=1),
        lambda x, i: np.take(x, i, axis=1),
    ),
    Case(
        "gather in batches",
        (floats(2, 3, 4, 5), ints(0, 4, 2, 6)),
        lambda x, i: mb.gather(x=x, indices=i, axis=2, batch_dims=1),
        lambda x, i: np.stack([np.take(a, b, axis=1) for a, b in zip(x, i, strict=True)]),
    ),
    Case(
        "gather_along_axis",
        (floats(4, 5), ints(0, 4, 2, 5)),
        lambda x, i: mb.gather_along_axis(x=x, indices=i, axis=0),
        lambda x, i: np.take_along_axis(x, i, axis=0),
    ),
    Case(
        "gather_nd",
        (X, np.stack([ints(0, 3, 6), ints(0, 4, 6)], axis=-1)),
        lambda x, i: mb.gather_nd(x=x, indices=i),
        lambda x, i: x[i[:, 0], i[:, 1]],
    ),
    Case(
        "gather_nd in batches",
        (X, ints(0, 4, 3, 2, 1)),
        lambda x, i: mb.gather_nd(x=x, indices=i, batch_dims=1),
        lambda x, i: np.stack([a[b[:, 0]] for a, b in zip(x, i, strict=True)]),
    ),
    Case(
        "scatter",
        (X, ints(0, 4, 6), floats(3, 6, 5)),
        lambda x, i, u: mb.scatter(data=x, indices=i, updates=u, axis=1, mode="add"),
        lambda x, i, u: added(x, (slice(None), i), u),
    ),
    Case(
        "scatter_along_axis",
        (floats(4, 5), ints(0, 4, 2, 5), floats(2, 5)),
        lambda x, i, u: mb.scatter_along_axis(data=x, indices=i, updates=u, axis=0, mode="add"),
        lambda x, i, u: added(x, (i, np.arange(5)), u),
    ),
    *[
        Case(
            f"scatter_nd {mode}",
            (floats(4, 5), np.array([[3, 1], [0, 4], [2, 2]], np.int32), positive(3)),
            lambda x, i, u, mode=mode: mb.scatter_nd(data=x, indices=i, updates=u, mode=mode),
            lambda x, i, u, f=f: updated(x, (i[:, 0], i[:, 1]), f(x[i[:, 0], i[:, 1]], u)),
        )
        for mode, f in {
            "add": np.add,
            "sub": np.subtract,
            "mul": np.multiply,
            "div": np.divide,
            "max": np.maximum,
            "min": np.minimum,
            "update": lambda old, new: new,
        }.items()
    ],
    Case(
        "one_hot",
        (ints(0, 6, 4),),
        lambda i: mb.one_hot(indices=i, one_hot_vector_size=6, axis=0),
        lambda i: (np.arange(6)[:, None] == i).astype(np.int32),
    ),
]


def reduced(name: str, reference: Callable, x: np.ndarray = X) -> list[Case]:
    return [
        Case(
            f"{name} {axes} {keep}",
            (x,),
            lambda x, axes=axes, keep=keep: getattr(mb, name)(x=x, axes=axes, keep_dims=keep),
            lambda x, axes=axes, keep=keep: reference(x, axis=tuple(axes), keepdims=keep),
        )
        for axes, keep in (([-1], True), ([0, 2], False), ([0, 1, 2], False))
    ]


def l2(x: np.ndarray, axis, keepdims) -> np.ndarray:
    return np.sqrt(np.square(x).sum(axis=axis, keepdims=keepdims))


REDUCTION = [
    *reduced("reduce_sum", np.sum),
    *reduced("reduce_sum", np.sum, ints(-9, 9, 2, 3, 4)),
    *reduced("reduce_mean", np.mean),
    *reduced("reduce_max", np.max),
    *reduced("reduce_min", np.min),
    *reduced("reduce_prod", np.prod),
    *reduced("reduce_l2_norm", l2),
    *reduced("reduce_l1_norm", lambda x, axis, keepdims: np.abs(x).sum(axis, keepdims=keepdims)),
    *reduced(
        "reduce_sum_square", lambda x, axis, keepdims: np.square(x).sum(axis, keepdims=keepdims)
    ),
    *reduced(
        "reduce_log_sum",
        lambda x, axis, keepdims: np.log(x.sum(axis, keepdims=keepdims)),
        positive(2, 3, 4),
    ),
    *reduced(
        "reduce_log_sum_exp",
        lambda x, axis, keepdims: np.log(np.exp(x).sum(axis, keepdims=keepdims)),
    ),
    Case("argmax", (X,), lambda x: mb.reduce_argmax(x=x, axis=1), lambda x: x.argmax(axis=1)),
    Case("argmin", (X,), lambda x: mb.reduce_argmin(x=x, axis=-1), lambda x: x.argmin(axis=-1)),
    Case(
        "softmax",
        (X,),
        lambda x: mb.softmax(x=x, axis=1),
        lambda x: torch.softmax(torch.from_numpy(x), 1).numpy(),
    ),
    Case(
        "layer_norm",
        (X,),
        lambda x: mb.layer_norm(
            x=x, axes=[-1], gamma=np.arange(5.0, dtype=np.float32), beta=np.ones(5, np.float32)
        ),
        lambda x: functional.layer_norm(
            torch.from_numpy(x), (5,), torch.arange(5.0), torch.ones(5)
        ).numpy(),
    ),
    Case(
        "l2_norm",
        (floats(2, 3, 4, 5),),
        lambda x: mb.l2_norm(x=x, epsilon=1e-3),
        lambda x: x / np.sqrt(np.square(x).sum((1, 2, 3), keepdims=True) + 1e-3),
    ),
    moved("cumsum", X, lambda x: np.cumsum(x, 1), axis=1),
    moved("cumsum", A, lambda x: np.flip(np.cumsum(np.flip(x, 1), 1), 1), axis=1, reverse=True),
    moved(
        "cumsum",
        A,
        lambda x: np.stack([x[:n].sum(0) for n in range(len(x))]),
        axis=0,
        exclusive=True,
    ),
    moved(
        "cumsum",
        np.array([1, 1e10, 1], np.float32),
        lambda x: np.array([0, 1, x[:2].sum()]),
        axis=0,
        exclusive=True,
    ),
    moved("reduce_sum", X, lambda x: x, axes=np.zeros(0, np.int32)),
    moved("reduce_l2_norm", X, np.abs, axes=np.zeros(0, np.int32)),
    Case("topk", (X,), lambda x: mb.topk(x=x, k=2)[0], lambda x: -np.sort(-x, -1)[..., :2]),
    Case("topk 1", (X,), lambda x: mb.topk(x=x, k=2)[1], lambda x: np.argsort(-x, -1)[..., :2]),
    moved("argsort", X, lambda x: np.argsort(x, 1), axis=1, ascending=True),
    moved("band_part", X, lambda x: np.tril(x), lower=-1, upper=0),
    moved("band_part", X, lambda x: np.triu(np.tril(x, 1), -2), lower=2, upper=1),
]
CREATION = [
    Case(
        "range_1d",
        (ints(3, 4, 1),),
        lambda n: mb.range_1d(start=mb.squeeze(x=n), end=20, step=4),
        lambda n: np.arange(3, 20, 4),
    ),
    Case(
        "range_1d backwards",
        (positive(1),),
        lambda x: mb.range_1d(start=mb.squeeze(x=x), end=-2.0, step=-0.5),
        lambda x: np.arange(x[0], -2, -0.5, dtype=np.float32),
    ),
    Case(
        "fill",
        (ints(4, 5, 1),),
        lambda n: mb.fill(shape=mb.concat(values=[n, [2]], axis=0), value=7),
        lambda n: np.full((4, 2), 7),
    ),
    Case(
        "fill_like",
        (X,),
        lambda x: mb.fill_like(ref_tensor=x, value=2.5),
        lambda x: np.full_like(x, 2.5),
    ),
    Case("non_zero", (ints(0, 2, 3, 4),), lambda x: mb.non_zero(x=x), np.argwhere),
]
W, BIAS = floats(6, 5), floats(6)
MASK = np.where(RANDOM.random((1, 4, 7)) < 0.5, 0, -1e4).astype(np.float32)


def attention(query, key, value, mask) -> np.ndarray:
    return functional.scaled_dot_product_attention(
        *(torch.from_numpy(x) for x in (query, key, value)), attn_mask=torch.from_numpy(mask)
    ).numpy()


PRODUCTS = [
    Case("linear", (X,), lambda x: mb.linear(x=x, weight=W, bias=BIAS), lambda x: x @ W.T + BIAS),
    Case("linear of a vector", (floats(5),), lambda x: mb.linear(x=x, weight=W), lambda x: x @ W.T),
    Case(
        "matmul",
        (floats(2, 1, 3, 4), floats(3, 5, 4)),
        lambda x, y: mb.matmul(x=x, y=y, transpose_y=True),
        lambda x, y: x @ y.swapaxes(-1, -2),
    ),
    Case(
        "matmul transposed",
        (floats(4, 3), floats(4, 5)),
        lambda x, y: mb.matmul(x=x, y=y, transpose_x=True),
        lambda x, y: x.T @ y,
    ),
    Case("matmul with a weight", (X,), lambda x: mb.matmul(x=x, y=W.T.copy()), lambda x: x @ W.T),
    Case(
        "matmul with a weight transposed",
        (X,),
        lambda x: mb.matmul(x=x, y=W, transpose_y=True),
        lambda x: x @ W.T,
    ),
    Case(
        "einsum",
        (floats(2, 3, 4, 5), floats(2, 5, 4, 6)),
        lambda x, y: mb.einsum(values=[x, y], equation="nchw,nwhu->nchu"),
        lambda x, y: np.einsum("nchw,nwhu->nchu", x, y),
    ),
    Case(
        "attention",
        (floats(2, 3, 4, 8), floats(2, 3, 7, 8), floats(2, 3, 7, 6), MASK),
        lambda q, k, v, m: mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=m),
        attention,
    ),
    Case(
        "attention with a mask of truth values",
        (floats(2, 4, 8), floats(2, 7, 8), floats(2, 7, 6), (MASK == 0).astype(np.int32)),
        lambda q, k, v, m: mb.scaled_dot_product_attention(
            query=q, key=k, value=v, attn_mask=mb.cast(x=m, dtype="bool")
        ),
        lambda q, k, v, m: attention(q, k, v, m != 0),
    ),
    Case(
        "conv 1x1",
        (floats(1, 5, 1, 7),),
        lambda x: mb.conv(x=x, weight=W.reshape(6, 5, 1, 1), bias=BIAS, pad_type="valid"),
        lambda x: np.einsum("oc,nchw->nohw", W, x) + BIAS[None, :, None, None],
    ),
    Case(
        "conv",
        (floats(1, 4, 9),),
        lambda x: mb.conv(
            x=x,
            weight=W.reshape(-1)[:24].reshape(4, 2, 3),
            strides=[2],
            groups=2,
            pad_type="custom",
            pad=[1, 2],
        ),
        lambda x: functional.conv1d(
            functional.pad(torch.from_numpy(x), (1, 2)),
            torch.from_numpy(W.reshape(-1)[:24].reshape(4, 2, 3)),
            stride=2,
            groups=2,
        ).numpy(),
    ),
]
CASES = [
    *UNARY,
    *BINARY,
    *SHAPE,
    *SLICING,
    *GATHERING,
    *REDUCTION,
    *CREATION,
    *PRODUCTS,
]
