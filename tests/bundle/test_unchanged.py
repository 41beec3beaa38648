"""A bundle's files are compared with their hashes before they are loaded, and not read in vain."""

from __future__ import annotations

import json
import os
import random
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from artifacts.sample_bundle import DRAFT, fill

from llama_export.bundle import bundle as bundle_module
from llama_export.bundle import hash_cache, unchanged
from llama_export.bundle.bundle import Bundle, seal
from llama_export.bundle.hash_cache import cache_folder, recall, remember
from llama_export.bundle.unchanged import require_unchanged
from llama_export.errors import BundleError

LARGE = "model.onnx.data"
LARGE_BYTES = 3 * 2**20
OLD_NS = 1_600_000_000 * 10**9


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LLAMA_EXPORT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def opened(tmp_path, cache, monkeypatch) -> Bundle:
    """A bundle with one large file, as if it had lain there for long."""
    monkeypatch.setattr(unchanged, "HEAD_BYTES", 2**20)
    monkeypatch.setattr(unchanged, "_SETTLED_NS", -(10**18))
    folder = fill(tmp_path / "bundle")
    (folder / LARGE).write_bytes(random.Random(1).randbytes(LARGE_BYTES))
    seal(folder, DRAFT)
    return Bundle.open(folder)


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """Names of the files that were read whole, in their order."""
    names: list[str] = []
    real = bundle_module.hash_file

    def hash_file(path, progress=None):
        names.append(path.name)
        return real(path, progress)

    monkeypatch.setattr(bundle_module, "hash_file", hash_file)
    return names


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x40]))


def rewind_times(path: Path, before: os.stat_result) -> None:
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_large_file_is_read_once_and_small_ones_each_time(opened, read):
    require_unchanged(opened)
    assert LARGE in read
    first = len(read)
    require_unchanged(opened)
    assert LARGE not in read[first:]
    assert {"model.onnx", "tokenizer.model", "empty.bin"} <= set(read[first:])


def test_a_changed_file_is_named_with_both_hashes(opened):
    require_unchanged(opened)
    for name in ("tokenizer.model", LARGE):
        flip(opened.path(name), 3)
    with pytest.raises(BundleError, match=r"sha256 [0-9a-f]{12}.*, found [0-9a-f]{12}") as caught:
        require_unchanged(opened)
    assert LARGE in caught.value.message
    assert "tokenizer.model" in caught.value.message
    assert "export it again" in caught.value.hint


def test_a_changed_file_whose_time_was_set_back_is_named(opened):
    """No program can set the time at which a file's times were set."""
    require_unchanged(opened)
    path = opened.path(LARGE)
    before = path.stat()
    flip(path, LARGE_BYTES - 5)
    rewind_times(path, before)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(BundleError, match=f"{LARGE} is changed"):
        require_unchanged(opened)


def test_the_beginning_of_a_large_file_is_read_each_time(opened, monkeypatch):
    """As if the system knew nothing of the change: a bit that tipped on the disk."""
    require_unchanged(opened)
    stamp = recall(opened.folder)[LARGE].stamp
    real = hash_cache.Stamp.of
    monkeypatch.setattr(
        hash_cache.Stamp, "of", lambda path: stamp if path.name == LARGE else real(path)
    )
    flip(opened.path(LARGE), 2**20 - 1)
    with pytest.raises(BundleError, match=f"{LARGE} is changed"):
        require_unchanged(opened)


def test_another_manifest_is_not_believed_because_of_an_older_one(opened):
    require_unchanged(opened)
    flip(opened.path(LARGE), LARGE_BYTES - 5)
    other = seal(opened.folder, DRAFT)
    flip(opened.path(LARGE), LARGE_BYTES - 5)
    with pytest.raises(BundleError, match=f"{LARGE} is changed"):
        require_unchanged(replace(opened, manifest=other))


def test_what_changed_lately_is_not_remembered(opened, read, monkeypatch):
    """The clock of a file system ticks coarsely: another change could leave the same times."""
    monkeypatch.setattr(unchanged, "_SETTLED_NS", 2 * 10**9)
    opened.path(LARGE).touch()
    require_unchanged(opened)
    require_unchanged(opened)
    assert read.count(LARGE) == 2
    assert recall(opened.folder) == {}


def test_a_file_that_changes_while_it_is_loaded_is_named(opened):
    seen = require_unchanged(opened)
    seen.require_still()
    flip(opened.path("tokenizer.model"), 1)
    with pytest.raises(BundleError, match=r"tokenizer\.model changed while it was loaded"):
        seen.require_still()
    opened.path("tokenizer.model").unlink()
    with pytest.raises(BundleError, match=r"tokenizer\.model changed while it was loaded"):
        seen.require_still()


def test_a_file_that_changes_while_it_is_read_is_named(opened, monkeypatch):
    real = bundle_module.hash_file

    def hash_file(path, progress=None):
        found = real(path, progress)
        if path.name == LARGE:
            flip(path, 5)
        return found

    monkeypatch.setattr(bundle_module, "hash_file", hash_file)
    with pytest.raises(BundleError, match=f"{LARGE} changed while"):
        require_unchanged(opened)
    assert recall(opened.folder) == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"format_version": 2}',
        b'{"format_version": 1, "files": {"a": 5}}',
        b"\xff" * 50,
        b"[" * 100_000,
        b'{"format_version": 1, "files": []}',
    ],
)
def test_a_damaged_memory_costs_a_reading_and_nothing_else(opened, read, cache, content):
    require_unchanged(opened)
    (place,) = (cache / "hashes").iterdir()
    place.write_bytes(content)
    read.clear()
    require_unchanged(opened)
    assert LARGE in read
    read.clear()
    require_unchanged(opened)
    assert LARGE not in read


@pytest.mark.parametrize("key", ["sha256", "head_sha256", "inode", "changed_ns", "size_bytes"])
@pytest.mark.parametrize("value", [None, "0" * 64, 5, -1, 2**80, {}, "x"])
def test_a_memory_of_any_other_value_counts_for_nothing(opened, read, cache, key, value):
    require_unchanged(opened)
    (place,) = (cache / "hashes").iterdir()
    raw = json.loads(place.read_text())
    raw["files"][LARGE][key] = value
    place.write_text(json.dumps(raw))
    read.clear()
    require_unchanged(opened)
    assert LARGE in read


def test_the_memory_of_another_folder_counts_for_nothing(opened, cache):
    require_unchanged(opened)
    (place,) = (cache / "hashes").iterdir()
    raw = json.loads(place.read_text())
    place.write_text(json.dumps({**raw, "folder": "/elsewhere"}))
    assert recall(opened.folder) == {}


def test_a_memory_behind_a_link_or_of_somebody_else_counts_for_nothing(opened, cache, monkeypatch):
    require_unchanged(opened)
    (place,) = (cache / "hashes").iterdir()
    moved = place.rename(cache / "elsewhere.json")
    place.symlink_to(moved)
    assert recall(opened.folder) == {}
    place.unlink()
    moved.rename(place)
    assert set(recall(opened.folder)) == {LARGE}
    monkeypatch.setattr(os, "geteuid", lambda: 12345, raising=False)
    assert recall(opened.folder) == {}


def test_a_cache_folder_that_cannot_be_written_does_no_harm(opened, read, cache):
    cache.write_text("a file")
    require_unchanged(opened)
    require_unchanged(opened)
    assert read.count(LARGE) == 2


def test_no_cache_folder_does_no_harm(opened, read, monkeypatch):
    monkeypatch.setattr(hash_cache, "cache_folder", lambda: None)
    require_unchanged(opened)
    require_unchanged(opened)
    assert read.count(LARGE) == 2


def test_the_oldest_memories_go(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(hash_cache, "_MOST_FOLDERS", 3)
    for number in range(5):
        remember(tmp_path / str(number), {})
        for path in (cache / "hashes").iterdir():
            os.utime(path, ns=(OLD_NS, path.stat().st_mtime_ns - 10**9))
    assert len(list((cache / "hashes").iterdir())) == 3
    kept = {json.loads(path.read_text())["folder"] for path in (cache / "hashes").iterdir()}
    assert kept == {str(tmp_path / name) for name in "234"}


@pytest.mark.parametrize(
    ("system", "variables", "expected"),
    [
        ("Linux", {}, ".cache/llama-export"),
        ("Linux", {"XDG_CACHE_HOME": "relative"}, ".cache/llama-export"),
        ("Linux", {"XDG_CACHE_HOME": "{home}/xdg"}, "xdg/llama-export"),
        ("Darwin", {"XDG_CACHE_HOME": "{home}/xdg"}, "Library/Caches/llama-export"),
        ("Windows", {}, "AppData/Local/llama-export/Cache"),
        ("Windows", {"LOCALAPPDATA": "{home}/data"}, "data/llama-export/Cache"),
        ("Linux", {"LLAMA_EXPORT_CACHE": "{home}/mine"}, "mine"),
        ("Windows", {"LLAMA_EXPORT_CACHE": "{home}/mine"}, "mine"),
    ],
)
def test_the_cache_folder_is_where_the_system_wants_it(
    tmp_path, monkeypatch, system, variables, expected
):
    for name in ("LLAMA_EXPORT_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(home=tmp_path))
    monkeypatch.setattr(hash_cache.platform, "system", lambda: system)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache_folder() == tmp_path / expected


def test_a_user_without_a_home_has_no_cache_folder(monkeypatch):
    def nowhere():
        raise RuntimeError

    monkeypatch.delenv("LLAMA_EXPORT_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    assert cache_folder() is None


class Shown:
    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    @contextmanager
    def step(self, label):
        assert "hashes" in label
        yield lambda done, total: self.calls.append((done, total))


def test_reading_is_shown_when_it_takes_long(opened, monkeypatch):
    shown = Shown()
    require_unchanged(opened, shown)
    assert shown.calls == []
    flip(opened.path(LARGE), 9)
    flip(opened.path(LARGE), 9)
    monkeypatch.setattr(unchanged, "SHOWN_BYTES", LARGE_BYTES)
    require_unchanged(opened, shown)
    assert shown.calls[-1] == (opened.size_bytes, opened.size_bytes)
