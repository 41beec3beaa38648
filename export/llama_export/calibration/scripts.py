"""What a window of the model's own text consists of: what is given, and where the model writes.

A text begins as the model's texts do; where one ends, another begins in the same window. A dialog
is begun by the model's template, and the model writes both sides of it, after the headers that the
template puts before them. Templates have to be mixed with plain text, and dialogs with a system
message with those without: weights that were calibrated on one shape of prompts lose on others.
The module computes no logits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING

from llama_export.tokenizer.chat.turns import SYSTEM, USER, Date, Piece, Said, Turns
from llama_export.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np

TEMPLATE_TIME = datetime(2024, 7, 26, 12)
"""What templates write that ask for the time: the day that Meta's own one takes by default."""
_SYSTEMS = (
    "You are a helpful assistant.",
    "You are a helpful assistant who answers in one or two short sentences.",
    "You are an experienced programmer. Explain your code, and keep it simple.",
    "You are a patient teacher. Explain step by step, with an example.",
    "You are a translator. Translate whatever the user says, and add nothing.",
    "You write stories and poems for children.",
    "Answer with a single JSON object, and with nothing else.",
)
_MOST_ASKED = 4
# A question that the model does not end: templates differ in what ends one.
_LONGEST_QUESTION = 160
_MARK = "zq7content"


@dataclass(frozen=True)
class DialogForm:
    """What is given in a dialog whose every message the model writes.

    Args:
        openings: ids before the first question, without a system message and with several.
        asked: ids between a question and its answer.
        answered: ids between an answer and the next question.
        ending: ids after the last answer.
    """

    openings: tuple[tuple[int, ...], ...]
    asked: tuple[int, ...]
    answered: tuple[int, ...]
    ending: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer, turns: Turns) -> DialogForm:
        """Take the given parts from a model's turns."""
        systems = () if turns.system is None else _SYSTEMS

        def encoded(pieces: Sequence[Piece], *, continues: bool = True) -> tuple[int, ...]:
            return _encoded(tokenizer, pieces, continues=continues)

        suffix, user = turns.assistant.suffix, turns.user
        return cls(
            openings=tuple(
                encoded(_opening(turns, system), continues=False) for system in (None, *systems)
            ),
            asked=encoded([*user.suffix, *turns.answer]),
            answered=encoded([*suffix, *user.prefix]),
            ending=encoded(suffix),
        )


def _opening(turns: Turns, system: str | None) -> list[Piece]:
    """Return the pieces before the first question."""
    told: list[Said] = [] if system is None else [(SYSTEM, system)]
    before: list[Piece] = []
    for piece in turns.pieces([*told, (USER, _MARK)]):
        if isinstance(piece, str) and _MARK in piece:
            return [*before, piece.partition(_MARK)[0]]
        before.append(piece)
    return before


def _encoded(tokenizer: Tokenizer, pieces: Sequence[Piece], *, continues: bool) -> tuple[int, ...]:
    """Encode pieces; texts that are neighbours are one text."""
    written = [
        TEMPLATE_TIME.strftime(each.format) if isinstance(each, Date) else each for each in pieces
    ]
    ids: list[int] = []
    for is_text, group in groupby(written, lambda piece: isinstance(piece, str)):
        if is_text:
            text = "".join(map(str, group))
            ids += tokenizer.encode(text, continues=continues or bool(ids)) if text else []
        else:
            ids += map(int, group)
    return tuple(ids)


class TextScript:
    """A window of texts, one after the other.

    Args:
        given: ids that the window begins with.
        start: ids that a further text begins with.
        ends: ids that end a text.
    """

    def __init__(self, given: Sequence[int], start: Sequence[int], ends: frozenset[int]) -> None:
        self._queue = deque(given)
        self._start, self._ends = tuple(start), ends
        self.may_end = bool(given) and tuple(given) != self._start

    def next(self, drawn: int) -> int:
        """Return the window's next id: one that is given, or else the one that was drawn."""
        if self._queue:
            return self._queue.popleft()
        self.may_end = drawn not in self._ends
        if not self.may_end:
            # Where a text begins with what ends one, once is enough.
            doubled = drawn == self._start[0]
            self._queue.extend(self._start[1:] if doubled else self._start)
        return drawn


class DialogScript:
    """A window of dialogs, one after the other.

    Args:
        form: what is given in a dialog.
        ends: ids with which the model ends a message.
        random: random numbers of this window.
    """

    def __init__(self, form: DialogForm, ends: frozenset[int], random: np.random.Generator) -> None:
        self._form, self._ends, self._random = form, ends, random
        self._queue: deque[int] = deque()
        self._begin()

    def _begin(self) -> None:
        """Begin a dialog: half of them have a system message, where the model knows one."""
        plain, *told = self._form.openings
        opening = plain
        if told and self._random.random() < 1 / 2:
            opening = told[int(self._random.integers(len(told)))]
        self._queue.extend(opening)
        self._left = int(self._random.integers(1, _MOST_ASKED + 1))
        self._asks, self._length = True, 0

    @property
    def may_end(self) -> bool:
        """Whether the message has begun: an empty one teaches nothing."""
        return self._length > 0

    def next(self, drawn: int) -> int:
        """Return the window's next id: one that is given, or else the one that was drawn."""
        if not self._queue:
            too_long = self._asks and self._length >= _LONGEST_QUESTION
            if drawn not in self._ends and not too_long:
                self._length += 1
                return drawn
            self._end_message()
        return self._queue.popleft() if self._queue else drawn

    def _end_message(self) -> None:
        """Put what the template writes in the place of what the model ended its message with."""
        form = self._form
        if self._asks:
            self._queue.extend(form.asked)
            self._asks, self._length = False, 0
            return
        self._left -= 1
        if self._left:
            self._queue.extend(form.answered)
            self._asks, self._length = True, 0
        else:
            self._queue.extend(form.ending)
            self._begin()
