"""Formats of checkpoints: told apart by what is there, refused by names alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from artifacts.tiny import TINY, write_checkpoint

from llama_export.checkpoints.checkpoint import Companions, Fault, WantedFiles
from llama_export.checkpoints.formats import FORMATS, find_format, open_checkpoint, wanted_files
from llama_export.checkpoints.hugging_face import HfCheckpoint, HuggingFaceFormat
from llama_export.checkpoints.quantized import QuantizedCheckpoint, QuantizedFormat
from llama_export.errors import CheckpointError, ConfigError
from llama_export.llama.config import LlamaConfig
from llama_export.llama.names import HEAD, TABLE
from llama_quantize import QuantizationError, QuantizedTensor, quantize_to, recipe

SMALL = ("LICENSE.txt", "config.json", "generation_config.json", "tokenizer.json")
NEVER = ("README.md", "original/LICENSE.txt", "original/consolidated.00.pth", "LICENSES/a.txt")
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_checkpoint(tmp_path / "model")


@pytest.fixture
def quantised(folder) -> Path:
    """The folder `weights/` of an export, as far as it is a checkpoint."""
    place = folder.parent / "weights"
    quantize_to(place, HfCheckpoint.open(folder), recipe("int4"), metadata={"name": "tiny"})
    for name in ("config.json", "tokenizer.model"):
        (place / name).write_bytes((folder / name).read_bytes())
    return place


def test_a_folder_is_known_by_what_it_holds(folder, quantised):
    assert isinstance(find_format(folder), HuggingFaceFormat)
    assert isinstance(find_format(quantised), QuantizedFormat)
    assert [type(each) for each in FORMATS if each.recognises(folder)] == [HuggingFaceFormat]
    for path in (folder, quantised):
        assert find_format(path).read_config(path) == TINY
        assert find_format(path).read_tokenizer(path).vocab_size == TINY.vocab_size
        assert find_format(path).is_complete(path)


def test_what_no_format_knows_is_named_by_the_reader(tmp_path):
    with pytest.raises(CheckpointError, match="is empty"):
        open_checkpoint(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"config\.json does not exist"):
        open_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        open_checkpoint(tmp_path / "nowhere")
    assert not any(each.recognises(tmp_path) for each in FORMATS)
    assert not find_format(tmp_path).is_complete(tmp_path)


def test_both_formats_open_as_the_same_model(folder, quantised):
    floats, codes = open_checkpoint(folder), open_checkpoint(quantised)
    assert isinstance(codes, QuantizedCheckpoint)
    assert floats.config == codes.config == TINY
    assert tuple(floats.names) == tuple(codes.names)
    assert dict(floats.shapes) == dict(codes.shapes)
    assert dict(floats.tied) == dict(codes.tied) == {HEAD: TABLE}
    assert isinstance(codes.tensor(TABLE), QuantizedTensor)
    assert isinstance(floats.tensor(TABLE), torch.Tensor)
    assert codes.tensor(TABLE).shape == floats.tensor(TABLE).shape
    assert codes.size_bytes < floats.size_bytes
    assert (floats.recipe, floats.weights_folder) == (None, None)
    assert (codes.recipe, codes.weights_folder) == (recipe("int4"), quantised)
    for checkpoint in (floats, codes):
        assert checkpoint.notes == ()
        assert find_format(checkpoint.folder).read_companions(checkpoint.folder) == Companions()
        checkpoint.release()
        assert checkpoint.tensor("model.norm.weight").shape == (TINY.hidden_size,)
    (quantised / "generation_config.json").write_text('{"top_p": 0.5}')
    assert find_format(quantised).read_companions(quantised).generation_config == {"top_p": 0.5}
    (quantised / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(ConfigError, match="expected a JSON object"):
        find_format(quantised).read_companions(quantised)


def test_a_config_that_was_read_is_not_read_again(folder, quantised, monkeypatch):
    config = find_format(folder).read_config(folder)
    monkeypatch.setattr(LlamaConfig, "from_hf", lambda *_: pytest.fail("read twice"))
    for path in (folder, quantised):
        assert open_checkpoint(path, config).config is config


@pytest.mark.parametrize("remove", [True, False])
def test_quantised_weights_of_another_size_are_refused_at_once(quantised, remove):
    weights = quantised / "weights.safetensors"
    data = weights.read_bytes()
    weights.unlink() if remove else weights.write_bytes(data[:-1])
    with pytest.raises(QuantizationError, match=f"expected {len(data)} bytes, found"):
        QuantizedFormat().open(quantised)


@pytest.mark.parametrize("name", ["weights.safetensors", "config.json", "quantization.json"])
def test_quantised_weights_with_a_file_missing_are_incomplete(quantised, name):
    (quantised / name).unlink()
    assert not QuantizedFormat().is_complete(quantised)


def test_what_is_fetched_of_a_repository():
    single = wanted_files({*SMALL, *NEVER, "model.safetensors", "pytorch_model.bin", *SHARDS})
    assert single == WantedFiles(SMALL, ("model.safetensors",), "config.json")
    both = wanted_files({*SMALL, "model.safetensors", "quantization.json", "weights.safetensors"})
    assert both == single, "the record may be another program's"
    sharded = wanted_files({*SMALL, *NEVER, INDEX, *SHARDS, "other.safetensors"})
    assert sharded == WantedFiles(SMALL, (*SHARDS, INDEX), "config.json", index=INDEX)
    pickled = wanted_files({*SMALL, "pytorch_model.bin", "training_args.bin", "optimizer.pt"})
    assert pickled == WantedFiles(SMALL, ("pytorch_model.bin",), "config.json")
    parts = tuple(f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2))
    index = "pytorch_model.bin.index.json"
    in_parts = wanted_files({*SMALL, *parts, index, *SHARDS})
    assert in_parts == WantedFiles(SMALL, (*parts, index), "config.json", index=index)
    adapter = {"adapter_config.json", "adapter_model.safetensors", "README.md", "tokenizer.json"}
    small = ("adapter_config.json", "tokenizer.json")
    weights = ("adapter_model.safetensors",)
    assert wanted_files(adapter) == WantedFiles(small, weights, "adapter_config.json")
    with_model = wanted_files({*SMALL, "model.safetensors", *adapter})
    assert isinstance(with_model, WantedFiles)
    assert with_model.weights == ("model.safetensors",), "the adapter was merged into it"
    renamed = wanted_files({*SMALL, "weights.safetensors", "adapter_model.safetensors"})
    assert renamed == WantedFiles(SMALL, ("weights.safetensors",), "config.json")


@pytest.mark.parametrize(
    ("files", "text", "hint"),
    [
        (SMALL, "has no weights", "transformers layout"),
        ((*SMALL, "pytorch_model-00001-of-00002.bin"), "pickled tensors", "save_pretrained"),
        ((*SMALL, *NEVER), "has no weights", "transformers layout"),
        ((*SMALL, *SHARDS), "has no weights", f"download {INDEX}"),
        ((*SMALL, "model.onnx"), "holds an ONNX model (model.onnx)", "the checkpoint"),
        (
            (*SMALL, "checkpoint-9/a.bin", "checkpoint-10/a.bin"),
            "trainer's",
            "newest, checkpoint-10/",
        ),
        (("model.safetensors",), "has no config.json", "transformers layout"),
        (("quantization.json", "weights.safetensors"), "holds the quantised weights", "the folder"),
        ((), "has no weights", "transformers layout"),
    ],
)
def test_a_repository_is_refused_by_its_list_of_files(files, text, hint):
    fault = wanted_files(files)
    assert isinstance(fault, Fault)
    assert text in fault.text
    assert hint in fault.hint


WITHOUT_TORCH = """
import sys
from pathlib import Path
from llama_export.checkpoints.formats import find_format, wanted_files
from llama_export.sources.catalogue import known_models
from llama_export.sources.source import describe
folder = Path(sys.argv[1])
wanted_files({"pytorch_model.bin"})
find_format(folder).read_config(folder)
find_format(folder).read_tokenizer(folder)
[model.shape for model in known_models()]
describe(folder)
describe(Path(sys.argv[2]))
print("torch" in sys.modules)
"""


def test_formats_are_asked_and_opened_without_torch(folder, quantised):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(folder), str(quantised)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "False"
