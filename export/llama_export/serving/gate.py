"""The gate in front of the server: who may ask, what a page in a browser may, one line a request.

A page of a stranger that a user looks at can send requests to the user's own machine. So a local
server answers to its own names alone (a stranger's name may be made to lead here), and to a page
of another origin only where that was allowed. It knows headers; it does not know models.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llama_export.serving.job import Job
from llama_export.serving.metrics import OTHER_PATH, Metrics
from llama_export.serving.refusals import ApiError, as_api_error
from llama_export.serving.settings import ServerSettings, is_loopback
from llama_export.serving.transport import refusal
from llama_export.serving.web_page import PATHS
from llama_export.serving.wording import Usage

# Whoever watches whether the server is there needs no key, and the page is where one is typed in.
_OPEN = frozenset({"/health", *PATHS})
_METHODS, _HEADERS = "GET, POST, OPTIONS", "authorization, content-type"
_LONGEST_S = "600"


@dataclass(frozen=True)
class Line:
    """What is logged of a request; nothing of what was said is in it.

    Args:
        id: its name, which the response has in `x-request-id`.
        method: of HTTP.
        path: what was asked, without a query.
        status: of HTTP; 499 where the client went away.
        seconds: how long it took.
        usage: tokens of its texts; None: it wrote none.
        fault: fault of ours that ended it; "": none.
    """

    id: str
    method: str
    path: str
    status: int
    seconds: float
    usage: Usage | None = None
    fault: str = ""

    def __str__(self) -> str:
        tokens = ""
        if self.usage is not None:
            cached = f", {self.usage.cached} of them cached" if self.usage.cached else ""
            tokens = f" {self.usage.prompt} tokens read{cached}, {self.usage.written} written"
            if self.usage.drafted:
                tokens += f", {self.usage.accepted} of {self.usage.drafted} drafted"
        fault = f" {self.fault}" if self.fault else ""
        line = f"{self.id} {self.method} {self.path:.80} {self.status} {self.seconds:.3f} s"
        return f"{line}{tokens}{fault}"


class Gate:
    """An ASGI application around the server's.

    Args:
        app: the server.
        settings: who may ask.
        metrics: what counts requests.
        log: what is given a line for each.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServerSettings,
        metrics: Metrics,
        log: Callable[[Line], None],
    ) -> None:
        self._app, self._settings = app, settings
        self._metrics, self._log = metrics, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, headers = time.monotonic(), Headers(scope=scope)
        request_id = f"req_{secrets.token_hex(8)}"
        scope.setdefault("state", {})
        status = 0
        allowed = self._allowed_origin(headers)

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                marked = MutableHeaders(scope=message)
                marked["x-request-id"] = request_id
                marked["x-content-type-options"] = "nosniff"
                if allowed:
                    marked["access-control-allow-origin"] = allowed
                    marked["vary"] = "origin"
            await send(message)

        fault = ""
        try:
            await self._pass(scope, receive, send_marked, headers)
        except Exception as error:  # noqa: BLE001 - one request's end, and not the server's
            told = as_api_error(error)
            fault = repr(error)[:200] if told.status == 500 else ""
            if status == 0:
                await refusal(error, scope["path"])(scope, receive, send_marked)
        job = scope["state"].get("job")
        usage = Usage.of(job) if isinstance(job, Job) else None
        seconds = time.monotonic() - begun
        # Whoever is turned away here may name any path: each would be one more series.
        counted = scope["path"] if "endpoint" in scope else OTHER_PATH
        self._metrics.count_request(counted, status)
        if scope["path"] in PATHS and status == 200:
            return  # a page is many files, among which a request for an answer would be lost
        line = Line(request_id, scope["method"], scope["path"], status, seconds, usage, fault)
        self._log(line)

    async def _pass(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        self._require_own_host(headers)
        if "origin" in headers and not self._is_welcome(headers):
            message = "pages of this origin may not ask; start the server with --cors ORIGIN"
            raise ApiError(403, message, code="origin_not_allowed")
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await _preflight(send)
            return
        if scope["path"] not in _OPEN:
            self._require_key(headers)
        await self._app(scope, receive, send)

    def _require_own_host(self, headers: Headers) -> None:
        """Refuse a local server's being asked by a name that is not its own."""
        host = _host_of(f"//{headers.get('host', '')}")
        if self._settings.is_local and not is_loopback(host):
            message = "this server answers to localhost alone; ask it by that name"
            raise ApiError(403, message, code="host_not_allowed")

    def _is_welcome(self, headers: Headers) -> bool:
        origin = headers.get("origin", "")
        same = urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
        return bool(self._allowed_origin(headers)) or (same and bool(origin))

    def _allowed_origin(self, headers: Headers) -> str:
        """Return the origin that may read the response; "": none beside the server's own."""
        origin, known = headers.get("origin", ""), self._settings.origins
        return origin if origin in known or (origin and "*" in known) else ""

    def _require_key(self, headers: Headers) -> None:
        key = self._settings.api_key
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if not key:
            return
        same = hmac.compare_digest(given.strip().encode(), key.encode())
        if scheme.lower() != "bearer" or not same:
            message = "the API key is missing or wrong: send Authorization: Bearer KEY"
            challenge = {"WWW-Authenticate": "Bearer"}
            raise ApiError(401, message, code="invalid_api_key", headers=challenge)


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # a bracket that is not closed
        return ""


async def _preflight(send: Send) -> None:
    headers = [
        (b"access-control-allow-methods", _METHODS.encode()),
        (b"access-control-allow-headers", _HEADERS.encode()),
        (b"access-control-max-age", _LONGEST_S.encode()),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
