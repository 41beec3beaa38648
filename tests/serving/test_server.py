"""The server over plain HTTP: who may ask, limits, errors, ollama, the queue, streams."""

from __future__ import annotations

import http.client
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import pytest
from artifacts.demo_bundle import demo_bundle  # noqa: F401 - a fixture
from artifacts.served import Running, running
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_export import load
from llama_export.errors import UsageError
from llama_export.generation.sampling import Sampling
from llama_export.serving.catalogue import distinct_ends
from llama_export.serving.settings import ServerSettings

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytestmark = pytest.mark.onnx

JSON = {"Content-Type": "application/json"}
PROMPT = "Once upon a time"
# Of a context of 2048: longer than any test waits.
LONG = {"model": "demo", "prompt": PROMPT, "max_tokens": 1900, "temperature": 1, "seed": 3}
LONG |= {"stream": True, "repetition_penalty": 1.5}


@pytest.fixture(scope="module")
def server(demo_bundle):  # noqa: F811
    with running(demo_bundle, settings=ServerSettings(body_mb=1, parallel=8)) as found:
        yield found


def ask(server: Running, method: str, path: str, body: object = None, headers=None):
    """Return status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    try:
        connection.request(method, path, content, JSON if headers is None else headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def begin(server: Running, body: object) -> http.client.HTTPConnection:
    """Begin a stream, and return its connection after the first bytes of it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.request("POST", "/v1/completions", json.dumps(body).encode(), JSON)
    response = connection.getresponse()
    assert response.status == 200
    connection.response = response
    assert response.readline().startswith(b"data: ")
    return connection


def hang_up(connection: http.client.HTTPConnection) -> None:
    connection.response.close()
    connection.close()


def wait_until(condition, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it does not come true"
        time.sleep(0.005)


def test_health_and_metrics(server):
    assert ask(server, "GET", "/health")[2] == b'{"status":"ok"}'
    status, _, body = ask(server, "POST", "/v1/completions", {"prompt": PROMPT, "max_tokens": 3})
    assert status == 200, body
    _, headers, text = ask(server, "GET", "/metrics")
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b'llama_export_tokens_total{kind="written",model="demo"} ' in text
    assert b'llama_export_requests_total{path="/v1/completions",status="200"} ' in text
    assert b'llama_export_active_requests{model="demo"} 0.0' in text
    assert b"llama_export_time_to_first_token_seconds_bucket" in text


def test_who_is_turned_away_makes_no_series_of_figures(server):
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        assert ask(server, "GET", "/made-up", headers=headers)[0] == 403
    assert ask(server, "GET", "/made-up")[0] == 404
    text = ask(server, "GET", "/metrics")[2]
    assert b"made-up" not in text
    assert b'llama_export_requests_total{path="other",status="403"} ' in text


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "code"),
    [
        ("GET", "/v1/nothing", None, None, 404, "unknown_url"),
        ("GET", "/v1/chat/completions/", None, None, 404, "unknown_url"),
        ("GET", "/v1/chat/completions", None, None, 405, "method_not_allowed"),
        ("DELETE", "/v1/models", None, None, 405, "method_not_allowed"),
        ("POST", "/v1/completions", b"{}", {"Content-Type": "text/plain"}, 415, None),
        ("POST", "/v1/completions", b"{}", {}, 415, "unsupported_media_type"),
        ("POST", "/v1/completions", b"{", None, 400, "invalid_json"),
        ("POST", "/v1/completions", b"[]", None, 400, "invalid_json"),
        ("POST", "/v1/completions", b'{"a":1,"a":2}', None, 400, "invalid_json"),
        ("POST", "/v1/completions", b'{"a":NaN}', None, 400, "invalid_json"),
        ("POST", "/v1/completions", b"\xff", None, 400, "invalid_json"),
        ("POST", "/v1/completions", b"[" * 5000, None, 400, "invalid_json"),
        ("POST", "/v1/completions", b" " * (2**20 + 1), None, 413, "body_too_large"),
        ("POST", "/v1/completions", {"model": 5}, None, 400, "invalid_value"),
        ("POST", "/v1/completions", {}, None, 400, "missing_parameter"),
        ("POST", "/v1/completions", {"prompt": [99999999]}, None, 400, None),
        ("POST", "/v1/completions", {"prompt": "\ud800"}, None, 400, None),
        ("POST", "/v1/chat/completions", {"messages": []}, None, 400, "missing_parameter"),
        ("POST", "/v1/chat/completions", {"messages": ["a"]}, None, 400, "invalid_value"),
        ("POST", "/v1/chat/completions", {"messages": [{"role": 5}]}, None, 400, None),
        ("POST", "/v1/responses", {"input": 5}, None, 400, "invalid_value"),
        ("POST", "/v1/responses", {"input": "a", "previous_response_id": "b"}, None, 400, None),
        ("POST", "/v1/embeddings", {"input": "a"}, None, 501, "unsupported_endpoint"),
    ],
)
def test_an_error_is_told_in_the_shape_of_openai(server, method, path, body, headers, status, code):
    found, _, text = ask(server, method, path, body, headers)
    assert found == status, text
    error = json.loads(text)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    if code is not None:
        assert error["code"] == code


def test_a_body_that_comes_in_pieces_is_measured_too(server):
    pieces = iter([b" " * 2**19] * 3)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request("POST", "/v1/completions", pieces, JSON, encode_chunked=True)
        status = connection.getresponse().status
    finally:
        connection.close()
    assert status == 413


def test_a_strangers_name_does_not_lead_here(server):
    """A page whose name is made to mean 127.0.0.1 is told nothing."""
    status, _, text = ask(server, "GET", "/v1/models", headers={"Host": "evil.example:80"})
    assert (status, json.loads(text)["error"]["code"]) == (403, "host_not_allowed")
    assert ask(server, "GET", "/v1/models", headers={"Host": "[::1"})[0] == 403
    for host in ("localhost", f"127.0.0.1:{server.port}", "[::1]:80"):
        assert ask(server, "GET", "/v1/models", headers={"Host": host})[0] == 200


def test_a_page_of_another_origin_may_not_ask_unless_it_is_let(server, demo_bundle):  # noqa: F811
    stranger = {"Origin": "https://evil.example", **JSON}
    body = {"prompt": PROMPT, "max_tokens": 1}
    status, headers, text = ask(server, "POST", "/v1/completions", body, stranger)
    assert (status, json.loads(text)["error"]["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in headers
    own = {"Origin": f"http://127.0.0.1:{server.port}", **JSON}
    assert ask(server, "POST", "/v1/completions", body, own)[0] == 200
    let = ServerSettings(origins=("http://localhost:3000",))
    with running(demo_bundle, settings=let) as other:
        page = {"Origin": "http://localhost:3000", **JSON}
        asked = {**page, "Access-Control-Request-Method": "POST"}
        status, headers, _ = ask(other, "OPTIONS", "/v1/completions", headers=asked)
        assert status == 204
        assert headers["access-control-allow-origin"] == "http://localhost:3000"
        status, headers, _ = ask(other, "POST", "/v1/completions", body, page)
        assert (status, headers["access-control-allow-origin"]) == (200, "http://localhost:3000")
        assert ask(other, "POST", "/v1/completions", body, stranger)[0] == 403


def test_a_key_is_asked_for_where_there_is_one(demo_bundle):  # noqa: F811
    with running(demo_bundle, settings=ServerSettings(api_key="secret")) as server:
        status, headers, text = ask(server, "GET", "/v1/models")
        assert (status, json.loads(text)["error"]["code"]) == (401, "invalid_api_key")
        assert headers["www-authenticate"] == "Bearer"
        for wrong in ("Bearer secre", "Bearer secrets", "Basic secret", "secret", "Bearer \xe9"):
            assert ask(server, "GET", "/v1/models", headers={"Authorization": wrong})[0] == 401
        right = {"Authorization": "Bearer secret"}
        assert ask(server, "GET", "/v1/models", headers=right)[0] == 200
        assert ask(server, "GET", "/metrics")[0] == 401
        assert ask(server, "GET", "/health")[0] == 200
        assert "secret" not in "".join(map(str, server.lines))


def test_other_machines_may_ask_with_a_key_alone():
    with pytest.raises(UsageError, match="there is no key"):
        ServerSettings(host="0.0.0.0")
    with pytest.raises(UsageError, match="there is no key"):
        ServerSettings(host="example.com")
    assert not ServerSettings(host="0.0.0.0", api_key="k").is_local
    assert ServerSettings(host="::1").is_local
    with pytest.raises(UsageError, match="parallel >= 1, found 0; expected timeout"):
        ServerSettings(parallel=0, timeout_s=-1)


def test_a_line_is_logged_of_a_request_and_nothing_that_was_said(server):
    body = {"prompt": "A very secret text", "max_tokens": 2}
    _, headers, _ = ask(server, "POST", "/v1/completions?q=hidden", body)
    asked = headers["x-request-id"]
    # The answer is there a moment before the line.
    wait_until(lambda: any(each.id == asked for each in server.lines))
    (line,) = [each for each in server.lines if each.id == asked]
    assert f"{line}".startswith(f"{line.id} POST /v1/completions 200 ")
    assert "2 written" in str(line)
    assert not {"secret", "hidden"} & set(str(line).split())


@pytest.mark.parametrize(("path", "is_ours"), [("/chat/completions", True), ("/chat", False)])
def test_a_client_that_was_given_the_address_without_its_v1_is_told(server, path, is_ours):
    status, _, text = ask(server, "POST", path, {})
    assert status == 404
    assert ("base_url ends in /v1" in json.loads(text)["error"]["message"]) == is_ours


def test_ollamas_clients_are_answered(server, demo_bundle):  # noqa: F811
    # VS Code asks for this one at least.
    version = json.loads(ask(server, "GET", "/api/version")[2])["version"]
    assert tuple(map(int, version.split("."))) >= (0, 6, 4)
    (model,) = json.loads(ask(server, "GET", "/api/tags")[2])["models"]
    assert (model["name"], model["details"]["format"]) == ("demo", "onnx")
    greedy = {"temperature": 0, "num_predict": 6, "repeat_penalty": 1, "num_ctx": 2048}
    raw = {"model": "demo:latest", "prompt": PROMPT, "raw": True, "options": greedy}
    # As curl sends it where nobody names a type.
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    status, headers, text = ask(server, "POST", "/api/generate", raw, form)
    assert (status, headers["content-type"]) == (200, "application/x-ndjson")
    *parts, last = map(json.loads, text.splitlines())
    with load(demo_bundle, threads=1) as session:
        ours = session.generate(PROMPT, max_tokens=6, sampling=Sampling(temperature=0))
    assert "".join(each["response"] for each in parts) == ours.text
    assert (last["done"], last["done_reason"], last["eval_count"]) == (True, "length", 6)
    assert last["prompt_eval_count"] == ours.stats.prompt_tokens
    assert not any(each["done"] for each in parts)
    whole = json.loads(ask(server, "POST", "/api/generate", {**raw, "stream": False})[2])
    assert whole["response"] == ours.text
    chat = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}], "stream": False}
    answer = json.loads(ask(server, "POST", "/api/chat", {**chat, "options": greedy})[2])
    assert answer["message"]["role"] == "assistant"
    assert answer["message"]["content"]
    loaded = json.loads(ask(server, "POST", "/api/generate", {"model": "demo"})[2])
    assert loaded["done_reason"] == "load"


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/api/chat", {"model": "other", "messages": []}, "there is no model 'other'"),
        ("/api/generate", {"prompt": "a", "options": {"mirostat": 1}}, "options.mirostat"),
        ("/api/generate", {"prompt": "a", "options": {"num_ctx": 10**6}}, "options.num_ctx"),
        ("/api/generate", {"prompt": "a", "suffix": "b"}, "suffix is not supported"),
        ("/api/generate", {"prompt": "a", "format": 5}, "format: the JSON schema: expected"),
        ("/api/nothing", {}, "there is nothing at"),
    ],
)
def test_ollamas_clients_are_told_errors_in_their_shape(server, path, body, said):
    status, _, text = ask(server, "POST", path, body)
    assert 400 <= status < 500
    found = json.loads(text)
    assert set(found) == {"error"}
    assert said in found["error"]


def test_folders_are_told_apart_by_the_shortest_ends_of_their_paths():
    paths = [PurePosixPath(f"/srv/{name}") for name in ("a/onnx", "b/onnx", "b/coreml", "demo")]
    assert distinct_ends(paths, {"demo"}) == ["a/onnx", "b/onnx", "coreml", "srv/demo"]
    assert distinct_ends([PurePosixPath("/onnx"), PurePosixPath("/a/onnx")], {}) == [
        "//onnx",
        "a/onnx",
    ]


def test_two_bundles_are_told_apart_by_their_paths(demo_bundle, tmp_path):  # noqa: F811
    other = tmp_path / "copy"
    other.symlink_to(demo_bundle)
    with running(demo_bundle, other) as server:
        ids = [each["id"] for each in json.loads(ask(server, "GET", "/v1/models")[2])["data"]]
        assert ids == ["onnx", "copy"]
        for name in (*ids, demo_bundle.as_posix(), other.as_posix()):
            assert ask(server, "GET", f"/v1/models/{name}")[0] == 200
        body = {"model": "demo", "prompt": PROMPT}
        status, _, text = ask(server, "POST", "/v1/completions", body)
        assert (status, json.loads(text)["error"]["code"]) == (400, "ambiguous_model")
        status, _, text = ask(server, "POST", "/v1/completions", {"prompt": PROMPT})
        assert (status, json.loads(text)["error"]["param"]) == (400, "model")
    with pytest.raises(UsageError, match="is given twice"), running(other, other):
        pass


def test_a_client_that_goes_away_ends_its_answer(server):
    engine, told = server.catalogue.served[0].engine, len(server.lines)
    connection = begin(server, LONG)
    assert engine.active == 1
    hang_up(connection)
    wait_until(lambda: engine.active == 0)
    # The text has no end, and what was written of it counts.
    wait_until(lambda: len(server.lines) > told)
    usage = server.lines[told].usage
    assert usage.prompt > 0
    assert 0 < usage.written < LONG["max_tokens"]
    # One that reads nothing before the answer is whole is noticed too.
    body = json.dumps({**LONG, "stream": False}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as waiting:
        waiting.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        wait_until(lambda: engine.active == 1)
    wait_until(lambda: engine.active == 0)
    wait_until(lambda: server.lines[-1].status == 499)


def test_past_a_bound_a_client_is_told_when_to_come_again(demo_bundle):  # noqa: F811
    with running(demo_bundle, settings=ServerSettings(parallel=1, queue=1)) as server:
        engine = server.catalogue.served[0].engine
        first = begin(server, LONG)
        with ThreadPoolExecutor(1) as pool:
            short = {"prompt": PROMPT, "max_tokens": 2}
            second = pool.submit(ask, server, "POST", "/v1/completions", short)
            wait_until(lambda: engine.waiting == 1)
            status, headers, text = ask(server, "POST", "/v1/completions", short)
            assert (status, json.loads(text)["error"]["code"]) == (429, "server_busy")
            assert json.loads(text)["error"]["type"] == "rate_limit_error"
            assert 1 <= int(headers["retry-after"]) <= 60
            hang_up(first)
            assert second.result()[0] == 200
        assert ask(server, "POST", "/v1/completions", short)[0] == 200


def test_a_request_that_takes_too_long_ends(demo_bundle):  # noqa: F811
    with running(demo_bundle, settings=ServerSettings(timeout_s=0.3, parallel=1)) as server:
        connection = begin(server, LONG)
        status, _, text = ask(server, "POST", "/v1/completions", {**LONG, "stream": False})
        assert (status, json.loads(text)["error"]["code"]) == (504, "timeout")
        *_, error, done = connection.response.read().strip().split(b"\n\n")
        connection.close()
        assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "timeout"
        assert done == b"data: [DONE]"


def test_a_server_that_ends_ends_its_streams(demo_bundle):  # noqa: F811
    with running(demo_bundle) as server:
        connection = begin(server, LONG)
        server.catalogue.stop()
        *_, error, done = connection.response.read().strip().split(b"\n\n")
        connection.close()
        code = json.loads(error.removeprefix(b"data: "))["error"]["code"]
        assert (code, done) == ("server_shutting_down", b"data: [DONE]")
        assert ask(server, "POST", "/v1/completions", {"prompt": PROMPT})[0] == 503


def streamed_text(server: Running, body: dict[str, object]) -> str:
    status, _, content = ask(server, "POST", "/v1/completions", {**body, "stream": True})
    assert status == 200, content
    *events, done = content.strip().split(b"\n\n")
    assert done == b"data: [DONE]"
    parsed = [json.loads(event.removeprefix(b"data: ")) for event in events]
    return "".join(event["choices"][0]["text"] for event in parsed)


def test_many_streams_at_once_are_what_each_is_alone(server):
    words = ("king", "queen", "witch", "fox", "wolf", "boy", "sea", "wood")
    bodies = [
        {"prompt": f"The {word} went {number}", "seed": number, "max_tokens": 12}
        for number, word in enumerate(words * 4)
    ]
    with ThreadPoolExecutor(len(bodies)) as pool:
        together = list(pool.map(lambda body: streamed_text(server, body), bodies))
    alone = [streamed_text(server, body) for body in bodies]
    assert together == alone
    assert len(set(alone)) > 20
    again = [streamed_text(server, {**body, "seed": 99}) for body in bodies[:4]]
    assert again != alone[:4]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
KEYS = ("messages", "prompt", "input", "n", "stop", "stream", "max_tokens", "logprobs", "seed")
KEYS += ("stream_options", "response_format", "text", "options", "format", "temperature", "tools")
KEYS += ("model", "instructions", "logit_bias", "metadata", "chat_template_kwargs", "system")
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/api/chat", "/api/generate")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    path=st.sampled_from(PATHS),
    body=st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=6), anything, max_size=5),
    noise=st.binary(max_size=3),
)
def test_no_request_is_answered_with_a_fault(server, path, body, noise):
    check_answer(server, path, json.dumps({"max_tokens": 2, **body}).encode() + noise)


def check_answer(server: Running, path: str, content: bytes) -> None:
    """Hold that a request is answered, or refused in the shape of its protocol."""
    before = len(server.lines)
    status, _, text = ask(server, "POST", path, content)
    assert status < 500, text
    if status >= 400:
        error = json.loads(text)["error"]
        assert isinstance(error, str) == path.startswith("/api/")
    assert not any(line.fault for line in server.lines[before:])
