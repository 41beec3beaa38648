"""A server of OpenAI's protocol as a process, and streams from it with the time of each piece.

Plain sockets and no client library, so that what is measured is the server. It knows HTTP and
processes; it does not know whose server it is, or what is compared. Linux.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
_HEADERS = {"Content-Type": "application/json"}
_OPENS_WITHIN_S = 300.0
_ANSWERS_WITHIN_S = 600.0


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Args:
        port: port of 127.0.0.1.
        pid: its process.
    """

    port: int
    pid: int

    @property
    def anonymous_bytes(self) -> int:
        """Memory that it must have: files that are mapped are not counted."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"^RssAnon:\s+(\d+) kB", text, re.MULTILINE)
        return 0 if found is None else int(found[1]) * 1024


@dataclass(frozen=True)
class Streamed:
    """An answer that came as a stream.

    Args:
        begun: clock when the request was sent, in seconds.
        pieces: clock and text of each piece that has one.
        usage: the server's own count of tokens, where it gives one.
        finish_reason: why it ended.
    """

    begun: float
    pieces: tuple[tuple[float, str], ...]
    usage: Mapping[str, Any] = field(default_factory=dict)
    finish_reason: str = ""

    @property
    def text(self) -> str:
        """The whole answer."""
        return "".join(text for _, text in self.pieces)

    @property
    def first_s(self) -> float:
        """Seconds to the first piece."""
        return self.pieces[0][0] - self.begun

    @property
    def decode_s(self) -> float:
        """Seconds a piece after the first one."""
        return (self.pieces[-1][0] - self.pieces[0][0]) / max(len(self.pieces) - 1, 1)


@contextmanager
def served(command: Sequence[str], port: int, log: Path) -> Iterator[Server]:
    """Run a server within the block, from its first answer on.

    Raises:
        RuntimeError: it ended, or did not begin to answer; the message has the end of its log.
    """
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=_environment())
        try:
            until = time.monotonic() + _OPENS_WITHIN_S
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > until:
                    tail = log.read_text(errors="replace")[-2000:]
                    message = f"{command} does not answer: {tail}"
                    raise RuntimeError(message)
                time.sleep(0.05)
            yield Server(port, process.pid)
        finally:
            process.terminate()
            process.wait()


def our_server(bundle: Path, port: int, options: Sequence[str]) -> list[str]:
    """Return the command line of our server."""
    command = [sys.executable, "-m", "llama_export", "serve", str(bundle)]
    return [*command, "--port", str(port), *options]


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def ask(server: Server, path: str, body: Mapping[str, Any]) -> Streamed:
    """Send a request and read its stream to the end.

    Raises:
        RuntimeError: the answer is no stream, or has no text.
    """
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_ANSWERS_WITHIN_S)
    try:
        content = json.dumps({**body, "stream": True}).encode()
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begun = time.perf_counter()
        connection.request("POST", path, content, _HEADERS)
        response = connection.getresponse()
        if response.status != 200:
            message = f"{path} answered {response.status}: {response.read()[:500]!r}"
            raise RuntimeError(message)
        return _read(response, begun)
    finally:
        connection.close()


def _read(response: http.client.HTTPResponse, begun: float) -> Streamed:
    # What came is noted with its time alone, and read afterwards: a client that computes would
    # take its time from the server's cores.
    lines: list[tuple[float, bytes]] = []
    while line := response.readline():
        if line.startswith(b"data: "):
            lines.append((time.perf_counter(), line))
    pieces, usage, reason = [], {}, ""
    for at, line in lines:
        if line.strip() == b"data: [DONE]":
            break
        chunk = json.loads(line[len(b"data: ") :])
        if "error" in chunk:
            raise RuntimeError(str(chunk["error"]))
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            text = choice["delta"].get("content") if "delta" in choice else choice["text"]
            reason = choice["finish_reason"] or reason
            if text:
                pieces.append((at, text))
    return Streamed(begun, tuple(pieces), usage, reason)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/v1/models")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _environment() -> dict[str, str]:
    paths = (str(ROOT / name) for name in ("export", "quantize"))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def others_cores(own: Sequence[int], seconds: float) -> float:
    """Return the cores that other processes took for so many seconds.

    Args:
        own: processes that are not counted, besides this one.
        seconds: how long to look.
    """
    mine = [psutil.Process(pid) for pid in (*own, os.getpid())]

    def busy() -> float:
        whole = psutil.cpu_times()
        total = float(whole.user + whole.system)
        return total - sum(sum(each.cpu_times()[:2]) for each in mine)

    before = busy()
    time.sleep(seconds)
    return max(busy() - before, 0.0) / seconds
