"""What users type behind `--target`: the targets' names, and words that may mean one."""

from __future__ import annotations

import pytest

from llama_export.errors import UsageError
from llama_export.targets.registry import TARGETS, parse_targets


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["ONNX"], ("onnx",)),
        (["CoreML,ExecuTorch", "coreml"], ("coreml", "executorch")),
        (["onnx", "All"], TARGETS),
    ],
)
def test_the_case_of_letters_says_nothing(typed, meant):
    assert parse_targets(typed) == meant


@pytest.mark.parametrize(
    ("typed", "guess"),
    [
        ("onx", "onnx"),
        ("core-ml", "coreml"),
        ("executorh", "executorch"),
        ("pte", "executorch"),
        (".PTE", "executorch"),
        ("android", "executorch"),
        ("ios", "coreml"),
        ("macOS", "coreml"),
        ("mlpackage", "coreml"),
        ("al", "all"),
    ],
)
def test_what_is_nearly_a_target_gets_one_guess(typed, guess):
    with pytest.raises(UsageError, match=f"found '{typed}'") as refused:
        parse_targets(["onnx", typed])
    assert refused.value.hint == f"did you mean {guess}?"


@pytest.mark.parametrize("typed", ["tflite", "gguf", "3.2-1B"])
def test_another_word_gets_none(typed):
    with pytest.raises(UsageError, match=f"found '{typed}'") as refused:
        parse_targets([typed])
    assert refused.value.hint == ""
