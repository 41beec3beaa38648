"""What the Core ML target refuses, and in which words."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from artifacts.coreml_artifacts import ABOUT, CONTEXT, STATE, TINY, export_to, workshop
from artifacts.opened import session_of
from artifacts.tiny import write_checkpoint

pytest.importorskip("coremltools", reason="needs the coreml extra")

from llama_export.bundle.bundle import Bundle
from llama_export.bundle.manifest import Manifest
from llama_export.errors import (
    BackendUnavailableError,
    BundleError,
    EvaluationError,
    LoweringError,
    OutputError,
    UsageError,
)
from llama_export.llama.trace import trace
from llama_export.targets import registry
from llama_export.targets.coreml import target
from llama_export.targets.coreml.lowering import lower as lowering
from llama_export.targets.coreml.lowering import package as package_module
from llama_export.targets.coreml.lowering.weights import WeightSet
from llama_export.targets.coreml.options import CoremlOptions
from llama_export.verification.verify import VerifySettings, verify_bundle

pytestmark = pytest.mark.coreml
__all__ = ["workshop"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("errors")
    return export_to(folder / "out", write_checkpoint(folder / "tiny"), max_context=64)


@pytest.fixture
def copied(bundle, tmp_path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "coreml"))


# --- Toolkit and machine ---


def without_coremltools(monkeypatch):
    real = registry.importlib.util.find_spec
    monkeypatch.setattr(
        registry.importlib.util,
        "find_spec",
        lambda name: None if name == "coremltools" else real(name),
    )


def test_no_coremltools_is_named_before_any_work(command, monkeypatch, tmp_path):
    without_coremltools(monkeypatch)
    code, _, err = command("--target", "coreml", "--model", "demo", "-o", tmp_path / "out")
    assert code == BackendUnavailableError.exit_code
    assert "needs coremltools" in err
    assert "pip install coremltools" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("platform", "version", "words"),
    [("win32", (3, 11), "no wheel for Windows"), ("linux", (3, 14), "Python below 3.14")],
)
def test_where_there_is_no_wheel_the_hint_says_so(monkeypatch, platform, version, words):
    without_coremltools(monkeypatch)
    monkeypatch.setattr(target.sys, "platform", platform)
    monkeypatch.setattr(target.sys, "version_info", version)
    with pytest.raises(BackendUnavailableError) as caught:
        registry.require_toolkit("coreml")
    assert words in caught.value.hint
    assert "pip install" not in caught.value.hint


def test_a_bundle_is_run_and_verified_without_coremltools(bundle, tmp_path):
    """In a process of its own, where importing it fails."""
    script = (
        "import sys; sys.modules['coremltools'] = None\n"
        "from pathlib import Path\n"
        "from llama_export.bundle.bundle import Bundle\n"
        "from llama_export.verification.verify import VerifySettings, verify_bundle\n"
        "from llama_quantize.checkpoint.weights import QuantizedWeights\n"
        f"bundle = Path({str(bundle)!r})\n"
        "weights = QuantizedWeights.open(bundle.parent / 'weights')\n"
        "settings = VerifySettings(quick=True)\n"
        "report = verify_bundle(Bundle.open(bundle), weights=weights, settings=settings)\n"
        "print(not report.failures)\n"
    )
    paths = os.pathsep.join(
        str(Path(__file__).parents[3] / each) for each in ("export", "quantize")
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "True", done.stderr


def test_bench_wants_a_mac(command, bundle):
    code, _, err = command("bench", bundle)
    assert code == BackendUnavailableError.exit_code
    assert "the evaluator" in err
    assert "Mac" in err


def test_generate_says_what_runs_it(command, bundle):
    code, out, err = command("generate", bundle, "--prompt", "ab", "-n", "2")
    assert code == 0
    assert out.startswith("ab")
    assert "note: the evaluator runs this artifact here" in err


# --- Options ---


@pytest.mark.parametrize(
    ("options", "words", "hint"),
    [
        ({"deployment_target": "iOS17"}, "inside the package needs iOS 18", "--kv-cache io"),
        ({"deployment_target": "iOS16"}, "expected iOS18 or iOS17", "int4 in groups needs iOS18"),
        ({"functions": "prefill"}, "expected main or prefill+decode", ""),
        ({"functions": "prefill+decode", "kv_cache": "io"}, "as a state", "leave --kv-cache out"),
        ({"functions": "prefill+decode", "all_logits": True}, "--all-logits", "leave --functions"),
        ({"kv_cache": "inside"}, "expected state or io", ""),
    ],
)
def test_options_that_make_no_package(options, words, hint):
    with pytest.raises(UsageError) as caught:
        registry.get("coreml").check(CoremlOptions(**options))
    assert words in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("arguments", "words", "hint"),
    [
        (["--deployment-target", "iOS17", "--kv-cache", "io"], "in groups need iOS 18", "fp16"),
        (["--quantize", "bf16"], "no bfloat16", "--quantize fp16"),
        (["--max-context", "0"], "expected 1 to", ""),
        (["--max-context", "100000000"], "the model's limit", ""),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(command, tmp_path, arguments, words, hint):
    output = tmp_path / "out"
    code, _, err = command("--target", "coreml", "--model", "demo", "-o", output, *arguments)
    assert code == UsageError.exit_code
    assert words in " ".join(err.split())
    assert hint in err
    assert not output.exists()


def test_scales_beyond_float16_are_refused(workshop):
    weights = workshop.weights()
    name = "model.layers.0.mlp.up_proj.weight"

    class Large:
        def __getattr__(self, attribute):
            return getattr(weights, attribute)

        def get(self, asked):
            found = weights.get(asked)
            return dataclasses.replace(found, scales=found.scales * 1e9)

    with pytest.raises(LoweringError, match="do not all fit into float16"):
        WeightSet(Large(), None).matrix(name)


@pytest.mark.parametrize(
    ("target_name", "option", "owner"),
    [
        ("onnx", ("--functions", "prefill+decode"), "coreml"),
        ("onnx", ("--deployment-target", "iOS18"), "coreml"),
        ("coreml", ("--kv-dtype", "float32"), "executorch"),
        ("coreml", ("--delegate", "coreml"), "executorch"),
        ("coreml", ("--no-share-table",), "executorch"),
        ("coreml,executorch", ("--accuracy-level", "4"), "onnx"),
    ],
)
def test_an_option_that_no_target_has_is_refused(command, target_name, option, owner):
    request = ("--target", target_name, "--model", "demo", "--dry-run", *option)
    code, _, err = command(*request)
    assert code == UsageError.exit_code
    assert f"{owner} can" in " ".join(err.split())
    code, _, err = command(*request, "--target", owner)
    assert code == 0, err


def test_a_chunk_needs_a_context_of_two(command):
    request = ("--target", "coreml", "--model", "demo", "--dry-run", "--max-context", "1")
    code, _, err = command(*request, "--functions", "prefill+decode")
    assert code == UsageError.exit_code
    assert "at least 2 tokens, found 1" in " ".join(err.split())
    assert command(*request)[0] == 0


def test_a_mask_that_cannot_be_is_refused_in_words(workshop):
    import numpy as np

    from coreml_evaluator import Evaluator

    evaluator = Evaluator.open(workshop.tiny().path)
    inputs = {
        "inputIds": np.ones((1, 3), np.int32),
        "causalMask": np.zeros((1, 1, 2, 3), np.float16),
    }
    with pytest.raises(EvaluationError, match=r"go together, found \[1, 1, 2, 3\] and"):
        evaluator.predict(inputs, evaluator.make_state())
    inputs["causalMask"] = np.zeros((1, 1, 1, 2), np.float16)
    with pytest.raises(EvaluationError, match=r"expected indices in \[0, 320\), found -1"):
        evaluator.predict(inputs, evaluator.make_state())


# --- Packages ---


def test_a_changed_byte_of_the_weights(copied):
    path = copied / "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError) as caught:
        verify_bundle(Bundle.open(copied), settings=VerifySettings(quick=True))
    assert "weights/weight.bin is changed" in caught.value.message


@pytest.mark.parametrize("name", ["Manifest.json", "Data/com.apple.CoreML/weights/weight.bin"])
def test_a_missing_file_of_the_package(copied, name):
    (copied / "model.mlpackage" / name).unlink()
    with pytest.raises(BundleError, match="is missing"):
        Bundle.open(copied)


def test_a_package_from_elsewhere_with_an_unknown_operator(copied):
    from artifacts.coreml_programs import quiet

    with quiet():
        from coremltools.proto import Model_pb2
    path = copied / "model.mlpackage/Data/com.apple.CoreML/model.mlmodel"
    model = Model_pb2.Model()
    model.ParseFromString(path.read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    next(each for each in block.operations if each.type == "silu").type = "swish_of_tomorrow"
    path.write_bytes(model.SerializeToString())
    bundle = Bundle(copied, Manifest.read(copied / "manifest.json"))
    with pytest.raises(EvaluationError) as caught:
        session_of(bundle)
    assert "swish_of_tomorrow" in caught.value.message


@pytest.mark.parametrize("damage", ["arguments", "outputs"])
def test_a_constant_that_lacks_a_part(copied, damage):
    from artifacts.coreml_programs import quiet

    from llama_export.targets.coreml.reading.read_back import read_back

    with quiet():
        from coremltools.proto import Model_pb2
    path = copied / "model.mlpackage/Data/com.apple.CoreML/model.mlmodel"
    model = Model_pb2.Model()
    model.ParseFromString(path.read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    constant = next(each for each in block.operations if each.type.startswith("constexpr"))
    del (constant.outputs if damage == "outputs" else constant.inputs["scale"].arguments)[:]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="expected one"):
        read_back(copied / "model.mlpackage")


def test_the_package_means_its_bundle(copied):
    assert Bundle.open(copied / "model.mlpackage").folder == copied
    with pytest.raises(BundleError) as caught:
        Bundle.open(copied / "model.mlpackage" / "Data")
    assert "no plain file manifest.json" in caught.value.message


def test_a_manifest_of_another_signature(copied):
    raw = json.loads((copied / "manifest.json").read_text())
    del raw["graph"]["states"]
    (copied / "manifest.json").write_text(json.dumps(raw))
    with pytest.raises(BundleError, match="not a Core ML package's"):
        session_of(Bundle.open(copied))


# --- Disk ---


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of a process: POSIX")
@pytest.mark.slow
@pytest.mark.parametrize("limit_bytes", [20_000, 300_000])
def test_no_space_is_named_and_leaves_nothing(tmp_path, limit_bytes):
    """A file that may not grow stands for a full disk, in a process of its own."""
    checkpoint = write_checkpoint(tmp_path / "tiny")
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"sys.path[:0] = {[str(Path(__file__).parents[2])]!r}\n"
        "from pathlib import Path\n"
        "from artifacts.coreml_artifacts import ABOUT, STATE\n"
        "from llama_export.targets.coreml.lowering.lower import lower\n"
        "from llama_export.llama.trace import trace\n"
        "from llama_export.sources.source import open_source\n"
        "from llama_export.sources.resolve import resolve_model\n"
        "from llama_quantize.recipe import recipe\n"
        "from llama_quantize.checkpoint.store import quantize_to\n"
        "from llama_quantize.checkpoint.weights import QuantizedWeights\n"
        f"source = open_source(resolve_model({str(checkpoint)!r}, revision=None, token=None))\n"
        f"weights = Path({str(tmp_path)!r}) / 'weights'\n"
        "quantize_to(weights, source.checkpoint, recipe('int4'))\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))\n"
        f"folder = Path({str(tmp_path)!r}) / 'out'\n"
        "folder.mkdir()\n"
        "from llama_export.errors import OutputError\n"
        "try:\n"
        "    traced = trace(source.config, 64)\n"
        "    lower(traced, QuantizedWeights.open(weights), folder, STATE, ABOUT)\n"
        "except OutputError as error:\n"
        "    print('refused', error.message, '|', error.hint)\n"
        "print('left', [path.name for path in folder.iterdir() if path.suffix != '.mlpackage'])\n"
    )
    paths = os.pathsep.join(
        str(Path(__file__).parents[3] / each) for each in ("export", "quantize")
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "refused" in done.stdout, done.stderr
    assert "free some space" in done.stdout
    assert "left []" in done.stdout


def test_another_fault_of_coremltools_is_not_taken_for_a_full_disk(workshop, monkeypatch, tmp_path):
    def fails(*_, **__):
        message = "something else"
        raise RuntimeError(message)

    monkeypatch.setattr(package_module, "_finish", fails)
    with pytest.raises(RuntimeError, match="something else"):
        lowering.lower(trace(TINY, CONTEXT), workshop.weights(), tmp_path, STATE, ABOUT)
    monkeypatch.setattr(
        package_module, "_finish", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(OutputError, match="No space left"):
        lowering.lower(trace(TINY, CONTEXT), workshop.weights(), other, STATE, ABOUT)
