"""How long the program takes to answer, in CPU time of its process, and what it imports for that.

A page of help, `list` and every refusal come before PyTorch is imported, which alone takes longer
than all of them. A page takes 0.1 s on 2 cores and a refusal 0.15 s: the limits leave room for a
slow or busy machine, and none for PyTorch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOST_HELP_S = 0.4
MOST_REFUSAL_S = 1.2
HEAVY = {"torch", "onnx", "onnxruntime", "executorch", "coremltools", "matplotlib"} | {
    "datasets",
    "lm_eval",
    "transformers",
}
CHILD = """
import json, sys, time
{before}
from llama_export.cli import app
code = 0
try:
    app.main()
except SystemExit as stopped:
    code = stopped.code or 0
modules = sorted({{name.partition(".")[0] for name in sys.modules}})
facts = {{"code": code, "cpu_s": time.process_time(), "modules": modules}}
print("\\n" + json.dumps(facts))
"""
WITHOUT_RUNTIME = """
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "onnxruntime" else found(name, *rest)
"""


@dataclass(frozen=True)
class Answer:
    code: int
    cpu_s: float
    modules: frozenset[str]
    out: str
    err: str


def answer(*words: object, folder: Path, before: str = "") -> Answer:
    """Run the program in a process of its own."""
    paths = os.pathsep.join(str(ROOT / name) for name in ("export", "quantize"))
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(before=before), *map(str, words)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "COLUMNS": "200"},
        check=True,
    )
    *lines, last = done.stdout.splitlines()
    facts = json.loads(last)
    modules = frozenset(facts["modules"])
    return Answer(facts["code"], facts["cpu_s"], modules, "\n".join(lines), done.stderr)


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["export", "-h"],
        ["chat", "-h"],
        ["--version"],
        ["--show-completion", "bash"],
        [],
    ],
)
def test_help_answers_at_once(tmp_path, words):
    found = answer(*words, folder=tmp_path)
    assert found.code == (0 if words else 2)
    assert "llama-export" in found.out
    assert not found.modules & (HEAVY | {"numpy", "rich", "huggingface_hub", "psutil"})
    assert found.cpu_s < MOST_HELP_S


def test_list_answers_without_pytorch(tmp_path):
    found = answer("list", folder=tmp_path)
    assert found.code == 0
    assert "3.2-1B" in found.out
    assert not found.modules & HEAVY
    assert found.cpu_s < MOST_REFUSAL_S


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--target", "tflite", "--model", "demo"], 2, "found 'tflite'"),
        (["--target", "onnx"], 2, "needs both --target and --model"),
        (["--targt", "onnx"], 2, "no such option"),
        (["lst"], 2, "no such command"),
        (["demo"], 2, "'demo' is a model"),
        (["--target", "onnx", "--model", "demo", "3.2-1B"], 2, "takes one model"),
        (["export", "3.2-1X", "--target", "onnx"], 12, "did you mean 3.2-1B"),
        (["generate", "./nowhere", "--prompt", "a", "--stop", ""], 2, "--stop"),
        (["--target", "onnx", "--model", "demo", "list"], 2, "before 'list'"),
        (["--target", "onnx", "--model", "demo", "--quantize", "int3"], 2, "'int3'"),
        (["--target", "onnx", "--model", "demo", "--kv-cache", "state"], 2, "--kv-cache"),
        (["--target", "onnx", "--model", "demo", "--delegate", "vulkan"], 2, "executorch can"),
        (["--target", "onnx", "--model", "demo", "--group-size", "33"], 9, "group size 33"),
        (["--target", "onnx", "--model", "3.2-1X"], 12, "did you mean 3.2-1B"),
        (["--target", "onnx", "--model", "./nowhere"], 4, "does not exist"),
        (["--target", "onnx", "--model", "demo", "--output", "there"], 11, "pass --force"),
        (["--target", "onnx", "--model", "demo", "-o", "there", "--force"], 11, "did not write it"),
        (["--target", "onnx", "--model", "demo", "--revision", "x"], 12, "leave --revision out"),
        (["generate", "./nowhere", "--prompt", "a"], 8, "nowhere"),
        (["chat", "./nowhere", "--temperature", "-1"], 2, "temperature"),
        (["verify", "./nowhere"], 8, "nowhere"),
        (["verify", "./nowhere", "--html", "no/such/page.html"], 11, "page.html"),
        (["verify", "./nowhere", "--text", "nothing.txt"], 15, "nothing.txt"),
        (["bench", "./nowhere"], 8, "nowhere"),
        (["evaluate", "./nowhere", "--text", "nothing.txt"], 15, "nothing.txt"),
        (["evaluate", "./nowhere", "--tasks", "arc_easy"], 8, "nowhere"),
        (["evaluate", "./nowhere"], 2, "needs --tasks or --text"),
        (["inspect", "./nowhere"], 8, "nowhere"),
        (["compare"], 2, "or two bundles"),
        (["compare", "./nowhere", "./there"], 8, "nowhere"),
        (["compare", "--model", "demo", "--recipes", "int4,int3"], 2, "'int3' is no recipe"),
        (["compare", "--model", "demo", "--recipes", "int4:g31"], 9, "group size 31"),
        (["compare", "--model", "demo", "--recipes", "int4,bf16:g32"], 9, "bf16 has no groups"),
        (["compare", "--model", "demo", "--recommend"], 2, "one of --max-kl and --budget-mb"),
        (["compare", "--model", "demo", "--text", "nothing.txt"], 15, "nothing.txt"),
        (["compare", "--model", "demo", "--html", "no/such/page.html"], 11, "page.html"),
        (["compare", "--model", "3.2-1X"], 12, "did you mean 3.2-1B"),
    ],
)
def test_a_refusal_comes_before_pytorch(tmp_path, words, code, said):
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    (tmp_path / "there" / "onnx").mkdir(parents=True)
    (tmp_path / "there" / "onnx" / "mine.txt").write_text("mine")
    found = answer(*words, folder=tmp_path)
    assert (found.code, found.out) == (code, "")
    assert said in found.err
    assert "Starting PyTorch" not in found.err
    assert not found.modules & HEAVY
    assert found.cpu_s < MOST_REFUSAL_S


def test_a_shell_is_answered_without_pytorch(tmp_path):
    asks = "import os; os.environ.update(_LLAMA_EXPORT_COMPLETE='bash_complete'"
    line = "COMP_WORDS='llama-export --model 3.2', COMP_CWORD='2')"
    found = answer(folder=tmp_path, before=f"{asks}, {line}")
    assert found.code == 0
    assert "3.2-1B" in found.out
    assert not found.modules & (HEAVY | {"numpy", "rich", "huggingface_hub"})
    assert found.cpu_s < MOST_HELP_S


def test_a_dry_run_needs_no_pytorch(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    found = answer("--target", "onnx", "--model", "3.2-1B", "--dry-run", folder=tmp_path)
    assert found.code == 0
    assert "not done" in found.out
    assert not found.modules & HEAVY
    assert found.cpu_s < MOST_REFUSAL_S


def test_a_toolkit_that_is_missing_is_named_before_pytorch(tmp_path):
    words = ["--target", "onnx", "--model", "demo"]
    found = answer(*words, folder=tmp_path, before=WITHOUT_RUNTIME)
    assert (found.code, found.out) == (6, "")
    assert "onnxruntime, not installed here" in found.err
    assert not found.modules & HEAVY
    assert found.cpu_s < MOST_REFUSAL_S


def test_what_is_counted_would_see_pytorch(tmp_path):
    found = answer("--version", folder=tmp_path, before="import torch")
    assert "torch" in found.modules
    assert found.cpu_s > MOST_HELP_S
