"""What an export puts at its output's root, over several exports into the same folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from artifacts.small_bundle import Silent
from artifacts.tiny import TINY, UNTIED, write_checkpoint

from llama_export.bundle.bundle import Bundle
from llama_export.errors import BundleError
from llama_export.exporting.publishing.push import PushRequest, plan_push
from llama_export.sources.upload import BaseCard

pytest.importorskip("onnx", reason="needs the onnx extra")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = write_checkpoint(tmp_path_factory.mktemp("model") / "tiny", TINY)
    (folder / "LICENSE").write_text("MIT License\n")
    return folder


def export(checkpoint: Path, output: Path, *targets: str, quality: str = "fast"):
    from llama_export.exporting.pipeline import ExportRequest, export_bundle

    request = ExportRequest(
        str(checkpoint), targets, output, max_context=128, verify=False, force=True, quality=quality
    )
    return export_bundle(request, Silent())


def root(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}


@pytest.mark.slow
def test_the_card_follows_what_is_there(checkpoint, tmp_path):
    pytest.importorskip("executorch", reason="needs the executorch extra")
    output = tmp_path / "out"
    export(checkpoint, output, "executorch")
    alone = root(output)
    assert b"transformers.js_config" not in alone["config.json"]
    assert b"library_name: executorch" in alone["README.md"]
    export(checkpoint, output, "onnx")
    both = root(output)
    # The config that transformers.js needs is the ONNX bundle's.
    assert both["config.json"] == (output / "onnx" / "config.json").read_bytes()
    assert b"transformers.js_config" in both["config.json"]
    assert b"| `onnx/` |" in both["README.md"]
    assert b"| `executorch/` |" in both["README.md"]
    shutil.rmtree(output / "onnx")
    export(checkpoint, output, "executorch")
    assert root(output) == alone


def test_two_exports_have_the_same_root(checkpoint, tmp_path):
    one, two = (export(checkpoint, tmp_path / name, "onnx").output for name in ("one", "two"))
    assert root(one) == root(two)
    assert {"README.md", "config.json", "LICENSE", "NOTICE", "tokenizer_config.json"} <= set(
        root(one)
    )


def test_a_bundle_of_another_model_is_left_out_and_not_pushed(checkpoint, tmp_path):
    output = tmp_path / "out"
    shutil.move(export(checkpoint, tmp_path / "first", "onnx").output / "onnx", tmp_path / "coreml")
    other = write_checkpoint(tmp_path / "other", UNTIED)
    (other / "LICENSE").write_text("MIT License\n")
    output.mkdir()
    shutil.move(tmp_path / "coreml", output / "coreml")
    result = export(other, output, "onnx")
    (note,) = (note for note in result.notes if "left out" in note)
    assert str(output / "coreml") in note
    assert b"| `coreml/` |" not in root(output)["README.md"]
    with pytest.raises(BundleError, match="bundles of two models"):
        plan_push(PushRequest(output, "me/tiny"), lambda _id: BaseCard())


@pytest.mark.parametrize(("quality", "same"), [("fast", False), ("good", True)])
def test_a_model_that_was_trained_on_is_another(checkpoint, tmp_path, quality, same):
    """The name and the config stay; other codes say so, where they were chosen alike."""
    before = export(checkpoint, tmp_path / "before", "onnx").output
    output = tmp_path / "out"
    shutil.copytree(before / "onnx", output / "coreml")
    trained = write_checkpoint(tmp_path / "later" / "tiny", TINY, seed=1)
    result = export(trained, output, "onnx", quality=quality)
    left_out = [note for note in result.notes if "is of another tiny" in note]
    assert bool(left_out) is not same
    assert root(output)["README.md"].count(b"| `onnx/` |") == 1 + same


def test_two_targets_of_one_export_are_of_one_model(checkpoint, tmp_path):
    output = export(checkpoint, tmp_path / "out", "onnx").output
    shutil.copytree(output / "onnx", output / "coreml")
    result = export(checkpoint, output, "onnx")
    assert result.notes == ()
    assert root(output)["README.md"].count(b"| `onnx/` |") == 2


def test_a_damaged_neighbour_is_left_out(checkpoint, tmp_path):
    output = tmp_path / "out"
    (output / "coreml").mkdir(parents=True)
    (output / "coreml" / "manifest.json").write_text("{")
    result = export(checkpoint, output, "onnx")
    assert any("left out of README.md" in note for note in result.notes)
    assert b"| `onnx/` |" in root(output)["README.md"]


def test_a_checkpoints_own_folder_gets_no_files(checkpoint, tmp_path):
    """Another tokenizer or NOTICE in it would change what the next export reads."""
    folder = Path(shutil.copytree(checkpoint, tmp_path / "mine"))
    before = root(folder)
    result = export(folder, folder, "onnx")
    assert root(folder) == before
    assert any("checkpoint's own folder" in note for note in result.notes)
    assert Bundle.open(folder / "onnx").check_hashes() == ()
