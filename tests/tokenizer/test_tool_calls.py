"""Calls of tools in replies: each form read back, whole and in pieces, and what stays text."""

from __future__ import annotations

import json
import time

import pytest
from artifacts.chat_templates import TEMPLATES
from artifacts.dialogs import DEMO_TEMPLATE
from artifacts.tool_calls import (
    FORMS,
    NAMES,
    PYTHONIC_TEMPLATE,
    STRANGE_TEMPLATE,
    TOLD_ONLY_TEMPLATE,
    as_llama,
    as_marked,
    as_python,
    as_tagged,
    read_reply,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llama_export.errors import PromptError
from llama_export.tokenizer.chat.call_form import (
    HERMES,
    LLAMA_JSON,
    MISTRAL,
    PYTHONIC,
    CallForm,
    Kind,
    find_call_form,
)
from llama_export.tokenizer.chat.call_reader import CallReader, TextDelta
from llama_export.tokenizer.chat.chat_format import ChatFormat
from llama_export.tokenizer.chat.messages import ToolCall

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["</tool_call>", "<tool_call>", '"}', "')]", "\\", "<|python_tag|>", "]\n", "\x00", "\\n"]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.floats(-1e6, 1e6).filter(lambda number: repr(number)[-3:] != "inf")
    | TEXT,
    lambda each: st.lists(each, max_size=3) | st.dictionaries(TEXT, each, max_size=3),
    max_leaves=8,
)
KEYS = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True).filter(
    lambda key: key not in ("True", "False", "None")
)
CALLS = st.lists(
    st.builds(ToolCall, st.sampled_from(NAMES), st.dictionaries(KEYS, VALUES, max_size=3)),
    min_size=1,
    max_size=3,
)
# What models write when they nearly call.
FRAGMENTS = st.sampled_from(
    [
        *(
            "<tool_call>",
            "[TOOL_CALLS]",
            "</tool_call>",
            "<|python_tag|>",
            "<|eom_id|>",
            ";",
            "\n",
            " ",
            "Hm. ",
        ),
        *('{"name": "weather", "parameters": {', '{"name": "clock", "arguments": {}}', "}", "}}"),
        *('{"', '"', "{", "[", "]", "weather(", "city='x'", "city=", ")", ".call(", "[weather("),
        *("[clock()]", "brave_search.call(query='x')", "<tool", "<|python", "\\", '"a": 1', ","),
        *('{"name": "oracle", "parameters": {}}', "[oracle()]", "print(1)", "é", "True", "-1"),
    ]
)
FORM_OF = st.sampled_from([LLAMA_JSON, PYTHONIC, HERMES, MISTRAL])


@st.composite
def cut(draw, text: str) -> list[str]:
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def plain(calls: list[ToolCall]) -> list[tuple[str, object]]:
    return [(call.name, call.arguments) for call in calls]


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=25, deadline=None)
@given(calls=CALLS, data=st.data())
def test_what_is_written_in_a_form_is_read_back_however_it_is_cut(name, calls, data):
    form, write = FORMS[name]
    written = write(calls)
    text, found = read_reply(form, [written])
    assert (text, plain(found)) == ("", plain(calls))
    assert [call.id for call in found] == [f"call_{index}" for index in range(len(calls))]
    assert read_reply(form, data.draw(cut(written))) == (text, found)
    assert read_reply(form, list(written)) == (text, found)


@settings(max_examples=150, deadline=None)
@given(form=FORM_OF, parts=st.lists(FRAGMENTS | TEXT, max_size=9), data=st.data())
@example(form=HERMES, parts=["<tool_call>", '{"name": "clock", "arguments": {}}', "é"], data=None)
def test_any_reply_is_read_alike_however_it_is_cut(form, parts, data):
    reply = "".join(parts)
    text, found = read_reply(form, [reply])
    assert found or text == reply
    assert read_reply(form, list(reply)) == (text, found)
    if data is not None:
        assert read_reply(form, data.draw(cut(reply))) == (text, found)


@settings(max_examples=30, deadline=None)
@given(form=FORM_OF, calls=CALLS, data=st.data())
def test_a_call_with_a_letter_less_or_more_is_text_or_another_call(form, calls, data):
    write = {
        Kind.JSON: as_llama,
        Kind.PYTHONIC: as_python,
        Kind.TAGGED: as_tagged,
        Kind.MARKED: as_marked,
    }[form.kind]
    written = write(calls)
    at = data.draw(st.integers(0, len(written) - 1))
    more = data.draw(st.sampled_from(["", '"', "{", "}", "(", "\\", "'", "x", "\n"]))
    broken = written[:at] + more + written[at + 1 :]
    text, found = read_reply(form, [broken])
    assert found or text == broken
    assert read_reply(form, list(broken)) == (text, found)


@pytest.mark.parametrize(
    ("form", "reply", "text", "calls"),
    [
        (HERMES, "Let me see.\n\n" + as_tagged([ToolCall("clock", {})]), "Let me see.", ["clock"]),
        (HERMES, as_tagged([ToolCall("clock", {})]) + "\nDone.", "Done.", ["clock"]),
        (HERMES, '<tool_call>{"name": "clock"}\n', "", ["clock"]),
        (HERMES, 'So: <tool_call>{"name": "clock"}</tool', "So:", ["clock"]),
        (LLAMA_JSON, 'I call <|python_tag|>{"name": "clock"}<|eom_id|>', "I call", ["clock"]),
        (LLAMA_JSON, " \n" + as_llama([ToolCall("clock", {})]) + ";\n", "", ["clock"]),
        (LLAMA_JSON, as_llama([ToolCall("clock", {})]) + " So.", "So.", ["clock"]),
        (LLAMA_JSON, as_python([ToolCall("clock", {})]), "", ["clock"]),
        (PYTHONIC, "[weather(on=true, off=None, x=[1, 2,])]", "", ["weather"]),
        (PYTHONIC, "<|python_start|>[clock()]<|python_end|>", "", ["clock"]),
    ],
)
def test_text_around_a_call_stays(form, reply, text, calls):
    found_text, found = read_reply(form, list(reply))
    assert (found_text, [call.name for call in found]) == (text, calls)


@pytest.mark.parametrize("form", [LLAMA_JSON, PYTHONIC, HERMES], ids=lambda form: form.kind.value)
@pytest.mark.parametrize(
    "reply",
    [
        "",
        " \n",
        "It rains. ",
        '{"city": "Köln"}',
        '{"name": "oracle", "parameters": {}}',
        '{"name": "weather"}',
        '{"name": "weather", "name": "clock", "parameters": {}}',
        '{"name": "weather", "parameters": {}, "arguments": {}}',
        '{"name": "weather", "parameters": [1]}',
        '{"name": "weather", "parameters": {"a": NaN}}',
        '{"name": "weather", "parameters": {"a": "\\ud800"}}',
        '{"name": "weather", "parameters": {"a": ' + "[" * 100 + "]" * 100 + "}}",
        '{"name": "weather", "parameters": {}',
        "[1, 2]",
        "[]",
        "[weather(1)]",
        "[weather(city=Köln)]",
        "[weather(city=f(1))]",
        "[weather(city=1+1)]",
        "[weather(city='a', city='b')]",
        "[weather(**{})]",
        "[weather(city='a\nb')]",
        "[weather(city='\\U00110000')]",
        "[__import__('os').system('id')]",
        "[oracle()]",
        "weather(city='a')",
        "<|python_tag|>print(weather(1))",
        "<|python_tag|>weather(city='a')",
        "<|python_tag|>oracle.call(query='a')",
        "<tool_call>weather</tool_call>",
        '<tool_call>{"name": "oracle", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {}}}</tool_call>',
        "<tool_call><tool_call></tool_call>",
        "1 < 2, <tool_cal",
    ],
)
def test_what_is_no_call_of_an_offered_tool_stays_text(form, reply):
    assert read_reply(form, [reply]) == (reply, [])
    assert read_reply(form, list(reply)) == (reply, [])


def test_a_call_after_a_broken_one_is_found():
    good = as_tagged([ToolCall("clock", {})])
    text, found = read_reply(HERMES, [f"<tool_call>oh\n{good}"])
    assert (text, plain(found)) == ("<tool_call>oh", [("clock", {})])


@pytest.mark.parametrize(
    ("form", "reply"),
    [
        (LLAMA_JSON, '{"city": "Köln", "sky": "grey"}'),
        (LLAMA_JSON, "{no JSON at all}"),
        (LLAMA_JSON, '{"name": "oracle", "parameters": {}}'),
        (LLAMA_JSON, "[1, 2, 3, 4, 5, 6, 7, 8, 9]"),
        (PYTHONIC, "[see the notes below]"),
        (HERMES, "<b>bold</b> and <tools> of the trade"),
        (HERMES, "<tool_call>never mind, let me say it"),
    ],
)
def test_text_is_held_back_only_while_it_may_be_a_call(form, reply):
    """At most the letters of a mark, or of a key or a name, wait."""
    reader = CallReader(form, NAMES)
    shown = 0
    for count, letter in enumerate(reply, 1):
        deltas = reader.push(letter)
        shown += sum(len(each.text) for each in deltas if isinstance(each, TextDelta))
        assert count - shown <= len('{"name": "o')
    reader.finish()


@pytest.mark.parametrize(
    ("form", "reply"),
    [
        (LLAMA_JSON, as_llama([ToolCall("weather", {"city": "Köln"}), ToolCall("clock", {})])),
        (PYTHONIC, '[weather(city="Köln"), clock()]'),
        (
            HERMES,
            as_tagged([ToolCall("weather", {"city": "Köln"}), ToolCall("clock", {})]),
        ),
    ],
)
def test_where_one_call_is_wanted_the_first_one_is_read(form, reply):
    for most, expected in (
        (1, ["weather"]),
        (2, ["weather", "clock"]),
        (None, ["weather", "clock"]),
    ):
        reader = CallReader(form, ["weather", "clock"], most_calls=most)
        deltas = [*reader.push(reply), *reader.finish()]
        assert [call.name for call in reader.calls] == expected
        assert [each.name for each in deltas if getattr(each, "name", "")] == expected
        assert not [each for each in deltas if isinstance(each, TextDelta)]


def test_a_call_is_given_out_as_soon_as_it_is_whole():
    reader = CallReader(LLAMA_JSON, NAMES)
    *before, last = as_llama([ToolCall("weather", {"city": "Köln"})])
    assert [delta for letter in before for delta in reader.push(letter)] == []
    named, filled = reader.push(last)
    assert (named.index, named.id, named.name, named.arguments) == (0, "call_0", "weather", "")
    assert (filled.index, filled.id, filled.name) == (0, "", "")
    assert json.loads(filled.arguments) == {"city": "Köln"}


@pytest.mark.parametrize(
    ("form", "unit", "begin", "end"),
    [
        (LLAMA_JSON, "ab\\n", '{"name": "weather", "parameters": {"a": "', '"}}'),
        (LLAMA_JSON, "[1],", '{"name": "weather", "parameters": {"a": [', "1]}}"),
        (PYTHONIC, "'x', ", "[weather(a=[", "])]"),
        (PYTHONIC, "clock(), ", "[", "clock()]"),
        (HERMES, "<tool_call>", "", ""),
        (HERMES, '<tool_call>{"name":"weather","arguments":{"a":"', "", ""),
        (HERMES, '<tool_call>{"name":"weather","arguments":{\'', "", ""),
        (HERMES, " \n", "", ""),
        (LLAMA_JSON, "<|python_tag|>{", "", ""),
        (LLAMA_JSON, ";", as_llama([ToolCall("clock", {})]), ""),
    ],
)
def test_reading_takes_time_in_proportion_to_the_length(form, unit, begin, end):
    def seconds(times: int) -> float:
        reply = begin + unit * times + end
        pieces = [reply[at : at + 7] for at in range(0, len(reply), 7)]
        begun = time.process_time()
        read_reply(form, pieces)
        return time.process_time() - begun

    seconds(100)
    few, many = min(seconds(1_000) for _ in range(3)), seconds(8_000)
    assert many < 8 * 5 * max(few, 0.002)


# The form is found in the template.


def form_of(small, template: str) -> ChatFormat:
    return ChatFormat.of(small, small.config_keys() | {"chat_template": template})


def test_the_form_is_the_templates_own(small):
    found = {name: find(small, template) for name, template in TEMPLATES.items()}
    assert {name: form for name, form in found.items() if form} == {
        "hermes tools": HERMES,
        "qwen-like": "not known",
        "mistral": MISTRAL,
    }
    assert find(small, DEMO_TEMPLATE) == LLAMA_JSON
    assert find(small, PYTHONIC_TEMPLATE) == PYTHONIC
    assert find(small, TOLD_ONLY_TEMPLATE) == HERMES
    assert find(small, STRANGE_TEMPLATE) == "not known"
    arguments = DEMO_TEMPLATE.replace('"parameters": ', '"arguments": ')
    assert find(small, arguments) == CallForm(Kind.JSON, "arguments")
    assert find_call_form(ChatFormat.of(small, {})) is None


def find(small, template: str) -> CallForm | str | None:
    try:
        return find_call_form(form_of(small, template))
    except PromptError as error:
        return "not known" if "in a form that is not known" in error.message else error.message
