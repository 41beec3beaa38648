"""`generate --tools`: definitions from a file, and a reply's text and calls on stdout."""

from __future__ import annotations

import json
from functools import partial

import pytest
from artifacts.chat_templates import WEATHER
from artifacts.demo_bundle import demo_bundle
from artifacts.dialogs import demo_format

from llama_export.cli.offered_tools import read_definitions, write_reply
from llama_export.errors import PromptError, UsageError
from llama_export.generation.tools import Tools

__all__ = ["demo_bundle"]

CALL = '{"name": "weather", "parameters": {"city": "Köln"}}'


@pytest.fixture
def run(command):
    return partial(command, stdin=b"", columns=240)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tools.json"
    path.write_text(json.dumps([WEATHER]), encoding="utf-8")
    return path


@pytest.mark.onnx
@pytest.mark.usefixtures("own_process_state")
def test_a_model_is_told_of_tools_and_its_text_is_shown(run, demo_bundle, file):
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    words = ("generate", demo_bundle, "-n", "6", "--temp", "0", "--chat", "-p", "Hi")
    code, out, _ = run(*words, "--tools", file, "--json")
    record = json.loads(out)
    assert code == 0
    assert record["tool_calls"] == []
    assert record["stats"]["prompt_tokens"] > 100
    assert run(*words, "--tools", file)[1] == record["text"] + "\n"
    assert "tool_calls" not in json.loads(run(*words, "--json")[1])


@pytest.mark.parametrize(
    ("pieces", "written"),
    [
        ([CALL], ""),
        (["Let me look.\n<|python", "_tag|>", CALL], "Let me look.\n"),
        (["Rain", "."], "Rain.\n"),
        (["{"], "{\n"),
    ],
)
def test_calls_follow_the_text_as_lines_of_json(small, capsys, pieces, written):
    write_reply(iter(pieces), "", Tools(demo_format(small), [WEATHER]))
    out = capsys.readouterr().out
    assert out.startswith(written)
    calls = [json.loads(line) for line in out[len(written) :].splitlines()]
    expected = {"name": "weather", "arguments": {"city": "Köln"}}
    whole = {"id": "call_0", "type": "function", "function": expected}
    assert calls == ([whole] if CALL in pieces else [])


def test_without_tools_a_call_is_text(capsys):
    write_reply(iter([CALL]), "", None)
    assert capsys.readouterr().out == CALL + "\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "tools.json is no JSON"),
        ("{}", "expected a list of definitions of tools, found {}"),
        ("[]", r"expected a list of definitions of tools, found \[\]"),
        ("[3]", r"expected a list of definitions of tools, found \[3\]"),
    ],
)
def test_a_file_that_holds_no_tools_is_refused(file, content, words):
    file.write_text(content, encoding="utf-8")
    with pytest.raises(PromptError, match=words):
        read_definitions(file, chat=True)


def test_tools_want_a_dialog_and_a_file(file, tmp_path):
    with pytest.raises(UsageError, match="--tools describes functions in a dialog"):
        read_definitions(file, chat=False)
    with pytest.raises(PromptError, match="cannot be read"):
        read_definitions(tmp_path / "none", chat=True)
    assert read_definitions(None, chat=False) == []
