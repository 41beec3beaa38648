"""A bundle that changed since its export: every verb that would run it names the file first."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from artifacts.small_bundle import export_small

import llama_export
from llama_export.errors import BundleError
from llama_export.targets.onnx.running import session as session_module

pytest.importorskip("onnx", reason="needs the onnx extra")
pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytestmark = pytest.mark.onnx

VERBS = {
    "generate": ("--prompt", "Hello", "-n", "2"),
    "chat": ("--prompt", "Hello", "-n", "2"),
    "bench": ("--prompt-lengths", "2", "--contexts", "2", "--decode-tokens", "1", "--repeat", "1"),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    return export_small(tmp_path_factory.mktemp("changed"), max_context=64) / "onnx"


@pytest.fixture
def folder(exported, tmp_path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "onnx"))


@pytest.fixture
def never_loaded(monkeypatch) -> None:
    def never(*_given, **_options):
        pytest.fail("the runtime was given it")

    monkeypatch.setattr(session_module, "load_runtime", never)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("verb", VERBS)
def test_a_changed_file_is_named_before_the_runtime_has_it(command, folder, verb, never_loaded):
    flip(folder / "model.onnx_data", 5000)
    code, out, err = command(verb, folder, *VERBS[verb], stdin=b"")
    assert code == 8
    assert out == ""
    assert "model.onnx_data is changed: expected sha256" in err
    assert "what to do" in err


@pytest.mark.parametrize("verb", VERBS)
def test_no_hash_loads_what_is_there(command, folder, verb):
    """A notice is read by nobody but people: the runtime does not miss its bytes."""
    flip(folder / "NOTICE", 3)
    assert command(verb, folder, *VERBS[verb], stdin=b"")[0] == 8
    assert command(verb, folder, *VERBS[verb], "--no-hash", stdin=b"")[0] == 0


def test_every_changed_byte_is_named(folder, never_loaded):
    """Sixty of the changes that a campaign makes, in every file that the manifest lists."""
    rnd = random.Random(5)
    names = [path.name for path in folder.iterdir() if path.name != "manifest.json"]
    for number in range(60):
        path = folder / names[number % len(names)]
        good = path.read_bytes()
        data = bytearray(good)
        at, length = rnd.randrange(len(data)), rnd.choice((1, 1, 4, 32))
        length = min(length, len(data) - at)
        data[at : at + length] = bytes(byte ^ rnd.randrange(1, 256) for byte in data[at:][:length])
        path.write_bytes(data)
        with pytest.raises(BundleError, match=f"{path.name} is changed"):
            llama_export.load(folder)
        path.write_bytes(good)


def test_a_program_may_load_without_comparing(folder):
    flip(folder / "NOTICE", 3)
    with pytest.raises(BundleError, match="NOTICE is changed"):
        llama_export.load(folder)
    with llama_export.load(folder, verify=False) as session:
        assert session.logits("Hello").shape == (512,)


def test_a_file_that_changes_while_the_runtime_loads_it_is_named(folder, monkeypatch):
    real = session_module.load_runtime

    def load_runtime(model, **options):
        found = real(model, **options)
        flip(folder / "NOTICE", 3)
        return found

    monkeypatch.setattr(session_module, "load_runtime", load_runtime)
    with pytest.raises(BundleError, match="NOTICE changed while it was loaded"):
        llama_export.load(folder)
