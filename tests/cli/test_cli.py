"""The command line: the main job, and every user's mistake with its own exit code and hint."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from artifacts.folders import folders_in
from artifacts.tiny import TINY, write_checkpoint
from safetensors.torch import load_file, save_file

from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.errors import OutputError

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytestmark = [pytest.mark.onnx, pytest.mark.usefixtures("own_process_state")]


@pytest.fixture
def run(command):
    return partial(command, columns=240)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def exported(checkpoint) -> Path:
    output = checkpoint.parent / "out"
    command = [sys.executable, "-m", "llama_export", "-t", "onnx", "-m", str(checkpoint)]
    done = subprocess.run(
        [*command, "-o", str(output), "--max-context", "300", "--quality", "fast", "--json"],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["bundles"][0]["verification"]["passed"] is True
    return output


def environment() -> dict[str, str]:
    root = Path(__file__).parents[2]
    paths = os.pathsep.join(str(root / name) for name in ("export", "quantize"))
    return {**os.environ, "PYTHONPATH": paths, "COLUMNS": "240"}


def copy_of(folder: Path, place: Path) -> Path:
    shutil.copytree(folder, place)
    return place


def export_arguments(model: Path, output: Path) -> list[object]:
    return ["--target", "onnx", "--model", model, "--output", output, "--max-context", 300]


def test_the_export_says_what_it_made(run, checkpoint, tmp_path):
    code, out, err = run(*export_arguments(checkpoint, tmp_path / "out"))
    assert code == 0
    assert "bits per weight" in out
    assert "llama-export generate" in err
    assert "Quantising" in err
    # In a log of several targets a line is read by itself.
    of_the_target = err.partition("Quantising")[2].partition("\n\n")[0].splitlines()[1:]
    steps = [line for line in of_the_target if ": done in" in line]
    assert len(steps) == 5
    assert all("onnx" in line for line in steps)
    assert "Warning" not in out + err


def test_generate_streams_the_prompt_and_a_continuation(run, exported):
    arguments = ["generate", exported / "onnx", "--prompt", "Once", "-n", "5"]
    code, out, err = run(*arguments, "--seed", "0")
    assert code == 0
    assert out.startswith("Once")
    assert len(out) > len("Once\n")
    assert "tokens/s" in err
    assert run(*arguments, "--seed", "0")[1] == out
    assert run(*arguments, "--seed", "1")[1] != out


def test_generate_reads_a_pipe(run, exported):
    code, out, _ = run("generate", exported / "onnx", "-n", "2", stdin="Ünter".encode())
    assert code == 0
    assert out.startswith("Ünter")


def test_verify_prints_a_table_and_json(run, exported, checkpoint):
    arguments = ["verify", exported / "onnx", "--checkpoint", checkpoint, "--quick"]
    code, out, _ = run(*arguments)
    assert code == 0
    assert "Lowering error" in out
    code, out, _ = run(*arguments, "--json")
    assert (code, json.loads(out)["passed"]) == (0, True)


def test_verify_without_a_checkpoint_says_what_is_not_proved(run, exported):
    code, out, _ = run("verify", exported / "onnx", "--quick")
    assert code == 17
    assert "not proved" in out


def test_a_wrong_artifact_fails_the_verification_with_exit_code_1(run, exported, tmp_path):
    """The files agree with the manifest; only the arithmetic is wrong."""
    import onnx

    from llama_export.bundle.bundle import Bundle, seal

    folder = copy_of(exported / "onnx", tmp_path / "onnx")
    proto = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.name == "epsilon":
                attribute.f = 0.05
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    seal(folder, Bundle.open(exported / "onnx").manifest)
    code, out, _ = run("verify", folder, "--weights", exported / "weights", "--quick")
    assert code == 1
    assert "FAILED" in out


def test_weights_export_again_without_the_checkpoint(run, exported, tmp_path):
    weights = copy_of(exported / "weights", tmp_path / "tiny")
    assert run(*export_arguments(weights, tmp_path / "out"))[0] == 0
    for name in ("model.onnx", "model.onnx_data", "tokenizer.json", "genai_config.json"):
        again = (tmp_path / "out" / "onnx" / name).read_bytes()
        assert again == (exported / "onnx" / name).read_bytes()


def test_weights_keep_the_name_and_refuse_another_recipe(run, exported, tmp_path):
    code, _, err = run(
        *export_arguments(exported / "weights", tmp_path / "out"), "--quantize", "int8"
    )
    assert code == 2
    assert "int4" in err
    code, _, _ = run(*export_arguments(exported / "weights", tmp_path / "out"), "--no-verify")
    manifest = json.loads((tmp_path / "out" / "onnx" / "manifest.json").read_text())
    assert (code, manifest["model"]["name"]) == (0, "tiny")


def test_the_checkpoints_own_chat_template_and_stop_ids_are_kept(run, checkpoint, tmp_path):
    folder = copy_of(checkpoint, tmp_path / "tiny")
    own = {"eos_token": "<|end_of_text|>", "model_max_length": 7}
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    config = json.loads((folder / "config.json").read_text()) | {"eos_token_id": 65}
    (folder / "config.json").write_text(json.dumps(config))
    code, _, _ = run(*export_arguments(folder, tmp_path / "out"), "--no-verify")
    bundle = tmp_path / "out" / "onnx"
    written = json.loads((bundle / "tokenizer_config.json").read_text())
    assert (code, written["eos_token"]) == (0, "<|end_of_text|>")
    assert "chat_template" not in written
    assert 65 in json.loads((bundle / "manifest.json").read_text())["tokenizer"]["stop_token_ids"]


def test_no_keep_weights_leaves_the_bundle_alone(run, checkpoint, tmp_path):
    code, _, _ = run(*export_arguments(checkpoint, tmp_path), "--no-keep-weights", "--no-verify")
    assert code == 0
    assert folders_in(tmp_path) == ["onnx"]


def test_two_exports_give_the_same_bytes(run, checkpoint, exported, tmp_path):
    assert run(*export_arguments(checkpoint, tmp_path / "out"))[0] == 0
    assert hashes_in(tmp_path / "out") == hashes_in(exported)


def hashes_in(folder: Path) -> dict[Path, str]:
    return {
        path.relative_to(folder): sha256(path.read_bytes()).hexdigest() for path in files_in(folder)
    }


def files_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


# Every mistake: its exit code, a word of the message, and something to do next.


def broken(checkpoint: Path, place: Path, name: str) -> Path:
    """Copy the checkpoint and damage it in one way."""
    folder = copy_of(checkpoint, place / "tiny")
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    config = json.loads((folder / "config.json").read_text())
    first = "model.layers.0.mlp.down_proj.weight"
    raw = weights.read_bytes()
    if name == "truncated":
        weights.write_bytes(raw[:-100])
    elif name == "terabytes":
        weights.write_bytes((2**42).to_bytes(8, "little") + raw[8:])
    elif name == "extra":
        save_file({**tensors, "model.layers.0.extra.weight": torch.zeros(2)}, weights)
    elif name == "nan":
        tensors[first][1, 2] = float("nan")
        save_file(tensors, weights)
    elif name == "infinity":
        tensors[first][1, 2] = float("inf")
        save_file(tensors, weights)
    elif name == "rope":
        config["rope_scaling"] = {"rope_type": "mrope", "factor": 4.0}
    elif name == "group":
        smaller = replace(TINY, intermediate_size=172)
        shutil.rmtree(folder)
        write_checkpoint(folder, smaller)
        config = smaller.to_hf()
    elif name == "tokenizer":
        config["bos_token_id"] = 7
    elif name == "no tokenizer":
        (folder / "tokenizer.model").unlink()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


MISTAKES = [
    ("truncated", 4, "model.safetensors"),
    ("terabytes", 4, "model.safetensors"),
    ("extra", 4, "model.layers.0.extra.weight"),
    ("nan", 9, "down_proj"),
    ("infinity", 9, "down_proj"),
    ("rope", 5, "mrope"),
    ("group", 7, "down_proj"),
    ("tokenizer", 14, "another model"),
    ("no tokenizer", 14, "tokenizer"),
]


@pytest.mark.parametrize(("name", "exit_code", "word"), MISTAKES)
def test_a_damaged_model_is_refused_and_nothing_is_written(
    run, checkpoint, tmp_path, name, exit_code, word
):
    folder = broken(checkpoint, tmp_path, name)
    output = tmp_path / "out"
    code, out, err = run(*export_arguments(folder, output))
    assert (code, out) == (exit_code, "")
    assert word in err
    assert "what to do" in err
    assert not files_in(output)


def test_an_existing_output_is_refused_before_any_work_and_force_replaces_it(
    run, checkpoint, exported, tmp_path
):
    output = copy_of(exported, tmp_path / "out")
    (output / "onnx" / "note.txt").write_text("mine")
    before = {path: path.read_bytes() for path in files_in(output)}
    code, _, err = run(*export_arguments(checkpoint, output))
    assert code == 11
    assert "--force" in err
    assert "Opening" not in err
    assert {path: path.read_bytes() for path in files_in(output)} == before
    code, _, err = run(*export_arguments(checkpoint, output), "--force")
    assert (code, "note.txt" in err, "--keep-extra" in err) == (11, True, True)
    assert "Opening" not in err
    assert {path: path.read_bytes() for path in files_in(output)} == before
    assert run(*export_arguments(checkpoint, output), "--force", "--keep-extra")[0] == 0
    assert (output / "onnx" / "note.txt").read_text() == "mine"
    assert run("inspect", output / "onnx", "--hashes")[0] == 0


def test_a_full_disk_is_named_and_the_old_files_stay(
    run, checkpoint, exported, tmp_path, monkeypatch
):
    output = copy_of(exported, tmp_path / "out")
    before = {path: path.read_bytes() for path in files_in(output)}

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    code, _, err = run(*export_arguments(checkpoint, output), "--force")
    assert code == OutputError.exit_code
    assert "space" in err
    assert {path: path.read_bytes() for path in files_in(output)} == before


def test_a_changed_byte_is_named(run, exported, tmp_path):
    folder = copy_of(exported / "onnx", tmp_path / "onnx")
    data = bytearray((folder / "model.onnx_data").read_bytes())
    data[5000] ^= 1
    (folder / "model.onnx_data").write_bytes(data)
    code, _, err = run("verify", folder, "--quick")
    assert code == 8
    assert "model.onnx_data" in err


def test_a_manifest_that_leaves_its_folder_is_refused(run, exported, tmp_path):
    folder = copy_of(exported / "onnx", tmp_path / "onnx")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../secret"] = manifest["files"]["config.json"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    code, _, err = run("generate", folder, "--prompt", "a")
    assert code == 8
    assert "../secret" in err


def test_a_prompt_longer_than_the_context_is_refused(run, exported):
    code, _, err = run("generate", exported / "onnx", "--prompt", "a" * 400)
    assert code == 15
    assert "--max-context" in err


def test_stdin_that_is_not_utf8_is_refused(run, exported):
    code, _, err = run("generate", exported / "onnx", "--prompt", "-", stdin=b"abc\xff\xfe")
    assert code == 15
    assert "position 3" in err


@pytest.mark.parametrize(
    ("arguments", "exit_code", "word"),
    [
        (["--target", "onnx"], 2, "--model"),
        (["--target", "tflite", "--model", "demo"], 2, "tflite"),
        (["--target", "onnx", "--model", "3.2-1X"], 12, "3.2-1B"),
        (["--target", "onnx", "--model", "./nowhere"], 4, "nowhere"),
        (["--target", "onnx", "--model", "demo", "--max-context", "0"], 2, "--max-context"),
        (["--target", "onnx", "--model", "demo", "--accuracy-level", "x"], 2, "accuracy-level"),
        (
            ["--target", "onnx", "--model", "demo", "--accuracy-level", "2"],
            2,
            "--accuracy-level: expected 4 or 1, found 2",
        ),
        (
            ["--target", "onnx", "--model", "demo", "--accuracy-level", "3"],
            2,
            "4 computes int4 products in int8, 1 in float32",
        ),
        (["--target", "all,bogus", "--model", "demo"], 2, "bogus"),
        (["--target", "onnx", "--model", "foo[/bar]"], 12, "foo[/bar]"),
        (["--target", "onnx", "--model", "demo", "--quantize", "int3"], 2, "int3"),
        (["--target", "onnx", "--model", "demo", "--group-size", "33"], 9, "33"),
        (["--target", "onnx", "--model", "x" * 300], 11, "too long"),
        (["--target", "onnx", "--model", "~nosuchuser/x"], 4, "nosuchuser"),
        (["generate", "./nowhere", "--prompt", "a"], 8, "nowhere"),
        (["generate", "./nowhere", "--prompt", "a", "--seed", "-1"], 2, "seed"),
        (["generate", "./nowhere", "--prompt", "a", "--threads", "1000000"], 2, "threads"),
        (["generate", "./nowhere", "--prompt", "a", "--temperature", "-1"], 2, "temperature"),
    ],
)
def test_wrong_options_are_named(run, tmp_path, monkeypatch, arguments, exit_code, word):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (exit_code, "")
    assert word in err


@pytest.mark.coreml
def test_a_targets_own_hint_reaches_the_command_line(run, tmp_path, monkeypatch):
    pytest.importorskip("coremltools", reason="needs the coreml extra")
    monkeypatch.chdir(tmp_path)
    export = ["--target", "coreml", "--model", "demo", "--deployment-target", "iOS16"]
    code, out, err = run(*export)
    assert (code, out) == (2, "")
    assert "--deployment-target: expected iOS18 or iOS17, found 'iOS16'" in err
    assert "iOS17 takes --quantize fp16" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_during_the_export_leaves_the_old_bundle(checkpoint, exported, tmp_path, number):
    output = copy_of(exported, tmp_path / "out")
    before = {path: path.read_bytes() for path in files_in(output)}
    arguments = [*map(str, export_arguments(checkpoint, output)), "--force", "--quality", "fast"]
    # The quantiser waits, so that the signal finds the export half done.
    code = (
        "import sys, time; from llama_export.cli import app; "
        "from llama_export.exporting import pipeline; "
        "pipeline.trace = lambda *_: (print('half', flush=True), time.sleep(60)); "
        f"sys.argv = ['llama-export', *{arguments!r}]; app.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    after = {path: path.read_bytes() for path in files_in(output)}
    if number == signal.SIGKILL:
        assert process.returncode == -9
        assert set(before.items()) < set(after.items())  # a leftover, which the next one removes
    else:
        assert process.returncode == 128 + number
        assert "interrupted" in err
        assert after == before


def test_an_export_after_a_kill_cleans_up(run, checkpoint, exported, tmp_path):
    test_a_signal_during_the_export_leaves_the_old_bundle(
        checkpoint, exported, tmp_path, signal.SIGKILL
    )
    output = tmp_path / "out"
    assert run(*export_arguments(checkpoint, output), "--force")[0] == 0
    assert folders_in(output) == ["onnx", "weights"]


def test_help_is_fast_because_torch_is_not_imported():
    code = (
        "import sys; from llama_export.cli import app; sys.argv = ['llama-export', '--help']\n"
        "try: app.main()\n"
        "except SystemExit: print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    assert done.stdout.endswith("False False\n")
    assert "--target" in done.stdout


def test_generate_needs_no_torch(exported):
    """Importing it would cost two seconds and 200 MB before the first token."""
    arguments = ["llama-export", "generate", str(exported / "onnx"), "-p", "a", "-n", "2"]
    code = (
        f"import sys; from llama_export.cli import app; sys.argv = {arguments!r}\n"
        "try: app.main()\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    assert done.stdout.endswith("False\n")


def test_our_own_words_only(checkpoint, tmp_path):
    """No library's warning reaches the screen; --verbose lets them through."""
    begun = time.monotonic()
    arguments = [*map(str, export_arguments(checkpoint, tmp_path / "out")), "--quality", "fast"]
    done = subprocess.run(
        [sys.executable, "-W", "default", "-m", "llama_export", *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    assert time.monotonic() - begun < 300
    for word in ("Warning", "warn", "torch", "[W:", "deprecat"):
        assert word not in done.stderr + done.stdout, done.stderr


def test_the_checkpoint_of_the_tests_is_valid(checkpoint):
    assert HfCheckpoint.open(checkpoint).config == TINY
