"""Whether the next turn of a conversation fits into the context, and what would make it fit.

It knows numbers of tokens alone: no text, no session, and no terminal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

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


class DialogLength(Protocol):
    """Counts the tokens of a conversation with its new message."""

    def __call__(self, dropped: int, *, has_system: bool = True) -> int:
        """Count them without the oldest turns, and perhaps without the system message."""


def find_overflow(
    length: DialogLength, *, turns: int, max_tokens: int, max_context: int, larger_context: str
) -> Overflow | None:
    """Compare a conversation and its next answer with the context.

    Args:
        length: what counts the tokens of the conversation.
        turns: number of the turns before the new message.
        max_tokens: largest number of tokens of the answer.
        max_context: number of positions of the context.
        larger_context: where more positions are to be had.

    Returns:
        None when the answer fits.
    """
    needed = length(0)
    least = min(max_tokens, _LEAST_ANSWER_TOKENS)
    if needed + least <= max_context:
        return None
    # Once something must go, a quarter of the context is made free: not every turn again.
    room = max(min(max_tokens, max_context // 4), least)
    for dropped in range(2, turns + 1, 2):
        kept = length(dropped)
        if kept + (least if dropped == turns else room) <= max_context:
            return Overflow(needed, max_context, dropped, kept, larger_context)
    too_long = _too_long(length, turns, max_context - least)
    return Overflow(needed, max_context, turns, None, larger_context, too_long)


def _too_long(length: DialogLength, turns: int, room: int) -> str:
    """Return what must be shorter when a message does not fit even alone."""
    alone = length(turns, has_system=False)
    if length(turns) - alone > room:
        return "system message"
    return "message or the system message" if alone <= room else "message"
