"""What an export starts from: described once, opened once, refused before any work."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from artifacts.tiny import TINY, write_checkpoint
from fakes.hub import REPOSITORY, Hub, nothing_of_this_machine, serve

from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.errors import (
    CheckpointError,
    ConfigError,
    TokenizerError,
    UnsupportedModelError,
)
from llama_export.llama.config import LlamaConfig
from llama_export.sources.catalogue import shape_of
from llama_export.sources.repository import fetch
from llama_export.sources.resolve import ModelSource, resolve_model
from llama_export.sources.source import describe, open_source
from llama_quantize import QuantizationError, QuantizedWeights, quantize_to, recipe


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_checkpoint(tmp_path / "model")


@pytest.fixture
def weights(folder) -> Path:
    place = folder.parent / "weights"
    identity = {"name": "first", "hub_id": "a/b", "revision": "c0ffee1"}
    quantize_to(place, HfCheckpoint.open(folder), recipe("int4"), metadata=identity)
    for name in ("config.json", "tokenizer.model"):
        (place / name).write_bytes((folder / name).read_bytes())
    return place


@pytest.fixture
def count(monkeypatch):
    """Counts the calls of a class method."""

    def count(owner: type, name: str) -> list[int]:
        calls: list[int] = []
        original = getattr(owner, name)

        def counted(*arguments, **options):
            calls.append(1)
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, counted)
        return calls

    return count


def model(folder: Path) -> ModelSource:
    return ModelSource(folder.name, folder, None, None)


def test_a_checkpoint_is_a_source_of_floats(folder):
    source = open_source(model(folder))
    assert source.config == TINY
    assert source.weights is None
    assert source.original is source.checkpoint
    assert source.identity() == {"name": "model"}


def test_tokens_that_config_json_does_not_name_come_from_the_tokenizer(folder):
    raw = json.loads((folder / "config.json").read_text())
    nameless = raw | {"bos_token_id": None, "eos_token_id": None}
    (folder / "config.json").write_text(json.dumps(nameless))
    assert describe(folder).config == TINY
    (folder / "config.json").write_text(json.dumps(raw | {"eos_token_id": 7}))
    assert describe(folder).config == replace(TINY, eos_token_id=(7, *TINY.eos_token_id))


@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_weights_that_another_program_quantised_are_not_read_as_floats(folder, key):
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | {key: {"quant_method": "hqq"}}))
    for read in (describe, HfCheckpoint.open):
        with pytest.raises(UnsupportedModelError, match=f"{key}.*hqq"):
            read(folder)


def test_quantised_weights_are_a_source_with_their_own_origin(weights):
    source = open_source(model(weights))
    assert source.weights is not None
    assert source.original is None
    assert source.identity() == {"name": "first", "hub_id": "a/b", "revision": "c0ffee1"}


@pytest.mark.parametrize("kind", ["folder", "weights"])
def test_the_plan_and_the_export_read_and_open_once(kind, request, count):
    place = request.getfixturevalue(kind)
    reads, opens = count(LlamaConfig, "from_hf"), count(QuantizedWeights, "open")
    shape = shape_of(str(place))
    source = open_source(resolve_model(str(place)), shape.description)
    assert source.config is shape.config
    assert len(reads) == 1
    assert len(opens) == (1 if kind == "weights" else 0)
    assert shape.recipe == (None if source.weights is None else source.weights.recipe)


def test_a_description_of_another_folder_does_not_count(folder, tmp_path):
    other = write_checkpoint(tmp_path / "other", replace(TINY, rms_norm_eps=1e-6))
    assert open_source(model(folder), describe(other)).config == TINY


def test_weights_that_changed_since_the_plan_are_refused(weights):
    description = describe(weights)
    data = bytearray((weights / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (weights / "weights.safetensors").write_bytes(data)
    with pytest.raises(QuantizationError, match="was changed"):
        open_source(model(weights), description)


def spoil_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.model").unlink()


def spoil_vocabulary(folder: Path) -> None:
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "bos_token_id": 3}))


def spoil_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model.onnx")


def spoil_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "error", "match", "needs_weights"),
    [
        (spoil_tokenizer, TokenizerError, "holds no tokenizer", False),
        (spoil_vocabulary, TokenizerError, "belongs to another model", False),
        (spoil_config, ConfigError, "does not exist", False),
        (spoil_weights, CheckpointError, "holds an ONNX model", True),
    ],
)
def test_what_no_export_can_start_from_is_refused_by_its_description(
    folder, spoil, error, match, needs_weights
):
    describe(folder)
    spoil(folder)
    with pytest.raises(error, match=match):
        describe(folder)
    if needs_weights:
        assert describe(folder, with_weights=False).checkpoint is None
    else:
        with pytest.raises(error, match=match):
            describe(folder, with_weights=False)


@pytest.mark.parametrize(
    ("spoil", "error", "match"),
    [
        (lambda files: None, None, ""),
        (lambda files: files.pop("tokenizer.model"), TokenizerError, "holds no tokenizer"),
        (
            lambda files: files.update({"config.json": json.dumps(SHORT).encode()}),
            TokenizerError,
            "belongs to another model",
        ),
    ],
    ids=["good", "no tokenizer", "another model's"],
)
def test_a_repository_is_judged_by_its_small_files(
    folder, tmp_path, monkeypatch, spoil, error, match
):
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    spoil(files)
    with nothing_of_this_machine(monkeypatch, tmp_path), serve(Hub(files)) as hub:
        place = {"endpoint": hub.endpoint, "cache_dir": tmp_path / "cache"}
        monkeypatch.setattr(
            "llama_export.sources.catalogue.fetch",
            lambda hub_id, **options: fetch(hub_id, **options, **place),
        )
        if error is None:
            shape = shape_of(REPOSITORY)
            assert shape.config == TINY
            assert shape.description.checkpoint is None
        else:
            with pytest.raises(error, match=match):
                shape_of(REPOSITORY)
        assert hub.sent("GET", "config.json")
        assert not hub.sent("GET", "model.safetensors")


SHORT = replace(TINY, vocab_size=200, bos_token_id=None, eos_token_id=(1,)).to_hf()
