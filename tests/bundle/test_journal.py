"""Several folders put in place as one, and what an interrupted pass leaves to the next export."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from artifacts.folders import is_new, is_old, make_old, names, word_of, write_folder

from llama_export.bundle import journal, swap
from llama_export.bundle.bundle import Bundle
from llama_export.bundle.interrupts import one_interrupt
from llama_export.bundle.journal import unfinished
from llama_export.bundle.output_lock import LOCK_NAME
from llama_export.bundle.publish import Publication, publish
from llama_export.bundle.swap import Change, carry_out, exchange, inode
from llama_export.errors import BundleError, OutputError

NAMES = ("onnx", "coreml", "weights")


def make_all(output: Path) -> None:
    for name in NAMES:
        make_old(output / name)


def write_all(output: Path, word: str = "new", **choices: bool) -> None:
    with publish(Publication(output, NAMES, **choices)) as work:
        for name in NAMES:
            write_folder(work / name, word)


def words(output: Path) -> list[str]:
    return [word_of(output / name) for name in NAMES]


@pytest.fixture(scope="module")
def dead() -> int:
    """Return the id of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


@pytest.fixture
def halved(tmp_path, dead) -> Path:
    """Return an output whose export was killed after the first of three exchanges."""
    make_all(tmp_path)
    work = tmp_path / f".llama-export-{dead}"
    for name in NAMES:
        (work / name).mkdir(parents=True)
        write_folder(work / name, "new")
    changes = [Change(name, inode(work / name), inode(tmp_path / name)) for name in NAMES]
    journal._write(work, changes)
    carry_out(changes[0], tmp_path, work)
    assert words(tmp_path) == ["new", "old", "old"]
    return tmp_path


def test_all_appear_together(tmp_path):
    make_all(tmp_path)
    with publish(Publication(tmp_path, NAMES, force=True)) as work:
        for name in NAMES:
            write_folder(work / name, "new")
            assert words(tmp_path) == ["old"] * 3
    assert words(tmp_path) == ["new"] * 3
    assert names(tmp_path) == sorted(NAMES)


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("failing", range(1, 8))
def test_a_rename_that_fails_undoes_those_before_it(tmp_path, monkeypatch, failing, exchanges):
    make_all(tmp_path)
    calls = []

    def counted(real):
        def call(source, target):
            calls.append(source)
            if len(calls) == failing:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(source))
            return real(source, target)

        return call

    monkeypatch.setattr(Path, "rename", counted(Path.rename))
    monkeypatch.setattr(swap, "exchange", counted(exchange) if exchanges else lambda *_: False)
    if exchanges and failing > 4:  # the journal's rename, and one exchange a folder
        write_all(tmp_path, force=True)
        assert words(tmp_path) == ["new"] * 3
    else:
        with pytest.raises(OutputError, match="Input/output error"):
            write_all(tmp_path, force=True)
        assert words(tmp_path) == ["old"] * 3
    assert names(tmp_path) == sorted(NAMES)


def test_what_cannot_be_undone_is_said_and_finished_later(tmp_path, monkeypatch):
    make_all(tmp_path)
    calls = []

    def broken(first, second):
        calls.append(first)
        if len(calls) > 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(first))
        return exchange(first, second)

    monkeypatch.setattr(swap, "exchange", broken)
    with pytest.raises(OutputError, match="half written") as caught:
        write_all(tmp_path, force=True)
    assert "finishes it" in caught.value.hint
    assert words(tmp_path) == ["new", "old", "old"]
    monkeypatch.setattr(swap, "exchange", exchange)
    with pytest.raises(OutputError, match="already exists"):
        write_all(tmp_path, "newer")
    assert words(tmp_path) == ["new"] * 3
    assert names(tmp_path) == sorted(NAMES)


def test_the_next_export_finishes_it_and_says_so(halved, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("llama_export"), "propagate", True)
    with pytest.raises(OutputError, match="already exists"):
        write_all(halved, "newer")
    assert "is finished" in caplog.text
    assert words(halved) == ["new"] * 3
    assert names(halved) == sorted(NAMES)


def test_it_is_finished_even_for_another_target(halved):
    with publish(Publication(halved, ("executorch",))) as work:
        write_folder(work / "executorch", "newest")
    assert words(halved) == ["new"] * 3
    assert names(halved) == sorted([*NAMES, "executorch"])


def test_readers_name_it(halved, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("llama_export"), "propagate", True)
    monkeypatch.chdir(halved / "onnx")
    for folder in (Path(), halved / "coreml", halved / "weights"):
        assert f"--output {halved} finishes it" in unfinished(folder)
    assert unfinished(halved / "executorch") == ""
    Bundle.open(halved / "onnx")
    assert "was interrupted" in caplog.text


def test_a_pass_that_is_under_way_is_not_called_interrupted(halved, dead):
    (halved / f".llama-export-{dead}").rename(halved / f".llama-export-{os.getppid()}")
    assert unfinished(halved / "onnx") == ""


def test_a_bundle_that_is_gone_names_what_would_restore_it(tmp_path, dead):
    make_old(tmp_path / f".onnx.old-{dead}")
    with pytest.raises(BundleError, match="does not exist") as caught:
        Bundle.open(tmp_path / "onnx")
    assert f"{tmp_path / f'.onnx.old-{dead}'}: rename that" in caught.value.hint
    assert f"--output {tmp_path}" in caught.value.hint
    with pytest.raises(BundleError) as caught:
        Bundle.open(tmp_path / "coreml")
    assert "rename" not in caught.value.hint


def test_a_leftover_of_somebody_else_stays(tmp_path):
    (tmp_path / ".onnx.old-1").mkdir()
    (tmp_path / ".onnx.old-1" / "mine").write_text("mine")
    with publish(Publication(tmp_path, ("onnx",))) as work:
        write_folder(work / "onnx", "new")
    assert names(tmp_path) == [".onnx.old-1", "onnx"]


def test_what_came_after_the_interruption_is_carried_over(halved):
    """A saved chat in the old folder, which waits to be replaced."""
    (halved / "coreml" / "chat.npz").write_text("mine")
    with pytest.raises(OutputError, match="already exists"):
        write_all(halved, "newer")
    assert (halved / "coreml" / "chat.npz").read_text() == "mine"
    (halved / "coreml" / "chat.npz").unlink()
    assert words(halved) == ["new"] * 3


def test_a_folder_that_somebody_put_there_since_is_not_touched(halved):
    (halved / "weights").rename(halved / "mine")
    make_old(halved / "weights")
    with pytest.raises(OutputError, match="changed since") as caught:
        write_all(halved, force=True)
    assert "take from" in caught.value.hint
    assert is_old(halved / "weights")
    assert is_old(halved / "mine")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format_version": 2, "changes": []}',
        '{"format_version": 1, "changes": [{"name": "../x", "new": 1, "old": 2}]}',
        '{"format_version": 1, "changes": [{"name": "onnx", "new": "1", "old": null}]}',
        '{"format_version": 1, "changes": [7]}',
        '{"format_version": 1, "changes": 7}',
    ],
)
def test_a_damaged_journal_is_named_and_nothing_is_moved(halved, dead, text):
    (halved / f".llama-export-{dead}" / "journal.json").write_text(text)
    with pytest.raises(OutputError, match=r"journal.* is damaged"):
        write_all(halved, force=True)
    assert words(halved) == ["new", "old", "old"]
    assert unfinished(halved / "onnx") == ""


@pytest.mark.parametrize("stop", range(6))
def test_a_change_can_be_finished_or_undone_from_wherever_it_stopped(tmp_path, monkeypatch, stop):
    """Without an exchange there are three renames; each may be the last one."""
    monkeypatch.setattr(swap, "exchange", lambda *_: False)
    rename = Path.rename
    for place, word in ((tmp_path / "onnx", "old"), (tmp_path / "w-7" / "onnx", "new")):
        place.mkdir(parents=True)
        write_folder(place, word)
    change = Change("onnx", inode(tmp_path / "w-7" / "onnx"), inode(tmp_path / "onnx"))
    left = stop % 3

    def stops(source, target):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", stops)
    with pytest.raises(KeyboardInterrupt):
        carry_out(change, tmp_path, tmp_path / "w-7")
    monkeypatch.setattr(Path, "rename", rename)
    finished = stop < 3
    carry_out(change if finished else change.reversed(), tmp_path, tmp_path / "w-7")
    assert (is_new if finished else is_old)(tmp_path / "onnx")
    assert (is_old if finished else is_new)(tmp_path / "w-7" / "onnx")
    assert names(tmp_path) == ["onnx", "w-7"]


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="needs such a system")
def test_the_system_exchanges_two_folders_in_one_step(tmp_path):
    make_old(tmp_path / "a")
    (tmp_path / "b").mkdir()
    assert exchange(tmp_path / "a", tmp_path / "b")
    assert is_old(tmp_path / "b")
    assert not exchange(tmp_path / "a", tmp_path / "nowhere")


def test_a_system_without_an_exchange_is_no_error(tmp_path, monkeypatch):
    class Old:
        def __getattr__(self, name):
            raise AttributeError(name)

    monkeypatch.setattr(swap.ctypes, "CDLL", lambda *_, **__: Old())
    make_all(tmp_path)
    write_all(tmp_path, force=True)
    assert words(tmp_path) == ["new"] * 3
    assert names(tmp_path) == sorted(NAMES)


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / LOCK_NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="is a symbolic link"):
        write_all(tmp_path / "out")
    assert not (tmp_path / "elsewhere").exists()
    assert names(tmp_path / "out") == [LOCK_NAME]


def test_a_work_folder_that_is_a_link_is_not_entered(tmp_path, dead):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "journal.json").write_text(json.dumps({"format_version": 1}))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f".llama-export-{dead}").symlink_to(tmp_path / "mine")
    write_all(tmp_path / "out")
    assert names(tmp_path / "mine") == ["journal.json"]


@pytest.fixture
def signals():
    """Let SIGTERM raise, and return which ones came."""
    seen: list[object] = []

    def handler(number, _frame):
        seen.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, handler)
    yield seen
    assert signal.getsignal(signal.SIGTERM) is handler
    signal.signal(signal.SIGTERM, before)


def test_one_signal_interrupts_and_the_next_one_waits(signals):
    def struck_twice():
        with one_interrupt():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                signal.raise_signal(signal.SIGTERM)
                signals.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        struck_twice()
    assert signals == [signal.SIGTERM, "cleaned up", signal.SIGTERM]


def test_a_signal_that_is_held_comes_at_the_end(signals):
    def struck():
        with one_interrupt() as interrupts:
            interrupts.hold()
            signal.raise_signal(signal.SIGTERM)
            signals.append("finished")

    with pytest.raises(KeyboardInterrupt):
        struck()
    assert signals == ["finished", signal.SIGTERM]


def test_a_handler_that_does_not_raise_may_be_called_again():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: seen.append(number))
    try:
        with one_interrupt():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        assert len(seen) == 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_may_export_too(tmp_path):
    thread = threading.Thread(target=write_all, args=(tmp_path / "out",))
    thread.start()
    thread.join()
    assert words(tmp_path / "out") == ["new"] * 3


def test_a_signal_in_the_pass_says_that_the_new_output_is_in_place(tmp_path, monkeypatch):
    make_all(tmp_path)

    def struck(first, second):
        signal.raise_signal(signal.SIGINT)
        return exchange(first, second)

    monkeypatch.setattr(swap, "exchange", struck)
    with pytest.raises(KeyboardInterrupt) as caught:
        write_all(tmp_path, force=True)
    assert caught.value.__notes__ == ["the new output is in place"]
    assert words(tmp_path) == ["new"] * 3
    assert names(tmp_path) == sorted(NAMES)


def test_what_cannot_be_removed_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("llama_export"), "propagate", True)
    make_all(tmp_path)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    write_all(tmp_path, force=True)
    assert words(tmp_path) == ["new"] * 3
    assert "could not be removed" in caplog.text
    with (
        pytest.raises(KeyboardInterrupt) as caught,
        publish(Publication(tmp_path / "fresh", NAMES)),
    ):
        raise KeyboardInterrupt
    assert "is left; the next export" in caught.value.__notes__[0]
