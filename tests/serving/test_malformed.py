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
