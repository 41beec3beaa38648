"""ollama's protocol beyond plain texts: what a model is, and tools."""

from __future__ import annotations

import http.client
import json
from contextlib import closing

import pytest
from artifacts.demo_bundle import demo_bundle  # noqa: F401 - a fixture
from artifacts.served import Running, running

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytest.importorskip("llguidance", reason="needs the extra `structured`")
jsonschema = pytest.importorskip("jsonschema")
pytestmark = pytest.mark.onnx

QUESTION = {"role": "user", "content": "What is the weather in Oslo?"}
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Bergen"]}, "days": {"enum": [1, 2]}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
# ollama has no choice of tools; a call is a text of this form, so a model can be held to one.
CALL = {
    "type": "object",
    "properties": {"name": {"const": "weather"}, "parameters": PARAMETERS},
    "required": ["name", "parameters"],
    "additionalProperties": False,
}
CHAT = {"model": "demo", "messages": [QUESTION], "tools": [WEATHER], "stream": False}
CHAT |= {"options": {"temperature": 0, "num_predict": 200}}


@pytest.fixture(scope="module")
def server(demo_bundle):  # noqa: F811
    with running(demo_bundle) as found:
        yield found


def ask(server: Running, path: str, body: object = None) -> tuple[int, list[dict]]:
    """Return the status and the lines of an answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)) as connection:
        content = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, content)
        response = connection.getresponse()
        return response.status, [json.loads(line) for line in response.read().splitlines()]


@pytest.mark.parametrize("key", ["model", "name"])
def test_a_model_says_what_it_is(server, key):
    status, (shown,) = ask(server, "/api/show", {key: "demo:latest"})
    assert status == 200
    assert shown["capabilities"] == ["completion", "tools"]
    assert shown["details"] == {
        "parent_model": "",
        "format": "onnx",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "5.8M",
        "quantization_level": "int4",
    }
    info, session = shown["model_info"], server.catalogue.served[0].session
    assert info["general.architecture"] == "llama"
    assert info["general.parameter_count"] == session.config.num_parameters == 5_770_496
    assert info["llama.context_length"] == session.max_context
    assert (info["llama.block_count"], info["llama.embedding_length"]) == (6, 256)
    assert "tool_calls" in shown["template"]
    assert 'stop                           "<|eot_id|>"' in shown["parameters"].splitlines()
    assert shown["modified_at"].startswith("2")


def test_a_model_that_is_not_there_is_not_shown(server):
    assert ask(server, "/api/show", {"model": "other"})[0] == 404
    status, (refused,) = ask(server, "/api/show", {"model": "demo", "what": 1})
    assert (status, "what is no parameter" in refused["error"]) == (400, True)


def test_the_served_bundles_are_loaded(server):
    status, (found,) = ask(server, "/api/ps")
    (model,) = found["models"]
    assert (status, model["name"], model["size_vram"]) == (200, "demo", 0)
    assert model["size"] == server.catalogue.served[0].manifest.memory["resident_bytes"]
    (listed,) = ask(server, "/api/tags")[1][0]["models"]
    assert listed["details"] == model["details"]


def test_a_call_is_an_object_whole_and_streamed(server):
    status, (whole,) = ask(server, "/api/chat", {**CHAT, "format": CALL})
    assert (status, whole["done_reason"]) == (200, "stop")
    (call,) = whole["message"]["tool_calls"]
    assert (call["function"]["name"], whole["message"]["content"]) == ("weather", "")
    jsonschema.validate(call["function"]["arguments"], PARAMETERS)
    _, lines = ask(server, "/api/chat", {**CHAT, "format": CALL, "stream": True})
    calls = [each for line in lines for each in line["message"].get("tool_calls", ())]
    assert [each["function"] for each in calls] == [call["function"]]
    assert not any(line["message"]["content"] for line in lines)
    # Without tools the same text is a text.
    _, (plain,) = ask(server, "/api/chat", {**CHAT, "tools": [], "format": CALL})
    assert json.loads(plain["message"]["content"])["name"] == "weather"
    assert "tool_calls" not in plain["message"]


def test_the_next_turn_reads_the_call_and_its_result(server):
    _, (first,) = ask(server, "/api/chat", {**CHAT, "format": CALL})
    result = {"role": "tool", "tool_name": "weather", "content": "-4 degrees"}
    dialog = [QUESTION, first["message"], result]
    status, (second,) = ask(server, "/api/chat", {**CHAT, "messages": dialog})
    assert (status, bool(second["message"]["content"])) == (200, True)
    assert second["prompt_eval_count"] > first["prompt_eval_count"] + 10


def test_wrong_tools_are_refused(server):
    bad = {**CHAT, "tools": [{"type": "function", "function": {"name": "a b"}}]}
    status, (refused,) = ask(server, "/api/chat", bad)
    assert status == 400
    assert refused["error"].startswith("tools: ")
    status, (refused,) = ask(server, "/api/chat", {**CHAT, "tool_choice": "required"})
    assert (status, "tool_choice is no parameter" in refused["error"]) == (400, True)
