"""Why the weights come by our own download: promises of ours that huggingface_hub's breaks.

Each test asks both for the same file of the same hub. Where one goes red because huggingface_hub
keeps a promise now, `snapshot_download` may take that part over: see `sources/download.py`.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from fakes.hub import COMMIT, REPOSITORY, Hub, serve
from huggingface_hub import file_download, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from llama_export.errors import HubError, OutputError
from llama_export.sources import repository as repository_module

pytestmark = pytest.mark.usefixtures("alone")

WEIGHTS = "model.safetensors"
SIZE = 300_000
# More often than either of them tries again.
BREAKS = [100_000, *[0] * 20]


@pytest.fixture
def hub():
    small = {"config.json": b"{}", "tokenizer.json": b"{}", "LICENSE": b"MIT"}
    content = random.Random(0).randbytes(SIZE)
    with serve(Hub({**small, WEIGHTS: content})) as running:
        yield running


@pytest.fixture
def theirs(hub, tmp_path, monkeypatch):
    """Fetch the same by huggingface_hub alone, into a cache of its own, without waiting."""
    monkeypatch.setattr(file_download.time, "sleep", lambda _: None)

    def theirs(**options) -> Path:
        options = {"endpoint": hub.endpoint, "max_workers": 1, **options}
        return Path(snapshot_download(REPOSITORY, cache_dir=tmp_path / "theirs", **options))

    return theirs


def kept(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.rglob("*.incomplete")]


def test_both_bring_the_same_files(hub, get, theirs, tmp_path):
    ours, other = get(), theirs()
    for name, content in hub.files.items():
        assert (ours / name).read_bytes() == (other / name).read_bytes() == content
    assert ours.relative_to(tmp_path / "cache") == other.relative_to(tmp_path / "theirs")


def test_what_came_before_it_broke_off_is_kept(hub, get, theirs, tmp_path):
    """Of gigabytes over a bad line nothing is kept by huggingface_hub: each run begins again."""
    for fetch, folder, ranges in ((get, "cache", ["bytes=100000-"]), (theirs, "theirs", [None])):
        hub.break_at[WEIGHTS] = list(BREAKS)
        with pytest.raises(Exception, match=r"broke off|peer closed|incomplete"):
            fetch()
        assert kept(tmp_path / folder) == ([100_000] if fetch is get else [])
        hub.break_at.clear()
        hub.requests.clear()
        assert (fetch() / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
        assert [request.range for request in hub.sent("GET", WEIGHTS)] == ranges


def test_what_xet_brought_is_not_kept_either(hub, theirs, tmp_path, monkeypatch):
    hub.extra_headers |= {"X-Xet-Hash": "a" * 64, "X-Xet-Refresh-Route": f"{hub.endpoint}/x"}
    begun = []

    def half(*, incomplete_path, **_):
        incomplete_path.write_bytes(hub.files[WEIGHTS][:100_000])
        begun.append(incomplete_path)
        raise ConnectionError

    monkeypatch.setattr(file_download, "is_xet_available", lambda: True)
    monkeypatch.setattr(file_download, "xet_get", half)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            theirs(allow_patterns=[WEIGHTS])
    assert len({*begun}) == 2
    assert kept(tmp_path / "theirs") == []


def test_damage_on_the_way_is_found(hub, get, theirs):
    """huggingface_hub compares the length alone, so a model with a wrong byte is exported."""
    damaged = bytearray(hub.files[WEIGHTS])
    damaged[SIZE // 2] ^= 1
    hub.instead[WEIGHTS] = bytes(damaged)
    with pytest.raises(HubError, match=f"{WEIGHTS} was damaged"):
        get()
    assert (theirs() / WEIGHTS).read_bytes() == damaged != hub.files[WEIGHTS]


def test_a_disk_that_is_too_small_is_refused_before_the_download(hub, get, theirs, monkeypatch):
    usage = type(shutil.disk_usage("/"))(SIZE, SIZE, 10)
    for module in (repository_module, file_download):
        monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match=r"and 0\.0 kB are free"):
        get()
    assert hub.sent("GET", WEIGHTS) == []
    with pytest.warns(UserWarning, match="Not enough free disk space"):
        theirs()
    assert len(hub.sent("GET", WEIGHTS)) == 1


def test_a_complete_copy_is_found_until_the_next_is_complete(hub, get, theirs, tmp_path):
    """huggingface_hub moves the branch's name first: without network the old copy is lost."""
    newer = COMMIT[::-1]
    for fetch, folder in ((get, "cache"), (theirs, "theirs")):
        hub.commit = COMMIT
        fetch()
        (old,) = (tmp_path / folder).rglob("refs/main")
        assert old.read_text() == COMMIT
        hub.commit = newer
        hub.refuse["/resolve/"] = (404, {"X-Error-Code": "EntryNotFound"})
        with pytest.raises(Exception, match=r"is not there|404"):
            fetch()
        assert old.read_text() == (COMMIT if fetch is get else newer)
        hub.refuse.clear()
    unreached = {"endpoint": "http://127.0.0.1:1"}
    assert (get(**unreached) / WEIGHTS).is_file()
    with pytest.raises(LocalEntryNotFoundError):
        Path(theirs(local_files_only=True) / WEIGHTS).read_bytes()
