"""Every form of the demo's export has the bytes that it had before: see tools/golden_exports.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from golden_exports import CASES, export_and_hash, installed

GOLDEN = json.loads(Path(__file__).with_name("golden_exports.json").read_text("utf-8"))

pytestmark = [pytest.mark.coreml, pytest.mark.executorch, pytest.mark.onnx]


def test_every_case_is_recorded():
    assert {name: case["options"] for name, case in GOLDEN["exports"].items()} == CASES
    for case in GOLDEN["exports"].values():
        assert any(name.startswith("weights/weights.") for name in case["files"])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_an_export_has_the_same_bytes_as_ever(name):
    if (found := installed()) != GOLDEN["made_with"]:
        pytest.skip(f"recorded with {GOLDEN['made_with']}, and this is {found}")
    assert export_and_hash(CASES[name]) == GOLDEN["exports"][name]["files"]


@pytest.mark.slow
def test_another_recipe_has_other_bytes():
    pytest.importorskip("onnx", reason="needs the onnx extra")
    files = export_and_hash("--target onnx --group-size 128")
    golden = GOLDEN["exports"]["onnx int4"]["files"]
    assert files.keys() == golden.keys()
    changed = {name for name in files if files[name] != golden[name]}
    assert changed == {"onnx/model.onnx", "onnx/model.onnx_data", "weights/weights.safetensors"}
