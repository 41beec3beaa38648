"""What is copied into bundles: the checkpoint's own files, whatever links and devices it holds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from artifacts.tiny import write_checkpoint

from llama_export.checkpoints import own_files
from llama_export.checkpoints.companions import read_generation_config, read_settings
from llama_export.checkpoints.own_files import own_file
from llama_export.errors import CheckpointError, ConfigError, LlamaExportError, TokenizerError
from llama_export.sources.licence import licence_notice
from llama_export.sources.source import describe

COPIED = (
    "LICENSE",
    "LICENCE.txt",
    "USE_POLICY.md",
    "NOTICE",
    "generation_config.json",
    "tokenizer_config.json",
)


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "secret").write_text('{"key": "-----BEGIN PRIVATE KEY-----"}')
    return write_checkpoint(tmp_path / "model")


def chain(path: Path) -> None:
    (path.parent / "inner").symlink_to("../secret")
    path.symlink_to("inner")


LINKS: dict[str, Callable[[Path], None]] = {
    "relative": lambda path: path.symlink_to("../secret"),
    "absolute": lambda path: path.symlink_to(path.parents[1].resolve() / "secret"),
    "through another": chain,
    "to nothing": lambda path: path.symlink_to("nowhere"),
    "to itself": lambda path: path.symlink_to(path.name),
    "to a device": lambda path: path.symlink_to("/dev/zero"),
    "a pipe": lambda path: os.mkfifo(path),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs links, pipes and devices")
@pytest.mark.parametrize("name", COPIED)
@pytest.mark.parametrize("link", LINKS)
def test_a_link_out_of_the_checkpoint_is_refused_by_the_plan(folder, name, link):
    describe(folder)
    LINKS[link](folder / name)
    for with_weights in (True, False):
        with pytest.raises(CheckpointError, match=name) as caught:
            describe(folder, with_weights=with_weights)
        assert "copy" in caught.value.hint


def test_links_inside_a_checkpoint_and_to_its_folder_are_followed(folder, tmp_path):
    (folder / "texts").mkdir()
    (folder / "texts" / "mit").write_text("MIT")
    (folder / "LICENSE").symlink_to("texts/mit")
    (folder / "generation_config.json").write_text("{}")
    (tmp_path / "link").symlink_to(folder)
    for place in (folder, tmp_path / "link"):
        assert licence_notice("x", None, place)["LICENSE"] == b"MIT"
        assert read_settings(place / "generation_config.json") == {}
        describe(place)


def test_the_hubs_cache_is_followed_and_nothing_beside_it(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "c0ffee"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "ab12").write_text("MIT")
    (tmp_path / "secret").write_text("secret")
    (snapshot / "LICENSE").symlink_to("../../blobs/ab12")
    assert own_file(snapshot / "LICENSE") == (blobs / "ab12").resolve()
    (snapshot / "NOTICE").symlink_to("../../secret")
    with pytest.raises(CheckpointError, match="out of the checkpoint"):
        own_file(snapshot / "NOTICE")
    (blobs / "cd34").symlink_to("../secret")
    (snapshot / "USE_POLICY").symlink_to("../../blobs/cd34")
    with pytest.raises(CheckpointError, match="out of the checkpoint"):
        own_file(snapshot / "USE_POLICY")


def test_a_package_that_an_installer_made_of_links_is_followed(folder, monkeypatch):
    (folder / "LICENSE").symlink_to("../secret")
    monkeypatch.setattr(own_files, "_PACKAGE", folder)
    assert own_file(folder / "LICENSE") == (folder.parent / "secret").resolve()


def test_weights_and_vocabulary_may_lie_elsewhere(folder, tmp_path):
    """They are read as what they are, so nothing else of this machine can get in."""
    for name in ("model.safetensors", "tokenizer.model", "config.json"):
        (folder / name).rename(tmp_path / name)
        (folder / name).symlink_to(tmp_path / name)
    assert describe(folder).checkpoint is not None


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"temperature": NaN}', "NaN is not a JSON number"),
        ('{"temperature": -Infinity}', "Infinity is not a JSON number"),
        ('{"top_p": 1e999}', "too large"),
        ('{"top_p": 0.5, "top_p": 0.9}', "'top_p' is given twice"),
        ("[" * 100_000, "nested"),
        ("[1]", "expected a JSON object"),
        ("null", "expected a JSON object"),
        ("", "cannot be read"),
    ],
)
def test_settings_that_are_not_json_to_every_reader_are_refused_by_the_plan(
    folder, name, text, match
):
    (folder / name).write_text(text)
    # The tokenizer reads its own settings before the rest does.
    with pytest.raises((ConfigError, TokenizerError), match=match) as caught:
        describe(folder)
    assert name in caught.value.message
    assert "remove it" in caught.value.hint


@pytest.mark.parametrize("name", ["LICENSE.a:b", "LICENSE.\x1b[31m", "LICENSE-\\x"])
def test_a_licence_whose_name_no_bundle_can_keep_is_refused_by_the_plan(folder, name):
    (folder / name).write_text("MIT")
    with pytest.raises(CheckpointError, match="name of the licence file") as caught:
        describe(folder)
    assert "\x1b" not in caught.value.message


def test_many_licences_are_bounded_together(folder):
    for index in range(5):
        (folder / f"LICENSE.{index}").write_bytes(b"x" * 300_000)
    with pytest.raises(LlamaExportError, match="no licence text"):
        describe(folder)


WRONG_TYPES = {
    "eos_token_id": ("257", [257, "x"], [[257]], 257.0, True, {}),
    "bos_token_id": ("256", {"id": 256}),
    "pad_token_id": (["x"],),
    "temperature": ("0.6", [0.6], True, {}),
    "top_p": ("0.9", []),
    "top_k": (50.5, "50"),
    "max_length": ({}, 1.5),
    "do_sample": (1, "yes", []),
}


@pytest.mark.parametrize("key", WRONG_TYPES)
def test_settings_of_generation_have_the_types_that_clients_expect(folder, key):
    path = folder / "generation_config.json"
    for value in WRONG_TYPES[key]:
        path.write_text(json.dumps({key: value}))
        for with_weights in (True, False):
            with pytest.raises(ConfigError, match=f"{key} must be"):
                describe(folder, with_weights=with_weights)


@pytest.mark.parametrize("eos", [None, 257, [257, 264, 265], []])
def test_settings_of_generation_as_they_are_shipped_are_read(folder, eos):
    settings = {
        "bos_token_id": 256, "eos_token_id": eos, "pad_token_id": None, "do_sample": True,
        "temperature": 1, "top_p": 0.9, "top_k": None, "max_length": 131072,
        "transformers_version": "4.45.0.dev0",
    }  # fmt: skip
    (folder / "generation_config.json").write_text(json.dumps(settings))
    assert read_generation_config(folder / "generation_config.json") == settings
    describe(folder)
