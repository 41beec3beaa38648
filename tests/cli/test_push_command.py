"""`llama-export push` and `--push`: what is printed, what is refused before the work."""

from __future__ import annotations

import json

import pytest
from artifacts.tiny import write_checkpoint
from fakes.writable_hub import ACCOUNT, TOKEN, quick_hub

pytest.importorskip("onnx", reason="needs the onnx extra")
pytestmark = pytest.mark.usefixtures("one_thread", "empty_cache")

NAME = f"{ACCOUNT}/tiny"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with quick_hub(monkeypatch, tmp_path) as running:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = write_checkpoint(tmp_path_factory.mktemp("model") / "tiny")
    (folder / "LICENSE").write_text("MIT License\n")
    return folder


@pytest.fixture
def export(checkpoint, tmp_path, command):
    def call(*options):
        words = ("-t", "onnx", "-m", checkpoint, "-o", tmp_path / "out", "--quality", "fast")
        return command(*words, "--no-verify", *options)

    return call


def test_a_dry_run_lists_the_files_and_sends_nothing(hub, export, tmp_path, command):
    assert export()[0] == 0
    code, out, err = command("push", tmp_path / "out", NAME, "--dry-run")
    assert code == 0, err
    assert "onnx/model.onnx_data" in out
    assert "licence mit" in " ".join(out.split())
    code, out, err = command("push", tmp_path / "out", NAME, "--dry-run", "--json")
    found = json.loads(out)
    assert (found["licence"], found["commit"]) == ("mit", None)
    assert found["size_bytes"] == sum(each["size_bytes"] for each in found["files"])
    assert hub.repositories == {}
    code, out, err = command("push", tmp_path / "out", NAME, "--private", "--json")
    assert code == 0, err
    assert {each["path"] for each in found["files"]} == set(hub.repositories[NAME].files)
    assert hub.repositories[NAME].private
    assert json.loads(out)["commit"].startswith(hub.endpoint)


def test_an_export_pushes_what_it_made(hub, export, tmp_path):
    code, _, err = export("--push", NAME, "--private")
    assert code == 0, err
    assert f"pushed: {hub.endpoint}/{NAME}/commit/" in err
    there = hub.repositories[NAME]
    assert there.private
    assert there.files["onnx/manifest.json"] == (tmp_path / "out/onnx/manifest.json").read_bytes()
    assert b"OWNER/NAME" in (tmp_path / "out" / "README.md").read_bytes()


def test_a_dry_run_of_an_export_says_where_it_would_go_and_needs_no_account(
    hub, export, tmp_path, monkeypatch
):
    monkeypatch.delenv("HF_TOKEN")
    code, out, err = export("--push", NAME, "--private", "--dry-run")
    assert code == 0, err
    said = f"then be pushed to {hub.endpoint}/{NAME}, licence mit, which nobody else would see"
    assert said in " ".join(out.split())
    code, out, err = export("--push", NAME, "--dry-run", "--json")
    address = f"{hub.endpoint}/{NAME}"
    assert json.loads(out)["push"] == {
        "repository": address, "private": False, "licence": "mit", "commit": None
    }  # fmt: skip
    assert hub.repositories == {}
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("breaks", [False, True])
def test_the_json_of_an_export_names_the_commit_or_says_that_there_is_none(hub, export, breaks):
    if breaks:
        hub.refuse["/commit/"] = (503, "maintenance")
    code, out, err = export("--push", NAME, "--json")
    found = json.loads(out)
    assert (code, found["bundles"][0]["target"]) == (12 if breaks else 0, "onnx"), err
    if breaks:
        assert found["push"]["commit"] is None
    else:
        assert found["push"]["commit"].startswith(f"{hub.endpoint}/{NAME}/commit/")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--push", "tiny"), 2, "expected OWNER/NAME"),
        (("--private",), 2, "--private is for a push"),
        (("--licence", "mit"), 2, "--licence is for a push"),
        (("--push", NAME, "--licence", "apache-2.0"), 2, "own files say mit"),
        (("--push", NAME, "--token", "hf_other"), 13, "refused the token"),
    ],
)
def test_what_a_push_refuses_is_refused_before_the_export(
    hub, export, tmp_path, options, code, said
):
    found, _, err = export(*options)
    assert (found, said in " ".join(err.split())) == (code, True), err
    assert not (tmp_path / "out").exists()
    assert "hf_other" not in err


def test_a_push_that_breaks_leaves_the_export(hub, export, tmp_path, command):
    hub.refuse["/commit/"] = (503, "maintenance")
    code, _, err = export("--push", NAME)
    assert code == 12
    assert "the new output is in place" in " ".join(err.split())
    hub.refuse.clear()
    assert command("push", tmp_path / "out", NAME)[0] == 0
