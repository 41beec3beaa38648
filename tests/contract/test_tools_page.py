"""docs/tools.md: its loop and its stream run, with a model whose answers are written down."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from artifacts.dialogs import demo_format

import llama_export
from llama_export.generation.decoding import GenerationStats
from llama_export.generation.text_stream import Completion
from llama_export.generation.validation import as_messages
from llama_export.tokenizer.chat.chat_format import Dialog

PAGE = (Path(__file__).parents[2] / "docs" / "tools.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
REPLIES = [
    '{"name": "weather", "parameters": {"city": "Köln", "when": "tomorrow"}}',
    '{"name": "weather", "parameters": {"city": "Köln", "days": 2}}; '
    '{"name": "oracle", "parameters": {}}',
    "Yes, take one.",
]


class ScriptedSession:
    """Answers a dialog that the demo's template really writes with what is written down."""

    def __init__(self, tokenizer, replies: list[str]) -> None:
        self.chat_format = demo_format(tokenizer)
        self.replies = iter(replies)
        self.prompts: list[str] = []

    def chat(self, messages, *, tools, max_tokens: int) -> Completion:
        self.prompts.append(self.chat_format.render(Dialog(as_messages(messages), tools=tools)))
        ids = self.chat_format.encode(Dialog(as_messages(messages), tools=tools))
        stats = GenerationStats(len(ids), max_tokens, 0.0, 0.0, "stop token")
        return Completion(next(self.replies), (), stats)


@pytest.fixture
def page(small, monkeypatch):
    """Return a function that runs the page, with the replies of its model."""

    def run(replies: list[str]) -> tuple[dict[str, object], ScriptedSession]:
        session = ScriptedSession(small, replies)
        monkeypatch.setattr(llama_export, "load", lambda _: session, raising=False)
        names: dict[str, object] = {}
        for block in BLOCKS:
            exec(compile(block, "docs/tools.md", "exec"), names)
        return names, session

    return run


def test_the_loop_of_the_page_runs(page, capsys):
    names, session = page(REPLIES)
    printed = capsys.readouterr().out
    first, wrong, right = session.prompts
    assert "The weather of a city in the next days" in first
    assert "error: weather() got an unexpected keyword argument 'when'" in wrong
    assert '"rain in Köln for 2 days"' in right
    assert printed.splitlines()[0] == "Yes, take one."
    assert "text: Let me\ntext:  see.\ncall: 0 call_0 clock -\ncall: 0 - - {}\n" in printed
    assert "[ToolCall(name='clock', arguments={}, id='call_0')]" in printed
    assert 'start: call\ncall: call_0\ncall_0: %json {"x-guidance"' in printed
    assert names["tools"].form.kind.value == "json"


def test_a_model_that_only_calls_comes_to_an_end(page, capsys):
    page([json.dumps({"name": "clock", "parameters": {}})] * 5)
    assert capsys.readouterr().out.startswith("That took too many calls.\n")


def test_the_forms_of_the_page_are_those_that_are_known():
    from llama_export.tokenizer.chat.call_form import Kind

    assert re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE) == [kind.value for kind in Kind]
