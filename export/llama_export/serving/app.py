"""The server as an ASGI application: its paths, and what stands at each.

It puts the protocols, the bundles and the gate together; it opens no socket.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from functools import partial

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from llama_export.serving.catalogue import Catalogue, Served
from llama_export.serving.chat_protocol import ChatWriter, read_chat, wants_usage
from llama_export.serving.completions_protocol import CompletionWriter, read_completion
from llama_export.serving.fields import Fields
from llama_export.serving.gate import Gate, Line
from llama_export.serving.job import Job
from llama_export.serving.metrics import CONTENT_TYPE, Metrics
from llama_export.serving.ollama_models import OLLAMA_VERSION, asked_model, running, show, tags
from llama_export.serving.ollama_protocol import OllamaWriter, read_generate, read_ollama_chat
from llama_export.serving.refusals import ApiError
from llama_export.serving.responses_protocol import ResponseWriter, read_response
from llama_export.serving.settings import ServerSettings
from llama_export.serving.transport import Json, Writer, answer, aside, read_fields, refusal
from llama_export.serving.web_page import page_routes

# What OpenAI's clients ask for at the server's root where they were given it without /v1.
_BELOW_V1 = frozenset(
    f"/v1/{name}"
    for name in ("chat/completions", "completions", "responses", "embeddings", "models")
)


def make_app(
    catalogue: Catalogue, settings: ServerSettings, log: Callable[[Line], None]
) -> ASGIApp:
    """Return the server of some bundles.

    Args:
        catalogue: the bundles, which are closed when the server ends.
        settings: how it answers, and whom.
        log: what is given a line for each request.
    """
    metrics = Metrics(catalogue)
    for each in catalogue.served:
        each.engine.on_end = partial(_count, metrics, each.id)
    server = _Server(catalogue, settings, metrics)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(catalogue.close)

    async def refuse(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            error = _of_http(request, error)
        return refusal(error, request.url.path)

    app = Starlette(
        routes=server.routes(),
        exception_handlers={HTTPException: refuse, ApiError: refuse, Exception: refuse},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return Gate(app, settings, metrics, log)


def _count(metrics: Metrics, model: str, job: Job) -> None:
    metrics.count_job(model, job, time.monotonic() - job.begun)


def _of_http(request: Request, error: HTTPException) -> ApiError:
    """Return ours for a path that does not exist, or that another method is for."""
    path = request.url.path
    if error.status_code == 404:
        message = f"there is nothing at {path!r:.80}"
        if f"/v1{path}" in _BELOW_V1:
            message += f"; it is at '/v1{path}': a client's base_url ends in /v1"
        return ApiError(404, message, code="unknown_url")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"{request.method} is not for {path!r:.80}, which takes {allowed}"
        return ApiError(405, message, code="method_not_allowed", headers=error.headers)
    return ApiError(error.status_code, str(error.detail), headers=error.headers)


class _Server:
    """What stands at each path."""

    def __init__(self, catalogue: Catalogue, settings: ServerSettings, metrics: Metrics) -> None:
        self._catalogue, self._settings, self._metrics = catalogue, settings, metrics

    def routes(self) -> list[Route]:
        """Return the paths."""
        return [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/completions", self._completion, methods=["POST"]),
            Route("/v1/responses", self._response, methods=["POST"]),
            Route("/v1/embeddings", self._embeddings, methods=["POST"]),
            Route("/v1/models", self._models, methods=["GET"]),
            Route("/v1/models/{name:path}", self._model, methods=["GET"]),
            Route("/api/chat", self._ollama_chat, methods=["POST"]),
            Route("/api/generate", self._ollama_generate, methods=["POST"]),
            Route("/api/show", self._ollama_show, methods=["POST"]),
            Route("/api/tags", self._ollama_tags, methods=["GET"]),
            Route("/api/ps", self._ollama_running, methods=["GET"]),
            Route("/api/version", self._ollama_version, methods=["GET"]),
            Route("/health", self._health, methods=["GET"]),
            Route("/metrics", self._figures, methods=["GET"]),
            *page_routes(),
        ]

    async def _read(self, request: Request, *, is_ollama: bool = False) -> tuple[Fields, Served]:
        fields = await read_fields(request, self._settings, any_type=is_ollama)
        return fields, self._catalogue.find(fields.text("model", ""))

    async def _chat(self, request: Request) -> Response:
        fields, served = await self._read(request)
        asked = await aside(request, read_chat, fields, served.session.chat_format)
        writer = ChatWriter(served, asked, has_usage=wants_usage(fields))
        is_stream = fields.flag("stream", False)
        return await answer(request, served.engine, asked, writer, is_stream=is_stream)

    async def _completion(self, request: Request) -> Response:
        fields, served = await self._read(request)
        asked = await aside(request, read_completion, fields)
        writer = CompletionWriter(served, asked, has_usage=wants_usage(fields))
        is_stream = fields.flag("stream", False)
        return await answer(request, served.engine, asked, writer, is_stream=is_stream)

    async def _response(self, request: Request) -> Response:
        fields, served = await self._read(request)
        asked = await aside(request, read_response, fields, served.session.chat_format)
        writer = ResponseWriter(served, asked, fields)
        is_stream = fields.flag("stream", False)
        return await answer(request, served.engine, asked, writer, is_stream=is_stream)

    async def _embeddings(self, request: Request) -> Response:
        message = "embeddings are not supported: these models write text, and give no vectors"
        # Or OpenAI's clients would ask again, as they do after any fault of a server.
        once = {"x-should-retry": "false"}
        raise ApiError(501, message, code="unsupported_endpoint", headers=once)

    async def _models(self, request: Request) -> Response:
        data = [self._describe(each) for each in self._catalogue.served]
        return Json({"object": "list", "data": data})

    async def _model(self, request: Request) -> Response:
        return Json(self._describe(self._catalogue.find(request.path_params["name"])))

    def _describe(self, served: Served) -> dict[str, object]:
        """Return a bundle in OpenAI's four keys; `meta` is ours, and says which artifact it is."""
        return {
            "id": served.id,
            "object": "model",
            "created": served.created,
            "owned_by": "llama-export",
            "meta": served.facts(self._settings.max_tokens),
        }

    async def _ollama_chat(self, request: Request) -> Response:
        fields, served = await self._read(request, is_ollama=True)
        asked = await aside(request, read_ollama_chat, fields, served)
        writer: Writer = OllamaWriter(served, is_chat=True, tools=asked.tools)
        is_stream = fields.flag("stream", True)
        return await answer(request, served.engine, asked, writer, is_stream=is_stream)

    async def _ollama_generate(self, request: Request) -> Response:
        fields, served = await self._read(request, is_ollama=True)
        writer = OllamaWriter(served, is_chat=False)
        asked = await aside(request, read_generate, fields, served)
        if asked is None:
            return Json(writer.loaded())
        is_stream = fields.flag("stream", True)
        return await answer(request, served.engine, asked, writer, is_stream=is_stream)

    async def _ollama_show(self, request: Request) -> Response:
        fields = await read_fields(request, self._settings, any_type=True)
        return Json(show(self._catalogue.find(asked_model(fields))))

    async def _ollama_running(self, request: Request) -> Response:
        return Json(running(self._catalogue))

    async def _ollama_tags(self, request: Request) -> Response:
        return Json(tags(self._catalogue))

    async def _ollama_version(self, request: Request) -> Response:
        return Json({"version": OLLAMA_VERSION})

    async def _health(self, request: Request) -> Response:
        return Json({"status": "ok"})

    async def _figures(self, request: Request) -> Response:
        return Response(self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})
