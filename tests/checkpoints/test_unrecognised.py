"""What cannot be exported is called by its name, with what to do about it."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
from artifacts.tiny import write_checkpoint

from llama_export.checkpoints.formats import open_checkpoint, require_recognised
from llama_export.checkpoints.unrecognised import fault_of_names
from llama_export.errors import CheckpointError
from llama_export.exporting.plan import plan_export
from llama_export.exporting.request import ExportRequest
from llama_export.sources.resolve import name_model

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 2471645608\n" % 7


def planned(model: Path) -> CheckpointError:
    """Return the refusal of a dry run."""
    with pytest.raises(CheckpointError) as caught:
        plan_export(ExportRequest(str(model), ("onnx",), model.parent / "out"), to_show=True)
    return caught.value


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_checkpoint(tmp_path / "model")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.model", "chat_template.jinja"])
def test_git_lfs_pointers_are_named(folder, name):
    (folder / name).write_bytes(POINTER)
    error = planned(folder)
    assert f"git-lfs pointers in place of files: {name}" in error.message
    assert "git lfs pull" in error.hint
    with pytest.raises(CheckpointError, match="git-lfs"):
        open_checkpoint(folder)


def test_only_pointers_are_taken_for_pointers(folder):
    (folder / "README.md").write_bytes(b"see " + POINTER)
    (folder / "long.txt").write_bytes(POINTER + b"\n" * 1024)
    require_recognised(folder)


@pytest.mark.parametrize("is_sharded", [False, True])
def test_pointers_that_stand_for_what_is_not_read_do_no_harm(folder, is_sharded):
    (folder / "pytorch_model.bin").write_bytes(POINTER)
    (folder / "picture.png").write_bytes(POINTER)
    if is_sharded:
        part = "model-00001-of-00001.safetensors"
        names = dict.fromkeys(open_checkpoint(folder).names, part)
        (folder / "model.safetensors").rename(folder / part)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    plan_export(ExportRequest(str(folder), ("onnx",), folder.parent / "out"), to_show=True)
    read = part if is_sharded else "model.safetensors"
    (folder / read).write_bytes(POINTER)
    assert planned(folder).message.endswith(f"in place of files: {read}")


@pytest.mark.parametrize("text", [b"<!doctype html><p>Access denied", b"# xet version 0\nsize = 1"])
def test_text_in_place_of_weights_is_shown(folder, text):
    (folder / "model.safetensors").write_bytes(text)
    error = planned(folder)
    assert (
        f"no safetensors file, but a text that begins with '{text[:10].decode()}" in error.message
    )
    assert "download" in error.hint


@pytest.mark.parametrize(
    ("names", "what", "hint"),
    [
        (["adapter_model.safetensors"], "an adapter without the adapter_config.json", "take"),
        (["__0_0.distcp", ".metadata"], "shards of an FSDP training", "merge-weights"),
        (["pytorch_model_fsdp_0/x"], "shards of an FSDP training", "merge-weights"),
        (["global_step100/x", "latest"], "shards of a DeepSpeed training", "zero_to_fp32.py"),
        (["hf_model_0001_0.pt", "recipe_state.pt"], "output of torchtune", "checkpointer"),
        (["epoch=1.ckpt"], "a trainer's state", "save_pretrained"),
        (["tf_model.h5"], "weights for TensorFlow", "save_pretrained"),
        (["flax_model.msgpack"], "weights for Flax", "save_pretrained"),
        (["weights.00.npz"], "weights for MLX", "made from"),
        (["model.onnx", "model.onnx_data"], "an ONNX model", "made from"),
        (["llama.pte"], "an ExecuTorch program", "made from"),
        (["llama.mlpackage/Manifest.json"], "a Core ML model", "made from"),
        (["mlc-chat-config.json"], "compiled for MLC", "made from"),
        (["model.zip"], "an archive", "unpack"),
        (["ggml-model-q4_0.bin"], "older than GGUF", ".gguf"),
        (["model.pt"], "pickled tensors", "save_pretrained"),
        (["pytorch_model_fsdp.bin"], "name that accelerate gives it", "rename it to pytorch_model"),
        (["optimizer.pt", "trainer_state.json"], "a trainer's state, without", "the model too"),
        (["manifest.json", "model.onnx"], "is a bundle", "weights/ beside it"),
        (["snapshots/abc/config.json", "refs/main"], "the hub's cache", "hub id"),
        (
            ["checkpoint-500/config.json", "checkpoint-1000/x"],
            "trainer's output",
            "checkpoint-1000",
        ),
    ],
)
@pytest.mark.parametrize("with_config", [False, True])
def test_folders_of_others_are_named(tmp_path, names, what, hint, with_config):
    model = tmp_path / "model"
    model.mkdir()
    for name in names:
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_bytes(b"x")
    if with_config:
        source = write_checkpoint(tmp_path / "source")
        for name in ("config.json", "tokenizer.model"):
            (model / name).write_bytes((source / name).read_bytes())
    error = planned(model)
    assert what in error.message
    assert hint in error.hint
    assert what in str(fault_of_names(names)), "in a repository as well"


def test_an_empty_folder_is_called_empty(tmp_path):
    (tmp_path / "model").mkdir()
    assert planned(tmp_path / "model").message.endswith("model is empty")


def test_the_newest_checkpoint_of_a_trainer_that_is_complete_is_suggested(tmp_path):
    for step in (500, 1000, 900):
        write_checkpoint(tmp_path / f"outputs/checkpoint-{step}")
    (tmp_path / "outputs/checkpoint-1000/model.safetensors").unlink()
    adapter = tmp_path / "outputs/checkpoint-950"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    error = planned(tmp_path / "outputs")
    assert "checkpoint-500/, checkpoint-900/, checkpoint-950/, checkpoint-1000/" in error.message
    assert error.hint.endswith("outputs/checkpoint-950")


def test_a_checkpoint_one_folder_down_is_suggested(tmp_path):
    folder = write_checkpoint(tmp_path / "outer/inner")
    error = planned(tmp_path / "outer")
    assert "there is one inside it" in error.message
    assert str(folder) in error.hint


def tar() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("config.json"))
    return content.getvalue()


def a_zip() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("config.json", "{}")
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("llama", tar(), "an archive"),
        ("llama.dat", a_zip(), "an archive"),
        ("llama.tgz", b"x", "an archive"),
        ("model.safetensors", b"x", "a file of weights alone"),
        ("config.json", b"{}", "one file of a checkpoint"),
        ("llama.gguf", b"x", "is no GGUF file"),
        ("llama", b"\0\0\0\0ET12", "an ExecuTorch program"),
        ("model.onnx", b"x", "an ONNX model"),
        ("llama.gguf", POINTER, "a git-lfs pointer"),
        ("model.bin", a_zip(), "pickled tensors"),
    ],
)
def test_files_of_others_are_named(tmp_path, monkeypatch, name, content, what):
    (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    for model in (name, f"./{name}", str(tmp_path / name)):
        with pytest.raises(CheckpointError) as caught:
            name_model(model)
        assert what in caught.value.message
        assert caught.value.hint
