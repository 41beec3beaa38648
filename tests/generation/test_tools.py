"""Tools offered to a model: definitions, a loop of calls and results, grammars that force one."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import jsonschema
import numpy as np
import pytest
from artifacts.chat_templates import HERMES_TOOLS, MISTRAL, SMOLLM2, WEATHER
from artifacts.dialogs import demo_format
from artifacts.tool_calls import CLOCK, PYTHONIC_TEMPLATE

import llama_export
from llama_export.errors import PromptError
from llama_export.generation.decoding import GenerationStats
from llama_export.generation.text_stream import Completion
from llama_export.generation.tools import Tools
from llama_export.tokenizer.chat.call_reader import CallDelta, TextDelta
from llama_export.tokenizer.chat.chat_format import ChatFormat, Dialog
from llama_export.tokenizer.chat.messages import Message, ToolCall

SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "parameters": {
            "type": "object",
            "$defs": {"Place": {"type": "object", "properties": {"city": {"type": "string"}}}},
            "properties": {
                "near": {"$ref": "#/$defs/Place"},
                "words": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
                "sort": {"enum": ["new", "old", None]},
                "most": {"type": "integer", "minimum": 1, "maximum": 50},
            },
            "required": ["words", "near"],
        },
    },
}
LOOSE = {"name": "loose", "parameters": {"properties": {"a": {"type": "boolean"}, "b": {}}}}
ALL = [WEATHER, CLOCK, SEARCH, LOOSE]
FORMS = ["json", "pythonic", "tagged", "marked"]
TEMPLATES = {"pythonic": PYTHONIC_TEMPLATE, "tagged": HERMES_TOOLS, "marked": MISTRAL}


def tools_of(small, form: str, definitions: Sequence[object] = ALL) -> Tools:
    if form == "json":
        return Tools(demo_format(small), definitions)
    settings = small.config_keys() | {"chat_template": TEMPLATES[form]}
    return Tools(ChatFormat.of(small, settings), definitions)


def completion_of(text: str, prompt_tokens: int = 7) -> Completion:
    return Completion(text, (), GenerationStats(prompt_tokens, 1, 0.0, 0.0, "stop token"))


# A loop, as a program has it, with a model whose answers are written down.


def answer(
    form: ChatFormat, tools: Tools, question: str, replies: Sequence[str]
) -> tuple[str, list[Message], list[str]]:
    """Answer a question as docs/tools.md does; also return the dialog, and each prompt."""
    functions = {
        "weather": lambda city, days=1: f"rain in {city} for {days} days",
        "clock": lambda: {"hour": 12},
    }
    messages = [Message("user", question)]
    prompts = []
    for written in replies:
        prompts.append(form.render(Dialog(messages, tools=tools.definitions)))
        reply = tools.read(completion_of(written, len(prompts[-1])))
        messages.append(reply.message)
        if not reply.calls:
            return reply.text, messages, prompts
        for call in reply.calls:
            result = functions[call.name](**call.arguments)
            messages.append(Message("tool", result, fields={"tool_call_id": call.id}))
    raise AssertionError


def test_a_loop_goes_from_calls_to_results_to_an_answer(small):
    form = demo_format(small)
    tools = Tools(form, [WEATHER, CLOCK])
    text, messages, prompts = answer(
        form,
        tools,
        "Shall I go out?",
        [
            '{"name": "weather", "parameters": {"city": "Köln", "days": 2}}',
            '{"name": "clock", "parameters": {}}',
            "At noon, with an umbrella.",
        ],
    )
    assert text == "At noon, with an umbrella."
    roles = [message.role for message in messages]
    assert roles == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert '"name": "weather", "parameters": {"city": "Köln", "days": 2}}<|eot_id|>' in prompts[1]
    assert '"rain in Köln for 2 days"<|eot_id|>' in prompts[1]
    assert '{"hour": 12}<|eot_id|>' in prompts[2]
    ids = [call.id for message in messages for call in message.tool_calls]
    assert len(set(ids)) == 2
    assert [message.fields.get("tool_call_id") for message in messages[2::2]] == ids


def test_a_model_with_tags_calls_several_at_once_and_says_something(small):
    settings = small.config_keys() | {"chat_template": HERMES_TOOLS}
    form = ChatFormat.of(small, settings)
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bonn"}}\n</tool_call>\n'
    tools = Tools(form, [WEATHER])
    text, messages, prompts = answer(form, tools, "?", ["Wait.\n" + call + call, "Rain."])
    assert text == "Rain."
    assert [len(message.tool_calls) for message in messages] == [0, 2, 0, 0, 0]
    assert messages[1].text == "Wait."
    assert prompts[1].count(call.strip()) == 2
    assert prompts[1].count("rain in Bonn for 1 days") == 2


def test_a_stream_has_text_and_calls(small):
    reader = tools_of(small, "tagged").reader("id")
    deltas = reader.push('Hm.\n<tool_call>{"name": "clock", "argu')
    deltas += reader.push('ments": {}}</tool_call>') + reader.finish()
    assert deltas == [TextDelta("Hm."), CallDelta(0, "id0", "clock"), CallDelta(0, arguments="{}")]


def test_a_real_tokenizer_shows_the_marks_that_are_special_tokens(small):
    """`<|python_tag|>` is one token, whose name is in the text that a session streams."""
    ids = [small.special_tokens["<|python_tag|>"], *small.encode('{"name": "clock"}')]
    decoder = small.stream_decoder()
    reader = tools_of(small, "json").reader()
    deltas = [each for token in ids for each in reader.push(decoder.push(token))]
    assert [each.name for each in deltas if isinstance(each, CallDelta)] == ["clock", ""]


# What is offered.


@pytest.mark.parametrize(
    ("definitions", "words"),
    [
        ([], "expected a list of definitions, found \\[\\]"),
        (WEATHER, "expected a list of definitions, found {'type'"),
        ("weather", "expected a list of definitions, found 'weather'"),
        ([3], "expected its definition, found 3"),
        ([{}], "expected a function's name and parameters"),
        ([{"name": "two words"}], "expected a function's name and parameters"),
        ([{"name": "f", "parameters": [1]}], "expected a function's name and parameters"),
        ([{"type": "web_search", "name": "f"}], "expected a function's name and parameters"),
        ([{"name": "f", "parameters": {"type": {1, 2}}}], "a tool: expected values of JSON"),
        ([WEATHER, {"name": "weather"}], "two tools are called 'weather'"),
    ],
)
def test_what_is_no_tool_is_refused(small, definitions, words):
    with pytest.raises(PromptError, match=words):
        tools_of(small, "json", definitions)


def test_a_model_without_a_place_for_tools_needs_to_be_told_of_them(small):
    form = ChatFormat.of(small, small.config_keys() | {"chat_template": SMOLLM2})
    with pytest.raises(PromptError, match="has no place for tools"):
        Tools(form, [CLOCK])
    tools = Tools(form, [CLOCK], form="tagged")
    reply = tools.read(completion_of('<tool_call>{"name": "clock"}</tool_call>'))
    assert [call.name for call in reply.calls] == ["clock"]
    with pytest.raises(PromptError, match="expected json, pythonic, tagged or marked, found 'xml'"):
        Tools(form, [CLOCK], form="xml")


def test_a_reply_is_a_message_again():
    call = ToolCall("clock", {}, "1")
    assert llama_export.Reply("", (call,)).message.content is None
    assert llama_export.Reply("Hm.", (call,)).message.content == "Hm."
    assert llama_export.Reply("").message == Message("assistant", "")


# Grammars: whatever they allow is read back as a call that its schema allows.


def written_by(grammar: str, seed: int) -> str:
    """Write what a grammar allows, drawn at random, byte by byte."""
    llguidance = pytest.importorskip("llguidance", reason="needs llguidance")
    tokens = llguidance.LLTokenizer("byte")
    matcher = llguidance.LLMatcher(tokens, llguidance.grammar_from("lark", grammar))
    assert matcher.get_error() == ""
    draw, written = random.Random(seed), []
    # Letters that end a value are drawn often, so that texts have an end.
    for _ in range(3000):
        if matcher.is_stopped():
            break
        mask = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
        allowed = [int(token) for token in np.flatnonzero(mask[:256])]
        ends = [token for token in allowed if token in b'"]},)']
        if written[-1:] and written[-1] in b"0123456789":  # no number is too large
            allowed = [token for token in allowed if token not in b"eE"]
        plain = [token for token in allowed if 32 <= token < 127] or allowed
        token = draw.choice(ends if ends and draw.random() < 0.4 else plain)
        written.append(token)
        assert matcher.consume_token(token)
    assert matcher.is_accepting()
    return bytes(written).decode()


@pytest.mark.parametrize("form", FORMS)
def test_what_a_grammar_allows_is_a_call_of_an_offered_tool(small, form):
    tools = tools_of(small, form)
    schemas = {
        each.get("function", each)["name"]: each.get("function", each)["parameters"] for each in ALL
    }
    called = set()
    for seed in range(24):
        written = written_by(tools.grammar(), seed)
        reply = tools.read(completion_of(written))
        assert (reply.text, len(reply.calls)) == ("", 1), written
        (call,) = reply.calls
        jsonschema.validate(call.arguments, schemas[call.name])
        called.add(call.name)
    assert len(called) > 1


@pytest.mark.parametrize("form", FORMS)
def test_a_named_tool_is_the_one_that_is_called(small, form):
    tools = tools_of(small, form)
    written = {written_by(tools.grammar("clock"), seed) for seed in range(3)}
    ((call,),) = (tools.read(completion_of(each)).calls for each in written)
    assert (call.name, call.arguments) == ("clock", {})
    for seed in range(4):
        reply = tools.read(completion_of(written_by(tools.grammar("search"), seed)))
        assert [call.name for call in reply.calls] == ["search"]
        assert {"words", "near"} <= reply.calls[0].arguments.keys()
    with pytest.raises(PromptError, match="no tool is called 'oracle'"):
        tools.grammar("oracle")


def test_tags_that_are_special_tokens_are_written_as_such(small):
    tools = tools_of(small, "tagged", [CLOCK])
    assert 'start: "<tool_call>" "\\n" call "\\n" "</tool_call>"' in tools.grammar()
    tools._special_tokens = {"<tool_call>": 7, "</tool_call>": 9}
    assert 'start: <[7]> "\\n" call "\\n" <[9]>' in tools.grammar()
    assert json.loads(tools.grammar().partition("%json ")[2].splitlines()[0])["required"] == [
        "name",
        "arguments",
    ]
