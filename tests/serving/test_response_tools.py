"""Tools in `/v1/responses`, asked by the real `openai` client: forced calls, streams, a loop."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from artifacts.demo_bundle import demo_bundle  # noqa: F401 - a fixture
from artifacts.served import running

from llama_export.serving.response_items import ResponseItems
from llama_export.tokenizer.chat.call_form import HERMES
from llama_export.tokenizer.chat.call_reader import CallReader

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytest.importorskip("llguidance", reason="needs the extra `structured`")
openai = pytest.importorskip("openai", reason="needs openai, of the test group")
jsonschema = pytest.importorskip("jsonschema")
pytestmark = pytest.mark.onnx

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Bergen"]}, "days": {"enum": [1, 2]}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True}
CLOCK = {"type": "function", "name": "clock", "parameters": {"type": "object", "properties": {}}}
QUESTION = {"role": "user", "content": "What is the weather in Oslo?"}
ASKED = {"model": "demo", "temperature": 0, "max_output_tokens": 300}
BLOCK = re.compile(r"^```python\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
BY_NAME = {"type": "function", "name": "weather"}


@pytest.fixture(scope="module")
def client(demo_bundle):  # noqa: F811
    with (
        running(demo_bundle) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as found,
    ):
        yield found


def respond(client, **options):
    return client.responses.create(**{**ASKED, "input": [QUESTION], **options})


@pytest.mark.parametrize(
    ("choice", "names"), [("required", {"weather", "clock"}), (BY_NAME, {"weather"})]
)
def test_a_choice_forces_a_call_that_fits_its_schema(client, choice, names):
    done = respond(client, tools=[WEATHER, CLOCK], tool_choice=choice)
    (call,) = done.output
    assert (call.type, call.status, done.status) == ("function_call", "completed", "completed")
    assert call.name in names
    assert done.output_text == ""
    assert [each.name for each in done.tools] == ["weather", "clock"]
    if call.name == "weather":
        jsonschema.validate(json.loads(call.arguments), PARAMETERS)


def test_a_call_is_streamed_as_an_item_of_its_own(client):
    forced = {"tools": [WEATHER], "tool_choice": "required"}
    events = list(respond(client, stream=True, **forced))
    assert [each.type.removeprefix("response.") for each in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert [each.sequence_number for each in events] == list(range(len(events)))
    added, delta, done, item, last = events[2:]
    assert (added.item.name, added.item.arguments) == ("weather", "")
    assert added.item.call_id == item.item.call_id == last.response.output[0].call_id
    assert added.item.id == delta.item_id == done.item_id == item.item.id
    assert delta.delta == done.arguments == item.item.arguments
    jsonschema.validate(json.loads(done.arguments), PARAMETERS)
    # What the client's own accumulator makes of it.
    with client.responses.stream(**ASKED, input=[QUESTION], **forced) as stream:
        kinds = [each.type for each in stream]
        (call,) = stream.get_final_response().output
    assert kinds.count("response.function_call_arguments.delta") == 1
    assert call.name == "weather"
    jsonschema.validate(json.loads(call.arguments), PARAMETERS)


def test_a_loop_of_two_turns_reads_the_call_and_its_output(client):
    first = respond(client, tools=[WEATHER], tool_choice="required")
    (call,) = first.output
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "-4 degrees"}
    dialog = [QUESTION, *[each.model_dump(exclude_none=True) for each in first.output], result]
    second = respond(client, input=dialog, tools=[WEATHER], max_output_tokens=12)
    assert second.output_text
    assert second.usage.input_tokens > first.usage.input_tokens + 10
    # The model reads what a chat of the same messages has it read, and in its own words: the
    # arguments are an object there, and no text in quotes.
    spoken = {"id": call.call_id, "type": "function"}
    spoken["function"] = {"name": call.name, "arguments": call.arguments}
    chat = client.chat.completions.create(
        model="demo",
        temperature=0,
        max_tokens=12,
        messages=[
            QUESTION,
            {"role": "assistant", "tool_calls": [spoken]},
            {"role": "tool", "tool_call_id": call.call_id, "content": "-4 degrees"},
        ],
        tools=[{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}],
    )
    assert chat.usage.prompt_tokens == second.usage.input_tokens
    assert chat.choices[0].message.content == second.output_text
    spoken["function"]["arguments"] = json.dumps(call.arguments)
    quoted = client.chat.completions.create(
        model="demo",
        max_tokens=1,
        messages=[QUESTION, {"role": "assistant", "tool_calls": [spoken]}],
    )
    plain = dict(spoken, function={"name": call.name, "arguments": call.arguments})
    unquoted = client.chat.completions.create(
        model="demo",
        max_tokens=1,
        messages=[QUESTION, {"role": "assistant", "tool_calls": [plain]}],
    )
    assert quoted.usage.prompt_tokens > unquoted.usage.prompt_tokens


def test_the_loop_of_the_page_runs(client, capsys):
    """As it stands, with a model that is made to call."""
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    (loop,) = [block for block in BLOCK.findall(page) if "function_call_output" in block]
    loop = loop.replace("http://localhost:8080/v1", str(client.base_url))
    loop = loop.replace("Llama-3.2-3B-Instruct", "demo")
    first, second = loop.split("for item in")
    first = first.replace("tools=[clock]", 'tools=[clock], tool_choice="required"')
    names: dict[str, object] = {}
    exec(compile(f"{first}for item in{second}", "docs/serving.md", "exec"), names)
    kinds = [item.get("type", "message") for item in names["dialog"]]
    assert kinds == ["message", "function_call", "function_call_output"]
    assert capsys.readouterr().out.strip()
    names["client"].close()


def test_what_is_no_call_is_a_message(client):
    done = respond(client, tools=[WEATHER], max_output_tokens=12)
    (message,) = done.output
    assert (message.type, message.status) == ("message", "incomplete")
    assert done.output_text
    deltas = [
        each.delta
        for each in respond(client, tools=[WEATHER], max_output_tokens=12, stream=True)
        if each.type == "response.output_text.delta"
    ]
    assert "".join(deltas) == done.output_text
    none = respond(client, tools=[WEATHER], tool_choice="none", max_output_tokens=12)
    assert none.usage.input_tokens < done.usage.input_tokens


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0] of type 'web_search'"),
        ({"tools": [{"type": "function", "function": {"name": "weather"}}]}, "tools"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"input": [QUESTION, {"type": "function_call"}]}, "input[1].name"),
        ({"input": [QUESTION, {"type": "reasoning"}]}, "input[1] of type 'reasoning'"),
        (
            {"input": [QUESTION, {"type": "function_call_output", "call_id": "a"}]},
            "input[1].output",
        ),
    ],
)
def test_wrong_tools_and_items_are_refused_by_name(client, options, param):
    with pytest.raises(openai.BadRequestError) as caught:
        respond(client, **options)
    assert caught.value.param == param


def test_text_and_calls_are_items_in_their_order():
    items = ResponseItems(CallReader(HERMES, ["clock"], "call_"))
    text = 'Let me see. <tool_call>{"name": "clock", "arguments": {}}</tool_call> It is noon.'
    events = [each for letter in text for each in items.push(letter)]
    events += items.finish("completed")
    kinds = [item["type"] for item in items.done]
    assert kinds == ["message", "function_call", "message"]
    assert [item["content"][0]["text"] for item in items.done[::2]] == [
        "Let me see.",
        "It is noon.",
    ]
    added = [told["output_index"] for kind, told in events if kind.endswith("item.added")]
    done = [told["output_index"] for kind, told in events if kind.endswith("item.done")]
    assert added == done == [0, 1, 2]


def test_a_response_without_a_word_has_a_message():
    items = ResponseItems(None)
    kinds = [kind for kind, _ in items.finish("completed")]
    assert kinds[0] == "response.output_item.added"
    assert kinds[-1] == "response.output_item.done"
    assert items.done[0]["content"][0]["text"] == ""
