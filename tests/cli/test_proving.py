"""The commands that a user is shown to prove a bundle: none that cannot work is among them."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from artifacts.tiny import write_checkpoint

from llama_export.checkpoints.checkpoint import AS_IT_IS, ReadOptions
from llama_export.cli.proving import command_after, how_to_prove
from llama_export.errors import NOT_PROVED_EXIT_CODE


def bundle_at(folder: Path, hub_id: str | None = None):
    return SimpleNamespace(
        folder=folder, manifest=SimpleNamespace(model=SimpleNamespace(hub_id=hub_id))
    )


def plan_of(
    model: str,
    *,
    keep_weights: bool = True,
    kept: Path | None = None,
    reading: ReadOptions = AS_IT_IS,
):
    return SimpleNamespace(
        request=SimpleNamespace(model=model, keep_weights=keep_weights, reading=reading),
        model=SimpleNamespace(weights_folder=kept),
    )


def options(command: str) -> list[str]:
    words = shlex.split(command)
    assert words[:2] == ["llama-export", "verify"]
    return words[3:]


def test_the_command_names_base_and_adapters_as_the_export_did(tmp_path):
    bundle = bundle_at(tmp_path / "onnx")
    plan = plan_of("tuned", reading=ReadOptions(base="3.2-1B", adapters=("a b", "me/c")))
    expected = ["--checkpoint", "tuned", "--base", "3.2-1B", "--adapter"]
    assert options(command_after(plan, bundle)) == [*expected, "a b", "--adapter", "me/c"]
    over_demo = plan_of("demo", reading=ReadOptions(adapters=("a",)))
    assert options(command_after(over_demo, bundle)) == ["--checkpoint", "demo", "--adapter", "a"]
    said = how_to_prove(
        bundle, ["weights"], weights=None, checkpoint="demo", reading=ReadOptions(adapters=("a",))
    )
    assert "--checkpoint demo --adapter a" in said


def test_after_an_export_the_command_names_what_is_not_found_by_itself(tmp_path):
    bundle = bundle_at(tmp_path / "out" / "onnx")
    assert options(command_after(plan_of("demo"), bundle)) == []
    local = plan_of("./my model")
    assert options(command_after(local, bundle)) == ["--checkpoint", "./my model"]
    assert options(command_after(plan_of("3.2-1B"), bundle)) == ["--checkpoint", "3.2-1B"]


def test_nothing_is_proposed_where_the_weights_are_gone(tmp_path):
    gone = plan_of("3.2-1B", keep_weights=False)
    assert command_after(gone, bundle_at(tmp_path / "onnx")) is None


def test_weights_that_an_earlier_export_kept_are_named(tmp_path):
    weights = tmp_path / "first" / "weights"
    plan = plan_of(str(weights), keep_weights=False, kept=weights)
    other = bundle_at(tmp_path / "second" / "onnx", "owner/name")
    assert options(command_after(plan, other)) == [
        "--weights",
        str(weights),
        "--checkpoint",
        "owner/name",
    ]
    assert options(command_after(plan, bundle_at(tmp_path / "first" / "onnx"))) == []


def test_what_was_missing_and_what_would_prove_it(tmp_path):
    bundle, weights = bundle_at(tmp_path / "a b", "owner/name"), tmp_path / "weights"
    said = how_to_prove(bundle, ("checkpoint",), weights=weights, checkpoint=None)
    assert "for want of the checkpoint" in said
    command = said.partition("what proves it: ")[2]
    assert options(command) == ["--weights", str(weights), "--checkpoint", "owner/name"]
    said = how_to_prove(bundle_at(tmp_path), ("weights",), weights=None, checkpoint="./mine")
    assert "--weights FOLDER --checkpoint ./mine" in said
    assert "--no-keep-weights" in said


@pytest.mark.onnx
def test_an_export_that_keeps_no_weights_says_so(tmp_path, command):
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    checkpoint, out = write_checkpoint(tmp_path / "tiny"), tmp_path / "out"
    words = ("-t", "onnx", "-m", checkpoint, "-o", out, "--max-context", 64, "--no-verify")
    code, _, err = command(*words, columns=400)
    assert code == 0
    assert f"llama-export verify {out / 'onnx'} --checkpoint {checkpoint}" in err
    code, _, err = command(*words, "--no-keep-weights", "--force", columns=400)
    assert code == 0
    assert "llama-export verify" not in err
    assert "nothing can prove this bundle later" in err


@pytest.mark.onnx
def test_the_command_that_was_shown_proves_the_bundle(tmp_path, command):
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    checkpoint, out = write_checkpoint(tmp_path / "tiny"), tmp_path / "out"
    words = ("-t", "onnx", "-m", checkpoint, "-o", out, "--max-context", 64, "--no-verify")
    _, _, err = command(*words, columns=400)
    shown = shlex.split(next(line for line in err.splitlines() if "verify" in line))
    assert command(*shown[1:], "--quick", columns=400)[0] == 0
    assert command(*shown[1:3], "--quick", columns=400)[0] == NOT_PROVED_EXIT_CODE
