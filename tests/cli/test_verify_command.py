"""`llama-export verify` on a real bundle: its options, and what it says of a text it cannot use."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from artifacts.small_bundle import export_small

from llama_export.cli import app
from llama_export.errors import BackendUnavailableError

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytestmark = [pytest.mark.onnx, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    return export_small(tmp_path_factory.mktemp("small"), max_context=200)


@pytest.fixture
def verify(monkeypatch, capsys, exported):
    def call(*arguments: object) -> tuple[int, str, str]:
        words = ["llama-export", "verify", exported / "onnx", "--quick", "--threads", 1, *arguments]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as stopped:
            app.main()
        output = capsys.readouterr()
        return stopped.value.code or 0, output.out, output.err

    return call


def test_a_text_of_ones_own(verify, exported, tmp_path):
    text = tmp_path / "own.txt"
    text.write_text("Ein Männlein steht im Walde.", encoding="utf-8")
    checkpoint = exported.parent / "tiny"
    code, out, _ = verify("--text", text, "--checkpoint", checkpoint, "--json")
    report = json.loads(out)
    assert (code, report["passed"]) == (0, True)
    assert report["settings"]["text"] == "own.txt"
    tokens = len("Ein Männlein steht im Walde.".encode())
    assert report["settings"]["text_tokens"] == tokens
    assert report["measurements"]["loss_quantised"]["tokens"] == tokens
    rows = {row["key"]: row for row in report["sections"]["activation"]}
    assert 0 < rows["kl_shipped_emulated"]["value"] < rows["kl_shipped_emulated"]["threshold"]
    assert report["divergence"] is None
    sizes = report["series"]["sizes_bytes"]
    on_disk = json.loads((exported / "onnx" / "manifest.json").read_text())["files"]
    assert sum(sizes.values()) == sum(entry["size_bytes"] for entry in on_disk.values())
    assert {"int4 linears", "int8 table", "scales", "norms and the rest"} <= set(sizes)


def test_what_cannot_run_here_is_refused_before_pytorch_starts(exported, tmp_path, command):
    folder = shutil.copytree(exported / "onnx", tmp_path / "onnx")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    changed = json.dumps({**manifest, "runs_here": False})
    (folder / "manifest.json").write_text(changed, encoding="utf-8")
    code, out, err = command("verify", folder, columns=400)
    assert (code, out) == (BackendUnavailableError.exit_code, "")
    assert "cannot run here" in err
    assert "Starting PyTorch" not in err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "expected a text of at least 2 tokens, found 0"),
        (b"x", "expected a text of at least 2 tokens, found 1"),
        (b"caf\xe9", "is not UTF-8: byte 3"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_text_that_cannot_be_used(verify, tmp_path, content, said):
    text = tmp_path / "text.txt"
    if content is not None:
        text.write_bytes(content)
    code, out, err = verify("--text", text)
    assert code == 15
    assert out == ""
    assert "text.txt" in err
    assert said in err
    assert "what to do:" in err


def test_what_lacks_the_checkpoint_is_not_proved_and_the_command_that_proves_it_is_named(
    verify, exported
):
    code, out, err = verify("--json")
    report = json.loads(out)
    assert (code, report["verdict"], report["passed"]) == (17, "not proved", False)
    rows = {row["key"]: row for rows in report["sections"].values() for row in rows}
    assert rows["kl_quantisation"]["wants"] == "checkpoint"
    assert rows["kl_quantisation"]["note"].startswith("not checked: no reference checkpoint")
    # The small files are proved by what was kept with the weights.
    assert rows["side_chat"]["passed"] is rows["side_licence"]["passed"] is True
    said = f"verify {exported / 'onnx'} --weights {exported / 'weights'} --checkpoint MODEL"
    assert "for want of the checkpoint" in err
    assert said in err


def test_strict_fails_what_cannot_be_judged_and_not_what_is_missing(verify, exported):
    code, out, _ = verify("--json", "--strict")
    assert (code, json.loads(out)["verdict"]) == (17, "not proved")
    code, out, _ = verify("--json", "--strict", "--checkpoint", exported.parent / "tiny")
    assert code == 1
    rows = {row["key"]: row for row in json.loads(out)["sections"]["quantisation"]}
    assert rows["kl_quantisation"]["passed"] is False  # random weights


def test_without_weights_it_says_what_is_not_proved(verify, exported, tmp_path):
    kept = exported / "weights"
    kept.rename(tmp_path / "weights")
    try:
        code, out, err = verify()
    finally:
        (tmp_path / "weights").rename(kept)
    assert code == 17
    assert "for want of the quantised weights and the checkpoint" in err
    assert "--weights FOLDER --checkpoint MODEL" in err
    assert "Not proved" in out
    assert "no quantised weights, so it is not proved that the artifact holds them" in out
    assert "not proved: " in out.splitlines()[0]
    assert "--weights FOLDER" in out


def test_a_wrong_weights_folder_is_named(verify, tmp_path):
    code, _, err = verify("--weights", tmp_path / "nope")
    assert code == 2
    assert "does not exist" in err
    assert "weights/" in err
    code, _, err = verify("--weights", tmp_path)
    assert code == 2
    assert "holds no quantised weights" in err


def test_a_page_is_written(verify, exported, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the report extra")
    page = tmp_path / "report.html"
    code, out, _ = verify("--html", page, "--checkpoint", exported.parent / "tiny")
    assert code == 0
    assert "passed" in out
    assert "<svg" in page.read_text(encoding="utf-8")
    code, _, err = verify("--html", tmp_path / "no" / "such" / "folder.html")
    assert code == 11
    assert "folder.html" in err
