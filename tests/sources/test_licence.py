"""The licence files of a bundle, by where the weights come from."""

from __future__ import annotations

import os

import pytest

from llama_export.errors import CheckpointError
from llama_export.sources import licence
from llama_export.sources.licence import licence_notice

AGREEMENT = "LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\nLlama 3.2 Version Release Date: ...\n"


def notice(name="x", hub_id=None, folder=None) -> str:
    return licence_notice(name, hub_id, folder)["NOTICE"].decode()


@pytest.mark.parametrize(
    ("hub_id", "name", "built_with"),
    [
        ("meta-llama/Llama-3.2-1B", "Llama 3.2", "Built with Llama\n"),
        ("meta-llama/Llama-3.2-3B-Instruct", "Llama 3.2", "Built with Llama\n"),
        ("meta-llama/Llama-3.1-8B", "Llama 3.1", "Built with Llama\n"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "Llama 3.1", "Built with Llama\n"),
        ("meta-llama/Llama-3.3-70B-Instruct", "Llama 3.3", "Built with Llama\n"),
        ("meta-llama/Meta-Llama-3-8B", "Meta Llama 3", "Built with Meta Llama 3\n"),
    ],
)
def test_meta_weights_get_the_attribution_of_their_version(tmp_path, hub_id, name, built_with):
    text = notice("3.2-1B", hub_id, tmp_path)
    assert text.startswith(
        f"{name} is licensed under the {name} Community License, "
        "Copyright © Meta Platforms, Inc. All Rights Reserved.\n"
    )
    assert built_with in text
    assert "quantised" in text


@pytest.mark.parametrize("hub_id", ["meta-llama/Llama-Guard-3-1B", "me/Llama-3.2-1B", "Llama-3"])
def test_another_repository_is_not_taken_for_a_llama(tmp_path, hub_id):
    text = notice("x", hub_id, tmp_path)
    assert "Meta Platforms" not in text
    assert hub_id in text
    assert "was not found" in text


def test_licence_files_are_copied_byte_for_byte(tmp_path):
    (tmp_path / "LICENSE.txt").write_bytes(AGREEMENT.encode() + b"\r\n\xff")
    (tmp_path / "USE_POLICY.md").write_bytes(b"policy")
    (tmp_path / "licence").write_bytes(b"british")
    (tmp_path / "LICENSES").mkdir()
    (tmp_path / "licensed_data.bin").write_bytes(b"no")
    (tmp_path / "config.json").write_bytes(b"{}")
    files = licence_notice("3.2-1B", "meta-llama/Llama-3.2-1B", tmp_path)
    assert list(files) == ["LICENSE.txt", "NOTICE", "USE_POLICY.md", "licence"]
    assert files["LICENSE.txt"] == AGREEMENT.encode() + b"\r\n\xff"
    assert files["USE_POLICY.md"] == b"policy"
    assert b"The agreement is in LICENSE.txt, licence." in files["NOTICE"]


def test_links_of_the_hubs_cache_are_followed(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1234").write_text(AGREEMENT)
    snapshot = tmp_path / "snapshots" / "abcd"
    snapshot.mkdir(parents=True)
    (snapshot / "LICENSE.txt").symlink_to("../../blobs/1234")
    files = licence_notice("x", None, snapshot)
    assert files["LICENSE.txt"] == AGREEMENT.encode()


def test_a_missing_agreement_is_said_with_its_address(tmp_path):
    text = notice("3.2-1B", "meta-llama/Llama-3.2-1B", tmp_path)
    assert "https://www.llama.com/llama3_2/license/" in text
    assert "llama3/license" in notice("3-8B", "meta-llama/Meta-Llama-3-8B", tmp_path)


@pytest.mark.parametrize("hub_id", [None, "someone/fine-tune"])
def test_a_fine_tune_is_known_by_its_licences_title(tmp_path, hub_id):
    (tmp_path / "LICENSE").write_text("\ufeff " + AGREEMENT, encoding="utf-8")
    assert notice("tune", hub_id, tmp_path).startswith("Llama 3.2 is licensed")
    (tmp_path / "LICENSE").write_text("META " + AGREEMENT.replace("3.2", "3"), encoding="utf-8")
    assert notice("tune", hub_id, tmp_path).startswith("Meta Llama 3 is licensed")


def test_the_real_agreement_is_recognised(shared_data, tmp_path):
    real = shared_data / "llama3" / "LICENSE"
    (tmp_path / "LICENSE").write_bytes(real.read_bytes())
    attribution = notice("local", None, tmp_path).splitlines()[0]
    # The agreement quotes the very sentence that it asks for.
    assert f"“{attribution}”" in real.read_text(encoding="utf-8")
    assert "“Built with Meta Llama 3”" in real.read_text(encoding="utf-8")


def test_an_unknown_checkpoint_keeps_its_own_licence(tmp_path):
    assert "was not found" in notice("mine", None, tmp_path)
    assert "Model: mine" in notice("mine", None, tmp_path)
    (tmp_path / "LICENSE").write_text("MIT License")
    text = notice("mine", None, tmp_path)
    assert "The weights' own licence applies: LICENSE." in text
    assert "was not found" not in text


def test_only_the_packaged_demo_is_the_demo(tmp_path, monkeypatch):
    assert "Apache" not in notice("demo", None, tmp_path)
    monkeypatch.setattr(licence, "DEMO_FOLDER", tmp_path / "demo")
    text = notice("demo", None, tmp_path / "demo")
    assert "Apache License, Version 2.0" in text
    assert "public domain" in text
    assert "Meta Platforms" not in text


def test_a_checkpoints_own_notice_is_kept_once(tmp_path):
    (tmp_path / "NOTICE.txt").write_bytes(b"Copyright Somebody\n")
    files = licence_notice("3.2-1B", "meta-llama/Llama-3.2-1B", tmp_path)
    assert list(files) == ["NOTICE"]
    assert files["NOTICE"].startswith(b"Llama 3.2 is licensed")
    assert files["NOTICE"].endswith(b"\n\nCopyright Somebody\n")


@pytest.mark.parametrize("hub_id", ["meta-llama/Llama-3.2-1B", "me/x", None])
def test_weights_that_we_quantised_keep_their_notice(tmp_path, hub_id):
    first = licence_notice("3.2-1B", hub_id, tmp_path)["NOTICE"]
    (tmp_path / "NOTICE").write_bytes(first)
    assert licence_notice("weights", None, tmp_path)["NOTICE"] == first


def test_a_licence_that_cannot_be_one_is_refused(tmp_path):
    with (tmp_path / "LICENSE").open("wb") as file:
        file.truncate(2**33)
    with pytest.raises(CheckpointError, match="no licence text"):
        licence_notice("x", None, tmp_path)


def test_an_unreadable_licence_is_refused(tmp_path, monkeypatch):
    (tmp_path / "LICENSE").write_bytes(b"x")

    def forbidden(path, most_bytes):
        raise PermissionError(13, os.strerror(13), str(path))

    monkeypatch.setattr(licence, "_read", forbidden)
    with pytest.raises(CheckpointError, match="Permission denied"):
        licence_notice("x", None, tmp_path)


def test_the_same_checkpoint_gives_the_same_files(tmp_path):
    (tmp_path / "b").mkdir()
    assert notice("x", None, tmp_path) == notice("x", None, tmp_path / "b")
    assert str(tmp_path) not in notice("x", None, tmp_path)
