"""The options that say how a checkpoint is read reach the export, and its notes reach the user."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from artifacts.adapters import PREFIX, write_adapter
from artifacts.tiny import TINY, write_checkpoint
from click.testing import CliRunner

from llama_export.checkpoints.checkpoint import GUARD_ANSWERS, ReadOptions
from llama_export.cli.app import app
from llama_export.cli.reading_options import READING_SECTION, chosen_reading

TABLE = f"{PREFIX}model.embed_tokens.weight"


@pytest.fixture
def tuned(tmp_path) -> Path:
    """An adapter that unties its base, of which there is a note."""
    base = write_checkpoint(tmp_path / "base")
    saved = {TABLE: torch.randn(TINY.vocab_size, 128)}
    return write_adapter(tmp_path / "tuned", saved, base=base)


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def test_every_option_becomes_what_the_reader_is_told():
    typed = {
        "base": "3.2-1B",
        "adapter": ("a", "b"),
        "rope_factor": 8.0,
        "merge_adaptors": True,
        "accept_loss": True,
        "head_tokens": ("yes", "guard"),
    }
    assert set(typed) == {str(option.name) for option in READING_SECTION.options}
    assert chosen_reading(typed) == ReadOptions(
        8.0,
        "3.2-1B",
        ("a", "b"),
        merge_adaptors=True,
        accept_loss=True,
        head_tokens=("yes", *GUARD_ANSWERS),
    )
    nothing = {"adapter": (), "merge_adaptors": False, "accept_loss": False, "head_tokens": ()}
    assert chosen_reading(nothing) == ReadOptions()


def test_a_dry_run_shows_the_notes(tuned):
    pytest.importorskip("onnx", reason="needs the onnx extra")
    words = ("--target", "onnx", "--model", tuned, "--output", tuned.parent / "out", "--dry-run")
    assert "note: the adapter changes the token table" in run(*words)
    notes = json.loads(run(*words, "--json"))["notes"]
    assert len(notes) == 1
    base = tuned.parent / "base"
    assert json.loads(run(*words, "--json", "--model", base))["notes"] == []
    assert json.loads(run(*words, "--json", "--model", base, "--adapter", tuned))["notes"] == notes


@pytest.mark.onnx
def test_an_export_says_the_notes_and_verify_takes_the_same_options(tuned, capfd):
    pytest.importorskip("onnx", reason="needs the onnx extra")
    out = tuned.parent / "out"
    base = tuned.parent / "base"
    over = ("--model", base, "--adapter", tuned)
    result = CliRunner().invoke(app, ["--target", "onnx", *map(str, over), "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "note: the adapter changes the token table" in result.stderr
    assert f"--checkpoint {base} --adapter {tuned}" in result.stderr.replace("\n", "")
    for folder in ("onnx", "weights"):
        page = " ".join(run("inspect", out / folder).replace("│", " ").split())
        assert "adapters tuned" in page
        assert "notes the adapter changes the token table" in page
    run("verify", out / "onnx", "--quick", "--checkpoint", base, "--adapter", tuned)
    run("verify", out / "onnx", "--quick", "--checkpoint", tuned, "--base", base)
