"""A bundle in one zip: readable, mappable, the same each time, and never of other bytes."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from artifacts.sample_bundle import write_bundle

from llama_export.bundle.bundle import Bundle
from llama_export.bundle.pack import PAGE_BYTES, default_place, pack
from llama_export.errors import BundleError, OutputError


@pytest.fixture
def bundle(tmp_path) -> Bundle:
    return Bundle.open(write_bundle(tmp_path / "onnx"))


def begins(path: Path) -> dict[str, int]:
    """Return where the bytes of each file begin, from the local headers."""
    found = {}
    with zipfile.ZipFile(path) as made, path.open("rb") as raw:
        for info in made.infolist():
            raw.seek(info.header_offset + 26)
            name, extra = (int.from_bytes(raw.read(2), "little") for _ in range(2))
            found[info.filename] = info.header_offset + 30 + name + extra
    return found


def test_a_zip_is_read_back(bundle, tmp_path):
    done = []
    place = pack(bundle, tmp_path / "a.zip", progress=done.append)
    with zipfile.ZipFile(place) as made:
        assert made.testzip() is None
        assert made.namelist() == ["manifest.json", *sorted(bundle.manifest.files)]
        assert {each.compress_type for each in made.infolist()} == {zipfile.ZIP_STORED}
        made.extractall(tmp_path / "unpacked")
    unpacked = Bundle.open(tmp_path / "unpacked")
    assert unpacked.manifest == bundle.manifest
    assert unpacked.check_hashes() == ()
    assert sum(done) == bundle.size_bytes


def test_every_file_begins_at_a_page(bundle, tmp_path):
    place = pack(bundle, tmp_path / "a.zip")
    assert all(begin % PAGE_BYTES == 0 for begin in begins(place).values())
    content = place.read_bytes()
    for name, begin in begins(place).items():
        expected = (bundle.folder / name).read_bytes()
        assert content[begin : begin + len(expected)] == expected


def test_a_large_file_begins_at_a_page_too(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 50_000)
    place = pack(bundle, tmp_path / "a.zip")
    monkeypatch.undo()
    assert begins(place)["model.onnx.data"] % PAGE_BYTES == 0
    with zipfile.ZipFile(place) as made:
        assert made.testzip() is None
        assert made.getinfo("model.onnx.data").extract_version == zipfile.ZIP64_VERSION


def test_the_same_bundle_gives_the_same_bytes(bundle, tmp_path):
    first = pack(bundle, tmp_path / "a.zip").read_bytes()
    copied = Path(shutil.copytree(bundle.folder, tmp_path / "elsewhere" / "onnx"))
    for path in copied.rglob("*"):
        os.utime(path, (1, 1))
    (copied / "notes.txt").write_text("not listed")
    assert pack(Bundle.open(copied), tmp_path / "b.zip").read_bytes() == first


def test_a_file_that_was_changed_is_refused_and_nothing_left(bundle, tmp_path):
    (bundle.folder / "model.onnx").write_bytes(b"Graph")
    with pytest.raises(BundleError, match=r"model\.onnx is changed: expected sha256"):
        pack(bundle, tmp_path / "a.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["onnx"]


def test_a_manifest_that_was_changed_is_refused(bundle, tmp_path):
    raw = json.loads((bundle.folder / "manifest.json").read_text())
    raw["model"]["name"] = "another"
    (bundle.folder / "manifest.json").write_text(json.dumps(raw))
    with pytest.raises(BundleError, match=r"manifest\.json changed since it was opened"):
        pack(bundle, tmp_path / "a.zip")


def test_a_link_is_refused(bundle, tmp_path):
    (bundle.folder / "model.onnx").rename(tmp_path / "moved")
    (bundle.folder / "model.onnx").symlink_to(tmp_path / "moved")
    with pytest.raises(BundleError, match="symbolic link"):
        pack(bundle, tmp_path / "a.zip")


def test_nothing_is_replaced_without_force(bundle, tmp_path):
    place = tmp_path / "a.zip"
    place.write_text("precious")
    with pytest.raises(OutputError, match="exists") as caught:
        pack(bundle, place)
    assert "--force" in caught.value.hint
    assert place.read_text() == "precious"
    pack(bundle, place, force=True)
    assert zipfile.is_zipfile(place)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("onnx/a.zip", "inside the bundle"),
        ("onnx", "inside the bundle"),
        (".", "is a folder"),
        ("none/a.zip", "there is no folder"),
        ("x" * 300, "cannot be written"),
    ],
)
def test_a_place_that_cannot_be_is_refused(bundle, tmp_path, name, word):
    with pytest.raises(OutputError, match=word):
        pack(bundle, tmp_path / name, force=True)


def test_a_full_disk_leaves_nothing(bundle, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile._ZipWriteFile, "write", full)
    with pytest.raises(OutputError, match="No space left"):
        pack(bundle, tmp_path / "a.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["onnx"]


def test_the_zip_is_on_the_disk_before_it_has_its_name(bundle, tmp_path, monkeypatch):
    seen = []
    place = tmp_path / "a.zip"
    monkeypatch.setattr(
        "llama_export.bundle.pack.sync", lambda path: seen.append((path.exists(), place.exists()))
    )
    pack(bundle, place)
    assert seen == [(True, False)]


def test_the_command_packs_beside_the_bundle(bundle, tmp_path, command):
    code, out, _ = command("pack", bundle.folder, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["zip"] == str(default_place(bundle.folder)) == str(tmp_path / "onnx.zip")
    assert found["files"] == 5
    code, _, err = command("pack", bundle.folder)
    assert (code, "onnx.zip exists" in err) == (11, True)
    code, out, _ = command("pack", bundle.folder, "--force")
    assert code == 0
    assert "onnx.zip" in out
