"""What --force may replace: what we made, and nothing of anybody else's."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from artifacts.folders import is_new, is_old, make_old, names, word_of, write_new

from llama_export.bundle.ownership import extra_files, refuse_existing
from llama_export.errors import OutputError
from llama_quantize.checkpoint.record import Record

RECORD = Path(__file__).parents[1] / "quantize" / "record-of-version-1.json"

FOREIGN = {
    "a web app": '{"name": "my web app", "start_url": "/"}',
    "a browser extension": '{"manifest_version": 3, "name": "x", "version": "1"}',
    "a list": "[1, 2]",
    "no JSON": "hello",
    "nothing": "",
}


def is_kept(target: Path, name: str = "src/main.js") -> None:
    """Check that a folder is refused as a whole, whatever else is asked."""
    for keep_extra in (False, True):
        with pytest.raises(OutputError, match=r"did not write|not ours") as caught:
            write_new(target, force=True, keep_extra=keep_extra)
        assert "yourself" in caught.value.hint
        assert caught.value.exit_code == 11
    assert (target / name).read_text() == "years of work"
    assert names(target.parent) == [target.name]


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("file", ["manifest.json", "quantization.json"])
def test_a_name_proves_nothing(tmp_path, kind, file):
    put(tmp_path / "onnx" / file, FOREIGN[kind])
    put(tmp_path / "onnx" / "src" / "main.js", "years of work")
    is_kept(tmp_path / "onnx")


def test_a_damaged_manifest_is_not_taken_for_ours(tmp_path):
    make_old(tmp_path / "onnx")
    put(tmp_path / "onnx" / "mine", "years of work")
    path = tmp_path / "onnx" / "manifest.json"
    whole = path.read_text()
    for damaged in (whole[:200], whole.replace('"onnx"', "7", 1), whole + "{"):
        path.write_text(damaged)
        is_kept(tmp_path / "onnx", "mine")
    path.write_text(json.dumps({**json.loads(whole), "format_version": 99}))
    with pytest.raises(OutputError, match="format_version 99"):
        write_new(tmp_path / "onnx", force=True)


def test_a_manifest_that_is_a_folder_or_a_pipe_is_not_ours(tmp_path):
    put(tmp_path / "onnx" / "mine", "years of work")
    (tmp_path / "onnx" / "manifest.json").mkdir()
    is_kept(tmp_path / "onnx", "mine")
    (tmp_path / "onnx" / "manifest.json").rmdir()
    os.mkfifo(tmp_path / "onnx" / "manifest.json")
    is_kept(tmp_path / "onnx", "mine")


def test_an_older_bundle_is_ours(tmp_path):
    make_old(tmp_path / "onnx")
    path = tmp_path / "onnx" / "manifest.json"
    raw = {**json.loads(path.read_text()), "format_version": 1}
    del raw["runs_here"]
    path.write_text(json.dumps(raw))
    write_new(tmp_path / "onnx", force=True)
    assert is_new(tmp_path / "onnx")


def test_what_the_manifest_does_not_list_is_named(tmp_path):
    make_old(tmp_path / "onnx")
    for name in ("chat.npz", "deep/report.html", "a\x1b[2J", "src/1", "src/2", "src/3", "src/4"):
        put(tmp_path / "onnx" / name, "mine")
    with pytest.raises(OutputError, match="holds 7 files") as caught:
        write_new(tmp_path / "onnx", force=True)
    assert "chat.npz" in caught.value.message
    assert "deep/report.html" in caught.value.message
    assert "and 2 more" in caught.value.message
    assert "\x1b" not in caught.value.message
    assert "--keep-extra" in caught.value.hint
    assert (tmp_path / "onnx" / "chat.npz").read_text() == "mine"
    assert names(tmp_path) == ["onnx"]


def test_empty_folders_are_fine(tmp_path):
    make_old(tmp_path / "onnx")
    (tmp_path / "onnx" / "empty" / "er").mkdir(parents=True)
    (tmp_path / "coreml" / "empty").mkdir(parents=True)
    write_new(tmp_path / "onnx", force=True)
    write_new(tmp_path / "coreml", force=True)
    assert is_new(tmp_path / "onnx")
    assert is_new(tmp_path / "coreml")


def test_a_link_under_a_listed_name_is_somebody_elses(tmp_path):
    make_old(tmp_path / "onnx")
    (tmp_path / "onnx" / "model.onnx").rename(tmp_path / "moved")
    (tmp_path / "onnx" / "model.onnx").symlink_to(tmp_path / "moved")
    assert extra_files(tmp_path / "onnx") == ("model.onnx",)
    # Kept it would be in the place of the new one.
    with pytest.raises(OutputError, match=r"a file of that name too: model\.onnx"):
        write_new(tmp_path / "onnx", force=True, keep_extra=True)
    assert (tmp_path / "onnx" / "model.onnx").read_text() == "old"


def test_extra_files_are_carried_over(tmp_path):
    make_old(tmp_path / "onnx")
    for name in ("chat.npz", "deep/report.html", "src/deep/1"):
        put(tmp_path / "onnx" / name, "mine")
    (tmp_path / "onnx" / "link").symlink_to("deep/report.html")
    (tmp_path / "onnx" / "dangling").symlink_to("/nowhere")
    (tmp_path / "onnx" / "elsewhere").symlink_to(tmp_path)
    (tmp_path / "onnx" / "chat.npz").chmod(0o400)
    listed = json.loads((tmp_path / "onnx" / "manifest.json").read_text())["files"]
    for _ in range(2):
        write_new(tmp_path / "onnx", force=True, keep_extra=True)
        for name in ("chat.npz", "deep/report.html", "src/deep/1", "link"):
            assert (tmp_path / "onnx" / name).read_text() == "mine"
        assert (tmp_path / "onnx" / "link").readlink() == Path("deep/report.html")
        assert (tmp_path / "onnx" / "dangling").readlink() == Path("/nowhere")
        assert (tmp_path / "onnx" / "elsewhere").is_symlink()
        assert (tmp_path / "onnx" / "model.onnx").read_text() == "new"
        manifest = json.loads((tmp_path / "onnx" / "manifest.json").read_text())
        assert manifest["files"].keys() == listed.keys()
    assert (tmp_path / "onnx" / "chat.npz").stat().st_mode & 0o777 == 0o400
    assert names(tmp_path) == ["onnx"]


def test_extra_files_are_copied_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    make_old(tmp_path / "onnx")
    put(tmp_path / "onnx" / "chat.npz", "mine")
    write_new(tmp_path / "onnx", force=True, keep_extra=True)
    assert (tmp_path / "onnx" / "chat.npz").read_text() == "mine"
    os.mkfifo(tmp_path / "onnx" / "pipe")
    with pytest.raises(OutputError, match="no plain file"):
        write_new(tmp_path / "onnx", force=True, keep_extra=True)
    assert names(tmp_path) == ["onnx"]


@pytest.mark.parametrize("extra", ["deep", "model.onnx/notes", "deep/weights/notes"])
def test_a_clash_is_refused_by_name(tmp_path, extra):
    """The new folder has a file where the old one has a user's, or where that one's folder is."""
    make_old(tmp_path / "onnx")
    shutil.rmtree(tmp_path / "onnx" / "deep")
    (tmp_path / "onnx" / "model.onnx").unlink()
    put(tmp_path / "onnx" / extra, "mine")
    with pytest.raises(OutputError, match=f"that name too: {extra}"):
        write_new(tmp_path / "onnx", force=True, keep_extra=True)
    assert (tmp_path / "onnx" / extra).read_text() == "mine"
    assert names(tmp_path) == ["onnx"]


def test_what_comes_during_the_work_is_found_before_the_renames(tmp_path):
    from artifacts.folders import publish_with, write_folder

    make_old(tmp_path / "onnx")

    def late(folder: Path) -> None:
        write_folder(folder, "new")
        put(tmp_path / "onnx" / "chat.npz", "mine")

    with pytest.raises(OutputError, match=r"did not write: chat\.npz"):
        publish_with(tmp_path / "onnx", late, force=True)
    assert (tmp_path / "onnx" / "chat.npz").read_text() == "mine"
    (tmp_path / "onnx" / "chat.npz").unlink()
    assert is_old(tmp_path / "onnx")


def test_another_layout_of_the_output_is_not_ours_alone(tmp_path):
    """An earlier export had the folder of a target as its output."""
    make_old(tmp_path / "out" / "onnx" / "onnx")
    with pytest.raises(OutputError, match="did not write it"):
        write_new(tmp_path / "out" / "onnx", force=True)
    make_old(tmp_path / "onnx")
    make_old(tmp_path / "onnx" / "coreml")
    with pytest.raises(OutputError, match=r"coreml/manifest\.json"):
        write_new(tmp_path / "onnx", force=True)
    assert word_of(tmp_path / "onnx" / "coreml") == "old"


def test_weights_are_ours_with_the_files_that_stand_beside_them(tmp_path):
    folder = tmp_path / "weights"
    for name in ("weights.safetensors", "config.json", "NOTICE", "LICENSE.txt", "tokenizer.model"):
        put(folder / name, "x")
    shutil.copy(RECORD, folder / "quantization.json")
    refuse_existing(folder, force=True)
    for name in ("notes.md", "notice", "deep/config.json", "Config.json"):
        put(folder / name, "mine")
        assert extra_files(folder) == (name,)
        with pytest.raises(OutputError, match="holds a file that llama-export did not write"):
            refuse_existing(folder, force=True)
        (folder / name).unlink()


def test_the_tokens_of_a_calibration_belong_to_weights_that_were_calibrated(tmp_path):
    shutil.copy(RECORD, tmp_path / "quantization.json")
    put(tmp_path / "calibration.safetensors", "x")
    assert extra_files(tmp_path) == ("calibration.safetensors",)
    replace(Record.read(tmp_path), calibration={"tokens": "1"}).write(tmp_path)
    assert extra_files(tmp_path) == ()


def test_the_names_beside_weights_are_those_that_an_export_writes(tmp_path):
    from artifacts.small_bundle import export_small

    pytest.importorskip("onnx", reason="needs the onnx extra")
    output = export_small(tmp_path)
    assert extra_files(output / "weights") == ()
    assert extra_files(output / "onnx") == ()
    # Names that an export may write, and this one did not: the record lists what it did.
    for name in ("LICENSE.mine", "USE_POLICY.md"):
        put(output / "weights" / name, "mine")
    assert extra_files(output / "weights") == ("LICENSE.mine", "USE_POLICY.md")
