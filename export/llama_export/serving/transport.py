"""From a request of HTTP to its parameters, and from what is written to a response or a stream.

A client that goes away ends its answer. It knows HTTP; what a response says is a `Writer`'s.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Protocol, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from llama_export.serving.engine import Engine
from llama_export.serving.fields import Fields
from llama_export.serving.job import Event, Job
from llama_export.serving.refusals import ApiError, as_api_error
from llama_export.serving.settings import ServerSettings
from llama_export.serving.text_request import TextRequest
from llama_quantize.strict_json import JsonFault, parse_object

Found = TypeVar("Found")
EVENTS, LINES = "text/event-stream", "application/x-ndjson"
# A client that is still sending misses an answer after which the connection is closed: of a body
# that is up to so many times too long, the rest is read and thrown away first.
_DRAINED = 4
# Bodies up to here are read in the event loop, in less than a millisecond.
_SMALL_BYTES = 2**15
# What curl and ollama's own clients send where nobody names a type.
_UNNAMED = ("", "application/x-www-form-urlencoded")


class Writer(Protocol):
    """How one protocol says what is written."""

    media_type: str

    def whole(self, job: Job) -> dict[str, object]:
        """Return the body of a response that has everything."""

    def begin(self) -> bytes:
        """Return what a stream begins with."""

    def event(self, event: Event) -> bytes:
        """Return what a stream says of an event; b"": nothing."""

    def end(self, job: Job) -> bytes:
        """Return what a stream ends with."""

    def fail(self, error: ApiError) -> bytes:
        """Return what a stream ends with where the answer has no end."""


class Json(Response):
    """A response in JSON, in ASCII."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """Write the body."""
        return to_bytes(content)


def to_bytes(content: object) -> bytes:
    """Return JSON without blanks, in ASCII: no text of anybody's can break it."""
    return json.dumps(content, separators=(",", ":")).encode("ascii")


def sse(content: object, event: str = "") -> bytes:
    """Return an event of a stream of server-sent events."""
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + to_bytes(content) + b"\n\n"


async def read_fields(
    request: Request, settings: ServerSettings, *, any_type: bool = False
) -> Fields:
    """Read the body of a request.

    Args:
        request: the request.
        settings: how long the body may be, and may take.
        any_type: whether the body may come without its type.

    Raises:
        ApiError: it is too long or too slow, of another type, or no JSON that can be trusted.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (any_type and kind in _UNNAMED):
        message = "the body must be JSON: send the header Content-Type: application/json"
        raise ApiError(415, message, code="unsupported_media_type")
    try:
        reading = _read_body(request, settings.body_mb * 2**20)
        body = await asyncio.wait_for(reading, settings.timeout_s)
    except asyncio.TimeoutError:
        message = f"the body did not arrive within {settings.timeout_s:g} s"
        headers = {"Connection": "close"}
        raise ApiError(408, message, code="timeout", headers=headers) from None
    except ClientDisconnect:
        raise ApiError(499, "the client went away") from None
    request.state.body_bytes = len(body)
    return await aside(request, _parse, body)


async def aside(request: Request, read: Callable[..., Found], *given: object) -> Found:
    """Call what reads a request: of a large one in a thread, while the event loop serves others.

    Args:
        request: the request, whose body has come.
        read: the function.
        given: its arguments.

    Raises:
        ApiError: as the function does.
    """
    if request.state.body_bytes <= _SMALL_BYTES:
        return read(*given)
    return await run_in_threadpool(read, *given)


def _parse(body: bytes) -> Fields:
    try:
        return Fields(parse_object(body))
    except JsonFault as error:
        message = f"the body cannot be read as JSON: {error}"
        raise ApiError(400, message, code="invalid_json") from None


async def _read_body(request: Request, most_bytes: int) -> bytes:
    message = f"the body is longer than {most_bytes} bytes"
    too_long = ApiError(413, message, code="body_too_large", headers={"Connection": "close"})
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > _DRAINED * most_bytes:
        raise too_long
    body, found = bytearray(), 0
    async for chunk in request.stream():
        found += len(chunk)
        if found > _DRAINED * most_bytes:
            raise too_long
        if found <= most_bytes:
            body += chunk
    if found > most_bytes:
        raise too_long
    return bytes(body)


def client_of(request: Request) -> str:
    """Return what the queue knows a client by: its address."""
    return request.client.host if request.client else ""


async def answer(
    request: Request, engine: Engine, asked: TextRequest, writer: Writer, *, is_stream: bool
) -> Response:
    """Answer a request, at once or as a stream.

    The headers of a stream wait for its first event, so that an error before it has its status.

    Raises:
        ApiError: the request is refused, or its answer has no end.
    """
    job = engine.submit(asked, client_of(request))
    request.state.job = job
    events = job.events()
    try:
        if not is_stream:
            await _while_there(request, _drain(events))
            return Json(writer.whole(job))
        first = await _while_there(request, _next(events))
    except BaseException:
        engine.abandon(job)
        raise
    return _Stream(_frames(job, writer, first, events), writer.media_type, engine, job)


class _Stream(StreamingResponse):
    """A stream that ends its answer when the client goes away."""

    def __init__(
        self, frames: AsyncIterator[bytes], media_type: str, engine: Engine, job: Job
    ) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(frames, headers=headers, media_type=media_type)
        self._engine, self._job = engine, job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._engine.abandon(self._job)


async def _frames(
    job: Job, writer: Writer, first: Event | None, events: AsyncIterator[Event]
) -> AsyncIterator[bytes]:
    try:
        yield writer.begin() + (b"" if first is None else writer.event(first))
        async for event in events:
            yield writer.event(event)
    except ApiError as error:
        yield writer.fail(error)
        return
    yield writer.end(job)


async def _next(events: AsyncIterator[Event]) -> Event | None:
    async for event in events:
        return event
    return None


async def _drain(events: AsyncIterator[Event]) -> None:
    async for _ in events:
        pass


async def _while_there(request: Request, work: Coroutine[object, object, Found]) -> Found:
    """Wait for something as long as the client is there.

    Raises:
        ApiError: it went away; or what `work` raises.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ApiError(499, "the client went away")
    finally:
        working.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def refusal(error: Exception, path: str) -> Json:
    """Return the response that a client is told of an error by."""
    told = as_api_error(error)
    headers: Mapping[str, str] = told.headers
    return Json(told.body_for(path), status_code=told.status, headers=headers)
