"""What the options of a calibration refuse, before any work, and what reaches the plan."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from artifacts.small_bundle import export_small
from artifacts.tiny import TINY, write_checkpoint

pytest.importorskip("onnx", reason="needs the onnx extra")
pytestmark = [pytest.mark.onnx, pytest.mark.usefixtures("plenty")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder with a checkpoint of floats, one with a short context, and quantised ones."""
    path = tmp_path_factory.mktemp("options")
    export_small(path)
    write_checkpoint(path / "short", replace(TINY, max_position_embeddings=64))
    (path / "text.txt").write_text("Once upon a time.", encoding="utf-8")
    (path / "empty").mkdir()
    return path


def planned(command, folder: Path, model: str, *words: str) -> tuple[int, str, str]:
    text = [word.replace("HERE", str(folder)) for word in words]
    options = ("--target", "onnx", "--model", folder / model, "--output", folder / "none")
    return command(*options, *text, "--dry-run", "--json")


@pytest.mark.parametrize(
    ("model", "words", "code", "told"),
    [
        ("tiny", "--quantize bf16 --quality good", 9, "recipe bf16 has no codes"),
        ("tiny", "--quantize fp16 --quality best", 9, "recipe fp16 has no codes"),
        ("tiny", "--quantize fp16 --calibration HERE/text.txt", 2, "--quality good or best"),
        ("tiny", "--quality fast --calibration HERE/text.txt", 2, "no method of the recipe reads"),
        ("tiny", "--quality fast --calibration-tokens 1024", 2, "no method of the recipe reads"),
        ("tiny", "--quality finest", 2, "finest"),
        ("tiny", "--quality good --calibration HERE/none.txt", 15, "none.txt cannot be read"),
        ("tiny", "--quality good --calibration HERE/empty", 15, "empty is empty"),
        ("tiny", "--quality good --calibration-tokens 0", 2, "--calibration-tokens"),
        ("tiny", "--quality good --calibration-tokens 511", 2, "expected 512, which is one window"),
        ("tiny", "--quality good --calibration-tokens 1048577", 2, "to 1048576, found 1048577"),
        ("short", "--quality best --calibration-tokens 63", 2, "expected 64, which is one window"),
        ("out/weights", "--quality good", 2, "is quantised already, as int4"),
        ("out/weights", "--quality fast", 2, "is quantised already, as int4"),
        ("out/weights", "--quality best --calibration HERE/text.txt", 2, "is quantised already"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_by_the_plan(
    command, folder, model, words, code, told
):
    found, out, err = planned(command, folder, model, *words.split())
    assert (found, out) == (code, "")
    assert told in " ".join(err.split())
    assert "what to do: " in err or "--help" in err or "Usage" in err


@pytest.mark.parametrize(
    ("model", "words", "tokens"),
    [
        ("tiny", "--quality good", 32768),
        ("tiny", "--quality good --calibration HERE/text.txt --calibration-tokens 512", 512),
        ("tiny", "--quantize int8 --quality best --calibration-tokens 1600", 1536),
        ("short", "--quality good --calibration-tokens 100", 64),
        ("tiny", "--quality fast", None),
        ("tiny", "--quantize bf16", None),
        ("out/weights", "", None),
    ],
)
def test_what_is_asked_for_is_in_the_plan(command, folder, model, words, tokens):
    code, out, err = planned(command, folder, model, *words.split())
    assert code == 0, err
    calibration = json.loads(out)["estimate"]["calibration"]
    assert (calibration and calibration["tokens"]) == tokens
