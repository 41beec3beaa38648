"""A page in headless Chromium: serve its files, wait for what it sends back."""

from __future__ import annotations

import http.server
import json
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PAGE_TIMEOUT_S = 300
_TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
}
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # a test machine's user may be root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    # The page reaches this machine and nothing else.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
"""How every test starts Chromium."""


@dataclass
class Exchange:
    """What the page gets at /request, and what it sent to /answer."""

    folders: Mapping[str, Path]
    request: object
    answer: object = None
    answered: threading.Event = field(default_factory=threading.Event)


def ask_page(
    program: Path,
    folders: Mapping[str, Path],
    request: object,
    console: list[str] | None = None,
) -> object:
    """Open `/page.html` in Chromium and return the JSON that it posts to `/answer`.

    Args:
        program: Chromium.
        folders: what is served: path prefix -> folder, or one file.
        request: JSON that the page finds at `/request`.
        console: takes what the page and its workers wrote on the console, a line each.
    """
    exchange = Exchange(folders, request)
    # Its processes may write to the profile for a moment after they were told to end.
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with _served(exchange) as port, folder as profile:
        # With what the page says on its console.
        told = "--enable-logging=stderr"
        command = [str(program), *OPTIONS, told, f"--user-data-dir={profile}"]
        log = Path(profile) / "chromium.log"
        with log.open("wb") as stream:
            url = f"http://127.0.0.1:{port}/page.html"
            process = subprocess.Popen([*command, url], stdout=stream, stderr=stream)
            try:
                exchange.answered.wait(PAGE_TIMEOUT_S)
            finally:
                process.terminate()
                process.wait()
        said = log.read_text(encoding="utf-8", errors="replace")
        if console is not None:
            console.extend(line for line in said.splitlines() if ":CONSOLE" in line)
        if not exchange.answered.is_set():
            message = f"the page sent nothing; Chromium said: {said[-2000:]}"
            raise AssertionError(message)
    return exchange.answer


@contextmanager
def _served(exchange: Exchange) -> Iterator[int]:
    class Handler(_Handler):
        shared = exchange

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    shared: Exchange

    def do_GET(self):
        if self.path == "/request":
            self._send(200, json.dumps(self.shared.request).encode(), "application/json")
            return
        path = self._file()
        if path is None or not path.is_file():
            self._send(404, b"", "text/plain")
            return
        kind = _TYPES.get(path.suffix, "application/octet-stream")
        self._send(200, path.read_bytes(), kind)

    def do_HEAD(self):
        self.do_GET()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._send(200, b"", "text/plain")
        self.shared.answer = json.loads(body)
        self.shared.answered.set()

    def log_message(self, *_):
        pass

    def _file(self) -> Path | None:
        asked = self.path.split("?")[0]
        for prefix, place in self.shared.folders.items():
            if asked == prefix:
                return place
            if prefix.endswith("/") and asked.startswith(prefix) and ".." not in asked:
                return place / asked.removeprefix(prefix)
        return None

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
