"""Errors in a traceback: the message, and below it the hint."""

from __future__ import annotations

import pickle
import sys
import traceback

import pytest

from llama_export import errors
from llama_export.verification.rows import VerificationFailedError, VerifyReport, informed, judged
from llama_quantize.errors import QuantizationError

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.LlamaExportError)
] + [QuantizationError]


@pytest.mark.parametrize("kind", CLASSES)
def test_a_traceback_has_the_hint_and_the_text_is_the_message(kind):
    error = kind("the weight is bent", "straighten it")
    assert (str(error), error.message) == ("the weight is bent", "the weight is bent")
    assert error.hint == "straighten it"
    assert error.__notes__ == ["what to do: straighten it"]
    shown = traceback.format_exception_only(error)
    expected = ["what to do: straighten it\n"] if sys.version_info >= (3, 11) else []
    assert shown[1:] == expected
    assert shown[0].endswith(f"{kind.__name__}: the weight is bent\n")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.hint, again.__notes__) == (str(error), error.hint, error.__notes__)


@pytest.mark.parametrize("kind", CLASSES)
def test_without_a_hint_there_is_no_note(kind):
    error = kind("the weight is bent")
    assert not hasattr(error, "__notes__")
    assert len(traceback.format_exception_only(error)) == 1


def test_a_failed_verification_is_no_fault_of_the_input_and_names_what_failed():
    rows = (
        judged("structure", "files", "files that differ", 1, 0, "a.bin"),
        judged("lowering", "kl", "a divergence", 0.0, 1.0),
        informed("lowering", "speed", "a figure", 3.0),
    )
    report = VerifyReport("onnx", "demo", {}, rows, {})
    failed = VerificationFailedError("onnx", report)
    assert str(failed) == "the onnx artifact failed its verification"
    assert failed.__notes__ == ["failed: files that differ; a.bin"]
    assert (failed.target, failed.report) == ("onnx", report)
    assert not isinstance(failed, errors.LlamaExportError)
    assert repr(report) == ("<VerifyReport of demo (onnx): failed (files), 3 rows, 0 not checked>")
    nothing = VerifyReport("onnx", "demo", {}, rows[2:], {})
    assert "not proved" in repr(nothing)
