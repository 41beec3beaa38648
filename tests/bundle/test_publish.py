"""Publishing a folder: whatever ends the block, the old folder or the new one is there."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest
from artifacts.folders import (
    failing_with,
    is_new,
    is_old,
    leftovers,
    make_old,
    names,
    publish_one,
    publish_with,
    write_folder,
    write_new,
)
from filelock import FileLock

from llama_export.bundle import output_lock, swap
from llama_export.bundle.ownership import refuse_existing
from llama_export.bundle.publish import Publication, publish
from llama_export.errors import OutputError


def test_the_folder_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "out" / "deep" / "onnx"
    with publish_one(target) as folder:
        assert folder.parent.parent == target.parent
        assert folder.parent.name == f".llama-export-{os.getpid()}"
        assert names(folder) == []
        write_folder(folder, "new")
        assert not target.exists()
    assert is_new(target)
    assert names(target.parent) == ["onnx"]


def test_an_existing_folder_is_refused_before_any_work(tmp_path):
    make_old(tmp_path / "out")
    before = (tmp_path / "out").stat(), tmp_path.stat()
    entered: list[Path] = []
    with pytest.raises(OutputError, match="already exists") as caught:
        publish_with(tmp_path / "out", entered.append)
    assert entered == []
    assert "--force" in caught.value.hint
    assert caught.value.exit_code == 11
    assert ((tmp_path / "out").stat(), tmp_path.stat()) == before


def test_an_empty_folder_is_refused_too(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="already exists"):
        write_new(tmp_path / "out")
    write_new(tmp_path / "out", force=True)
    assert is_new(tmp_path / "out")


def test_force_replaces_the_whole_folder(tmp_path):
    make_old(tmp_path / "out")
    with publish_one(tmp_path / "out", force=True) as folder:
        (folder / "manifest.json").write_text("new")
        assert is_old(tmp_path / "out")
    assert names(tmp_path / "out") == ["manifest.json"]
    assert names(tmp_path) == ["out"]


def test_force_does_not_replace_what_we_did_not_write(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="did not write it"):
        write_new(tmp_path / "home", force=True)
    assert names(tmp_path / "home") == ["thesis.tex"]


@pytest.mark.parametrize("force", [False, True])
def test_a_file_or_a_link_in_the_targets_place_is_refused(tmp_path, force):
    (tmp_path / "file").write_text("precious")
    make_old(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name, kind in (("file", "a file"), ("link", "symbolic"), ("dangling", "symbolic")):
        with pytest.raises(OutputError, match=kind) as caught:
            write_new(tmp_path / name, force=force)
        assert caught.value.hint
    assert (tmp_path / "file").read_text() == "precious"
    assert is_old(tmp_path / "real")
    assert names(tmp_path) == ["dangling", "file", "link", "real"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("target", ["/", "..", "a/.."])
def test_a_target_without_a_name_is_refused(target, force):
    with pytest.raises(OutputError, match="no name of its own"):
        write_new(Path(target), force=force)


def test_a_parent_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OutputError, match="cannot be written"):
        write_new(tmp_path / "file" / "sub" / "out")
    assert (tmp_path / "file").read_text() == "precious"


def test_a_name_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(OutputError) as caught:
        write_new(tmp_path / "p" / ("n" * 256))
    assert "shorter" in caught.value.hint
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_parent_that_forbids_writing_is_refused(tmp_path, monkeypatch, code):
    # A stand-in, because root may write everywhere.
    def forbidden(path, *args, **kwargs):
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "mkdir", forbidden)
    for target in (tmp_path / "out", tmp_path / "new" / "out"):
        with pytest.raises(OutputError, match=os.strerror(code)) as caught:
            write_new(target)
        assert "--output" in caught.value.hint
    assert names(tmp_path) == []


@pytest.mark.parametrize("failure", [ValueError("bug"), KeyboardInterrupt(), SystemExit(2)])
def test_any_exception_leaves_all_as_it_was(tmp_path, failure):
    make_old(tmp_path / "out")
    for target in (tmp_path / "out", tmp_path / "made" / "for" / "it"):
        with pytest.raises(type(failure)):
            publish_with(target, failing_with(failure), force=True)
    assert is_old(tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_a_relative_target_stays_where_it_was_meant(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with publish_one(Path("out")) as folder:
        os.chdir(tmp_path / "elsewhere")
        (folder / "manifest.json").write_text("new")
    assert names(tmp_path) == ["elsewhere", "out"]


FULL = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG]


@pytest.mark.parametrize("code", FULL)
def test_a_full_disk_keeps_the_old_files(tmp_path, code):
    make_old(tmp_path / "out")
    with pytest.raises(OutputError, match=os.strerror(code)) as caught:
        publish_with(tmp_path / "out", failing_with(OSError(code, os.strerror(code))), force=True)
    assert caught.value.hint
    assert isinstance(caught.value.__cause__, OSError)
    assert is_old(tmp_path / "out")
    assert names(tmp_path) == ["out"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_the_systems_own_word_for_a_full_disk_is_understood(tmp_path):
    with pytest.raises(OutputError, match="No space left"):
        publish_with(tmp_path / "out", lambda folder: Path("/dev/full").write_bytes(b"x"))
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_the_last_moment_keeps_the_old_files(tmp_path, monkeypatch, code):
    make_old(tmp_path / "out")

    def failing(handle):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OutputError, match=os.strerror(code)):
        write_new(tmp_path / "out", force=True)
    assert is_old(tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_a_fault_of_the_input_is_not_blamed_on_the_output(tmp_path):
    for error in (
        FileNotFoundError(errno.ENOENT, "no such file", str(tmp_path / "model.safetensors")),
        PermissionError(errno.EACCES, "denied", str(tmp_path / "model.safetensors")),
        OSError(errno.EIO, "broken disk"),
    ):
        with pytest.raises(type(error)):
            publish_with(tmp_path / "out", failing_with(error))
    inside = tmp_path / f".llama-export-{os.getpid()}" / "out" / "model.onnx"
    denied = PermissionError(errno.EACCES, "denied", str(inside))
    with pytest.raises(OutputError, match="denied"):
        publish_with(tmp_path / "out", failing_with(denied))
    assert names(tmp_path) == []


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_the_old_folder_comes_back_when_a_rename_fails(tmp_path, monkeypatch, failing):
    make_old(tmp_path / "out")
    rename, calls = Path.rename, []

    def one_fails(source, target):
        calls.append(source.name)
        if len(calls) == failing + 1:  # the first is the journal's
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(source))
        return rename(source, target)

    monkeypatch.setattr(swap, "exchange", lambda first, second: False)
    monkeypatch.setattr(Path, "rename", one_fails)
    with pytest.raises(OutputError, match="busy"):
        write_new(tmp_path / "out", force=True)
    assert is_old(tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_a_folder_that_appears_during_the_work_is_not_lost(tmp_path):
    with pytest.raises(OutputError, match="already exists"):
        publish_with(tmp_path / "out", lambda folder: make_old(tmp_path / "out"))
    assert is_old(tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_every_file_is_on_the_disk_before_the_first_rename(tmp_path, monkeypatch):
    events: list[object] = []
    fsync, rename = os.fsync, Path.rename

    def log_fsync(handle):
        events.append(os.fstat(handle).st_ino)
        fsync(handle)

    def log_rename(source, target):
        events.append(source.name)
        return rename(source, target)

    with publish_one(tmp_path / "out") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "a").write_text("a")
        (folder / "b").write_text("b")
        (folder / "link").symlink_to(tmp_path / "nowhere")
        inside = {path.lstat().st_ino for path in [folder, folder.parent, *folder.rglob("*")]}
        inside.remove((folder / "link").lstat().st_ino)
        work = folder.parent.stat().st_ino
        monkeypatch.setattr(os, "fsync", log_fsync)
        monkeypatch.setattr(Path, "rename", log_rename)
    journal, place = events.index("journal.json.draft"), events.index("out")
    assert set(events[: journal - 1]) == inside
    # The journal is on the disk before the pass, and goes when the pass is.
    assert events[journal + 1 : place] == [work, tmp_path.stat().st_ino]
    assert events[place + 1 :] == [tmp_path.stat().st_ino, work]


def test_a_second_publish_of_the_same_target_is_refused(tmp_path):
    with publish_one(tmp_path / "out", force=True) as folder:
        (folder / "manifest.json").write_text("first")
        for name in ("out", "other"):  # the output is one, whatever goes into it
            with pytest.raises(OutputError, match="another export is writing"):
                write_new(tmp_path / name, force=True)
        write_new(tmp_path / "elsewhere" / "out")
        assert names(folder) == ["manifest.json"]
    assert (tmp_path / "out" / "manifest.json").read_text() == "first"
    assert names(tmp_path) == ["elsewhere", "out"]


def test_an_id_used_again_does_not_keep_a_leftover(tmp_path):
    # Nobody holds the lock, so the process that lives under this id now is another one.
    leftovers(tmp_path, os.getpid(), os.getppid())
    write_new(tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_other_folders_beside_the_target_are_left_alone(tmp_path):
    others = [".llama-export-x", ".out2.old-1", ".other.old-1", "llama-export-1", ".llama-export-"]
    for name in others:
        (tmp_path / name).mkdir()
    write_new(tmp_path / "out")
    assert names(tmp_path) == sorted([*others, "out"])


def test_a_folder_that_a_dead_process_moved_aside_comes_back(tmp_path):
    make_old(tmp_path / ".out.old-1")
    leftovers(tmp_path, 1)
    with pytest.raises(OutputError, match="already exists"):
        write_new(tmp_path / "out")
    assert is_old(tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_a_folder_moved_aside_is_removed_when_its_successor_is_there(tmp_path):
    make_old(tmp_path / ".out.old-1")
    write_new(tmp_path / "x")
    (tmp_path / "x").rename(tmp_path / "out")
    write_new(tmp_path / "out", force=True)
    assert names(tmp_path) == ["out"]
    assert is_new(tmp_path / "out")


def test_the_lock_that_counts_is_the_one_in_the_folder(tmp_path, monkeypatch):
    # Between our open and our lock, the last holder removes the file and a rival makes its own.
    lock, flock, calls = tmp_path / output_lock.LOCK_NAME, fcntl.flock, []

    def late(handle, operation):
        calls.append(handle)
        if len(calls) == 1:
            lock.unlink()
            lock.touch()
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with publish_one(tmp_path / "out") as folder:
        assert lock.exists()
        with pytest.raises(OutputError, match="another export is writing"):
            write_new(tmp_path / "out")
        (folder / "manifest.json").write_text("new")
    assert len(calls) > 2
    assert names(tmp_path) == ["out"]


def test_filelocks_own_lock_would_leave_its_file(tmp_path):
    """Why `output_lock` takes only the locking of an open file from filelock."""
    with FileLock(tmp_path / output_lock.LOCK_NAME):
        pass
    assert names(tmp_path) == [output_lock.LOCK_NAME]
    write_new(tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_what_has_no_name_in_the_output_goes_away(tmp_path):
    with publish(Publication(tmp_path, ("out",))) as work:
        write_folder(work / "out", "new")
        (work / "unkept").mkdir()
        (work / "unkept" / "weights").write_text("half")
    assert is_new(tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_one_may_ask_early(tmp_path):
    make_old(tmp_path / "out")
    refuse_existing(tmp_path / "new", force=False)
    refuse_existing(tmp_path / "out", force=True)
    with pytest.raises(OutputError, match="already exists"):
        refuse_existing(tmp_path / "out", force=False)
