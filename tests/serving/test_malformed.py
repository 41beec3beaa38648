"""Requests that are wrong: each is refused in time and in its protocol's shape, and nothing stays.

What is not HTTP at all is refused by uvicorn, with a text instead of OpenAI's JSON.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
from artifacts.demo_bundle import demo_bundle  # noqa: F401 - a fixture
from artifacts.malformed import (
    MOST_TOKENS,
    Case,
    Raw,
    odd_fields,
    raw_requests,
    wrong_bodies,
    wrong_fields,
)
from artifacts.served import Running, running
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_export.serving.settings import ServerSettings

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytest.importorskip("llguidance", reason="needs the extra `structured`")
pytestmark = pytest.mark.onnx

# An answer of one token, or a grammar's second, on a machine that is busy.
LONGEST_S = 20
REFUSED = {400, 401, 403, 404, 405, 408, 413, 415, 429, 501}
MOST_GROWN_BYTES = 300 * 2**20


class Faults(logging.Handler):
    """Collects what is logged as an error, by whomever."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


@pytest.fixture(scope="module")
def server(demo_bundle):  # noqa: F811
    chosen = ServerSettings(body_mb=1, max_tokens=MOST_TOKENS, parallel=2)
    with running(demo_bundle, settings=chosen) as found:
        yield found


@contextlib.contextmanager
def watched(server: Running) -> Iterator[None]:
    """Hold that nothing was logged as a fault within the block, and nothing is left of it."""
    handler, begun = Faults(), len(server.lines)
    process, threads = psutil.Process(), threading.active_count()
    before = process.memory_info().rss
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
    engine = server.catalogue.served[0].engine
    until = time.monotonic() + LONGEST_S
    while (engine.active or engine.waiting) and time.monotonic() < until:
        time.sleep(0.01)
    assert (engine.active, engine.waiting) == (0, 0)
    assert handler.found == []
    faults = [str(line) for line in server.lines[begun:] if line.fault or line.status >= 500]
    assert [each for each in faults if " 501 " not in each] == []
    # Workers of the engine, and anyio's for large bodies.
    assert threading.active_count() <= threads + 2 + 40
    assert process.memory_info().rss - before < MOST_GROWN_BYTES
    assert answered(server, Case("/health", b"", method="GET"))[0] == 200


def answered(server: Running, case: Case) -> tuple[int, bytes]:
    """Send a request, and return status and body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LONGEST_S)
    with contextlib.closing(connection):
        connection.request(case.method, case.path, case.body, dict(case.headers))
        with connection.getresponse() as response:
            return response.status, response.read()


def check(server: Running, case: Case) -> None:
    """Hold that a request is refused as its protocol has it, or answered where that may be."""
    status, body = answered(server, case)
    if status == 200 and not case.must_fail:
        assert body
        assert b'"error":{' not in body.partition(b"data: ")[2][:20]
        return
    assert status in REFUSED, body
    if case.method == "HEAD":
        return
    error = json.loads(body)["error"]
    if case.path.startswith("/api/"):
        assert isinstance(error, str)
        assert error
    else:
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert len(error["message"]) < 2000


def check_raw(server: Running, case: Raw) -> None:
    """Hold that what is hardly HTTP is refused, or dropped where the client gives up."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=LONGEST_S) as connection:
        received = b""
        # The server may have closed it before the last byte was sent.
        with contextlib.suppress(OSError):
            connection.sendall(case.content)
            if not case.is_whole:
                connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(2**16):
                received += part
                if case.is_whole and b"\r\n\r\n" in received:
                    break
    if case.is_whole:
        assert received.startswith(b"HTTP/1.1 4"), received[:200]
    statuses = [
        line.split()[1] for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")
    ]
    assert not [each for each in statuses if each >= b"500"], received[:400]


CHECKS: dict[str, tuple[st.SearchStrategy, Callable]] = {
    "fields": (wrong_fields(), check),
    "bodies": (wrong_bodies(), check),
    "anything": (odd_fields(), check),
    "sockets": (raw_requests(), check_raw),
}


def tried(server: Running, kind: str, count: int) -> int:
    """Try so many requests of a kind, the same ones each time; return how many were sent."""
    strategy, checked = CHECKS[kind]
    sent_count = 0

    @settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def each(case) -> None:
        nonlocal sent_count
        sent_count += 1
        checked(server, case)

    each()
    return sent_count


@pytest.mark.parametrize("kind", CHECKS)
def test_what_is_wrong_is_refused_and_leaves_nothing(server, kind):
    with watched(server):
        assert tried(server, kind, 100) >= 100


@pytest.mark.slow
def test_ten_thousand_wrong_requests(server):
    counts = {"fields": 4500, "bodies": 1500, "anything": 2500, "sockets": 1500}
    with watched(server):
        assert sum(tried(server, kind, count) for kind, count in counts.items()) >= 10_000


MESSAGES = [{"role": "user", "content": "Hi"}]
MANY = [
    {"type": "function", "function": {"name": f"f{at}", "parameters": {"title": "x" * 3000}}}
    for at in range(128)
]
NESTED = {"type": "string"}
for _ in range(20):
    NESTED = {"type": "object", "properties": {"a": NESTED}, "required": ["a"]}
COSTLY = {"allOf": [{"type": "string", "pattern": f".*{at}.*"} for at in range(40)]}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        # Each of these was a fault of the server's once, or took it minutes.
        ("/v1/responses", {"input": "Hi", "metadata": 5, "stream": True}, "metadata"),
        ("/v1/responses", {"input": "Hi", "stream_options": 5}, "stream_options"),
        (
            "/v1/responses",
            {"input": [{"role": "user", "content": ["text"]}]},
            "input[0].content",
        ),
        ("/v1/chat/completions", {"tools": MANY, "tool_choice": "required"}, "tools"),
        ("/v1/chat/completions", {"response_format": {"schema": COSTLY}}, "response_format"),
        ("/v1/completions", {"prompt": [1] * 300_000}, None),
        ("/v1/chat/completions", {"tools": [{}] * 100_000}, "tools"),
    ],
    ids=["metadata", "stream_options", "parts", "tools", "patterns", "ids", "list"],
)
def test_what_once_went_wrong_is_refused(server, path, body, param):
    if "response_format" in body:
        form = {"type": "json_schema", "json_schema": {"name": "x", **body["response_format"]}}
        body = {"response_format": form}
    base = {"messages": MESSAGES} if "chat" in path else {}
    case = Case(path, json.dumps({"model": "demo", **base, **body}).encode())
    with watched(server):
        status, text = answered(server, case)
    error = json.loads(text)["error"]
    assert (status, error["param"]) == (400, param)
    assert len(error["message"]) < 2000


def test_a_server_of_short_answers_answers_who_asks_for_no_length(server):
    for path, body in (("/v1/completions", {"prompt": "Once"}), ("/v1/responses", {"input": "Hi"})):
        status, text = answered(server, Case(path, json.dumps(body).encode()))
        usage = json.loads(text)["usage"]
        assert status == 200
        assert usage.get("completion_tokens", usage.get("output_tokens")) <= MOST_TOKENS


def test_a_schema_of_many_levels_is_no_fault(server):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": NESTED}}
    body = {"model": "demo", "messages": MESSAGES, "max_tokens": 1, "response_format": form}
    assert answered(server, Case("/v1/chat/completions", json.dumps(body).encode()))[0] == 200


def test_a_stream_goes_on_while_a_costly_grammar_is_tried(demo_bundle):  # noqa: F811
    """The grammar is tried before the request's turn: the other text does not wait for it."""
    with running(demo_bundle, settings=ServerSettings(parallel=2)) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LONGEST_S)
        long = {"model": "demo", "prompt": "Once", "max_tokens": 1900, "stream": True, "seed": 3}
        long |= {"repetition_penalty": 1.5, "temperature": 1}
        connection.request("POST", "/v1/completions", json.dumps(long), dict(Case("", b"").headers))
        response = connection.getresponse()
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": COSTLY}}
        body = {"model": "demo", "messages": MESSAGES, "response_format": form}
        found: list[int] = []
        costly = threading.Thread(
            target=lambda: found.append(
                answered(server, Case("/v1/chat/completions", json.dumps(body).encode()))[0]
            )
        )
        costly.start()
        pieces = 0
        while costly.is_alive() and response.readline():
            pieces += 1
        costly.join()
        response.close()
        connection.close()
    assert found == [400]
    assert pieces > 50  # of a second's at least some hundreds


def test_a_body_that_does_not_come_is_given_up(demo_bundle):  # noqa: F811
    with running(demo_bundle, settings=ServerSettings(timeout_s=0.3)) as server:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=LONGEST_S) as slow:
            slow.sendall(head + b'Content-Type: application/json\r\n\r\n{"prompt":')
            received = b""
            while part := slow.recv(2**16):
                received += part
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert json.loads(body)["error"]["code"] == "timeout"
        # One that goes away in the middle is no fault either.
        with socket.create_connection(("127.0.0.1", server.port)) as gone:
            gone.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n")
            gone.sendall(b"Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{")
        until = time.monotonic() + LONGEST_S
        while len(server.lines) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        assert [line.status for line in server.lines] == [408, 499]
        assert not any(line.fault for line in server.lines)


@pytest.mark.parametrize("path", ["/v1/completions", "/api/generate"])
def test_a_fault_of_ours_is_told_in_the_protocols_shape_too(server, monkeypatch, path):
    def fail(*_: object) -> None:
        message = "a secret"
        raise RuntimeError(message)

    monkeypatch.setattr(server.catalogue, "find", fail)
    status, text = answered(server, Case(path, b'{"prompt": "Once"}'))
    error = json.loads(text)["error"]
    told = error if path.startswith("/api/") else error["message"]
    assert (status, "fault of the server" in told, "secret" in told) == (500, True, False)
    until = time.monotonic() + LONGEST_S  # the line comes after the answer
    while not server.lines[-1].fault and time.monotonic() < until:
        time.sleep(0.01)
    assert "a secret" in server.lines[-1].fault
