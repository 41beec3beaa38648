"""A hub on 127.0.0.1 whose answers a case decides, and an export from it.

`hub.json` in the folder of a case says what the hub answers about the repository and about each of
its files; the large one lies in a store with an address of its own, which must never see the token.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

TOKEN = "hf_tokenThatNobodyElseMaySee"
LEAK = "the-store-saw-the-token"
REPOSITORY = "someone/model"
_COMMIT = "0123456789abcdef0123456789abcdef01234567"
_LARGE = "model.safetensors"


def honest(checkpoint: Path) -> dict[str, Any]:
    """Return what an honest hub says of a checkpoint.

    Args:
        checkpoint: folder with the files of the repository.
    """
    files = {path.name: path.read_bytes() for path in sorted(checkpoint.iterdir())}
    about = {
        name: {
            "status": 200,
            "etag": _checksum(name, content),
            "size": str(len(content)),
            "commit": _COMMIT,
            "location": "",
            "cut": len(content),
            "content": "",
            "extra": {},
        }
        for name, content in files.items()
    }
    siblings = [{"rfilename": name} for name in files]
    answer = {"id": REPOSITORY, "sha": _COMMIT, "siblings": siblings}
    return {"answer": answer, "raw": "", "status": 200, "files": about}


def export_from_hub(folder: Path, arguments: Sequence[str]) -> None:
    """Serve a case's hub and run a command line that fetches from it.

    Args:
        folder: folder of the case, with `hub.json` and the files in `ck`.
        arguments: command line.
    """
    from huggingface_hub import constants

    from llama_export.cli.main import main
    from llama_export.sources import download

    says = json.loads((folder / "hub.json").read_bytes())
    addresses = [_serve(host, says, folder) for host in ("store", "hub")]
    says["store"] = addresses[0]
    sys.argv = ["llama-export", *arguments]
    template = f"{addresses[1]}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    with (
        mock.patch.object(constants, "ENDPOINT", addresses[1]),
        mock.patch.object(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template),
        mock.patch.object(constants, "HF_HUB_OFFLINE", new=False),
        mock.patch.object(constants, "HF_HUB_CACHE", str(folder / "out-of-the-way")),
        mock.patch.object(download, "_FIRST_WAIT_S", 0.001),
    ):
        main()


def _checksum(name: str, content: bytes) -> str:
    if name == _LARGE:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _serve(host: str, says: dict[str, Any], folder: Path) -> str:
    handler = type("Handler", (_Handler,), {"host": host, "says": says, "folder": folder})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    host: str
    says: dict[str, Any]
    folder: Path

    def log_message(self, format: str, *arguments: object) -> None:
        """Write no line a request."""

    def do_HEAD(self) -> None:
        """Answer without a body."""
        self._answer()

    def do_GET(self) -> None:
        """Answer with a body."""
        self._answer()

    def _answer(self) -> None:
        if self.host == "store" and "Authorization" in self.headers:
            (self.folder / LEAK).write_text(self.path)
        if self.path.startswith("/api/"):
            body = self.says["raw"].encode("latin-1") or json.dumps(self.says["answer"]).encode()
            self._send(self.says["status"], {"Content-Type": "application/json"}, body)
            return
        name = self.path.rpartition("/")[2]
        about = self.says["files"].get(name)
        if about is None:
            self._send(404, {"X-Error-Code": "EntryNotFound"}, b"")
        else:
            self._file(name, about)

    def _file(self, name: str, about: dict[str, Any]) -> None:
        content = about["content"].encode("latin-1") or (self.folder / "ck" / name).read_bytes()
        headers = {"X-Repo-Commit": about["commit"], **about["extra"]}
        if name == _LARGE and self.host == "hub":
            where = about["location"] or f"{self.says['store']}/{name}"
            linked = {"X-Linked-Etag": f'"{about["etag"]}"', "X-Linked-Size": about["size"]}
            self._send(302, {**headers, **linked, "ETag": '"x"', "Location": where}, b"")
            return
        headers["ETag"] = f'"{about["etag"]}"'
        if self.command == "HEAD":
            headers["Content-Length"] = about["size"]
        self._send(about["status"], headers, content[: about["cut"]])

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        about = {"Connection": "close", "Content-Length": str(len(body))}
        for key, value in {**about, **headers}.items():
            self.send_header(key, value.encode("latin-1", "replace").decode("latin-1"))
        self.end_headers()
        if self.command == "GET":
            # Who was lied to may hang up; the server's words would be taken for the product's.
            with suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(body)
        self.close_connection = True
