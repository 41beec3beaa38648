"""CONTRIBUTING.md: its examples of a target's options, a method, a format and a verb run."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from artifacts.sample_bundle import write_bundle
from artifacts.small_bundle import Silent
from artifacts.tiny import TINY, random_llama, write_checkpoint

from llama_export.checkpoints import formats
from llama_export.checkpoints.checkpoint import WantedFiles
from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.cli.app import app
from llama_export.errors import CheckpointError
from llama_export.exporting.pipeline import run_export
from llama_export.exporting.plan import plan_export
from llama_export.exporting.request import ExportRequest
from llama_export.llama.names import HEAD, TABLE
from llama_export.targets.options import TargetOptions, option_specs
from llama_quantize import (
    QuantizedTensor,
    QuantizedWeights,
    QuantRecipe,
    QuantRule,
    find_method,
    quantize_to,
    recipe,
    register_method,
)
from llama_quantize.methods import method as method_module

PAGE = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture
def example(monkeypatch) -> Callable[[str], ModuleType]:
    """Return a function that runs the Python block of a section as a module of its own."""

    def run(heading: str) -> ModuleType:
        section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
        (block,) = re.findall(r"^```python\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
        module = ModuleType("example")
        monkeypatch.setitem(sys.modules, "example", module)
        exec(compile(block, f"CONTRIBUTING.md, {heading}", "exec"), vars(module))
        return module

    return run


@pytest.fixture
def bundle(tmp_path) -> Path:
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return write_checkpoint(tmp_path / "tiny")


def write_npz(folder: Path, checkpoint: Path) -> Path:
    """Write the checkpoint once more, in the form that the page's example reads."""
    folder.mkdir()
    for name in ("config.json", "tokenizer.model"):
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    state = random_llama(TINY).state_dict()
    del state[HEAD]
    np.savez(folder / "weights.npz", **{name: value.numpy() for name, value in state.items()})
    return folder


def test_the_options_of_a_target_are_what_the_command_line_needs(example):
    kind = example("Add a target").NameOptions
    assert issubclass(kind, TargetOptions)
    specs = option_specs(kind)
    assert [spec.flag for spec in specs] == ["--kv-cache", "--fused"]
    assert [spec.name for spec in specs] == [each.name for each in fields(kind)]
    assert kind() == kind("state", True)


def test_the_method_chooses_codes_for_a_whole_checkpoint(
    example, checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setattr(method_module, "_METHODS", dict(method_module._METHODS))
    register_method(example("Add a method").PowerOfTwo())
    linears, *rest = recipe("int4").rules
    own = QuantRecipe("own", (QuantRule(linears.pattern, linears.scheme, "power_of_two"), *rest))
    source = HfCheckpoint.open(checkpoint)
    quantize_to(tmp_path / "weights", source, own)
    weights = QuantizedWeights.open(tmp_path / "weights")
    name = "model.layers.1.mlp.down_proj.weight"
    assert {each.name: each.method for each in weights.stats}[name] == "power_of_two"
    found = weights.get(name)
    assert isinstance(found, QuantizedTensor)
    exponents = torch.log2(found.scales.float())
    assert torch.equal(exponents, exponents.round())
    error = (found.dequantize() - source.tensor(name).float()).abs()
    assert 0 < error.max() <= found.scales.float().max() / 2
    _, scales = find_method("nearest").quantize(source.tensor(name), linears.scheme)
    assert not torch.equal(scales, found.scales), "the usual scales are others"


@pytest.mark.onnx
def test_the_format_is_planned_and_exported_with_one_line_more(
    example, checkpoint, tmp_path, monkeypatch
):
    pytest.importorskip("onnx", reason="needs the onnx extra")
    own = example("Add a checkpoint format").NpzFormat()
    folder = write_npz(tmp_path / "npz", checkpoint)
    request = ExportRequest(str(folder), ("onnx",), tmp_path / "out", max_context=64, verify=False)
    with pytest.raises(CheckpointError, match="has no weights"):
        plan_export(request)
    before, last = formats.FORMATS[:-1], formats.FORMATS[-1]
    monkeypatch.setattr(formats, "FORMATS", (*before, own, last))
    result = run_export(plan_export(request), Silent())
    assert [each.bundle.manifest.target for each in result.bundles] == ["onnx"]
    quantize_to(tmp_path / "weights", HfCheckpoint.open(checkpoint), recipe("int4"))
    written = (tmp_path / "out" / "weights" / "weights.safetensors").read_bytes()
    assert written == (tmp_path / "weights" / "weights.safetensors").read_bytes()


def test_the_format_chooses_files_and_refuses_a_checkpoint_that_does_not_fit(
    example, checkpoint, tmp_path
):
    own = example("Add a checkpoint format").NpzFormat()
    assert own.wanted({"config.json", "model.safetensors"}) is None
    wanted = own.wanted({"config.json", "tokenizer.json", "weights.npz"})
    assert isinstance(wanted, WantedFiles)
    assert wanted.weights == ("weights.npz",)
    assert wanted.last in wanted.small
    folder = write_npz(tmp_path / "npz", checkpoint)
    assert own.is_complete(folder)
    assert not own.is_complete(checkpoint)
    np.savez(folder / "weights.npz", **{TABLE: np.zeros((2, 2), np.float32)})
    with pytest.raises(CheckpointError, match=r"weights\.npz does not fit config\.json: model\."):
        own.open(folder)


def test_the_verb_runs_has_a_page_and_ends_errors_with_their_code(
    example, command, bundle, monkeypatch
):
    monkeypatch.setitem(app.commands, "files", example("Add a verb").FILES)
    code, out, err = command("files", bundle, columns=200)
    assert (code, err) == (0, "")
    sizes = {name: int(size) for size, name in (line.split(" ") for line in out.splitlines())}
    assert sizes == {
        path.relative_to(bundle).as_posix(): path.stat().st_size
        for path in bundle.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    code, out, _ = command("files", bundle, "--json")
    assert (code, json.loads(out)) == (0, sizes)
    code, out, _ = command("files", "--help")
    assert code == 0
    assert out.startswith("Usage: llama-export files [OPTIONS] BUNDLE")
    assert "files" in command("--help")[1].split("Commands:")[1]
    code, _, err = command("files", bundle.parent / "nowhere", columns=200)
    assert code == 8
    assert "what to do:" in err
