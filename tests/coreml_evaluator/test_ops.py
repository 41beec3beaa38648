"""Each op of the Core ML evaluator, from saved programs, against numpy and torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from artifacts.coreml_op_cases import CASES, RANDOM, floats
from artifacts.coreml_programs import IOS16, IOS17, build, mb, placeholders

from coreml_evaluator import Evaluator
from coreml_evaluator.ops import KNOWN, OPS, READ, WRITE
from coreml_evaluator.values import Value
from llama_export.errors import EvaluationError

pytestmark = pytest.mark.coreml

# float32 in another order.
CLOSE = {"rtol": 2e-6, "atol": 2e-6}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[np.ndarray]:
    """Return every case's result; all of them are one program, saved once."""
    arrays = {
        f"x{number}_{position}": array
        for number, case in enumerate(CASES)
        for position, array in enumerate(case.inputs)
    }

    def graph(**inputs):
        outputs = []
        for number, case in enumerate(CASES):
            given = [inputs[f"x{number}_{position}"] for position in range(len(case.inputs))]
            result = case.graph(*given)
            # Outputs are numbers, and of at least one dimension.
            if mb_dtype(result) == "bool":
                result = mb.cast(x=result, dtype="int32")
            if result.rank == 0:
                result = mb.expand_dims(x=result, axes=[0])
            outputs.append(mb.identity(x=result, name=f"y{number}"))
        return outputs

    package = tmp_path_factory.mktemp("ops") / "ops.mlpackage"
    build(package, placeholders(arrays), graph)
    found = run_watched(Evaluator.open(package, mode="fp32"), arrays)
    return [found[f"y{number}"] for number in range(len(CASES))]


def mb_dtype(result) -> str:
    return result.dtype.__name__ if hasattr(result.dtype, "__name__") else str(result.dtype)


def run_watched(evaluator: Evaluator, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run with every op watched: an op that says it copies must not give its input's memory."""

    def watched(op):
        def run(given):
            found = op.run(given)
            inputs = {
                part.data.untyped_storage().data_ptr()
                for name, parts in given.given.items()
                for part in parts
                if isinstance(part, Value) and part.data.numel()
                if not (op.aliases and name == "x")
            }
            for value in found if isinstance(found, tuple) else (found,):
                shared = value.data.untyped_storage().data_ptr() in inputs
                assert not (shared and value.data.numel()), "an op gives its input's memory"
            return found

        return replace(op, run=run)

    with pytest.MonkeyPatch.context() as patch:
        for name, op in list(OPS.items()):
            patch.setitem(OPS, name, watched(op))
        return evaluator.predict(arrays)


@pytest.mark.parametrize(
    "number", range(len(CASES)), ids=[f"{number} {case.name}" for number, case in enumerate(CASES)]
)
def test_an_op_gives_what_numpy_gives(results, number):
    case = CASES[number]
    expected = np.asarray(case.reference(*case.inputs))
    found = results[number]
    assert found.shape == (expected.shape or (1,))
    if expected.dtype.kind in "bi":
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, **CLOSE)


def test_every_op_that_is_known_is_tested():
    tested = {case.name.split()[0] for case in CASES}
    named_otherwise = {
        "reduce_argmax",
        "reduce_argmin",
        "scaled_dot_product_attention",
        *(READ, WRITE),
    }
    assert sorted(KNOWN - tested - named_otherwise) == []
    assert sorted(tested - KNOWN) == ["argmax", "argmin", "attention"]


# --- What an op refuses ---


@pytest.mark.parametrize("index", [-1, 4])
def test_an_index_outside_is_refused(tmp_path, index):
    x, indices = floats(4, 5), np.array([0, 3], np.int32)
    arrays = {"x": x, "i": indices}
    build(tmp_path / "m.mlpackage", placeholders(arrays), lambda x, i: mb.gather(x=x, indices=i))
    evaluator = Evaluator.open(tmp_path / "m.mlpackage", mode="fp32")
    np.testing.assert_array_equal(evaluator.predict(arrays)["gather_0"], x[indices])
    with pytest.raises(EvaluationError, match=rf"gather_0 \(gather\).*\[0, 4\), found {index}"):
        evaluator.predict({"x": x, "i": np.array([0, index], np.int32)})


def test_up_to_ios_16_an_index_may_count_from_the_end(tmp_path):
    arrays = {"x": floats(4, 5), "i": np.array([0, -1], np.int32)}
    packages = [
        build(
            tmp_path / f"{name}.mlpackage",
            placeholders(arrays),
            lambda x, i: mb.gather(x=x, indices=i, name="y"),
            target=target,
        )
        for name, target in (("16", IOS16), ("17", IOS17))
    ]
    found = Evaluator.open(packages[0], mode="fp32").predict(arrays)["y"]
    np.testing.assert_array_equal(found, arrays["x"][[0, 3]])
    with pytest.raises(EvaluationError, match="indices in"):
        Evaluator.open(packages[1], mode="fp32").predict(arrays)


@pytest.mark.parametrize(("begin", "end"), [(0, 6), (-7, 3), (0, 9)])
def test_a_slice_outside_is_refused(tmp_path, begin, end):
    arrays = {"x": floats(5), "b": np.array([1], np.int32), "e": np.array([5], np.int32)}
    build(
        tmp_path / "m.mlpackage",
        placeholders(arrays),
        lambda x, b, e: mb.slice_by_index(x=x, begin=b, end=e, name="y"),
    )
    evaluator = Evaluator.open(tmp_path / "m.mlpackage", mode="fp32")
    np.testing.assert_array_equal(evaluator.predict(arrays)["y"], arrays["x"][1:5])
    arrays = {**arrays, "b": np.array([begin], np.int32), "e": np.array([end], np.int32)}
    with pytest.raises(EvaluationError, match=r"slice_by_index.*a slice in \[-5, 5\]"):
        evaluator.predict(arrays)


def test_an_update_of_another_size_is_refused(tmp_path):
    arrays = {"x": floats(5), "u": floats(2), "e": np.array([2], np.int32)}
    build(
        tmp_path / "m.mlpackage",
        placeholders(arrays),
        lambda x, u, e: mb.slice_update(x=x, update=u, begin=[0], end=e, name="y"),
    )
    evaluator = Evaluator.open(tmp_path / "m.mlpackage", mode="fp32")
    np.testing.assert_array_equal(evaluator.predict(arrays)["y"][:2], arrays["u"])
    with pytest.raises(EvaluationError, match=r"an update of shape \[3\], found \[2\]"):
        evaluator.predict({**arrays, "e": np.array([3], np.int32)})


@pytest.mark.parametrize(
    ("graph", "good", "bad", "says"),
    [
        (lambda x: mb.real_div(x=x, y=2), 4, 3, "integers that divide"),
        (lambda x: mb.floor_div(x=4, y=x), 2, 0, "not 0"),
        (lambda x: mb.pow(x=2, y=x), 2, -1, "exponents"),
    ],
)
def test_what_is_not_defined_is_refused(tmp_path, graph, good, bad, says):
    build(tmp_path / "m.mlpackage", placeholders({"x": np.ones(1, np.int32)}), graph)
    evaluator = Evaluator.open(tmp_path / "m.mlpackage")
    (found,) = evaluator.predict({"x": np.array([good], np.int32)}).values()
    assert found.item() in (2, 4)
    with pytest.raises(EvaluationError, match=says):
        evaluator.predict({"x": np.array([bad], np.int32)})


def test_a_range_without_an_end_is_refused(tmp_path):
    build(
        tmp_path / "m.mlpackage",
        placeholders({"x": np.ones(1, np.float32)}),
        lambda x: mb.range_1d(start=0.0, end=mb.squeeze(x=x), step=1.0, name="y"),
    )
    evaluator = Evaluator.open(tmp_path / "m.mlpackage", mode="fp32")
    assert list(evaluator.predict({"x": np.array([3], np.float32)})["y"]) == [0, 1, 2]
    with pytest.raises(EvaluationError, match="expected finite bounds"):
        evaluator.predict({"x": np.array([np.inf], np.float32)})


def with_nan(*shape: int) -> np.ndarray:
    array = np.ones(shape, np.float32)
    array.flat[-1] = np.nan
    return array


def test_a_nan_in_a_constant_is_refused(tmp_path):
    """A short one when the package is opened, a long one when it comes to light."""
    arrays = {"x": np.ones(2, np.float32), "i": np.array([5], np.int32)}
    for name, graph in (
        ("short", lambda x, i: mb.add(x=mb.cast(x=i, dtype="fp32"), y=with_nan(1))),
        ("long", lambda x, i: mb.gather(x=with_nan(9, 5), indices=i, name="y")),
    ):
        build(tmp_path / f"{name}.mlpackage", placeholders(arrays), graph)
    with pytest.raises(EvaluationError, match="the constant holds a NaN"):
        Evaluator.open(tmp_path / "short.mlpackage")
    long = Evaluator.open(tmp_path / "long.mlpackage")
    assert long.predict(arrays)["y"].sum() == 5
    with pytest.raises(EvaluationError, match="the output y has a NaN"):
        long.predict({**arrays, "i": np.array([8], np.int32)})


@pytest.mark.parametrize("number", [3e9, -3e9, 2.0**31])
def test_a_cast_that_does_not_fit_is_refused(tmp_path, number):
    arrays = {"x": np.array([-(2.0**31)], np.float32)}
    build(
        tmp_path / "m.mlpackage",
        placeholders(arrays),
        lambda x: mb.cast(x=x, dtype="int32", name="y"),
    )
    evaluator = Evaluator.open(tmp_path / "m.mlpackage")
    assert evaluator.predict(arrays)["y"].item() == -(2**31)
    with pytest.raises(EvaluationError, match="for a cast to int32"):
        evaluator.predict({"x": np.array([number], np.float32)})


# --- Modes ---


def test_a_result_is_rounded_once_to_what_is_declared(tmp_path):
    x = RANDOM.standard_normal((3, 64)).astype(np.float16)
    weight = RANDOM.standard_normal((8, 64)).astype(np.float16)
    build(
        tmp_path / "m.mlpackage",
        placeholders({"x": x}),
        lambda x: mb.linear(x=x, weight=weight, name="y"),
    )
    exact = x.astype(np.float32) @ weight.astype(np.float32).T
    found = {
        mode: Evaluator.open(tmp_path / "m.mlpackage", mode=mode).predict({"x": x})["y"]
        for mode in ("fp16", "fp32")
    }
    assert found["fp16"].dtype == np.float16
    assert found["fp32"].dtype == np.float32
    np.testing.assert_allclose(found["fp32"], exact, rtol=1e-5, atol=1e-5)
    assert np.mean(found["fp16"] == exact.astype(np.float16)) > 0.9
    np.testing.assert_allclose(found["fp16"], exact, rtol=2**-10, atol=1e-4)
    assert not np.allclose(found["fp16"], exact, rtol=1e-5, atol=1e-5)


def test_only_mode_fp16_overflows(tmp_path):
    x = np.full(4, 300, np.float16)
    build(
        tmp_path / "m.mlpackage",
        placeholders({"x": x}),
        lambda x: mb.sub(x=mb.square(x=x), y=mb.square(x=x), name="y"),
    )
    assert Evaluator.open(tmp_path / "m.mlpackage", mode="fp32").predict({"x": x})["y"].sum() == 0
    with pytest.raises(EvaluationError, match=r"y \(sub\): expected numbers, found a NaN"):
        Evaluator.open(tmp_path / "m.mlpackage").predict({"x": x})
