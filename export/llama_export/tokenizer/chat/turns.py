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

from llama_export.errors import PromptError
from llama_export.tokenizer.tokenizer import Tokenizer

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
FIRST, LAST = "first", "last"


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

    def to_json(self) -> dict[str, object]:
        """Return plain data, as a manifest has it."""
        return {"prefix": _plain(self.prefix), "suffix": _plain(self.suffix)}


@dataclass(frozen=True)
class Inside:
    """A system message that has no turn: it stands before what one message of the user says.

    Args:
        user: which of the user's messages: `FIRST` or `LAST`.
        before: text before the system message.
        after: text between it and what the user says.
    """

    user: str
    before: str
    after: str

    def to_json(self) -> dict[str, object]:
        """Return plain data, as a manifest has it."""
        return {"user": self.user, "before": self.before, "after": self.after}


@dataclass(frozen=True)
class Turns:
    """One model's way to write dialogs.

    The first message may be a system message, which is not blank; then user and assistant take
    turns, and the last message is the user's.

    Args:
        begin: beginning of every dialog.
        no_system: what follows it where there is no turn of the system.
        system: what is around a system message, or where else it stands; None: there can be none.
        user: what is around a user's message.
        assistant: what is around an answer.
        answer: what asks for an answer, at the end.
        trim: roles whose contents lose the white space around them, as `str.strip` takes it away.
        thoughts_end: text up to which an earlier answer is left out; None: all of it is written.
    """

    begin: tuple[Piece, ...]
    no_system: tuple[Piece, ...]
    system: Turn | Inside | None
    user: Turn
    assistant: Turn
    answer: tuple[Piece, ...]
    trim: tuple[str, ...]
    thoughts_end: str | None = None

    @property
    def has_date(self) -> bool:
        """Whether a dialog depends on the time."""
        lists = [self.begin, self.no_system, self.answer]
        lists += [side for turn in self._roles().values() for side in (turn.prefix, turn.suffix)]
        return any(isinstance(piece, Date) for pieces in lists for piece in pieces)

    def _roles(self) -> Mapping[str, Turn]:
        own = {SYSTEM: self.system} if isinstance(self.system, Turn) else {}
        return {**own, USER: self.user, ASSISTANT: self.assistant}

    def pieces(self, messages: Sequence[Said]) -> Iterator[Piece]:
        """Yield the pieces of a dialog whose next answer is wanted.

        Raises:
            PromptError: there is a system message, and the form has no place for one.
        """
        roles = self._roles()
        told = self._told(messages)
        yield from self.begin
        if told[0][0] != SYSTEM:
            yield from self.no_system
        for role, content in told:
            yield from roles[role].prefix
            yield self._trimmed(role, content)
            yield from roles[role].suffix
        yield from self.answer

    def _told(self, messages: Sequence[Said]) -> Sequence[Said]:
        """Return the messages that have turns, with a system message inside one of them."""
        if messages[0][0] != SYSTEM or isinstance(self.system, Turn):
            return messages
        if self.system is None:
            message = "this model's dialogs have no system message"
            raise PromptError(message, "say it in the first message of the user")
        told = list(messages[1:])
        users = [place for place, (role, _) in enumerate(told) if role == USER]
        at = users[0 if self.system.user == FIRST else -1]
        system = self._trimmed(SYSTEM, messages[0][1])
        told[at] = (USER, f"{self.system.before}{system}{self.system.after}{told[at][1]}")
        return told

    def _trimmed(self, role: str, content: str) -> str:
        if role == ASSISTANT and self.thoughts_end is not None:
            content = content.rpartition(self.thoughts_end)[2]
        return content.strip() if role in self.trim else content

    def encode(
        self, tokenizer: Tokenizer, messages: Sequence[Said], now: datetime | None = None
    ) -> list[int]:
        """Encode a dialog whose next answer is wanted; what is said stays text.

        Args:
            tokenizer: tokenizer of the model.
            messages: messages of the dialog, oldest first.
            now: time that is written; None: the true one.

        Raises:
            PromptError: there is a system message, and the form has no place for one.
            TokenizerError: a text holds a lone surrogate.
        """
        time = now or datetime.now()
        written = [_written(piece, time) for piece in self.pieces(messages)]
        ids: list[int] = []
        for is_text, group in groupby(written, lambda piece: isinstance(piece, str)):
            if is_text:
                ids += tokenizer.encode("".join(map(str, group)), continues=bool(ids))
            else:
                ids += map(int, group)
        return ids

    def to_json(self) -> dict[str, object]:
        """Return plain data, as a manifest has it."""
        return {
            "begin": _plain(self.begin),
            "no_system": _plain(self.no_system),
            SYSTEM: None if self.system is None else self.system.to_json(),
            USER: self.user.to_json(),
            ASSISTANT: self.assistant.to_json(),
            "answer": _plain(self.answer),
            "trim": list(self.trim),
            "thoughts_end": self.thoughts_end,
        }


def _written(piece: Piece, time: datetime) -> int | str:
    return time.strftime(piece.format) if isinstance(piece, Date) else piece


def _plain(pieces: Sequence[Piece]) -> list[object]:
    return [{"strftime": each.format} if isinstance(each, Date) else each for each in pieces]
