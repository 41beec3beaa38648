"""Token ids as pieces of text: whole characters only, and nothing of a stop text.

It knows a generation and a tokenizer; what is done with the text is its caller's business.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace

from llama_export.errors import UsageError
from llama_export.generation.decoding import Generation, GenerationStats
from llama_export.tokenizer.tokenizer import StreamDecoder, Tokenizer


@dataclass(frozen=True)
class Completion:
    """What was written.

    Args:
        text: the new text, without the prompt.
        token_ids: the new tokens; a stop token is not among them.
        stats: what it took, and why it ended.
    """

    text: str
    token_ids: tuple[int, ...]
    stats: GenerationStats


class TextStream(Iterator[str]):
    """Pieces of new text as they are written.

    It ends by itself, or with `close`; what was written until then stays in `completion`, and in
    the session's cache.

    Args:
        generation: where the ids come from.
        tokenizer: of its model.
        stop: the text ends before the first of these.
        on_end: called once with what was written, when a stream that was begun ends in any way.

    Raises:
        UsageError: a stop text is empty.
    """

    def __init__(
        self,
        generation: Generation,
        tokenizer: Tokenizer,
        *,
        stop: Sequence[str] = (),
        on_end: Callable[[Completion], None] | None = None,
    ) -> None:
        if isinstance(stop, str) or not all(stop):
            message = f"stop: expected texts of at least one character, found {stop!r}"
            raise UsageError(message, 'give a list, such as stop=["\\n\\n"]')
        self._generation = generation
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._on_end = on_end
        self._text = ""
        self._held = ""
        self._token_ids: list[int] = []
        self._stopped = False
        self._pieces = self._run()

    def __next__(self) -> str:
        """Return the next piece; never an empty one."""
        return next(self._pieces)

    def close(self) -> None:
        """End the text here; a stream that has ended is left as it is."""
        self._pieces.close()

    @property
    def completion(self) -> Completion:
        """What was written so far."""
        stats = self._generation.stats
        if self._stopped:
            stats = replace(stats, stop_reason="stop text")
        return Completion(self._text, tuple(self._token_ids), stats)

    def _run(self) -> Generator[str, None, None]:
        decoder = StreamDecoder(self._tokenizer)
        tokens = iter(self._generation)
        try:
            for token in tokens:
                self._token_ids.append(token)
                piece = self._release(decoder.push(token))
                if piece:
                    self._text += piece
                    yield piece
                if self._stopped:
                    return
            piece = self._release(decoder.flush())
            if not self._stopped:
                piece, self._held = piece + self._held, ""
            if piece:
                self._text += piece
                yield piece
        finally:
            if self._on_end is not None:
                self._on_end(self.completion)

    def _release(self, text: str) -> str:
        """Take new text in and return what can be shown: nothing that may begin a stop text."""
        held = self._held + text
        found = [at for stop in self._stop if (at := held.find(stop)) >= 0]
        if found:
            self._stopped = True
            self._held = ""
            return held[: min(found)]
        lengths = (
            length
            for stop in self._stop
            for length in range(min(len(stop) - 1, len(held)), 0, -1)
            if stop.startswith(held[-length:])
        )
        cut = len(held) - max(lengths, default=0)
        self._held = held[cut:]
        return held[:cut]
