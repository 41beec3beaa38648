"""Compressed weights in the Core ML evaluator: as coremltools unpacks them, and by rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from artifacts.coreml_programs import (
    IOS16,
    IOS18,
    build,
    ct,
    edit,
    mb,
    operations,
    placeholders,
    quiet,
    sub_byte,
    weight_file,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from coreml_evaluator import Evaluator, weights
from coreml_evaluator.arguments import Arguments
from coreml_evaluator.ops import OPS
from coreml_evaluator.ops.linear import product
from coreml_evaluator.packing import unpack
from coreml_evaluator.values import Value
from coreml_evaluator.weights import Grid, Held, ShiftScale, Stored
from coreml_evaluator.workers import Workers, open_workers
from llama_export.errors import EvaluationError

pytestmark = pytest.mark.coreml

RANDOM = np.random.default_rng(11)
BITS = {"uint1": 1, "uint2": 2, "uint3": 3, "uint4": 4, "uint6": 6, "int4": 4}
RANGES = {
    **{f"uint{bits}": (0, 2**bits) for bits in (1, 2, 3, 4, 6, 8)},
    "int4": (-8, 8),
    "int8": (-128, 128),
}


def codes(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    drawn = RANDOM.integers(*RANGES[dtype], shape)
    return sub_byte(drawn, dtype) if dtype in BITS else drawn.astype(dtype)


def scales(*shape: int, dtype=np.float16) -> np.ndarray:
    return RANDOM.uniform(0.01, 0.1, shape).astype(dtype)


def blockwise(shape, blocks, dtype="int4", offset=None, scale_dtype=np.float16):
    few = tuple(size // block for size, block in zip(shape, blocks, strict=True))
    given_ = {"data": codes(shape, dtype), "scale": scales(*few, dtype=scale_dtype)}
    if offset is not None:
        given_["offset"] = codes(few, dtype) if offset == "same" else scales(*few)
    return mb.constexpr_blockwise_shift_scale(**given_)


def palette(shape, groups, bits: int, vector: int = 1, axis: int | None = None):
    tables = RANDOM.standard_normal((*groups, 2**bits, vector)).astype(np.float16)
    given_ = {} if axis is None else {"vector_axis": np.int32(axis)}
    return mb.constexpr_lut_to_dense(indices=codes(shape, f"uint{bits}"), lut=tables, **given_)


def sparse(shape):
    mask = RANDOM.random(shape) < 0.4
    values = RANDOM.standard_normal(int(mask.sum())).astype(np.float16)
    return mb.constexpr_sparse_to_dense(nonzero_data=values, mask=sub_byte(mask, "uint1"))


WEIGHTS = {
    "int4 groups": lambda: blockwise((16, 64), (1, 32)),
    "int4 groups of odd length": lambda: blockwise((6, 15), (1, 5)),
    "int4 rows that end in a byte": lambda: blockwise((4, 9), (1, 9)),
    "int4 blocks of rows": lambda: blockwise((16, 64), (4, 16)),
    "int4 with offset": lambda: blockwise((16, 64), (1, 32), offset="same"),
    "uint4 with offset": lambda: blockwise((16, 64), (1, 32), "uint4", offset="same"),
    "uint4 with a float offset": lambda: blockwise((16, 64), (2, 32), "uint4", offset="float"),
    "int8 rows": lambda: blockwise((20, 30), (1, 30), "int8"),
    "uint8 per tensor": lambda: blockwise((20, 30), (20, 30), "uint8", offset="same"),
    "int8 in float32": lambda: blockwise((20, 30), (1, 10), "int8", scale_dtype=np.float32),
    "int4 of four dimensions": lambda: blockwise((8, 6, 1, 2), (2, 3, 1, 1)),
    **{
        f"palette of {bits} bits": lambda bits=bits: palette((12, 10), (1, 1), bits)
        for bits in (1, 2, 3, 4, 6, 8)
    },
    "palettes of groups": lambda: palette((12, 10), (3, 2), 4),
    "palette of vectors on rows": lambda: palette((6, 10), (2, 1), 2, vector=2, axis=0),
    "palette of vectors on columns": lambda: palette((6, 10), (1, 5), 3, vector=4, axis=1),
    "sparse": lambda: sparse((12, 10)),
    "palette of codes with scales": lambda: mb.constexpr_blockwise_shift_scale(
        data=mb.constexpr_lut_to_dense(
            indices=codes((8, 10), "uint2"), lut=codes((1, 1, 4, 1), "int8")
        ),
        scale=scales(8, 1),
    ),
}
OLD_WEIGHTS = {
    "affine on rows": lambda: mb.constexpr_affine_dequantize(
        quantized_data=codes((12, 10), "int8"),
        zero_point=codes((12,), "int8"),
        scale=scales(12),
        axis=np.int32(0),
    ),
    "affine on columns": lambda: mb.constexpr_affine_dequantize(
        quantized_data=codes((12, 10), "uint8"),
        zero_point=np.uint8(3),
        scale=scales(10),
        axis=np.int32(-1),
    ),
    "packed palette": lambda: mb.constexpr_lut_to_dense(
        indices=RANDOM.integers(0, 256, (45,), dtype=np.uint8),
        lut=RANDOM.standard_normal(64).astype(np.float16),
        shape=np.array([12, 5], np.uint32),
    ),
    "packed mask": lambda: mb.constexpr_sparse_to_dense(
        nonzero_data=RANDOM.standard_normal(5).astype(np.float16),
        mask=np.array([0b10010001, 0b10, 0b1000], np.uint8),
        shape=np.array([4, 5], np.uint32),
    ),
    "cast": lambda: mb.constexpr_cast(source_val=scales(12, 10), output_dtype="fp32"),
}


def unpacked(tmp_path, make, target) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a weight as coremltools unpacks it, as the evaluator gives it, and some rows of it."""
    wanted = []

    def graph(x, i):
        weight = make()
        wanted.append(weight.op.materialized_val_inference())
        part = mb.gather(x=weight, indices=i, axis=0, name="rows")
        dtype = "fp32" if weight.dtype.__name__ == "fp32" else "fp16"
        return [mb.add(x=weight, y=mb.cast(x=x, dtype=dtype), name="whole"), part]

    arrays = {"x": np.zeros(1, np.float32), "i": np.array([2, 0, 3, 3], np.int32)}
    build(tmp_path / "m.mlpackage", placeholders(arrays), graph, target=target)
    found = Evaluator.open(tmp_path / "m.mlpackage").predict(arrays)
    return np.asarray(wanted[0]), found["whole"], found["rows"]


@pytest.mark.parametrize("name", [*WEIGHTS, *OLD_WEIGHTS])
def test_a_weight_is_what_coremltools_unpacks(tmp_path, name):
    old = name in OLD_WEIGHTS
    make, target = (OLD_WEIGHTS[name], IOS16) if old else (WEIGHTS[name], IOS18)
    wanted, whole, rows = unpacked(tmp_path, make, target)
    # coremltools rounds the difference to a float offset, too: a last bit more may differ.
    twice = "float offset" in name
    np.testing.assert_allclose(whole, wanted, rtol=2e-3 if twice else 6e-4)
    assert np.mean(whole == wanted) > (0.6 if twice else 0.9)
    np.testing.assert_array_equal(rows, whole[[2, 0, 3, 3]])


def test_another_scale_in_the_file_gives_another_result(tmp_path):
    """The twin: what is compared above comes from the file."""
    arrays = {"x": np.ones((1, 64), np.float16)}
    package = build(
        tmp_path / "m.mlpackage",
        placeholders(arrays),
        lambda x: mb.linear(x=x, weight=blockwise((16, 64), (1, 32)), name="y"),
    )
    before = Evaluator.open(package).predict(arrays)["y"]
    content = bytearray(weight_file(package).read_bytes())
    wide = np.frombuffer(content, np.float16)
    # The codes come first, 512 bytes behind two headers; the first scale lies behind another.
    place = (64 + 64 + 512 + 64) // 2
    assert 0.01 <= wide[place] <= 0.1
    wide[place] *= np.float16(1.05)
    weight_file(package).write_bytes(content)
    after = Evaluator.open(package).predict(arrays)["y"]
    assert before[0, 0] != after[0, 0]
    np.testing.assert_array_equal(before[0, 1:], after[0, 1:])


def test_int8_is_rounded_to_float16_in_its_mode(tmp_path):
    arrays = {"i": np.arange(20, dtype=np.int32)}
    package = build(
        tmp_path / "m.mlpackage",
        placeholders(arrays),
        lambda i: mb.gather(x=blockwise((20, 30), (1, 30), "int8"), indices=i, name="y"),
    )
    exact = Evaluator.open(package, mode="fp32").predict(arrays)["y"]
    rounded = Evaluator.open(package).predict(arrays)["y"]
    np.testing.assert_array_equal(rounded, exact.astype(np.float16))
    assert (rounded != exact).any()


def test_what_linear_quantize_weights_and_palettize_write_is_read(tmp_path):
    """coremltools' own compression of a float model, before and after."""
    x = RANDOM.standard_normal((3, 64)).astype(np.float16)
    weight = RANDOM.standard_normal((64, 64)).astype(np.float16)
    package = build(
        tmp_path / "m.mlpackage",
        placeholders({"x": x}),
        lambda x: mb.linear(x=x, weight=weight, name="y"),
    )
    exact = Evaluator.open(package).predict({"x": x})["y"]
    optimize = ct.optimize.coreml
    with quiet():
        model = ct.models.MLModel(str(package), skip_model_load=True)
        quantized = optimize.linear_quantize_weights(
            model,
            optimize.OptimizationConfig(
                optimize.OpLinearQuantizerConfig(
                    mode="linear", dtype="int4", granularity="per_block", block_size=32
                )
            ),
        )
        palettized = optimize.palettize_weights(
            model,
            optimize.OptimizationConfig(optimize.OpPalettizerConfig(mode="uniform", nbits=6)),
        )
    for name, changed, bound in (("int4", quantized, 0.15), ("palette", palettized, 0.06)):
        changed.save(str(tmp_path / f"{name}.mlpackage"))
        found = Evaluator.open(tmp_path / f"{name}.mlpackage").predict({"x": x})["y"]
        error = np.linalg.norm((found - exact).astype(np.float32)) / np.linalg.norm(exact)
        assert 1e-3 < error < bound


# --- Any shape of block, any number of bits ---


@st.composite
def grids(draw) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rank = draw(st.integers(1, 4))
    few = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    blocks = tuple(draw(st.integers(1, 4)) for _ in range(rank))
    return tuple(n * b for n, b in zip(few, blocks, strict=True)), few


def repeated(small: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    for axis, size in enumerate(shape):
        small = np.repeat(small, size // small.shape[axis], axis=axis)
    return small


def packed(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Pack numbers from the lowest bit on, written as one long integer."""
    total = sum((int(n) % 2**bits) << (bits * place) for place, n in enumerate(numbers.ravel()))
    return np.frombuffer(total.to_bytes(-(-numbers.size * bits // 8), "little"), np.uint8).copy()


@given(grids(), st.sampled_from(["int4", "uint4", "int8", "uint3"]), st.booleans(), st.data())
@settings(max_examples=200, deadline=None)
def test_blockwise_dequantisation_for_any_block(grid, dtype, with_offset, data):
    shape, few = grid
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    numbers = random.integers(*RANGES[dtype], shape)
    scale = random.uniform(0.5, 2, few).astype(np.float32)
    offset = random.integers(*RANGES[dtype], few) if with_offset else np.zeros(few, np.int64)
    expected = (numbers - repeated(offset, shape)).astype(np.float32) * repeated(scale, shape)
    raw = packed(numbers, BITS[dtype]) if dtype in BITS else numbers.astype(dtype).ravel()
    found_grid = Grid.of(shape, few)
    assert found_grid is not None
    weight = ShiftScale(
        Stored(torch.from_numpy(raw), dtype, shape),
        Held(torch.from_numpy(scale), "fp32"),
        Held(torch.from_numpy(offset), "int32") if with_offset else None,
        found_grid,
        rounds=True,
    )
    np.testing.assert_array_equal(weight.whole(), expected)
    first = data.draw(st.integers(0, shape[0]))
    last = data.draw(st.integers(first, shape[0]))
    np.testing.assert_array_equal(weight.rows(first, last), expected[first:last])
    index = random.integers(0, shape[0], 3)
    np.testing.assert_array_equal(weight.pick(torch.from_numpy(index)), expected[index])
    if len(shape) == 2:
        x = random.standard_normal((2, shape[1])).astype(np.float32)
        found = product(torch.from_numpy(x), weight, Workers())
        np.testing.assert_allclose(found, x @ expected.T, rtol=1e-4, atol=1e-3)


def test_a_grid_that_does_not_divide_is_none():
    assert Grid.of((6, 8), (3, 4)) == Grid((2, 2))
    assert Grid.of((6, 8), (4, 4)) is None
    assert Grid.of((6, 8), (6,)) is None


@given(st.sampled_from(sorted(BITS)), st.integers(0, 40), st.randoms())
@settings(max_examples=100, deadline=None)
def test_bits_are_unpacked(dtype, count, random):
    numbers = np.array([random.randrange(*RANGES[dtype]) for _ in range(count)], np.int64)
    raw = torch.from_numpy(packed(numbers, BITS[dtype]))
    found = unpack(raw, BITS[dtype], count, signed=dtype == "int4")
    assert found.tolist() == numbers.tolist()


def test_a_product_is_that_of_all_rows_at_once(monkeypatch):
    """Blocks of rows, cut small, put together again; and bits that are the same every time."""
    numbers, scale = RANDOM.integers(-8, 8, (50, 64)), scales(50, 2, dtype=np.float32)
    grid = Grid.of(numbers.shape, scale.shape)
    raw = torch.from_numpy(packed(numbers, 4))
    weight = ShiftScale(
        Stored(raw, "int4", (50, 64)),
        Held(torch.from_numpy(scale), "fp32"),
        None,
        grid,
        rounds=True,
    )
    x = torch.from_numpy(RANDOM.standard_normal((2, 5, 64)).astype(np.float32))
    exact = x.double() @ weight.whole().double().T
    for elements in (64 * 7, 64 * 50, 2**21):
        monkeypatch.setattr(weights, "_BLOCK_ELEMENTS", elements)
        with open_workers(1) as workers:
            found = product(x, weight, workers)
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
        with open_workers(3) as workers:
            assert torch.equal(found, product(x, weight, workers))


# --- Slices and concatenation of any kind ---


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_slice_is_numpys(data):
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    x = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    columns = {name: [] for name in ("begin", "end", "stride", "begin_mask", "end_mask")}
    index = []
    for size in shape:
        begin, end = (data.draw(st.integers(-size, size)) for _ in range(2))
        stride = data.draw(st.sampled_from([-3, -2, -1, 1, 2, 3]))
        free = [data.draw(st.booleans()) for _ in range(2)]
        for name, value in zip(columns, (begin, end, stride, *free), strict=True):
            columns[name].append(value)
        index.append(slice(None if free[0] else begin, None if free[1] else end, stride))
    given_ = {
        name: [Value(torch.tensor(values), "bool" if "mask" in name else "int32")]
        for name, values in columns.items()
    }
    arguments = Arguments({"x": [Value(torch.from_numpy(x), "int32")], **given_}, 8, Workers())
    found = OPS["slice_by_index"].run(arguments)
    np.testing.assert_array_equal(found.data, x[tuple(index)])
    changed = x.copy()
    changed[tuple(index)] = -1 - x[tuple(index)]
    update = [Value(-1 - found.data, "int32")]
    arguments = Arguments({**arguments.given, "update": update}, 8, Workers())
    np.testing.assert_array_equal(OPS["slice_update"].run(arguments).data, changed)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 2))
@settings(max_examples=100, deadline=None)
def test_split_undoes_concat(sizes, axis):
    parts = []
    for size in sizes:
        shape = [2, 3, 2]
        shape[axis] = size
        parts.append(Value(torch.from_numpy(RANDOM.standard_normal(shape)), "fp64"))
    at = [Value(torch.tensor(axis - 3), "int32")]
    whole = OPS["concat"].run(Arguments({"values": parts, "axis": at}, 8, Workers()))
    cut = {"x": [whole], "axis": at, "split_sizes": [Value(torch.tensor(sizes), "int32")]}
    for part, found in zip(parts, OPS["split"].run(Arguments(cut, 8, Workers())), strict=True):
        assert torch.equal(part.data, found.data)


def test_constants_that_do_not_fit_are_refused_when_a_package_is_opened(tmp_path):
    arrays = {"x": np.ones((1, 64), np.float16)}
    package = build(
        tmp_path / "m.mlpackage",
        placeholders(arrays),
        lambda x: mb.linear(x=x, weight=blockwise((16, 64), (1, 32)), name="y"),
    )
    Evaluator.open(package)

    def reshape_scales(model) -> None:
        weight = next(op for op in operations(model) if op.type.startswith("constexpr"))
        scale = weight.inputs["scale"].arguments[0].value.type.tensorType
        scale.dimensions[0].constant.size, scale.dimensions[1].constant.size = 32, 1

    edit(package, reshape_scales)
    says = r"that divide the data's dimensions, found \[16, 64\], \[32, 1\]"
    with pytest.raises(EvaluationError, match=says):
        Evaluator.open(package)
