"""A stand-in for the hub that takes what huggingface_hub sends: repositories, LFS objects, commits.

It speaks the plain protocol of large files (`basic`, and `multipart` where parts are asked for), so
`HF_HUB_DISABLE_XET` must be set; Xet has a protocol and a store of its own. It checks what the real
one checks: the hash of an object, and that a commit names no object that is not there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from fakes.hub import Server, nothing_of_this_machine

ACCOUNT, TOKEN = "me", "hf_may_write"
_LARGE = re.compile(r".*\.(onnx|onnx_data|pte|bin|mlmodel|safetensors)|(.*/)?tokenizer\.json")


@dataclass
class Repository:
    """A repository as a visitor sees it, with what each commit said."""

    private: bool = False
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    messages: list[str] = field(default_factory=list)
    requests: dict[int, dict[str, bytes]] = field(default_factory=dict)
    card: dict[str, object] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, bytes]:
        return self.branches["main"]


@dataclass
class WritableHub:
    """What the hub has, what it was asked, and what is to go wrong."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    part_bytes: int | None = None
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    refuse_times: dict[str, int] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)  # objects whose upload breaks off in the middle
    requested: list[tuple[str, str]] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    endpoint: str = ""

    def asked(self, method: str, part: str) -> list[str]:
        return [path for verb, path in self.requested if verb == method and part in path]


def _commit_of(repository: Repository) -> str:
    """Return the hash of the last commit, on whichever branch."""
    return hashlib.sha1(str(len(repository.messages)).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: WritableHub

    def log_message(self, *arguments: object) -> None:
        """Keep the test's output clean."""

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_PUT(self) -> None:
        hub, oid = self.hub, self.path.split("/")[2]
        length = int(self.headers.get("Content-Length", 0))
        hub.requested.append(("PUT", self.path))
        if oid in hub.cut:
            self.rfile.read(length // 2)
            self.close_connection = True
            return
        self._put(oid, self.rfile.read(length))

    def _put(self, oid: str, body: bytes) -> None:
        hub, part = self.hub, self.path.split("/")[3:]
        with hub.lock:
            if part:
                hub.parts.setdefault(oid, {})[int(part[0])] = body
            elif hashlib.sha256(body).hexdigest() != oid:
                self._send(400, {"error": "the content is not the object's"})
                return
            else:
                hub.objects[oid] = body
                hub.stored.append(oid)
        self._send(200, {}, {"ETag": f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'})

    def _answer(self, body: bytes) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.requested.append((self.command, self.path))
        hub.bodies.append(body)
        for part, (status, said) in hub.refuse.items():
            if part in path and hub.refuse_times.get(part, 1) > 0:
                if part in hub.refuse_times:
                    hub.refuse_times[part] -= 1
                self._send(status, {"error": said})
                return
        # An address of the store is signed, and takes no token.
        signed = path.startswith("/lfs/")
        if not signed and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._send(401, {"error": "Invalid credentials in Authorization header"})
            return
        for pattern, method in _ROUTES:
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                method(self, found, body)
                return
        self._send(404, {"error": f"no such page: {path}"})

    def _whoami(self, _found: re.Match[str], _body: bytes) -> None:
        self._send(200, {"name": ACCOUNT, "type": "user"})

    def _create(self, _found: re.Match[str], body: bytes) -> None:
        asked = json.loads(body)
        hub_id = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] != ACCOUNT:
            self._send(403, {"error": f"You don't have the rights to create {hub_id}"})
        elif hub_id in self.hub.repositories:
            url = f"{self.hub.endpoint}/{hub_id}"
            self._send(409, {"error": "You already created this model repo", "url": url})
        else:
            self.hub.repositories[hub_id] = Repository(asked.get("visibility") == "private")
            self._send(200, {"url": f"{self.hub.endpoint}/{hub_id}"})

    def _validate(self, _found: re.Match[str], body: bytes) -> None:
        header = json.loads(body)["content"].split("---\n")[1]
        said = yaml.safe_load(header)
        errors = [] if isinstance(said, dict) and "license" in said else [{"message": "no license"}]
        self._send(400 if errors else 200, {"errors": errors, "warnings": []})

    def _repository(self, hub_id: str) -> Repository | None:
        found = self.hub.repositories.get(hub_id)
        if found is None:
            self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return found

    def _info(self, found: re.Match[str], _body: bytes) -> None:
        if (repository := self._repository(found[1])) is not None:
            card = {"cardData": repository.card} if repository.card else {}
            said = {"id": found[1], "sha": _commit_of(repository), "siblings": []}
            self._send(200, said | {"private": repository.private} | card)

    def _branch(self, found: re.Match[str], _body: bytes) -> None:
        if (repository := self._repository(found[1])) is not None:
            there = found[2] in repository.branches
            repository.branches.setdefault(found[2], dict(repository.files))
            self._send(409 if there else 200, {"error": "Reference already exists"})

    def _preupload(self, found: re.Match[str], body: bytes) -> None:
        if (repository := self._repository(found[1])) is None:
            return
        files = []
        for each in json.loads(body)["files"]:
            large = _LARGE.fullmatch(each["path"]) is not None
            content = repository.branches.get(found[2], {}).get(each["path"])
            answer = {"path": each["path"], "uploadMode": "lfs" if large else "regular"}
            answer["shouldIgnore"] = False
            if content is not None:
                git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
                answer["oid"] = hashlib.sha256(content).hexdigest() if large else git
            files.append(answer)
        self._send(200, {"files": files})

    def _batch(self, _found: re.Match[str], body: bytes) -> None:
        asked = json.loads(body)
        assert "basic" in asked["transfers"]
        self._send(200, {"objects": [self._actions(each) for each in asked["objects"]]})

    def _actions(self, each: dict[str, object]) -> dict[str, object]:
        oid, size = str(each["oid"]), int(str(each["size"]))
        if oid in self.hub.objects:
            return {"oid": oid, "size": size}
        place, step = f"{self.hub.endpoint}/lfs/{oid}", self.hub.part_bytes
        upload: dict[str, object] = {"href": place}
        if step is not None and size > step:
            header = {str(n + 1): f"{place}/{n + 1}" for n in range(-(-size // step))}
            upload = {"href": f"{place}/complete", "header": {"chunk_size": str(step), **header}}
        verify = {"href": f"{self.hub.endpoint}/lfs-verify"}
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}

    def _complete(self, found: re.Match[str], body: bytes) -> None:
        oid, asked = found[1], json.loads(body)
        parts = self.hub.parts[oid]
        content = b"".join(parts[each["partNumber"]] for each in asked["parts"])
        assert hashlib.sha256(content).hexdigest() == oid
        self.hub.objects[oid] = content
        self.hub.stored.append(oid)
        self._send(200, {})

    def _verify(self, _found: re.Match[str], body: bytes) -> None:
        asked = json.loads(body)
        right = len(self.hub.objects.get(asked["oid"], b"")) == asked["size"]
        self._send(200 if right else 404, {})

    def _tree(self, found: re.Match[str], _body: bytes) -> None:
        if (repository := self._repository(found[1])) is not None:
            files = repository.branches.get(found[2], {})
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                for name, content in files.items()
            ]
            self._send(200, entries)

    def _commit(self, found: re.Match[str], body: bytes) -> None:
        if (repository := self._repository(found[1])) is None:
            return
        said = json.loads(body.splitlines()[0])["value"]
        if said.get("parentCommit", _commit_of(repository)) != _commit_of(repository):
            self._send(412, {"error": "A commit has happened since. Please refresh and try again."})
            return
        files = dict(repository.branches[found[2]])
        for line in map(json.loads, body.splitlines()):
            key, value = line["key"], line["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    self._send(400, {"error": f"{value['path']}: the object is not there"})
                    return
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
            else:
                repository.messages.append(value["summary"])
        answer = {"commitUrl": f"{self.hub.endpoint}/{found[1]}/commit/1", "commitOid": "1" * 40}
        if "create_pr=1" in self.path:
            number = len(repository.requests) + 1
            repository.requests[number] = files
            answer["pullRequestUrl"] = f"{self.hub.endpoint}/{found[1]}/discussions/{number}"
        else:
            repository.branches[found[2]] = files
        self._send(200, answer)

    def _send(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        if status >= 400 and isinstance(body, dict) and "error" in body:
            self.send_header("X-Error-Message", str(body["error"]))
        for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


_ID = r"([\w.-]+/[\w.-]+)"
_ROUTES = (
    (r"GET /api/whoami-v2", _Handler._whoami),
    (r"POST /api/repos/create", _Handler._create),
    (r"POST /api/validate-yaml", _Handler._validate),
    (rf"GET /api/models/{_ID}", _Handler._info),
    (rf"GET /api/models/{_ID}/revision/[^/]+", _Handler._info),
    (rf"POST /api/models/{_ID}/branch/(.+)", _Handler._branch),
    (rf"POST /api/models/{_ID}/preupload/(.+)", _Handler._preupload),
    (rf"POST /{_ID}\.git/info/lfs/objects/batch", _Handler._batch),
    (r"POST /lfs/([0-9a-f]{64})/complete", _Handler._complete),
    (r"POST /lfs-verify", _Handler._verify),
    (rf"GET /api/models/{_ID}/tree/([^/]+)/?", _Handler._tree),
    (rf"POST /api/models/{_ID}/commit/(.+)", _Handler._commit),
)


@contextmanager
def serve(hub: WritableHub) -> Iterator[WritableHub]:
    """Run the hub until the block ends."""
    server = Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def quick_hub(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[WritableHub]:
    """Run a hub that huggingface_hub knows as its own, by LFS, and waits for no time at all."""
    from huggingface_hub import constants

    from llama_export.sources import upload

    with nothing_of_this_machine(monkeypatch, folder), serve(WritableHub()) as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _s: None)
        monkeypatch.setattr(upload, "_LARGE_BYTES", 1000)
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        yield running
