"""What one command makes appears together, or not at all."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from artifacts.estimates import estimated
from artifacts.folders import folders_in
from artifacts.small_bundle import Silent
from artifacts.tiny import write_checkpoint

from llama_export.errors import OutputError
from llama_export.verification.rows import VerificationFailedError

pytest.importorskip("onnx", reason="needs the onnx extra")
pytest.importorskip("executorch", reason="needs the executorch extra")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


def export(checkpoint: Path, output: Path, *targets: str, **choices: object):
    from llama_export.exporting.pipeline import ExportRequest, export_bundle

    choices = {"max_context": 128, "verify": False, **choices}
    request = ExportRequest(str(checkpoint), targets or ("onnx",), output, **choices)
    return export_bundle(request, Silent())


def files(output: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}


def test_nothing_is_published_when_a_later_target_fails(checkpoint, tmp_path, monkeypatch):
    from llama_export.exporting import pipeline
    from llama_export.targets.executorch.target import ExecutorchTarget
    from llama_export.targets.onnx.target import OnnxTarget

    output = export(checkpoint, tmp_path / "out").output
    before = files(output)

    # The second artifact need not be one: it is the verification that decides.
    def lower(_self, traced, weights, folder, _options, metadata):
        return OnnxTarget().lower(traced, weights, folder, OnnxTarget.Options(), metadata)

    monkeypatch.setattr(ExecutorchTarget, "lower", lower)
    made = []

    def verified(folder, *_):
        made.append(folder.name)
        if folder.name == "executorch":
            raise VerificationFailedError(folder.name, SimpleNamespace(failures=()))

    monkeypatch.setattr(pipeline, "_verified", verified)
    with pytest.raises(VerificationFailedError):
        export(checkpoint, output, "onnx", "executorch", verify=True, force=True, group_size=64)
    assert made == ["onnx", "executorch"]
    assert files(output) == before


def test_older_weights_do_not_stay_beside_bundles_of_others(checkpoint, tmp_path):
    output = export(checkpoint, tmp_path / "out").output
    before = files(output)
    for choices in ({}, {"keep_weights": False}):
        with pytest.raises(OutputError, match="already exists"):
            export(checkpoint, output, **choices)
    assert files(output) == before
    (output / "weights" / "notes.md").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.md"):
        export(checkpoint, output, keep_weights=False, force=True, group_size=64)
    export(checkpoint, output, keep_weights=False, force=True, keep_extra=True, group_size=64)
    assert [path.name for path in (output / "weights").iterdir()] == ["notes.md"]
    assert folders_in(output) == ["onnx", "weights"]


def test_weights_that_are_the_source_stay(checkpoint, tmp_path):
    output = export(checkpoint, tmp_path / "out").output
    before = files(output)
    export(output / "weights", output, force=True)
    assert files(output) == before


def test_somebody_elses_weights_are_not_in_the_way(checkpoint, tmp_path):
    mine = tmp_path / "out" / "weights" / "mine.bin"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    export(checkpoint, tmp_path / "out", keep_weights=False, force=True)
    assert mine.read_text() == "mine"
    with pytest.raises(OutputError, match="did not write it"):
        export(checkpoint, tmp_path / "out", force=True)


def test_the_disk_must_hold_all_of_it_at_once():
    found = estimated("3.2-1B")
    parts = [found.weights_bytes, *(target.bundle_bytes for target in found.targets)]
    assert found.disk_bytes >= sum(parts)
