"""Every form of the demo's export has the bytes that it had before: see tools/golden_exports.py.

The bytes are compared under the recorded toolkits only, and elsewhere skipped with what differs: a
toolkit's new release writes other bytes without any change of ours, and must fail nobody's run.
What is ours alone fails everywhere: a case that is not recorded, or recorded with other options.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from golden_exports import CASES, export_and_hash, installed

GOLDEN = json.loads(Path(__file__).with_name("golden_exports.json").read_text("utf-8"))

pytestmark = [pytest.mark.coreml, pytest.mark.executorch, pytest.mark.onnx]


def differences(recorded: dict[str, str], found: dict[str, str]) -> str:
    """Name what differs, as it was recorded and as it is here; empty: nothing does."""
    names = sorted(recorded.keys() | found.keys())
    pairs = ((name, recorded.get(name), found.get(name)) for name in names)
    return ", ".join(f"{name} {then} (here {now})" for name, then, now in pairs if then != now)


def test_the_reason_of_a_skip_names_what_differs():
    here = installed()
    assert differences(here, here) == ""
    assert differences({**here, "torch": "1.0"}, here) == f"torch 1.0 (here {here['torch']})"


def test_every_case_is_recorded():
    assert {name: case["options"] for name, case in GOLDEN["exports"].items()} == CASES
    for case in GOLDEN["exports"].values():
        assert any(name.startswith("weights/weights.") for name in case["files"])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_an_export_has_the_same_bytes_as_ever(name):
    if others := differences(GOLDEN["made_with"], installed()):
        pytest.skip(f"recorded under other versions: {others}")
    assert export_and_hash(CASES[name]) == GOLDEN["exports"][name]["files"]


@pytest.mark.slow
def test_another_recipe_has_other_bytes():
    pytest.importorskip("onnx", reason="needs the onnx extra")
    files = export_and_hash("--target onnx --group-size 128")
    golden = GOLDEN["exports"]["onnx int4"]["files"]
    assert files.keys() == golden.keys()
    changed = {name for name in files if files[name] != golden[name]}
    assert changed == {"onnx/model.onnx", "onnx/model.onnx_data", "weights/weights.safetensors"}
