"""One request while it is answered: what was written so far, for whom, and why it ends.

A worker thread writes into a job, and the event loop reads from it. It knows threads and the event
loop; it does not know models.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from llama_export.generation.decoding import GenerationStats
from llama_export.serving.guides import TokenChance
from llama_export.serving.refusals import ApiError
from llama_export.serving.text_request import TextRequest


@dataclass(frozen=True)
class Piece:
    """A part of a text.

    Args:
        index: number of the text, of all that the request asked for.
        text: the characters, at least one.
        chances: how likely their tokens were, where that was asked for.
    """

    index: int
    text: str
    chances: tuple[TokenChance, ...] = ()


@dataclass(frozen=True)
class TextEnd:
    """The end of a text.

    Args:
        index: number of the text.
        text: the whole text.
        stats: figures of its generation.
        chances: chances of tokens that made no piece.
    """

    index: int
    text: str
    stats: GenerationStats
    chances: tuple[TokenChance, ...] = ()

    @property
    def is_cut(self) -> bool:
        """Whether the text would have gone on."""
        return self.stats.stop_reason in ("length", "context full", "interrupted")


Event = Piece | TextEnd
_LONGEST_TELLING_S = 0.02
_STOPPED = {
    "left": ApiError(499, "the client went away"),
    "late": ApiError(504, "the request took longer than this server allows", code="timeout"),
    "shutdown": ApiError(503, "the server is shutting down", code="server_shutting_down"),
}


class Job:
    """A request that waits or is answered.

    Args:
        request: what was asked for.
        client: name of the client, by which the queue is fair.
        loop: event loop of whoever reads.
        timeout_s: seconds from now until it ends.
    """

    def __init__(
        self,
        request: TextRequest,
        client: str,
        loop: asyncio.AbstractEventLoop,
        timeout_s: float,
    ) -> None:
        self.request = request
        self.client = client
        self.begun = time.monotonic()
        self.ends: list[TextEnd] = []
        # By the number of a text; of one that is being written, up to its last piece.
        self.figures: dict[int, GenerationStats] = {}
        self.first_token_at: float | None = None
        self._chances: dict[int, list[TokenChance]] = {}
        self._deadline = self.begun + timeout_s
        self._loop = loop
        self._events: asyncio.Queue[Event | ApiError | None] = asyncio.Queue()
        self._told = threading.Event()
        self._is_behind = False
        self._stopped = ""

    def require_wanted(self) -> None:
        """Refuse to go on where nobody waits for the answer any more, or it takes too long.

        Raises:
            ApiError: says which.
        """
        if not self._stopped and time.monotonic() > self._deadline:
            self._stopped = "late"
        if self._stopped:
            raise _STOPPED[self._stopped]

    def stop(self, reason: str) -> None:
        """Let it end at its next step.

        Args:
            reason: "left", "late" or "shutdown".
        """
        self._stopped = self._stopped or reason

    @property
    def remaining_s(self) -> float:
        """Seconds until it ends."""
        return max(self._deadline - time.monotonic(), 0.0)

    def post(self, event: Event | ApiError | None) -> None:
        """Pass on what was written, an error as the end, or None as the end; from any thread."""
        if isinstance(event, Piece | TextEnd) and self.first_token_at is None:
            self.first_token_at = time.monotonic()
        if isinstance(event, TextEnd):
            self.ends.append(event)
            self.figures[event.index] = event.stats
        if isinstance(event, Piece | TextEnd) and event.chances:
            self._chances.setdefault(event.index, []).extend(event.chances)
        self._is_behind = self._is_behind and not self._told.is_set()
        self._told.clear()
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the loop is closed: nobody reads any more
            self.stop("shutdown")

    def wait_until_told(self) -> None:
        """Wait, for a moment at most, until the client was sent what was posted.

        For a runtime that keeps the interpreter to itself: each of the few turns that sending
        takes would wait for a whole step of the model.
        """
        # A client that has not read the last piece does not hold up the others again.
        if not self._is_behind:
            self._is_behind = not self._told.wait(_LONGEST_TELLING_S)

    def chances_of(self, index: int) -> tuple[TokenChance, ...]:
        """Return the chances of a text's tokens so far."""
        return tuple(self._chances.get(index, ()))

    async def events(self) -> AsyncIterator[Event]:
        """Yield what is written, until the end.

        Raises:
            ApiError: it ended without an answer.
        """
        while True:
            if self._events.empty():
                self._told.set()
            event = await self._events.get()
            if event is None:
                return
            if isinstance(event, ApiError):
                raise event
            yield event
