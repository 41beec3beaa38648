"""Files of the hub's cache are found damaged by their own names, and fetched again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fakes.hub import REPOSITORY, Hub, serve

from llama_export.errors import HubError, OutputError
from llama_export.sources import blobs as blobs_module

pytestmark = pytest.mark.usefixtures("alone")

WEIGHTS = "model.safetensors"
SMALL = ("config.json", "tokenizer.json", "LICENSE", "original/tokenizer.model")
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def hub():
    files = {name: name.encode() * 10 for name in SMALL}
    with serve(Hub({**files, WEIGHTS: b"weights" * 1000})) as running:
        yield running


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    """Files that the cache was hashed for."""
    names: list[str] = []
    original = blobs_module.hash_into

    def counted(digest, path, progress):
        names.append(path.name)
        return original(digest, path, progress)

    monkeypatch.setattr(blobs_module, "hash_into", counted)
    return names


def flip_a_bit(path: Path) -> Path:
    """Damage a file as a disk does: its size, its name and its time stay."""
    blob = path.resolve()
    found = blob.stat()
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)
    os.utime(blob, ns=(found.st_atime_ns, found.st_mtime_ns))
    return blob


@pytest.mark.parametrize("name", [*SMALL, WEIGHTS])
def test_a_damaged_file_is_fetched_again(hub, get, caplog, name):
    folder = get()
    blob = flip_a_bit(folder / name)
    hub.requests.clear()
    assert get() == folder
    assert (folder / name).read_bytes() == hub.files[name]
    assert len(hub.sent("GET", name)) == 1
    assert "damaged in the cache" in caplog.text
    assert blob.name in caplog.text


@pytest.mark.parametrize("name", [*SMALL, WEIGHTS])
def test_without_network_a_damaged_file_is_named_with_what_to_do(get, name):
    folder = get()
    blob = flip_a_bit(folder / name)
    with pytest.raises(HubError, match=f"{name} of {REPOSITORY} is damaged") as caught:
        get(endpoint=NOWHERE)
    assert str(blob) in caught.value.message
    assert "delete it" in caught.value.hint
    blob.unlink()
    with pytest.raises(HubError, match="no complete copy"):
        get(endpoint=NOWHERE)


def test_a_plan_does_not_read_the_weights(get, hashed):
    folder = get()
    flip_a_bit(folder / WEIGHTS)
    hashed.clear()
    assert get(weights=False) == folder
    assert get(endpoint=NOWHERE, weights=False) == folder
    assert (folder / WEIGHTS).resolve().name not in hashed


def test_a_damaged_file_that_no_commit_links_to_is_not_taken(hub, get):
    folder = get()
    flip_a_bit(folder / "config.json")
    (folder / "config.json").unlink()
    assert (get() / "config.json").read_bytes() == hub.files["config.json"]


def test_a_hub_that_sends_the_damage_is_named(hub, get):
    folder = get()
    blob = flip_a_bit(folder / WEIGHTS)
    hub.instead[WEIGHTS] = blob.read_bytes()
    with pytest.raises(HubError, match="damaged on the way"):
        get()


def test_large_files_are_hashed_once(get, hashed, monkeypatch):
    monkeypatch.setattr(blobs_module, "_SMALL_BYTES", 1000)
    folder = get()
    blob = (folder / WEIGHTS).resolve()
    for _ in range(2):
        get()
    # What the download itself checked is not read again.
    assert blob.name not in hashed
    assert (folder / "config.json").resolve().name in hashed
    os.utime(blob, ns=(1, 1))
    get()
    get()
    assert hashed.count(blob.name) == 1


def test_a_file_that_changes_while_it_is_hashed_is_not_noted(get, hashed, monkeypatch):
    monkeypatch.setattr(blobs_module, "_SMALL_BYTES", 1000)
    blob = (get() / WEIGHTS).resolve()
    os.utime(blob, ns=(1, 1))
    get(progress=lambda done, total: os.utime(blob, ns=(done, done)))
    get()
    assert hashed.count(blob.name) == 2


@pytest.mark.parametrize("note", [b"", b"\xff", b"7000 1 2 3\n", None])
def test_a_note_that_does_not_fit_means_hashing_again(get, hashed, monkeypatch, note):
    monkeypatch.setattr(blobs_module, "_SMALL_BYTES", 1000)
    blob = (get() / WEIGHTS).resolve()
    path = blob.parents[1] / ".llama-export" / blob.name
    if note is None:
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(note)
    get()
    assert hashed.count(blob.name) == 1


def test_hashing_large_files_is_shown(get, monkeypatch):
    monkeypatch.setattr(blobs_module, "_SMALL_BYTES", 1000)
    os.utime((get() / WEIGHTS).resolve(), ns=(1, 1))
    seen: list[tuple[int, int]] = []
    get(progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > 7000


@pytest.mark.parametrize("refused", [("symlink_to",), ("symlink_to", "hardlink_to")])
def test_a_system_without_links_has_the_same_files(hub, get, tmp_path, monkeypatch, refused):
    from huggingface_hub import hf_hub_download

    def forbidden(*_):
        raise OSError(1, "Operation not permitted")

    for name in refused:
        monkeypatch.setattr(Path, name, forbidden)
    folder = get()
    for name in (*SMALL, WEIGHTS):
        assert (folder / name).read_bytes() == hub.files[name]
        found = hf_hub_download(
            REPOSITORY, name, cache_dir=tmp_path / "cache", local_files_only=True
        )
        assert Path(found) == folder / name
    hub.requests.clear()
    assert get() == folder
    assert len(hub.requests) == 1


def test_links_are_huggingface_hubs(get):
    folder = get()
    for name in SMALL:
        target = (folder / name).readlink()
        depth = [".."] * (2 + name.count("/"))
        assert target.parts[:-1] == (*depth, "blobs")


def test_a_lock_that_cannot_be_taken_is_named(get, monkeypatch):
    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("filelock.FileLock.acquire", forbidden)
    with pytest.raises(OutputError, match=r"\.locks.*Permission denied"):
        get()
