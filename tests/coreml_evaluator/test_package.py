"""Core ML packages as the evaluator opens them: what it reads, what damage it names."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from artifacts.coreml_programs import (
    build,
    ct,
    edit,
    mb,
    model_file,
    operations,
    placeholder,
    placeholders,
    quiet,
    state,
    weight_file,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coreml_evaluator import Evaluator, Feature, evaluate, package, weights
from coreml_evaluator.constants import BUILDERS
from coreml_evaluator.messages import _MESSAGES, read_model
from coreml_evaluator.ops import KNOWN
from llama_export.errors import BundleError, EvaluationError, LlamaExportError

pytestmark = pytest.mark.coreml

X = np.arange(1, 65, dtype=np.float16).reshape(1, 64)
RANDOM = np.random.default_rng(3)
WEIGHT = RANDOM.standard_normal((8, 64)).astype(np.float16)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("made") / "m.mlpackage"
    return build(path, placeholders({"x": X}), lambda x: mb.linear(x=x, weight=WEIGHT, name="y"))


@pytest.fixture
def copy(made, tmp_path) -> Path:
    """Return a package that may be damaged."""
    return Path(shutil.copytree(made, tmp_path / "copy.mlpackage"))


def opened_and_run(path: Path) -> np.ndarray:
    return evaluate(path, {"x": X})["y"]


def manifest(path: Path) -> Path:
    return path / "Manifest.json"


def test_a_whole_package_runs(copy):
    expected = X.astype(np.float32) @ WEIGHT.astype(np.float32).T
    np.testing.assert_allclose(opened_and_run(copy), expected, rtol=2**-10)


# --- What is read ---


@pytest.fixture(scope="module")
def rich(tmp_path_factory) -> Path:
    """A package with a state, ranges, enumerated shapes elsewhere, lists and blobs."""

    def graph(ids, cache):
        table = RANDOM.standard_normal((20, 4)).astype(np.float16)
        rows = mb.gather(x=table, indices=ids, axis=0)
        new = mb.slice_update(
            x=mb.read_state(input=cache),
            update=np.ones((1, 4), np.float16),
            begin=[1, 0],
            end=[2, 4],
        )
        kept = mb.coreml_update_state(state=cache, value=new)
        return [mb.reduce_sum(x=rows, axes=[0, 1], name="y"), mb.identity(x=kept, name="kept")]

    from coremltools.converters.mil.mil import get_new_symbol

    return build(
        tmp_path_factory.mktemp("rich") / "m.mlpackage",
        {"ids": placeholder((1, get_new_symbol()), "int32"), "cache": state((3, 4))},
        graph,
        input_types=[ct.TensorType("ids", (1, ct.RangeDim(1, 9, 1)), np.int32)],
        passes=True,
    )


def compare(ours, theirs, seen: set[str]) -> None:
    """Compare a message of ours with coremltools' own, field by field."""
    for name in _MESSAGES[ours.DESCRIPTOR.name]:
        field = ours.DESCRIPTOR.fields_by_name[name]
        mine, other = getattr(ours, name), getattr(theirs, name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            assert sorted(mine) == sorted(other)
            for key in mine:
                if field.message_type.fields_by_name["value"].message_type is None:
                    assert mine[key] == other[key]
                else:
                    compare(mine[key], other[key], seen)
        elif field.message_type is None:
            assert list(mine) == list(other) if field.is_repeated else mine == other
        elif field.is_repeated:
            assert len(mine) == len(other)
            for one, two in zip(mine, other, strict=True):
                compare(one, two, seen)
        else:
            assert ours.HasField(name) == theirs.HasField(name)
            if ours.HasField(name) and _MESSAGES[field.message_type.name]:
                compare(mine, other, seen)
    seen.add(ours.DESCRIPTOR.name)


def test_messages_are_read_as_coremltools_reads_them(rich):
    with quiet():
        from coremltools.proto import Model_pb2
    content = model_file(rich).read_bytes()
    theirs = Model_pb2.Model()
    theirs.ParseFromString(content)
    seen: set[str] = set()
    compare(read_model(content, "here"), theirs, seen)
    # What this package does not have.
    unseen = {"EnumeratedShapes", "Shape", "ListType", "ListValue", "Doubles", "LongInts"}
    assert set(_MESSAGES) - seen - unseen <= {"FunctionDescription", "Nothing", "Floats"}


@pytest.mark.parametrize("message", sorted(set(_MESSAGES) - {"Nothing"}))
def test_field_numbers_are_coremltools_own(message):
    with quiet():
        from coremltools.proto import FeatureTypes_pb2, MIL_pb2, Model_pb2
    theirs = {
        kind.name: kind
        for module in (Model_pb2, FeatureTypes_pb2, MIL_pb2)
        for outer in module.DESCRIPTOR.message_types_by_name.values()
        for kind in (outer, *every_nested(outer))
    }
    name = {
        "Floats": "RepeatedFloats",
        "Ints": "RepeatedInts",
        "Bools": "RepeatedBools",
        "Strings": "RepeatedStrings",
        "LongInts": "RepeatedLongInts",
        "Doubles": "RepeatedDoubles",
        "Bytes": "RepeatedBytes",
    }.get(message, message)
    numbers = {field.name: field.number for field in theirs[name].fields}
    for field, (number, _) in _MESSAGES[message].items():
        assert numbers[field] == number


def every_nested(message) -> list:
    return [kind for inner in message.nested_types for kind in (inner, *every_nested(inner))]


def test_a_signature_says_what_varies(rich):
    signature = Evaluator.open(rich).signature()
    assert signature.inputs == (Feature("ids", "int32", (1, (1, 9))),)
    assert signature.states == (Feature("cache", "float16", (3, 4)),)
    assert [feature.name for feature in signature.outputs] == ["y", "kept"]


def test_nothing_heavy_is_imported_with_the_target_and_no_coremltools_by_the_evaluator(made):
    script = (
        "import sys; import llama_export.targets.coreml;"
        "heavy = {'torch', 'google.protobuf', 'coremltools'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules);"
        "from coreml_evaluator import Evaluator;"
        f"Evaluator.open({str(made)!r}).make_state();"
        "assert 'coremltools' not in sys.modules"
    )
    paths = os.pathsep.join(path for path in sys.path if path)
    subprocess.run(
        [sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": paths}
    )


def test_its_messages_do_not_meet_coremltools_own(made):
    """Both register `Model`; in one pool the second would be refused."""
    with quiet():
        from coremltools.proto import Model_pb2
    assert read_model(model_file(made).read_bytes(), "here").DESCRIPTOR.full_name != (
        Model_pb2.Model.DESCRIPTOR.full_name
    )


# --- Damage ---


def refused(path: Path, says: str, error: type[LlamaExportError] = BundleError) -> None:
    with pytest.raises(error, match=says):
        opened_and_run(path)


def test_what_is_no_package_is_refused(tmp_path):
    refused(tmp_path, r"Manifest.json: cannot be read")
    (tmp_path / "file").write_bytes(b"")
    refused(tmp_path / "file", "cannot be read")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"rootModelIdentifier": "a", "itemInfoEntries": {}}',
        '{"rootModelIdentifier": [], "itemInfoEntries": {}}',
        '{"rootModelIdentifier": "a", "itemInfoEntries": {"a": 5}}',
        pytest.param('{"a":' * 100_000, id="nested deep"),
    ],
)
def test_a_damaged_manifest_is_refused(copy, content):
    manifest(copy).write_text(content)
    refused(copy, "Manifest.json: expected JSON")


@pytest.mark.parametrize(
    "path",
    ["../../outside/model.mlmodel", "/etc/hostname", "..\\outside", "com.apple.CoreML/../.."],
)
def test_a_manifest_that_leads_outside_is_refused(copy, path):
    content = json.loads(manifest(copy).read_text())
    content["itemInfoEntries"][content["rootModelIdentifier"]]["path"] = path
    manifest(copy).write_text(json.dumps(content))
    refused(copy, "leads out of the package|is none")


def test_links_that_lead_outside_are_refused(copy, made, tmp_path):
    outside = Path(shutil.copytree(made, tmp_path / "outside"))
    weight_file(copy).unlink()
    weight_file(copy).symlink_to(weight_file(outside))
    refused(copy, "weight.bin leads out of the package")
    shutil.rmtree(copy / "Data")
    (copy / "Data").symlink_to(outside / "Data")
    refused(copy, "leads out of the package")


@pytest.mark.parametrize("name", ["/etc/hostname", "@model_path/../../../x", "weights/weight.bin"])
def test_a_weight_file_outside_is_refused(copy, name):
    def change(model) -> None:
        for operation in operations(model):
            for value in operation.attributes.values():
                if value.HasField("blobFileValue"):
                    value.blobFileValue.fileName = name

    edit(copy, change)
    refused(copy, "leads out of the package|expected a weight file under")


@pytest.mark.parametrize("which", [model_file, weight_file])
def test_a_missing_file_is_refused(copy, which):
    which(copy).unlink()
    refused(copy, "cannot be read|no such file")


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.99])
def test_a_model_that_is_cut_short_is_refused(copy, part):
    content = model_file(copy).read_bytes()
    model_file(copy).write_bytes(content[: int(part * len(content))])
    refused(copy, "model.mlmodel|main|output|y", LlamaExportError)


def test_random_bytes_are_refused(copy):
    model_file(copy).write_bytes(RANDOM.bytes(5000))
    refused(copy, "not a Core ML model")
    weight_file(copy).write_bytes(RANDOM.bytes(5000))


@given(st.integers(0, 10**9), st.integers(0, 255))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_changed_byte_is_an_error_of_ours_or_another_program(copy, made, place, byte):
    """Never a bug's traceback: whatever the byte was, the error says what is wrong."""
    content = bytearray(model_file(made).read_bytes())
    content[place % len(content)] = byte
    model_file(copy).write_bytes(content)
    with contextlib.suppress(LlamaExportError):
        opened_and_run(copy)


@pytest.mark.parametrize("size", [0, 63, 64, 200, 1000])
def test_weights_that_are_cut_short_are_refused(copy, size):
    weight_file(copy).write_bytes(weight_file(copy).read_bytes()[:size])
    refused(copy, "weight.bin.*(expected at least 64|outside of the file|the file at)")


def test_weights_of_another_version_are_refused(copy):
    content = bytearray(weight_file(copy).read_bytes())
    content[4] = 1
    weight_file(copy).write_bytes(content)
    refused(copy, "expected blob storage of version 2, found 1")


@pytest.mark.parametrize(
    ("place", "byte", "says"),
    [
        (0, 0, "expected the mark 0xdeadbeef"),
        (4, 2, "expected fp16, found fp32"),
        (4, 99, "the unknown dtype 99"),
        (8, 1, "expected 1024 bytes for 512 elements of fp16, found 1025"),
        (20, 1, "the data end at byte"),
    ],
)
def test_a_blob_that_is_not_what_is_declared_is_refused(copy, place, byte, says):
    content = bytearray(weight_file(copy).read_bytes())
    content[64 + place] = byte
    weight_file(copy).write_bytes(content)
    refused(copy, says)


@pytest.mark.parametrize("offset", [0, 128, 10**6, 2**63])
def test_a_wrong_offset_is_refused(copy, offset):
    def change(model) -> None:
        for operation in operations(model):
            for value in operation.attributes.values():
                if value.HasField("blobFileValue"):
                    value.blobFileValue.offset = offset

    edit(copy, change)
    refused(copy, "expected the mark|outside of the file")


def declare(model, what: str) -> None:
    weight = next(op for op in operations(model) if op.outputs[0].name == weight_name(model))
    tensor = weight.outputs[0].type.tensorType
    if what == "shape":
        tensor.dimensions[0].constant.size = 4
    else:
        tensor.dataType = 11


def weight_name(model) -> str:
    linear = next(op for op in operations(model) if op.type == "linear")
    return linear.inputs["weight"].arguments[0].name


@pytest.mark.parametrize("what", ["shape", "dtype"])
def test_a_constant_that_is_not_what_is_declared_is_refused(copy, what):
    edit(copy, lambda model: declare(model, what))
    refused(copy, "the program declares .*, its constant is fp16", EvaluationError)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda model: setattr(model, "specificationVersion", 99), "up to 10, found 99"),
        (lambda model: setattr(model, "specificationVersion", 2), "from 6 on, found 2"),
        (lambda model: model.neuralNetwork.SetInParent(), "ML Program, found neuralNetwork"),
        (lambda model: model.pipeline.SetInParent(), "ML Program, found pipeline"),
        (lambda model: model.glmRegressor.SetInParent(), "found another kind of model"),
        (lambda model: model.mlProgram.functions.clear(), "the program has no function"),
        (
            lambda model: setattr(model.mlProgram.functions["main"], "opset", "CoreML99"),
            "no block for its opset 'CoreML99'",
        ),
    ],
)
def test_another_kind_of_model_is_refused(copy, change, says):
    edit(copy, change)
    refused(copy, says)


def test_all_unknown_ops_are_named_when_the_package_is_opened(copy):
    def change(model) -> None:
        found = [op for op in operations(model) if op.type == "linear"]
        found[0].type = "linear_of_tomorrow"
        operations(model).add(type="while_loop")
        operations(model).add(type="while_loop")

    edit(copy, change)
    says = r"linear_of_tomorrow \(1x in main\), while_loop \(2x in main\)"
    with pytest.raises(EvaluationError, match=says) as refusal:
        Evaluator.open(copy)
    assert "evaluator.md" in refusal.value.hint


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda ops: setattr(ops[-1].inputs["x"].arguments[0], "name", "nobody"), "nobody is used"),
        (lambda ops: ops.extend([ops[-1]]), "y is defined twice"),
        (lambda ops: ops[0].attributes.clear(), "the constant has no value"),
    ],
)
def test_a_damaged_program_is_refused(copy, change, says):
    edit(copy, lambda model: change(operations(model)))
    refused(copy, says)


def test_a_result_that_is_not_what_is_declared_is_refused(copy):
    def change(model) -> None:
        operations(model)[-1].outputs[0].type.tensorType.dimensions[1].constant.size = 7

    edit(copy, change)
    refused(copy, r"y \(linear\): .*declares fp16 \[1, 7\], .*gives fp16 \[1, 8\]", EvaluationError)


def test_a_dtype_that_is_not_what_is_declared_is_refused(copy):
    edit(copy, lambda m: setattr(operations(m)[-1].outputs[0].type.tensorType, "dataType", 11))
    refused(copy, r"declares fp32 \[1, 8\], .*gives fp16 \[1, 8\]", EvaluationError)


# --- Inputs ---


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, "expected the inputs x, found none"),
        ({"x": X, "y": X}, "expected the inputs x, found x, y"),
        ({"x": X.astype(np.float32)}, r"expected float16 \[1, 64\], found float32 \[1, 64\]"),
        ({"x": X[:, :3]}, r"expected float16 \[1, 64\], found float16 \[1, 3\]"),
        ({"x": X[0]}, r"found float16 \[64\]"),
        ({"x": X * np.float16("nan")}, "expected numbers, found a NaN"),
        ({"x": X.tolist()}, "expected a numpy array, found list"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(made, inputs, says):
    with pytest.raises(EvaluationError, match=says):
        Evaluator.open(made).predict(inputs)


@pytest.mark.parametrize(("size", "fits"), [(1, True), (9, True), (10, False), (0, False)])
def test_a_range_is_kept_to(rich, size, fits):
    evaluator = Evaluator.open(rich)
    ids = {"ids": np.zeros((1, size), np.int32)}
    if fits:
        assert evaluator.predict(ids, evaluator.make_state())["kept"].sum() == 4
    else:
        with pytest.raises(EvaluationError, match=r"expected int32 \[1, 1\.\.9\], found"):
            evaluator.predict(ids, evaluator.make_state())


def test_enumerated_shapes_are_kept_to(tmp_path):
    from coremltools.converters.mil.mil import get_new_symbol

    path = build(
        tmp_path / "m.mlpackage",
        {"x": placeholder((1, get_new_symbol()), "float32")},
        lambda x: mb.add(x=x, y=np.float32(1), name="y"),
        input_types=[
            ct.TensorType("x", ct.EnumeratedShapes([(1, 2), (1, 5)], default=(1, 2)), np.float32)
        ],
        passes=True,
    )
    evaluator = Evaluator.open(path)
    for size in (2, 5):
        assert evaluator.predict({"x": np.zeros((1, size), np.float32)})["y"].shape == (1, size)
    with pytest.raises(EvaluationError, match=r"expected float32 \[1, 2\] or \[1, 5\], found"):
        evaluator.predict({"x": np.zeros((1, 3), np.float32)})


def test_modes_and_threads(made):
    for mode in ("fp16", "fp32"):
        assert Evaluator.open(made, mode=mode).mode == mode
    with pytest.raises(EvaluationError, match="one of the modes fp16, fp32, found 'int8'"):
        Evaluator.open(made, mode="int8")
    with pytest.raises(EvaluationError, match="at least one thread, found 0"):
        Evaluator.open(made, threads=0)


def test_torchs_threads_are_as_before_after_a_call(made, monkeypatch):
    asked = []
    change = torch.set_num_threads
    monkeypatch.setattr(torch, "set_num_threads", lambda n: (asked.append(n), change(n)))
    before = torch.get_num_threads()
    evaluator = Evaluator.open(made, threads=before + 1)
    evaluator.predict({"x": X})
    assert asked == [1, before]
    edit_error = np.full_like(X, np.inf)
    with pytest.raises(EvaluationError):
        evaluator.predict({"x": edit_error})
    assert torch.get_num_threads() == before


def test_a_caller_in_inference_mode_leaves_the_workers_their_tensors(made, monkeypatch):
    """That mode is a thread's own: without care, workers could not fill what the caller made."""
    expected = opened_and_run(made)
    monkeypatch.setattr(weights, "_BLOCK_ELEMENTS", 1)
    evaluator = Evaluator.open(made, threads=2)
    with torch.inference_mode():
        np.testing.assert_array_equal(evaluator.predict({"x": X})["y"], expected)
        np.testing.assert_array_equal(evaluator.part(["y"]).run([{"x": X}])[0]["y"], expected)


def test_a_blob_file_is_mapped_once(made, monkeypatch):
    opened = []
    original = package.BlobFile.open
    monkeypatch.setattr(
        package.BlobFile, "open", lambda path: (opened.append(path), original(path))[1]
    )
    Evaluator.open(made)
    assert len(opened) == 1


# --- The documentation ---

PAGE = Path(__file__).parents[2] / "docs" / "evaluator.md"


def test_the_page_names_every_op():
    table = PAGE.read_text(encoding="utf-8").split("## Ops")[1].split("## Limits")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")]
    named = set(re.findall(r"`(\w+)`", "\n".join(rows)))
    assert named == {*KNOWN, *BUILDERS, "const"}


def test_the_page_runs(tmp_path, monkeypatch, capsys):
    """Its example, on a package with the same names."""

    def graph(inputIds, causalMask, keyCache):
        table = RANDOM.standard_normal((20, 8)).astype(np.float16)
        rows = mb.gather(x=table, indices=inputIds, axis=0)
        seen = mb.add(x=mb.read_state(input=keyCache), y=mb.reduce_sum(x=causalMask))
        kept = mb.coreml_update_state(state=keyCache, value=seen)
        return mb.add(x=rows, y=mb.reduce_sum(x=kept), name="logits")

    inputs = {
        "inputIds": placeholder((1, 3), "int32"),
        "causalMask": placeholder((1, 1, 1, 3), "float16"),
        "keyCache": state((2, 4)),
    }
    build(tmp_path / "model.mlpackage", inputs, graph)
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(example, "docs/evaluator.md", "exec"), {})
    assert "(1, 3, 8) (2, 4)" in capsys.readouterr().out
