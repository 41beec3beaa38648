"""Token ids turned into pieces of text: whole characters only, and nothing of a stop text.

It knows a generation and a tokenizer; it does not know what is done with the text.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace

from llama_export.errors import UsageError
from llama_export.generation.decoding import Generation, GenerationStats
from llama_export.tokenizer.tokenizer import Tokenizer

# Of a completion's text in its repr.
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Completion:
    """A text that was written.

    Args:
        text: the new text, without the prompt.
        token_ids: the new tokens, without the stop token.
        stats: figures of the generation, and why it ended.
    """

    text: str
    token_ids: tuple[int, ...]
    stats: GenerationStats

    def __repr__(self) -> str:
        shown = (
            self.text
            if len(self.text) <= _SHOWN_CHARACTERS
            else self.text[:_SHOWN_CHARACTERS] + "..."
        )
        return f"<Completion {shown!r}: {len(self.token_ids)} tokens, {self.stats.stop_reason}>"


class TextStream(Iterator[str]):
    """Pieces of new text as they are written.

    A stream ends by itself, or with `close`; what was written until then stays in `completion`
    and in the session's cache.

    Args:
        generation: source of the token ids.
        tokenizer: tokenizer of its model.
        stop: texts before the first of which the new text ends.
        continues: whether the new text goes on with another one, as its next word does.
        on_end: function to call once with the completion, when a stream that was begun ends in
            any way.

    Raises:
        UsageError: a stop text is empty.
    """

    def __init__(
        self,
        generation: Generation,
        tokenizer: Tokenizer,
        *,
        stop: Sequence[str] = (),
        continues: bool = False,
        on_end: Callable[[Completion], None] | None = None,
    ) -> None:
        if isinstance(stop, str) or not all(stop):
            message = f"stop: expected texts of at least one character, found {stop!r}"
            raise UsageError(message, 'give a list, such as stop=["\\n\\n"]')
        self._generation = generation
        self._tokenizer = tokenizer
        self._continues = continues
        self._stop = tuple(stop)
        self._on_end = on_end
        self._text = ""
        self._held = ""
        self._token_ids: list[int] = []
        self._stopped = False
        self._pieces = self._run()

    def __repr__(self) -> str:
        return f"<TextStream at {self.completion!r}>"

    def __next__(self) -> str:
        """Return the next piece, which is never empty."""
        return next(self._pieces)

    def finish(self) -> Completion:
        """Write the rest and return the whole completion."""
        for _ in self:
            pass
        return self.completion

    def close(self) -> None:
        """End the text here; closing a stream that has ended does nothing."""
        self._pieces.close()

    @property
    def stats(self) -> GenerationStats:
        """The figures so far; they cost nothing to ask for, and the whole completion is a copy."""
        stats = self._generation.stats
        return replace(stats, stop_reason="stop text") if self._stopped else stats

    @property
    def completion(self) -> Completion:
        """The text so far."""
        return Completion(self._text, tuple(self._token_ids), self.stats)

    def _run(self) -> Generator[str, None, None]:
        decoder = self._tokenizer.stream_decoder(continues=self._continues)
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
        """Take in new text and return what can be shown: nothing that may begin a stop text."""
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
