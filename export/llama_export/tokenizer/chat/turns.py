"""A dialog's form as data: what is written before and behind each message, without a template.

An app has no Jinja, so a bundle's manifest says what the template would write: token ids, texts and
dates. Neighbouring texts are one text before they are encoded, as they are in what a template
writes. How the pieces are found is `find_turns`' business; this module writes dialogs with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from llama_export.tokenizer.tokenizer import Tokenizer

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"


@dataclass(frozen=True)
class Date:
    """The local time, written at the moment of asking.

    Args:
        format: the time in strftime's words.
    """

    format: str


Piece = int | str | Date
Said = tuple[str, str]
"""Role and content of a message."""


@dataclass(frozen=True)
class Turn:
    """What is written around a message of one role."""

    prefix: tuple[Piece, ...]
    suffix: tuple[Piece, ...]


@dataclass(frozen=True)
class Turns:
    """One model's way to write dialogs.

    The first message may be a system message, which is not blank; then user and assistant take
    turns, and the last message is the user's.

    Args:
        begin: beginning of every dialog.
        no_system: what follows it where there is no system message.
        system: what is around a system message.
        user: what is around a user's message.
        assistant: what is around an answer.
        answer: what asks for an answer, at the end.
        trim: whether white space around a content is taken away, as `str.strip` does.
    """

    begin: tuple[Piece, ...]
    no_system: tuple[Piece, ...]
    system: Turn
    user: Turn
    assistant: Turn
    answer: tuple[Piece, ...]
    trim: bool

    @property
    def has_date(self) -> bool:
        """Whether a dialog depends on the time."""
        turns = (self.system, self.user, self.assistant)
        lists = [self.begin, self.no_system, self.answer]
        lists += [side for turn in turns for side in (turn.prefix, turn.suffix)]
        return any(isinstance(piece, Date) for pieces in lists for piece in pieces)

    def pieces(self, messages: Sequence[Said]) -> Iterator[Piece]:
        """Yield the pieces of a dialog whose next answer is wanted."""
        roles: Mapping[str, Turn] = {
            SYSTEM: self.system,
            USER: self.user,
            ASSISTANT: self.assistant,
        }
        yield from self.begin
        if messages[0][0] != SYSTEM:
            yield from self.no_system
        for role, content in messages:
            yield from roles[role].prefix
            yield content.strip() if self.trim else content
            yield from roles[role].suffix
        yield from self.answer

    def encode(
        self, tokenizer: Tokenizer, messages: Sequence[Said], now: datetime | None = None
    ) -> list[int]:
        """Encode a dialog whose next answer is wanted; what is said stays text.

        Args:
            tokenizer: tokenizer of the model.
            messages: messages of the dialog, oldest first.
            now: time that is written; None: the true one.

        Raises:
            TokenizerError: a text holds a lone surrogate.
        """
        time = now or datetime.now()
        written = [_written(piece, time) for piece in self.pieces(messages)]
        ids: list[int] = []
        for is_text, group in groupby(written, lambda piece: isinstance(piece, str)):
            run = list(group)
            ids += tokenizer.encode("".join(map(str, run))) if is_text else map(int, run)
        return ids

    def to_json(self) -> dict[str, object]:
        """Return plain data, as a manifest has it."""
        return {
            "begin": _plain(self.begin),
            "no_system": _plain(self.no_system),
            **{
                role: {"prefix": _plain(turn.prefix), "suffix": _plain(turn.suffix)}
                for role, turn in (
                    (SYSTEM, self.system),
                    (USER, self.user),
                    (ASSISTANT, self.assistant),
                )
            },
            "answer": _plain(self.answer),
            "trim": self.trim,
        }


def _written(piece: Piece, time: datetime) -> int | str:
    return time.strftime(piece.format) if isinstance(piece, Date) else piece


def _plain(pieces: Sequence[Piece]) -> list[object]:
    return [{"strftime": each.format} if isinstance(each, Date) else each for each in pieces]
