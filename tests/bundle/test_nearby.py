"""Which bundle a path may mean that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_export.bundle.bundle import Bundle
from llama_export.bundle.nearby import nearby_bundles
from llama_export.errors import BundleError


@pytest.fixture
def output(tmp_path) -> Path:
    """Return an output with two bundles and weights, beside a folder that has none."""
    for name in ("out/onnx", "out/coreml", "out/weights", "nothing"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("onnx", "coreml"):
        (tmp_path / "out" / name / "manifest.json").write_text("{}")
    (tmp_path / "out" / "onnx" / "inner").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("out/onxx", ["out/onnx"]),
        ("out/core-ml", ["out/coreml"]),
        ("outt/onnx", ["out/onnx"]),
        ("outt", ["out/coreml", "out/onnx"]),
        ("out", ["out/coreml", "out/onnx"]),
        ("out/executorch", ["out/coreml", "out/onnx"]),
        ("out/weights", ["out/coreml", "out/onnx"]),
        ("out/onnx/inner", ["out/onnx"]),
        ("out/onnx/none", ["out/onnx"]),
        ("nothing", []),
        ("nothin", []),
        ("out/onnx/manifest.json", []),
        ("far/away/onnx", []),
    ],
)
def test_what_may_be_meant(output, typed, meant):
    assert nearby_bundles(output / typed) == tuple(output / name for name in meant)


def test_many_bundles_beside_a_path_are_no_guess(output):
    for number in range(4):
        (output / "out" / f"{number}").mkdir()
        (output / "out" / f"{number}" / "manifest.json").write_text("{}")
    assert nearby_bundles(output / "out" / "web") == ()
    assert nearby_bundles(output / "out" / "onxx") == (output / "out" / "onnx",)


def test_the_hint_of_a_path_that_is_not_there(output):
    with pytest.raises(BundleError, match="onxx does not exist") as refused:
        Bundle.open(output / "out" / "onxx")
    assert refused.value.hint == f"did you mean {output / 'out' / 'onnx'}?"
