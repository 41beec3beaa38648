"""Whether the next turn of a conversation fits into the context, and what would make it fit.

It knows numbers of tokens alone: no text, no session, and no terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# An answer of fewer tokens is hardly one: the conversation is full before that.
_LEAST_ANSWER_TOKENS = 16


@dataclass(frozen=True)
class Overflow:
    """Why the next turn does not fit, and what would make it fit.

    Args:
        needed: number of tokens of the conversation with the new message.
        max_context: number of positions of the context.
        dropped_turns: number of the oldest messages that would have to go.
        kept_tokens: number of tokens that would be left, and read again; None when even the new
            message alone is too long.
        larger_context: where more positions are to be had.
        too_long: what must be shorter where dropping turns is no help; else "".
    """

    needed: int
    max_context: int
    dropped_turns: int
    kept_tokens: int | None
    larger_context: str
    too_long: str = ""

    @property
    def hint(self) -> str:
        """What to do next."""
        remedy = "drop the oldest turns, begin anew"
        if self.too_long:
            remedy = f"shorten the {self.too_long}"
        return f"{remedy}, or use {self.larger_context}"

    def __str__(self) -> str:
        return (
            f"the conversation with this message is {self.needed} tokens long, and the context "
            f"has {self.max_context}, which must hold the answer too"
        )


@dataclass(frozen=True)
class TurnLengths:
    """The numbers of tokens of a conversation whose next answer is wanted.

    Args:
        frame: tokens that are always there: the first one, and the beginning of the answer.
        system: tokens of the system message; 0 where there is none.
        earlier: tokens of each turn so far, oldest first.
        question: tokens of the new message.
    """

    frame: int
    system: int
    earlier: Sequence[int]
    question: int

    def total(self, dropped_turns: int = 0) -> int:
        """Return the number of all tokens, without the oldest turns."""
        return self.frame + self.system + sum(self.earlier[dropped_turns:]) + self.question


def find_overflow(
    lengths: TurnLengths, *, max_tokens: int, max_context: int, larger_context: str
) -> Overflow | None:
    """Compare a conversation and its next answer with the context.

    Args:
        lengths: numbers of tokens of the conversation.
        max_tokens: largest number of tokens of the answer.
        max_context: number of positions of the context.
        larger_context: where more positions are to be had.

    Returns:
        None when the answer fits.
    """
    needed = lengths.total()
    least = min(max_tokens, _LEAST_ANSWER_TOKENS)
    if needed + least <= max_context:
        return None
    # Once something must go, a quarter of the context is made free: not every turn again.
    room = max(min(max_tokens, max_context // 4), least)
    turns = len(lengths.earlier)
    for dropped in range(2, turns + 1, 2):
        kept = lengths.total(dropped)
        if kept + (least if dropped == turns else room) <= max_context:
            return Overflow(needed, max_context, dropped, kept, larger_context)
    too_long = _too_long(lengths, max_context - least)
    return Overflow(needed, max_context, turns, None, larger_context, too_long)


def _too_long(lengths: TurnLengths, room: int) -> str:
    """Return what must be shorter when a message does not fit even alone."""
    if lengths.system and lengths.frame + lengths.system > room:
        return "system message"
    if lengths.system and lengths.frame + lengths.question <= room:
        return "message or the system message"
    return "message"
