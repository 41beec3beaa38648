"""Core ML itself as a runner, without a Mac: what it is asked, and what it refuses to a user."""

from __future__ import annotations

import gc
import inspect
import os
import platform
import subprocess
import sys
import warnings
import weakref

import numpy as np
import pytest
from fakes.coreml import CONTEXT, FORMS, LAYERS, VOCAB, FakePackage, expected_logits, spec_of
from fakes.coremltools import REFUSED, ComputeUnit, Toolkit, write_package

from llama_export.errors import BackendUnavailableError, BundleError, UsageError
from llama_export.targets.coreml.lowering import toolkit
from llama_export.targets.coreml.running import core_ml
from llama_export.targets.coreml.running.core_ml import CoremlRuntime, require_core_ml, runs_core_ml
from llama_export.targets.coreml.running.session import CoremlSession

TOKENS = [int(token) for token in np.random.default_rng(2).integers(0, VOCAB, CONTEXT)]


def stand_on(monkeypatch, system="Darwin", version="15.5", coremltools="9.0"):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "mac_ver", lambda: (version, ("", "", ""), "arm64"))
    monkeypatch.setattr(core_ml, "coremltools_version", lambda: coremltools)


@pytest.fixture
def on_a_mac(monkeypatch, tmp_path):
    """Return what opens a package on a pretended Mac, with the toolkit that it asks."""
    stand_on(monkeypatch)
    opened = iter(range(9))

    def open_form(form, *, refuse=False, **options):
        package = write_package(tmp_path / f"{next(opened)}.mlpackage", form)
        toolkit = Toolkit(FakePackage(form), refuse=refuse)
        monkeypatch.setattr(core_ml, "import_coremltools", lambda *, verbose=False: toolkit)
        return CoremlRuntime.open(package, **options), toolkit, package

    return open_form


# --- Where it runs ---


@pytest.mark.parametrize(
    ("place", "reason", "hint"),
    [
        ({}, "", ""),
        ({"version": "26.0.1"}, "", ""),
        ({"system": "Linux"}, "Core ML runs on macOS only; the evaluator runs everywhere", "Mac"),
        ({"system": "Windows"}, "Core ML runs on macOS only; the evaluator", "no wheel for Win"),
        ({"version": "14.7.1"}, "this is macOS 14.7.1; Core ML keeps a model's state", "update"),
        ({"version": ""}, "this is macOS ", "update"),
        ({"coremltools": ""}, "not installed here", "pip install 'coremltools"),
    ],
)
def test_where_core_ml_runs(monkeypatch, place, reason, hint):
    stand_on(monkeypatch, **place)
    assert runs_core_ml() == (not reason)
    if not reason:
        require_core_ml()
        return
    with pytest.raises(BackendUnavailableError) as caught:
        require_core_ml()
    assert reason in caught.value.message
    assert hint in caught.value.hint


def test_it_refuses_before_it_imports_anything(monkeypatch, tmp_path):
    stand_on(monkeypatch, system="Linux")
    monkeypatch.setattr(core_ml, "import_coremltools", None)
    with pytest.raises(BackendUnavailableError, match="macOS only"):
        CoremlRuntime.open(tmp_path)
    with pytest.raises(UsageError, match="expected cpuAndGPU or cpuOnly or all, found 'gpu'"):
        CoremlRuntime.open(tmp_path, compute_units="gpu")


# --- The session over it ---


@pytest.mark.parametrize("form", FORMS)
def test_a_session_over_it_gives_what_the_tokens_give(on_a_mac, form):
    runner, toolkit, _ = on_a_mac(form)
    session = CoremlSession(runner, spec_of(form))
    for length in (11, 12, 13, 30):
        logits = session.prefill(TOKENS[session.position : length])
        assert np.array_equal(logits, expected_logits(TOKENS[:length]))
    other = session.fork()
    kept = [session.cache(layer) for layer in range(LAYERS)]
    session.rewind(5)
    session.prefill([0, 1])
    assert np.array_equal(other.prefill(TOKENS[30:32]), expected_logits(TOKENS[:32]))
    session.restore(kept)
    assert np.array_equal(session.prefill(TOKENS[30:31]), expected_logits(TOKENS[:31]))
    expected = {"inputIds": "int32", "position": "int32", "length": "int32"}
    for given in toolkit.given:
        for name, value in given.items():
            assert value.dtype == expected.get(name, "float32"), name
            assert value.flags.c_contiguous
            assert value.flags.writeable


def test_the_double_refuses_what_core_ml_refuses(on_a_mac):
    """The twin of the test above: float16 and read-only arrays reach no state and no input."""
    runner, toolkit, _ = on_a_mac("flexible")
    state = runner.make_state()
    whole = state.read_state("keyCache")
    assert whole.dtype == np.float32
    for bad in (whole.astype(np.float16), np.broadcast_to(whole[..., :1], whole.shape)):
        state.write_state("keyCache", bad)  # ours makes it fit
        with pytest.raises(RuntimeError, match="not convertible"):
            state.inner.write_state("keyCache", bad)
    model = toolkit.models.MLModel("x")
    ids = np.ones((1, 2), dtype=np.int64)
    with pytest.raises(RuntimeError, match="not convertible"):
        model.predict({"inputIds": ids, "causalMask": np.zeros((1, 1, 1, 2), np.float16)})


def test_inputs_are_not_changed(on_a_mac):
    runner, _, _ = on_a_mac("flexible")
    mask = np.zeros((1, 1, 1, 2), dtype=np.float16)
    ids = np.ones((1, 2), dtype=np.int32)
    ids.flags.writeable = mask.flags.writeable = False
    inputs = {"inputIds": ids, "causalMask": mask}
    runner.predict(inputs, runner.make_state())
    assert inputs["inputIds"] is ids
    assert inputs["causalMask"] is mask
    assert mask.dtype == np.float16


# --- What it is asked ---


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ({}, ComputeUnit.CPU_AND_GPU),
        ({"compute_units": "cpuOnly"}, ComputeUnit.CPU_ONLY),
        ({"compute_units": "all"}, ComputeUnit.ALL),
    ],
)
def test_a_function_is_loaded_once_when_it_is_called(on_a_mac, units, expected):
    runner, toolkit, package = on_a_mac("fixed", **units)
    assert toolkit.loads == []
    session = CoremlSession(runner, spec_of("fixed"))
    session.prefill([1])
    decode = {"compute_units": expected, "function_name": "decode"}
    assert toolkit.loads == [((str(package),), decode)]
    session.prefill(TOKENS[:9])
    session.fork().prefill(TOKENS[:9])
    assert [options["function_name"] for _, options in toolkit.loads] == ["decode", "prefill"]
    assert {options["compute_units"] for _, options in toolkit.loads} == {expected}
    assert [name for name, _ in toolkit.package.calls] == ["decode", *["prefill", "decode"] * 2]


@pytest.mark.parametrize("form", ["flexible", "io"])
def test_the_only_function_is_not_named(on_a_mac, form):
    runner, toolkit, _ = on_a_mac(form)
    CoremlSession(runner, spec_of(form)).prefill([1, 2])
    assert [options["function_name"] for _, options in toolkit.loads] == [None]


@pytest.mark.parametrize("form", FORMS)
def test_a_state_is_passed_where_there_is_one(on_a_mac, form):
    runner, toolkit, _ = on_a_mac(form)
    CoremlSession(runner, spec_of(form)).prefill([1, 2])
    for args, options in toolkit.predicts:
        assert len(args) == 1
        assert list(options) == ([] if form == "io" else ["state"])


def test_the_inputs_of_the_last_calls_are_held(on_a_mac):
    """Core ML lets go of them on another thread, which must not free them."""
    runner, toolkit, _ = on_a_mac("fixed")
    session = CoremlSession(runner, spec_of("fixed"))
    alive = []
    for token in TOKENS[:4]:
        session.prefill([token])
        alive += [weakref.ref(toolkit.given[-1]["position"])]
    toolkit.given.clear()
    toolkit.predicts.clear()
    gc.collect()
    assert [one() is not None for one in alive] == [False, False, True, True]


# --- What goes wrong ---


@pytest.mark.parametrize("form", FORMS)
def test_what_core_ml_cannot_compile(on_a_mac, form):
    runner, _, package = on_a_mac(form, refuse=True)
    with pytest.raises(BundleError) as caught:
        CoremlSession(runner, spec_of(form)).prefill([1])
    called = f"the function decode of {package}" if form == "fixed" else str(package)
    assert caught.value.message == f"Core ML cannot load {called} for CPU_AND_GPU: {REFUSED}"
    assert "evaluator" in caught.value.hint


def test_what_core_ml_cannot_run(on_a_mac):
    runner, toolkit, package = on_a_mac("flexible")
    session = CoremlSession(runner, spec_of("flexible"))
    session.prefill([1])
    toolkit.fault = "E5RT: shape out of range"
    with pytest.raises(BundleError) as caught:
        session.prefill([2])
    assert caught.value.message == f"Core ML cannot run {package} on CPU_AND_GPU: {toolkit.fault}"
    assert session.position == 1
    toolkit.fault = ""
    assert np.array_equal(session.prefill([2]), expected_logits([1, 2]))


def test_states_that_are_not_there(on_a_mac):
    runner, _, package = on_a_mac("io")
    with pytest.raises(BundleError, match="makes no state"):
        runner.make_state()
    runner, _, package = on_a_mac("flexible")
    state = runner.make_state()
    with pytest.raises(BundleError, match=f"the state 'other' of {package}: other is not a state"):
        state.read_state("other")
    with pytest.raises(BundleError, match="the state 'other'"):
        state.write_state("other", np.zeros(1, dtype=np.float16))
    (package / "Data/model.mlmodel").unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        CoremlRuntime.open(package)


# --- Against coremltools itself ---


@pytest.fixture(scope="module")
def coremltools():
    if not toolkit.coremltools_version():
        pytest.skip("needs the coreml extra")
    return toolkit.import_coremltools()


@pytest.mark.coreml
@pytest.mark.parametrize("form", FORMS)
def test_coremltools_takes_what_it_is_given(coremltools, on_a_mac, form):
    runner, toolkit, _ = on_a_mac(form)
    session = CoremlSession(runner, spec_of(form))
    session.prefill(TOKENS[:9])
    session.fork()
    model = coremltools.models.MLModel
    load, predict = inspect.signature(model.__init__), inspect.signature(model.predict)
    assert toolkit.loads
    assert toolkit.predicts
    for args, options in toolkit.loads:
        bound = load.bind(None, *args, **options)
        assert bound.arguments["compute_units"].name in coremltools.ComputeUnit.__members__
        assert bound.arguments.keys() == {"self", "model", "compute_units", "function_name"}
    for args, options in toolkit.predicts:
        predict.bind(None, *args, **options)
    with pytest.raises(TypeError):
        predict.bind(None, {}, function_name="decode")  # its twin
    state = coremltools.models.model.MLState
    inspect.signature(state.read_state).bind(None, "keyCache")
    inspect.signature(state.write_state).bind(None, "keyCache", np.zeros(1))
    for name in ("make_state", "get_compiled_model_path"):
        inspect.signature(getattr(model, name)).bind(None)


@pytest.fixture(scope="module")
def real_package(coremltools, tmp_path_factory):
    """Return a package that adds one."""
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil import types

    @Builder.program(
        input_specs=[Builder.TensorSpec((1, 2), dtype=types.fp32)],
        opset_version=coremltools.target.iOS18,
    )
    def program(x):
        return Builder.add(x=x, y=np.float32(1))

    path = tmp_path_factory.mktemp("real") / "model.mlpackage"
    with warnings.catch_warnings():  # it leaves its temporary folders to the garbage collector
        warnings.simplefilter("ignore")
        coremltools.convert(
            program, minimum_deployment_target=coremltools.target.iOS18, skip_model_load=True
        ).save(str(path))
        gc.collect()
    return path


@pytest.mark.coreml
@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML is here")
def test_coremltools_without_core_ml_is_found_out(monkeypatch, real_package):
    """On a pretended Mac the real toolkit gives a model that cannot predict, and says nothing."""
    stand_on(monkeypatch)
    runner = CoremlRuntime.open(real_package)
    with pytest.raises(BundleError, match="was not loaded or compiled with the Core ML") as caught:
        runner.predict({"x": np.zeros((1, 2), dtype=np.float32)})
    assert str(real_package) in caught.value.message
    with pytest.raises(BundleError, match="cannot be read"):
        CoremlRuntime.open(real_package.parent / "none.mlpackage")


IMPORT = """
import sys
from llama_export.targets.coreml.lowering.toolkit import import_coremltools
print(import_coremltools().__version__)
print("heard again", file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.coreml
def test_importing_it_makes_no_noise(coremltools):
    """It warns of versions of torch and others, and of Core ML, which Linux has not."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.stdout.strip() == coremltools.__version__
    assert done.stderr.strip() == "heard again"
