"""Sessions on one loaded model, with the KV caches of the latest conversations.

A new text gets the session that holds the longest beginning of it, so the next turn of a chat, and
a system message that many share, are not read again. It knows token ids and bytes; it does not
know who asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

from llama_export.generation.text_session import TextSession

# A beginning of fewer tokens, such as the first one, is read faster than a cache is copied.
_LEAST_SHARED = 16
# How much of a conversation may be lost to its next turn: the end of an answer can be written in
# other tokens than it was drawn in.
_MOST_LOST = 8
# What a session takes that holds nothing.
_FIRST_SLOTS = 512
_MOST_KEPT = 64


@dataclass(frozen=True)
class CacheBudget:
    """What the caches of earlier conversations may take.

    Args:
        most_bytes: all of them together.
        bytes_per_token: growth of one by a token; 0: not known, and only their number counts.
    """

    most_bytes: int
    bytes_per_token: int

    def bytes_of(self, tokens: int) -> int:
        """Return what a session may take that has held so many tokens: buffers grow by doubling."""
        slots = _FIRST_SLOTS
        while slots < tokens:
            slots *= 2
        return slots * self.bytes_per_token


class SessionPool:
    """Sessions that share one model's weights.

    Whoever calls has the turn; there is no other lock.

    Args:
        root: session from which others are forked; it stays empty.
        budget: memory of what is kept.
    """

    def __init__(self, root: TextSession, budget: CacheBudget) -> None:
        self._root = root
        self._budget = budget
        # The one that was used last stands last.
        self._kept: list[TextSession] = []
        # The most tokens that each has held: its buffers do not shrink when it forgets some.
        self._most_held: WeakKeyDictionary[TextSession, int] = WeakKeyDictionary()
        # An empty one: to make it, or to give memory back and ask for it again, takes milliseconds
        # for which the first token of a new conversation would wait.
        self._spare: TextSession | None = None

    @property
    def kept_bytes(self) -> int:
        """Memory of the caches of earlier conversations."""
        return sum(self._budget.bytes_of(self._most_held[each]) for each in self._kept)

    @property
    def kept_tokens(self) -> int:
        """Number of tokens in them."""
        return sum(session.position for session in self._kept)

    def take(self, token_ids: list[int]) -> TextSession:
        """Return a session for a text, with as much of its beginning as one of them holds.

        A conversation of which the text shares only a part is kept, and copied.
        """
        best = max(self._kept, key=lambda each: each.cache.shared_length(token_ids), default=None)
        shared = 0 if best is None else best.cache.shared_length(token_ids)
        if best is None or shared < _LEAST_SHARED:
            spare, self._spare = self._spare, None
            return spare or self._root.fork()
        self._kept.remove(best)
        if shared >= best.position - _MOST_LOST:
            return best
        self._kept.append(best)
        copy = best.fork()
        self._most_held[copy] = best.position
        copy.rewind(shared)
        return copy

    def put_back(self, session: TextSession) -> None:
        """Keep a session's cache for the next turn, and let the oldest ones go for it."""
        session.end_stream()
        self._most_held[session] = max(self._most_held.get(session, 0), session.position)
        if session.is_closed or session.position < _LEAST_SHARED:
            self._let_go(session)
        else:
            self._kept.append(session)
        # Where no memory is allowed, none is kept although it is not known what one takes.
        most = _MOST_KEPT if self._budget.most_bytes else 0
        while self._kept and (self.kept_bytes > self._budget.most_bytes or len(self._kept) > most):
            self._let_go(self._kept.pop(0))
        if self._spare is None:
            self._spare = self._root.fork()

    def close(self) -> None:
        """Let go of every session and of the model."""
        for session in (*self._kept, self._spare, self._root):
            if session is not None:
                session.close()
        self._kept, self._spare = [], None

    def _let_go(self, session: TextSession) -> None:
        """Empty a session for another conversation, or close it where its buffers have grown."""
        is_small = self._most_held[session] <= _FIRST_SLOTS
        if self._spare is None and is_small and not session.is_closed:
            session.rewind(0)
            self._spare = session
        else:
            session.close()
