"""The small files beside weights, as texts that others read."""

from __future__ import annotations

from artifacts.tiny import write_checkpoint

from llama_export.sources.model_files import ModelFiles
from llama_export.sources.resolve import resolve_model
from llama_export.sources.source import open_source


def test_a_notice_of_another_encoding_is_copied_and_has_a_text(tmp_path):
    folder = write_checkpoint(tmp_path / "tiny")
    theirs = "Copyright \xa9 2009 M\xfcller".encode("latin-1")
    (folder / "NOTICE").write_bytes(theirs)
    files = ModelFiles.of(open_source(resolve_model(str(folder), revision=None, token=None)))
    assert files.contents["NOTICE"].endswith(theirs + b"\n")
    assert files.notice.endswith("Copyright \ufffd 2009 M\ufffdller\n")
