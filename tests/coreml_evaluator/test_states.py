"""States in the Core ML evaluator: coremltools' known faults are seen, no update goes astray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from artifacts.coreml_programs import build, function, mb, placeholder, quiet, save, state
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from coreml_evaluator import Evaluator
from coreml_evaluator import states as planning
from coreml_evaluator.engine import Plan
from coreml_evaluator.ops import UPDATE
from coreml_evaluator.program import Function, Operation, Ref
from coreml_evaluator.types import StateType, TensorType
from coreml_evaluator.values import Value
from coreml_evaluator.workers import Workers
from llama_export.errors import EvaluationError

pytestmark = pytest.mark.coreml

LAYERS, ROWS, WIDTH = 3, 6, 4
CACHE = (LAYERS, ROWS, WIDTH)


def specs() -> dict:
    return {"new": placeholder((1, 1, WIDTH), "float16"), "cache": state(CACHE)}


def put(cache, new, layer: int, row: int = 2):
    """Write one row of one layer."""
    return mb.slice_update(
        x=cache,
        update=mb.mul(x=new, y=np.float16(layer + 1)),
        begin=[layer, row, 0],
        end=[layer + 1, row + 1, WIDTH],
    )


def total(cache):
    return mb.reduce_sum(x=cache, axes=[1, 2], keep_dims=False)


def read_per_layer(new, cache):
    """Read the state again in each layer, which coremltools' passes make one read."""
    seen = []
    for layer in range(LAYERS):
        current = mb.read_state(input=cache)
        mb.coreml_update_state(state=cache, value=put(current, new, layer))
        seen.append(total(mb.read_state(input=cache)))
    return mb.concat(values=seen, axis=0, name="y")


def read_once(new, cache):
    """Read the state once, and go on with what the update returns."""
    current, seen = mb.read_state(input=cache), []
    for layer in range(LAYERS):
        current = mb.coreml_update_state(state=cache, value=put(current, new, layer))
        seen.append(total(current))
    return mb.concat(values=seen, axis=0, name="y")


def written_at_the_end(new, cache):
    """Update a value from layer to layer, and write it once, as torch.export does."""
    current, seen = mb.read_state(input=cache), []
    for layer in range(LAYERS):
        current = put(current, new, layer)
        seen.append(total(current))
    mb.coreml_update_state(state=cache, value=current)
    return mb.concat(values=seen, axis=0, name="y")


def expected() -> tuple[np.ndarray, np.ndarray]:
    """Return `y` and the state after one call with ones."""
    cache, seen = np.zeros(CACHE, np.float32), []
    for layer in range(LAYERS):
        cache[layer, 2] = layer + 1
        seen.append(cache.sum((1, 2)))
    return np.concatenate(seen), cache


ONES = {"new": np.ones((1, 1, WIDTH), np.float16)}


# --- The two known faults of coremltools ---


def test_reads_that_were_merged_across_writes_are_refused(tmp_path):
    package = build(tmp_path / "m.mlpackage", specs(), read_per_layer, passes=True)
    with pytest.raises(
        EvaluationError, match=r"main: .* the state cache before 1 later write"
    ) as e:
        Evaluator.open(package)
    assert "2786" in e.value.hint


@pytest.mark.parametrize(
    ("graph", "passes"),
    [
        (read_per_layer, False),
        (read_once, False),
        (read_once, True),
        (written_at_the_end, False),
        (written_at_the_end, True),
    ],
)
def test_right_programs_over_a_state_are_right(tmp_path, graph, passes):
    package = build(tmp_path / "m.mlpackage", specs(), graph, passes=passes)
    evaluator = Evaluator.open(package)
    kept = evaluator.make_state()
    found = evaluator.predict(ONES, kept)
    np.testing.assert_array_equal(found["y"], expected()[0])
    np.testing.assert_array_equal(kept.read_state("cache"), expected()[1])


def test_a_shape_that_is_declared_wrong_is_refused(tmp_path):
    """coremltools forgets the condition's shape when it selects between scalars."""

    def graph(x, scalars: bool):
        a, b = (
            (np.float32(1), np.float32(2)) if scalars else (np.ones(4, np.float32), np.float32(2))
        )
        return mb.select(cond=mb.greater(x=x, y=np.float32(0)), a=a, b=b, name="y")

    x = np.array([-1, 1, -1, 1], np.float32)
    inputs = {"x": placeholder((4,), "float32")}
    healthy = build(tmp_path / "healthy.mlpackage", inputs, lambda x: graph(x, False))
    np.testing.assert_array_equal(Evaluator.open(healthy).predict({"x": x})["y"], [2, 1, 2, 1])
    faulty = build(
        tmp_path / "faulty.mlpackage",
        inputs,
        lambda x: mb.identity(x=mb.expand_dims(x=graph(x, True), axes=[0])),
    )
    with pytest.raises(EvaluationError, match=r"y \(select\): .* declares fp32 \[\], .* \[4\]"):
        Evaluator.open(faulty).predict({"x": x})


@pytest.mark.parametrize("use", ["read", "written again", "view"])
def test_every_use_of_an_old_read_is_refused(tmp_path, use):
    def graph(new, cache):
        old = mb.read_state(input=cache)
        if use == "view":
            old = mb.reshape(x=old, shape=[LAYERS * ROWS, WIDTH])
            first = mb.reshape(x=old, shape=CACHE)
        else:
            first = old
        mb.coreml_update_state(state=cache, value=put(first, new, 0))
        if use == "written again":
            mb.coreml_update_state(state=cache, value=old)
        return mb.reduce_sum(x=old, axes=[-1], name="y")

    package = build(tmp_path / "m.mlpackage", specs(), graph)
    with pytest.raises(EvaluationError, match=r"which was read from the state cache before"):
        Evaluator.open(package)


def test_an_old_slice_may_be_used(tmp_path):
    """A part that was read before the write is a value of its own."""

    def graph(new, cache):
        old = mb.read_state(input=cache)
        row = mb.slice_by_index(x=old, begin=[0, 2, 0], end=[1, 3, WIDTH])
        current = mb.coreml_update_state(state=cache, value=put(old, new, 0))
        return mb.add(x=row, y=mb.slice_by_index(x=current, begin=[0, 2, 0], end=[1, 3, WIDTH]))

    evaluator = Evaluator.open(build(tmp_path / "m.mlpackage", specs(), graph))
    kept = evaluator.make_state()
    for total_ in (1, 2):
        (found,) = evaluator.predict(ONES, kept).values()
        np.testing.assert_array_equal(found, np.full((1, 1, WIDTH), total_))


# --- Updates in place ---


def test_a_chain_of_updates_copies_nothing(tmp_path):
    evaluator = Evaluator.open(build(tmp_path / "m.mlpackage", specs(), read_once, passes=True))
    kept = evaluator.make_state()
    before = kept._content["cache"].data_ptr()
    evaluator.predict(ONES, kept)
    assert kept._content["cache"].data_ptr() == before
    assert len(evaluator._plans["main"].updates.in_place) == LAYERS


def test_an_update_that_is_not_written_back_leaves_the_state(tmp_path):
    def graph(new, cache):
        return total(put(mb.read_state(input=cache), new, 1))

    evaluator = Evaluator.open(build(tmp_path / "m.mlpackage", specs(), graph))
    kept = evaluator.make_state()
    (found,) = evaluator.predict(ONES, kept).values()
    assert found.tolist() == [0, 2 * WIDTH, 0]
    assert not kept.read_state("cache").any()


def test_results_share_nothing_with_states_and_inputs(tmp_path):
    def graph(new, cache):
        current = mb.coreml_update_state(state=cache, value=put(mb.read_state(input=cache), new, 0))
        return [mb.identity(x=current, name="y"), mb.identity(x=new, name="same")]

    package = build(tmp_path / "m.mlpackage", specs(), graph)
    evaluator = Evaluator.open(package, mode="fp32")
    kept = evaluator.make_state()
    inputs = {"new": np.ones((1, 1, WIDTH), np.float32)}
    found = evaluator.predict(inputs, kept)
    taken = kept.read_state("cache")
    found["y"][:], found["same"][:], taken[:] = 9, 9, 9
    assert inputs["new"].max() == kept.read_state("cache").max() == 1
    inputs["new"][:] = 5
    assert evaluator.predict({"new": np.ones((1, 1, WIDTH), np.float32)}, kept)["y"].max() == 1
    given_ = np.full(CACHE, 3, np.float32)
    kept.write_state("cache", given_)
    evaluator.predict({"new": np.ones((1, 1, WIDTH), np.float32)}, kept)
    assert given_.min() == 3


SHAPE = (4, 3)
KEPT = {"left": StateType(TensorType("fp32", SHAPE)), "right": StateType(TensorType("fp32", SHAPE))}
VIEWS = {
    "identity": {},
    "reshape": {"shape": torch.tensor([-1, 3])},
    "transpose": {"perm": torch.tensor([0, 1])},
    "slice_by_index": {"begin": torch.tensor([0, 0]), "end": torch.tensor([4, 3])},
}
STEP = st.tuples(
    st.sampled_from(["read", "update", "write", "view", "add"]),
    st.integers(0, 20),
    st.integers(0, 20),
)


class Drawn:
    """A program that is drawn step by step, and what it must give when nothing is ever shared."""

    def __init__(self, steps: list[tuple[str, int, int]], outputs: set[int]) -> None:
        self.operations: list[Operation] = []
        self.names = ["new"]
        self.steps: list[tuple] = []
        for kind, first, second in steps:
            self._draw(kind, first, second)
        chosen = sorted({self.names[number % len(self.names)] for number in outputs})
        self.function = Function(
            name="main",
            opset=8,
            inputs={"new": TensorType("fp32", SHAPE), **KEPT},
            operations=tuple(self.operations),
            outputs=tuple((name, Ref(name)) for name in chosen),
            constants={},
        )

    def _draw(self, kind: str, first: int, second: int) -> None:
        held = sorted(KEPT)[first % 2]
        source, other = (self.names[number % len(self.names)] for number in (first, second))
        name = f"v{len(self.operations)}"
        if kind == "read":
            self._add("read_state", {"input": held}, name)
            self.steps.append(("read", name, held))
        elif kind == "write":
            self.operations.append(
                Operation("write_state", {"input": (Ref(held),), "data": (Ref(other),)}, ())
            )
            self.steps.append(("write", held, other))
        elif kind == "view":
            view = sorted(VIEWS)[second % len(VIEWS)]
            self._add(view, {"x": source}, name, **VIEWS[view])
            self.steps.append(("view", name, source))
        elif kind == "add":
            self._add("add", {"x": source, "y": other}, name)
            self.steps.append(("add", name, source, other))
        else:
            row = second % 4
            new = torch.full((1, 3), float(len(self.operations) + 2))
            corner = {"begin": torch.tensor([row, 0]), "end": torch.tensor([row + 1, 3])}
            self._add(UPDATE, {"x": source}, name, update=new, **corner)
            self.steps.append(("update", name, source, row, float(new[0, 0])))

    def _add(self, type_: str, refs: dict[str, str], name: str, **constants: torch.Tensor) -> None:
        inputs = {key: (Ref(value),) for key, value in refs.items()}
        for key, data in constants.items():
            dtype = "fp32" if data.is_floating_point() else "int32"
            inputs[key] = (Value(data if dtype == "fp32" else data.to(torch.int32), dtype),)
        self.operations.append(Operation(type_, inputs, ((name, TensorType("fp32", SHAPE)),)))
        self.names.append(name)

    def expected(self, new: np.ndarray, kept: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = {"new": new}
        for step in self.steps:
            match step:
                case ("read", name, held):
                    values[name] = kept[held].copy()
                case ("write", held, name):
                    kept[held] = values[name].copy()
                case ("view", name, source):
                    values[name] = values[source].copy()
                case ("add", name, source, other):
                    values[name] = values[source] + values[other]
                case ("update", name, source, row, number):
                    values[name] = values[source].copy()
                    values[name][row] = number
        return {name: values[name] for name, _ in self.function.outputs}


# The read is still used after the update; the update is never written.
USED_LATER = [("read", 0, 0), ("update", 1, 0), ("add", 1, 2), ("write", 0, 2)]
NEVER_WRITTEN = [("read", 0, 0), ("update", 1, 0), ("add", 2, 2)]


@example(USED_LATER, {3})
@example(NEVER_WRITTEN, {3})
@given(st.lists(STEP, min_size=3, max_size=14), st.sets(st.integers(0, 20), max_size=3))
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_program_sees_that_memory_is_used_again(steps, outputs):
    drawn = Drawn(steps, outputs)
    try:
        plan = Plan.of(drawn.function, rounds=False)
    except EvaluationError:
        return  # it uses an old read
    kept = {name: np.zeros(SHAPE, np.float32) for name in KEPT}
    states = {name: torch.zeros(SHAPE) for name in KEPT}
    for call in (1.0, 10.0):
        new = np.full(SHAPE, call, np.float32)
        wanted = drawn.expected(new, kept)
        with torch.no_grad():
            value = Value(torch.from_numpy(new.copy()), "fp32")
            found = plan.run({"new": value}, states, Workers())
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name].data.numpy(), value)
        for name, content in kept.items():
            np.testing.assert_array_equal(states[name].numpy(), content)


@pytest.mark.parametrize("safety", ["_is_dead_after", "_is_written_back"])
def test_the_property_sees_an_update_in_place_that_is_not_safe(monkeypatch, safety):
    monkeypatch.setattr(planning._Planner, safety, lambda *_: True)
    with pytest.raises(AssertionError):
        test_no_program_sees_that_memory_is_used_again()


# --- States as clients meet them ---


@pytest.fixture(scope="module")
def two_functions(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("two") / "m.mlpackage"
    with quiet():
        functions = {
            "first": function(specs(), read_once),
            "second": function(
                {"cache": state(CACHE), "x": placeholder((1,), "float16")},
                lambda cache, x: mb.add(x=total(mb.read_state(input=cache)), y=x, name="sums"),
            ),
            "third": function(
                {"x": placeholder((2,), "float16")}, lambda x: mb.add(x=x, y=x, name="twice")
            ),
        }
    return save(path, functions)


def test_functions_share_a_state(two_functions):
    evaluator = Evaluator.open(two_functions)
    assert set(evaluator.functions) == {"first", "second", "third"}
    assert evaluator.default_function == "first"
    kept = evaluator.make_state()
    evaluator.predict(ONES, kept)
    found = evaluator.predict({"x": np.zeros(1, np.float16)}, kept, function="second")
    assert found["sums"].tolist() == [4, 8, 12]
    assert [feature.name for feature in evaluator.signature("second").states] == ["cache"]


def test_a_state_outlives_the_inference_mode_that_it_was_made_and_written_in(two_functions):
    evaluator = Evaluator.open(two_functions)
    expected = evaluator.predict(ONES, evaluator.make_state())["y"]
    with torch.inference_mode():
        kept = evaluator.make_state()
        kept.write_state("cache", np.zeros(CACHE, np.float16))
        inside = evaluator.predict(ONES, evaluator.make_state())["y"]
    np.testing.assert_array_equal(inside, expected)
    np.testing.assert_array_equal(evaluator.predict(ONES, kept)["y"], expected)
    with torch.inference_mode():
        evaluator.predict(ONES, kept)


def test_a_state_is_asked_for_and_refused(two_functions):
    evaluator = Evaluator.open(two_functions)
    with pytest.raises(EvaluationError, match="expected a state with cache, found none"):
        evaluator.predict(ONES)
    with pytest.raises(EvaluationError, match="third: expected no state"):
        evaluator.predict({"x": np.zeros(2, np.float16)}, evaluator.make_state(), function="third")
    with pytest.raises(EvaluationError, match="one of the functions first, second, third"):
        evaluator.predict(ONES, function="main")
    with pytest.raises(EvaluationError, match="one of the states cache, found other"):
        evaluator.make_state().read_state("other")
    with pytest.raises(EvaluationError, match=r"expected float16 \[3, 6, 4\], found float32 \[3\]"):
        evaluator.make_state().write_state("cache", np.zeros(3, np.float32))


@pytest.mark.parametrize(("mode", "dtype"), [("fp16", np.float16), ("fp32", np.float32)])
def test_a_state_is_rounded_in_mode_fp16_only(two_functions, mode, dtype):
    kept = Evaluator.open(two_functions, mode=mode).make_state()
    kept.write_state("cache", np.full(CACHE, 0.1, np.float32))
    found = kept.read_state("cache")
    assert found.dtype == dtype
    assert found.max() == dtype(0.1)
