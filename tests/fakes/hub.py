"""A stand-in for the hub and its file store: two servers on 127.0.0.1 that misbehave on demand."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "meta-llama/Llama-3.2-1B"
_BLOCK = 2**16


@dataclass
class Request:
    """What came in: the hub's own requests and the store's are told apart by `host`."""

    host: str
    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class Hub:
    """The repository, and what is to go wrong."""

    files: dict[str, bytes]
    large: frozenset[str] = frozenset({"model.safetensors"})
    refuse: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    break_at: dict[str, list[int]] = field(default_factory=dict)
    stall_at: dict[str, int] = field(default_factory=dict)
    instead: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    other_range: int = 0  # bytes by which each part that is sent begins too late
    written: int = 0  # bytes of bodies that were sent
    busy: int = 0
    commit: str = COMMIT
    etag: str | None = None
    listing: bytes | None = None  # in the place of the list of files
    forged: dict[str, str] = field(default_factory=dict)  # headers of a file's description
    body: bytes = b""  # of each refusal
    extra_headers: dict[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    endpoint: str = ""
    store: str = ""
    go_on: threading.Event = field(default_factory=threading.Event)

    def sent(self, method: str, name: str) -> list[Request]:
        """The requests for a file that went to where its bytes are."""
        host = "store" if name in self.large else "hub"
        return [
            r
            for r in self.requests
            if r.method == method and r.path.endswith("/" + name) and r.host == host
        ]

    def checksum(self, name: str) -> str:
        content = self.files[name]
        if name in self.large:
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def tree(self) -> list[dict[str, object]]:
        """List the files as huggingface_hub's `snapshot_download` asks for them."""
        found: list[dict[str, object]] = []
        for name, content in self.files.items():
            entry = {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
            if name in self.large:
                entry["lfs"] = {"oid": self.checksum(name), "size": len(content), "pointerSize": 9}
            found.append(entry)
        return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    host: str

    def log_message(self, *arguments: object) -> None:
        """Keep the test's output clean."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, headers = self.hub, self.headers
        hub.requests.append(
            Request(
                self.host,
                self.command,
                self.path,
                headers.get("Range"),
                headers.get("Authorization"),
            )
        )
        for part, (status, extra) in hub.refuse.items():
            if part in self.path:
                self._send(status, extra, hub.body)
                return
        if self.path.startswith(f"/api/models/{REPOSITORY}/tree/"):
            self._send(200, {"Content-Type": "application/json"}, json.dumps(hub.tree()).encode())
            return
        if self.path.startswith("/api/models/"):
            siblings = [{"rfilename": name} for name in hub.files]
            body = json.dumps({"id": REPOSITORY, "sha": hub.commit, "siblings": siblings}).encode()
            sent = body if hub.listing is None else hub.listing
            self._send(200, {"Content-Type": "application/json"}, sent)
            return
        name = self.path.partition(f"/resolve/{hub.commit}/")[2]
        if self.host == "store":
            name = self.path.removeprefix("/")
        if name not in hub.files:
            self._send(404, {"X-Error-Code": "EntryNotFound"})
            return
        self._file(name)

    def _file(self, name: str) -> None:
        hub = self.hub
        about = {"X-Repo-Commit": hub.commit, **hub.extra_headers}
        if self.command == "HEAD":
            about |= hub.forged
        etag = hub.checksum(name) if hub.etag is None else hub.etag
        if name in hub.large and self.host == "hub":
            size = str(len(hub.files[name]))
            about |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": size, "ETag": '"other"'}
            self._send(302, {**about, "Location": f"{hub.store}/{name}"})
            return
        about.setdefault("ETag", f'"{etag}"')
        if self.command == "HEAD":
            self._send(200, about, hub.files[name])
        elif hub.busy:
            hub.busy -= 1
            self._send(503, {})
        else:
            self._body(name, about)

    def _body(self, name: str, about: dict[str, str]) -> None:
        content = self.hub.instead.get(name, self.hub.files[name])
        start, status = 0, 200
        wanted = self.headers.get("Range")
        if wanted and self.hub.ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, status = int(first) + self.hub.other_range, 206
            end = min(len(content), int(last) + 1) if last else len(content)
            if start >= end:
                self._send(416, {})
                return
            about["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
            content = content[:end]
        stops = self.hub.break_at.get(name)
        stop = stops.pop(0) if stops else self.hub.stall_at.get(name)
        self._send(status, about, content[start:], stop)

    def _send(
        self, status: int, headers: dict[str, str], body: bytes = b"", stop: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            sent = memoryview(body)[:stop]
            for place in range(0, len(sent), _BLOCK):
                self.wfile.write(sent[place : place + _BLOCK])
                self.hub.written += len(sent[place : place + _BLOCK])
        if stop is not None:
            self.wfile.flush()
            if self.hub.stall_at:
                self.hub.go_on.wait(60)
            self.close_connection = True


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Let nobody see that a client hung up, as one does who has read enough."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[None]:
    """Leave no token, no proxy and no cache of this machine to huggingface_hub meanwhile."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("HF_", "HUGGING")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_HOME", str(folder / "home"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "home" / "token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    close_session()
    yield
    close_session()


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Run the hub and its store until the block ends."""
    servers = []
    for host in ("hub", "store"):
        handler = type("Handler", (_Handler,), {"hub": hub, "host": host})
        server = Server(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        servers.append((server, thread))
    hub.endpoint, hub.store = (f"http://127.0.0.1:{s.server_address[1]}" for s, _ in servers)
    try:
        yield hub
    finally:
        for server, thread in servers:
            server.shutdown()
            thread.join()
            server.server_close()
