"""One loaded bundle that answers several requests: a queue, worker threads, sessions, turns.

Requests beyond a bound are refused at once and told when to come again. It knows sessions and
threads; it does not know protocols.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from llama_export.errors import UsageError
from llama_export.generation.text_session import TextSession
from llama_export.serving.grammar_trial import GrammarTrial
from llama_export.serving.guides import ChanceRecorder, Watch, guide_for
from llama_export.serving.job import Job, Piece, TextEnd
from llama_export.serving.pool import CacheBudget, SessionPool
from llama_export.serving.refusals import ApiError, as_api_error, refuse_as
from llama_export.serving.settings import ServerSettings
from llama_export.serving.text_request import MOST_SEED, Prompt, TextRequest
from llama_export.serving.turns import FairQueue, Turns
from llama_export.tokenizer.chat.chat_format import Dialog

# How long a conversation keeps a cache that is inside the runtime: to put another one there is a
# copy of both.
_INSIDE_SLICE_S = 0.25
# What is promised to a client that is sent away before anything was measured.
_FIRST_GUESS_S = 5.0
_LONGEST_WAIT_S = 60

_log = logging.getLogger(__name__)


class Engine:
    """A bundle with its sessions.

    Args:
        session: an open session on it, which the engine closes.
        settings: how the server answers.
        bytes_per_token: growth of a KV cache; 0: not known.
        cache_is_inside: whether the runtime keeps the cache, so that it has room for one.
        frees_interpreter: whether Python goes on in other threads while the runtime computes. Where
            it does not, each piece is sent before the next step, which it would wait for.
    """

    def __init__(
        self,
        session: TextSession,
        settings: ServerSettings,
        *,
        bytes_per_token: int,
        cache_is_inside: bool,
        frees_interpreter: bool = True,
    ) -> None:
        self.session = session
        self.on_end: Callable[[Job], None] = lambda job: None
        self._settings = settings
        self._waits = not frees_interpreter
        self._pool = SessionPool(session, CacheBudget(settings.cache_mb * 2**20, bytes_per_token))
        self._turns = Turns(_INSIDE_SLICE_S if cache_is_inside else 0.0)
        self._trial = GrammarTrial()
        self._threads = ThreadPoolExecutor(settings.parallel, thread_name_prefix="answer")
        self._waiting: FairQueue[Job] = FairQueue()
        self._active: set[Job] = set()
        # Of those that wait.
        self._expiries: dict[Job, asyncio.TimerHandle] = {}
        self._mean_s = _FIRST_GUESS_S
        self._stopping = False

    @property
    def waiting(self) -> int:
        """Number of requests that wait."""
        return len(self._waiting)

    @property
    def active(self) -> int:
        """Number of requests that are answered."""
        return len(self._active)

    @property
    def kept_tokens(self) -> int:
        """Number of tokens in the caches of earlier conversations."""
        return self._pool.kept_tokens

    def submit(self, request: TextRequest, client: str) -> Job:
        """Begin to answer a request, or let it wait; to be called in the event loop.

        Raises:
            ApiError: too many wait already, it asks for too much, or the server ends.
        """
        if self._stopping:
            raise ApiError(503, "the server is shutting down", code="server_shutting_down")
        most = self._settings.max_tokens
        if request.max_tokens is not None and request.max_tokens > most:
            message = f"max_tokens: this server writes at most {most}, found {request.max_tokens}"
            raise ApiError(400, message, param="max_tokens", code="invalid_value")
        is_full = len(self._active) >= self._settings.parallel
        if is_full and self.waiting >= self._settings.queue:
            rounds = (self.waiting + len(self._active)) / self._settings.parallel
            seconds = min(max(math.ceil(rounds * self._mean_s), 1), _LONGEST_WAIT_S)
            message = f"{self.waiting} requests wait already; try again in {seconds} s"
            headers = {"Retry-After": str(seconds)}
            raise ApiError(429, message, code="server_busy", headers=headers)
        loop = asyncio.get_running_loop()
        job = Job(request, client, loop, self._settings.timeout_s)
        self._waiting.push(client, job)
        self._expiries[job] = loop.call_later(self._settings.timeout_s, self._expire, job)
        self._start_next(loop)
        return job

    def abandon(self, job: Job, reason: str = "left") -> None:
        """End a job whose answer nobody reads any more; in the event loop."""
        job.stop(reason)
        if self._waiting.remove(job.client, job):
            self._expiries.pop(job).cancel()
            self.on_end(job)

    def _expire(self, job: Job) -> None:
        """End a job that waited for too long; one that is answered sees to it itself."""
        del self._expiries[job]
        self._waiting.remove(job.client, job)
        job.post(ApiError(504, "the request waited for too long", code="timeout"))
        self.on_end(job)

    def stop(self) -> None:
        """Let every answer end at its next step, and take no more requests; from any thread."""
        self._stopping = True
        for job in [*self._active]:
            job.stop("shutdown")

    def close(self) -> None:
        """Wait for the last steps, and let go of the model."""
        self.stop()
        self._threads.shutdown(wait=True)
        self._trial.close()
        self._pool.close()

    def _start_next(self, loop: asyncio.AbstractEventLoop) -> None:
        while len(self._waiting) and len(self._active) < self._settings.parallel:
            job = self._waiting.pop()
            # Or it would hold what the job holds for as long as a request may take.
            self._expiries.pop(job).cancel()
            self._active.add(job)
            if self._stopping:
                job.stop("shutdown")
            working = loop.run_in_executor(self._threads, self._work, job)
            working.add_done_callback(partial(self._end, job, loop))

    def _end(
        self,
        job: Job,
        loop: asyncio.AbstractEventLoop,
        working: asyncio.Future[ApiError | None],
    ) -> None:
        self._active.discard(job)
        self._mean_s += 0.2 * (time.monotonic() - job.begun - self._mean_s)
        self.on_end(job)
        # Last, so that whoever has the answer finds it counted.
        job.post(working.result())
        self._start_next(loop)

    def _work(self, job: Job) -> ApiError | None:
        """Answer a request, in a thread of its own; return what became of it, whatever happens."""
        try:
            # What a request asks is read before its turn, so that the others go on meanwhile.
            prompts = self._read(job)
            with self._turns.held():
                self._write_all(job, prompts)
        except Exception as error:  # noqa: BLE001 - a client is told, and the server goes on
            told = as_api_error(error)
            if told.status == 500:
                _log.error("an answer ended with %r", error)
            return told
        return None

    def _read(self, job: Job) -> list[list[int]]:
        """Return the ids of each prompt, and have the grammar compiled."""
        request = job.request
        if request.form is not None:
            try:
                self._trial.require_followable(request.form.grammar)
            except UsageError as error:
                refuse_as(request.form.param, error)
            guide_for(request, self.session)
        found = []
        for prompt in request.prompts:
            job.require_wanted()
            found.append(self._encode(prompt))
        return found

    def _write_all(self, job: Job, prompts: list[list[int]]) -> None:
        index = 0
        for prompt, token_ids in zip(job.request.prompts, prompts, strict=True):
            job.require_wanted()
            session = self._pool.take(token_ids)
            try:
                # A text that goes on is told apart from one that begins by its type.
                given = prompt if isinstance(prompt, str) else token_ids
                for _ in range(job.request.choices):
                    self._write(job, session, given, index)
                    index += 1
            finally:
                session.cache.on_progress = None
                self._pool.put_back(session)

    def _encode(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, tuple):
            self._require_room(len(prompt))  # which is cheap, and looking at each id is not
        if isinstance(prompt, Dialog):
            ids = self.session.chat_format.encode(prompt)
        else:
            ids = self.session.encode(prompt)
        self._require_room(len(ids))
        return ids

    def _require_room(self, tokens: int) -> None:
        most = self.session.max_context
        if tokens >= most:
            message = f"the prompt is {tokens} tokens long; this model has room for {most}, and "
            message += "the answer must fit too"
            raise ApiError(400, message, code="context_length_exceeded")

    def _write(self, job: Job, session: TextSession, prompt: str | list[int], index: int) -> None:
        """Write one text."""
        request, most = job.request, self._settings.max_tokens
        top = request.top_logprobs
        recorder = None if top is None else ChanceRecorder(top)
        guide = guide_for(request, session)
        watch = Watch(job.require_wanted, self._turns.pass_on, guide, recorder)

        def between_pieces(_done: int, _total: int) -> None:
            job.require_wanted()
            self._turns.pass_on()

        session.cache.on_progress = between_pieces
        drawing: dict[str, Any] = dict(request.drawing)
        if "seed" in drawing:
            drawing["seed"] = (drawing["seed"] + index) & MOST_SEED
        stream = session.stream(
            prompt,
            max_tokens=request.max_tokens or min(request.usual_tokens or most, most),
            sampling=replace(session.sampling, **drawing),
            stop=request.stop,
            guide=watch,
        )
        for text in stream:
            job.figures[index] = stream.stats
            job.post(Piece(index, text, () if recorder is None else recorder.collect()))
            if self._waits:
                job.wait_until_told()
        done = stream.completion
        left = () if recorder is None else recorder.collect()
        if done.stats.stop_reason == "stop text":
            left = ()  # tokens of the stop text alone
        job.post(TextEnd(index, done.text, done.stats, left))
