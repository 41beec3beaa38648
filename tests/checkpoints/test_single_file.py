"""A format of single files is a format like any other: a file that names a folder stands for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from artifacts.small_bundle import Silent
from artifacts.tiny import TINY, write_checkpoint

from llama_export.checkpoints import formats
from llama_export.checkpoints.checkpoint import AS_IT_IS
from llama_export.checkpoints.hugging_face import HfCheckpoint, HuggingFaceFormat
from llama_export.errors import CheckpointError
from llama_export.exporting.plan import plan_export
from llama_export.exporting.request import ExportRequest
from llama_export.sources.resolve import name_model


class SingleFileFormat:
    """A file `*.packed` whose text is the path of a checkpoint."""

    _inner = HuggingFaceFormat()

    def wanted(self, files):
        return None

    def is_complete(self, path):
        return self.recognises(path)

    def recognises(self, path):
        return path.is_file() and path.suffix == ".packed"

    def read_config(self, path, options=AS_IT_IS):
        return self._inner.read_config(self._folder(path), options)

    def read_tokenizer(self, path):
        return self._inner.read_tokenizer(self._folder(path))

    def read_companions(self, path):
        return self._inner.read_companions(self._folder(path))

    def tokenizer_bytes(self, path):
        return self._inner.tokenizer_bytes(self._folder(path))

    def open(self, path, config=None, options=AS_IT_IS) -> HfCheckpoint:
        return self._inner.open(self._folder(path), config, options)

    def _folder(self, path: Path) -> Path:
        return Path(path.read_text())


@pytest.fixture
def packed(tmp_path) -> Path:
    folder = write_checkpoint(tmp_path / "folder")
    file = tmp_path / "tiny.packed"
    file.write_text(str(folder))
    return file


@pytest.fixture
def single_files(monkeypatch):
    monkeypatch.setattr(formats, "FORMATS", (SingleFileFormat(), *formats.FORMATS))


def test_a_file_of_no_format_is_refused(packed):
    with pytest.raises(CheckpointError, match="is a file, not a folder"):
        name_model(str(packed))


@pytest.mark.onnx
def test_a_single_file_is_planned_and_exported(packed, single_files, monkeypatch, tmp_path):
    pytest.importorskip("onnx", reason="needs the onnx extra")
    from llama_export.exporting.pipeline import run_export

    monkeypatch.chdir(tmp_path)
    named = name_model(packed.name)
    assert (named.name, named.path) == ("tiny.packed", Path("tiny.packed"))
    request = ExportRequest(packed.name, ("onnx",), tmp_path / "out", verify=False)
    plan = plan_export(request)
    assert plan.model.config == TINY
    folder = tmp_path / "folder"
    of_folder = plan_export(ExportRequest(str(folder), ("onnx",), tmp_path / "other"))
    assert plan.model.tokenizer_bytes == of_folder.model.tokenizer_bytes
    result = run_export(plan, Silent())
    assert result.bundles[0].bundle.manifest.model.name == "tiny.packed"
