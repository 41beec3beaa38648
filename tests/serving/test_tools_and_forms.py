"""The server, asked by the real `openai` client for JSON of a schema, and with tools."""

from __future__ import annotations

import json

import pytest
from artifacts.demo_bundle import demo_bundle  # noqa: F401 - a fixture
from artifacts.served import opened, running

from llama_export.serving.fields import Fields
from llama_export.serving.tool_protocol import read_tools

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytest.importorskip("llguidance", reason="needs the extra `structured`")
openai = pytest.importorskip("openai", reason="needs openai, of the test group")
jsonschema = pytest.importorskip("jsonschema")
pytestmark = pytest.mark.onnx

MESSAGES = [{"role": "user", "content": "What is the weather in Oslo?"}]
ASKED = {"model": "demo", "temperature": 0, "max_tokens": 300}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Oslo", "Bergen"]}, "days": {"enum": [1, 2]}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}},
}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Bergen"]}, "cold": {"type": "boolean"}},
    "required": ["city", "cold"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA}}


@pytest.fixture(scope="module")
def client(demo_bundle):  # noqa: F811
    with (
        running(demo_bundle) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as found,
    ):
        yield found


def chat(client, **options):
    return client.chat.completions.create(messages=MESSAGES, **{**ASKED, **options})


def test_an_answer_obeys_the_schema_whole_and_streamed(client):
    whole = chat(client, response_format=FORM).choices[0]
    jsonschema.validate(json.loads(whole.message.content), SCHEMA)
    assert whole.finish_reason == "stop"
    chunks = chat(client, response_format=FORM, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.message.content


def test_a_response_obeys_the_schema(client):
    done = client.responses.create(
        model="demo",
        input="What is the weather in Oslo?",
        temperature=0,
        text={"format": {"type": "json_schema", "name": "weather", "schema": SCHEMA}},
    )
    jsonschema.validate(json.loads(done.output_text), SCHEMA)
    assert done.text.format.name == "weather"
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="demo", input="Hi", text={"format": {"type": "xml"}})
    assert caught.value.param == "text.format"


def test_each_choice_is_guided_by_itself(client):
    done = chat(client, response_format=FORM, n=3, temperature=1, seed=1)
    assert len(done.choices) == 3
    for choice in done.choices:
        jsonschema.validate(json.loads(choice.message.content), SCHEMA)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "form",
    [
        {"type": "xml"},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "colour"}}},
        {"type": "json_schema"},
    ],
)
def test_a_form_that_cannot_be_had_is_refused_before_the_stream(client, form, stream):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, response_format=form, stream=stream)
    assert caught.value.param == "response_format"


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", {"weather", "clock"}),
        ({"type": "function", "function": {"name": "weather"}}, {"weather"}),
    ],
)
def test_a_choice_of_tools_forces_a_call_that_fits_its_schema(client, choice, names):
    done = chat(client, tools=[WEATHER, CLOCK], tool_choice=choice).choices[0]
    assert done.finish_reason == "tool_calls"
    (call,) = done.message.tool_calls
    assert call.function.name in names
    assert (call.type, done.message.content) == ("function", None)
    if call.function.name == "weather":
        parameters = WEATHER["function"]["parameters"]
        jsonschema.validate(json.loads(call.function.arguments), parameters)


def test_a_call_is_streamed_name_first(client):
    forced = {"tools": [WEATHER], "tool_choice": "required"}
    (whole,) = chat(client, **forced).choices[0].message.tool_calls
    chunks = [chunk.choices[0] for chunk in chat(client, stream=True, **forced)]
    calls = [each for chunk in chunks for each in chunk.delta.tool_calls or ()]
    assert (calls[0].index, calls[0].function.name, calls[0].type) == (0, "weather", "function")
    assert calls[0].id
    assert "".join(each.function.arguments or "" for each in calls) == whole.function.arguments
    assert not any(chunk.delta.content for chunk in chunks)
    assert chunks[-1].finish_reason == "tool_calls"


def test_a_call_and_its_result_are_read_in_the_next_turn(client):
    forced = {"tools": [WEATHER], "tool_choice": "required"}
    answer = chat(client, **forced).choices[0].message
    (call,) = answer.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": json.dumps({"celsius": -4})}
    dialog = [*MESSAGES, answer.model_dump(exclude_none=True), result]
    known = client.chat.completions.create(messages=dialog, tools=[WEATHER], **ASKED)
    unknown = client.chat.completions.create(messages=dialog[:1], tools=[WEATHER], **ASKED)
    assert known.usage.prompt_tokens > unknown.usage.prompt_tokens


def test_what_is_no_call_stays_text(client):
    plain = chat(client, tools=[WEATHER], max_tokens=12).choices[0]
    assert plain.message.content
    assert plain.message.tool_calls is None
    chunks = chat(client, tools=[WEATHER], max_tokens=12, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == plain.message.content
    # Told of no tool, the model reads a shorter prompt.
    none = chat(client, tools=[WEATHER], tool_choice="none", max_tokens=12)
    assert none.usage.prompt_tokens == chat(client, max_tokens=12).usage.prompt_tokens


def test_one_call_alone_is_wanted(demo_bundle):  # noqa: F811
    """A model that writes two is taken at its first word."""
    asked = {"tools": [WEATHER, CLOCK], "messages": []}
    chat_format = opened(demo_bundle).session.chat_format
    two = '{"name": "weather", "parameters": {"city": "Oslo", "days": 1}}; '
    two += '{"name": "clock", "parameters": {}}'
    for given, count in ((None, 2), (True, 2), (False, 1)):
        fields = asked if given is None else {**asked, "parallel_tool_calls": given}
        tools, _ = read_tools(Fields(fields), chat_format)
        reader = tools.reader()
        reader.push(two)
        assert len(reader.calls) == count


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [WEATHER], "tool_choice": "weather"}, "tool_choice"),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER], "parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"extra_body": {"functions": [WEATHER["function"]]}}, "functions"),
    ],
)
def test_wrong_tools_are_refused_by_name(client, options, param):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, **options)
    assert caught.value.param == param
