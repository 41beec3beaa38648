"""The bundle: its files are checked, and its bytes repeat."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from artifacts.sample_bundle import DRAFT, fill, write_bundle

from llama_export.bundle import bundle as bundle_module
from llama_export.bundle.bundle import Bundle, hash_file, seal
from llama_export.errors import BundleError, OutputError


def test_a_sealed_folder_opens_with_the_same_manifest(tmp_path):
    folder = fill(tmp_path / "b")
    manifest = seal(folder, DRAFT)
    bundle = Bundle.open(folder)
    assert bundle.manifest == manifest
    assert bundle.manifest.format_version == 2
    assert list(bundle.manifest.files) == [
        "deep/er/empty.bin",
        "model.onnx",
        "model.onnx.data",
        "tokenizer.model",
    ]
    entry = bundle.manifest.files["model.onnx.data"]
    data = (folder / "model.onnx.data").read_bytes()
    assert (entry.sha256, entry.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert bundle.size_bytes == 5 + 102400 + 7
    assert bundle.artifact == folder / "model.onnx"
    assert bundle.path("deep/er/empty.bin") == folder / "deep" / "er" / "empty.bin"
    assert bundle.manifest.tokenizer["stop_token_ids"] == [128001, 128008, 128009]
    assert bundle.check_hashes() == ()


def test_the_same_folder_gives_the_same_bytes(tmp_path):
    one = write_bundle(tmp_path / "one") / "manifest.json"
    os.utime(tmp_path / "one" / "model.onnx", (1, 1))
    two = write_bundle(tmp_path / "elsewhere" / "two") / "manifest.json"
    assert one.read_bytes() == two.read_bytes()
    text = one.read_text()
    assert text.endswith("}\n")
    assert text.startswith('{\n  "artifact": "model.onnx",\n')
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=2) + "\n"
    assert str(tmp_path) not in text
    assert os.uname().nodename not in text
    seal(tmp_path / "one", DRAFT)  # sealing again does not list the manifest
    assert one.read_bytes() == two.read_bytes()


def test_a_core_ml_package_may_be_a_folder(tmp_path):
    package = tmp_path / "b" / "model.mlpackage"
    (package / "Data").mkdir(parents=True)
    (package / "Data" / "weights.bin").write_bytes(b"w")
    (tmp_path / "b" / "tokenizer.model").write_bytes(b"t")
    seal(tmp_path / "b", replace(DRAFT, target="coreml", artifact="model.mlpackage"))
    assert Bundle.open(tmp_path / "b").artifact == package


def test_progress_counts_every_byte_once(tmp_path, monkeypatch):
    monkeypatch.setattr("llama_quantize.checkpoint.files._PIECE_BYTES", 1000)
    sealed, checked = [], []
    seal(fill(tmp_path / "b"), DRAFT, sealed.append)
    bundle = Bundle.open(tmp_path / "b")
    bundle.check_hashes(checked.append)
    assert sum(sealed) == sum(checked) == bundle.size_bytes
    assert max(checked) == 1000
    assert 0 not in checked


def test_hashing_needs_no_memory_of_the_files_size(tmp_path):
    path = tmp_path / "sparse.bin"
    with path.open("wb") as file:
        file.truncate(64 * 2**20)
    tracemalloc.start()
    entry = hash_file(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert entry.size_bytes == 64 * 2**20
    assert peak_bytes < 8 * 2**20


def test_a_link_on_the_way_is_refused(tmp_path):
    folder = write_bundle(tmp_path / "b")
    (folder / "deep" / "er").rename(tmp_path / "outside")
    (folder / "deep" / "er").symlink_to(tmp_path / "outside")
    (folder / "model.onnx").rename(folder / "real.onnx")
    (folder / "model.onnx").symlink_to("real.onnx")
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    assert "deep/er/empty.bin is reached through a symbolic link (er)" in caught.value.message
    assert "model.onnx is reached through a symbolic link" in caught.value.message


def test_a_linked_manifest_is_refused(tmp_path):
    folder = write_bundle(tmp_path / "b")
    (folder / "manifest.json").rename(tmp_path / "m.json")
    (folder / "manifest.json").symlink_to(tmp_path / "m.json")
    with pytest.raises(BundleError, match="no plain file"):
        Bundle.open(folder)


def test_hard_links_and_a_linked_bundle_folder_are_fine(tmp_path):
    folder = write_bundle(tmp_path / "b")
    os.link(folder / "model.onnx.data", tmp_path / "elsewhere.data")
    (tmp_path / "latest").symlink_to(folder)
    assert Bundle.open(tmp_path / "latest").check_hashes() == ()


def test_files_beside_the_listed_ones_are_a_note(tmp_path):
    folder = write_bundle(tmp_path / "b")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "deep" / "note.txt").write_bytes(b"x")
    bundle = Bundle.open(folder)
    assert bundle.check_hashes() == (".DS_Store", "deep/note.txt")
    with pytest.raises(BundleError, match=r"no file '\.DS_Store'"):
        bundle.path(".DS_Store")


def test_open_names_every_missing_and_truncated_file(tmp_path):
    folder = write_bundle(tmp_path / "b")
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()
    (folder / "model.onnx.data").write_bytes(b"short")
    (folder / "tokenizer.model").unlink()
    (folder / "deep" / "er" / "empty.bin").write_bytes(b"grown")
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    for part in (
        "model.onnx is not a plain file",
        "model.onnx.data is truncated: expected 102400 bytes, found 5",
        "tokenizer.model is missing",
        "deep/er/empty.bin is too long: expected 0 bytes, found 5",
    ):
        assert part in caught.value.message


def test_check_hashes_names_every_changed_file(tmp_path):
    folder = write_bundle(tmp_path / "b")
    bundle = Bundle.open(folder)
    data = bytearray((folder / "model.onnx.data").read_bytes())
    data[-1] ^= 1
    (folder / "model.onnx.data").write_bytes(data)
    assert Bundle.open(folder) == bundle  # the length is as it was
    (folder / "model.onnx").write_bytes(b"grap")
    (folder / "tokenizer.model").unlink()
    with pytest.raises(BundleError) as caught:
        bundle.check_hashes()
    assert "model.onnx.data is changed" in caught.value.message
    assert "model.onnx is truncated" in caught.value.message
    assert "tokenizer.model is missing" in caught.value.message
    assert "empty.bin" not in caught.value.message


def test_an_unreadable_file_is_named(tmp_path, monkeypatch):
    bundle = Bundle.open(write_bundle(tmp_path / "b"))

    def broken_disk(path, progress=None):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(bundle_module, "hash_file", broken_disk)
    with pytest.raises(BundleError, match=r"model\.onnx cannot be read"):
        bundle.check_hashes()


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: None])
def test_a_folder_that_is_no_bundle(tmp_path, make):
    make(tmp_path / "b")
    with pytest.raises(BundleError) as caught:
        Bundle.open(tmp_path / "b")
    assert caught.value.exit_code == 8
    assert caught.value.hint


def test_the_folder_above_a_bundle_gets_a_hint(tmp_path):
    write_bundle(tmp_path / "out" / "onnx")
    with pytest.raises(BundleError) as caught:
        Bundle.open(tmp_path / "out")
    assert str(tmp_path / "out" / "onnx") in caught.value.hint


def test_seal_refuses_links_and_names_that_no_manifest_may_hold(tmp_path):
    folder = fill(tmp_path / "b")
    (folder / "link").symlink_to("model.onnx")
    (folder / "folder-link").symlink_to(tmp_path)
    (folder / "back\\slash").write_bytes(b"")
    os.mkfifo(folder / "pipe")
    with pytest.raises(BundleError) as caught:
        seal(folder, DRAFT)
    for name in (
        "link is not a plain",
        "folder-link is not",
        "pipe is not",
        "back\\\\slash' holds",
    ):
        assert name in caught.value.message
    assert not (folder / "manifest.json").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("artifact", "gone.onnx"),
        ("target", "Onnx"),
        ("graph", {"when": float("nan")}),
        ("graph", {"where": Path("x")}),
        ("created_with", {"torch": "latest"}),
    ],
)
def test_seal_writes_nothing_that_would_be_refused(tmp_path, field, value):
    folder = fill(tmp_path / "b")
    with pytest.raises(BundleError):
        seal(folder, replace(DRAFT, **{field: value}))
    assert not (folder / "manifest.json").exists()


def test_a_full_disk_while_sealing_is_an_output_error(tmp_path, monkeypatch):
    folder = fill(tmp_path / "b")

    def full(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        seal(folder, DRAFT)
