"""Whose turn it is: threads that share a model, step by step, and clients whose requests wait.

A model computes with all cores, so two steps at once are no faster than one after the other; and a
runtime that keeps the cache inside has room for one conversation. It knows threads, seconds and
names of clients; it does not know what a step is, or what waits.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Turns:
    """A lock that is given on in the order in which it was asked for.

    Args:
        slice_s: how long a holder keeps it although others wait, in seconds; 0: one step. Where
            another holder costs copies of a cache, they should be few.
    """

    def __init__(self, slice_s: float = 0.0) -> None:
        self._slice_s = slice_s
        self._guard = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._is_held = False
        self._since = 0.0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have the turn within the block."""
        self._acquire()
        try:
            yield
        finally:
            self._release()

    def pass_on(self) -> None:
        """Let the others have a turn each, if there are any; then go on.

        To be called by the holder, between two steps.
        """
        if not self._waiting or time.monotonic() - self._since < self._slice_s:
            return
        self._release()
        self._acquire()

    def _acquire(self) -> None:
        with self._guard:
            if not self._is_held:
                self._is_held = True
                self._since = time.monotonic()
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()  # whoever gives the turn on releases it
        self._since = time.monotonic()

    def _release(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_held = False


class FairQueue(Generic[Item]):
    """A queue that is fair: the first item of each client in turn, and of one client in its order.

    So a client that sends a hundred requests at once does not keep the others waiting for all of
    them.
    """

    def __init__(self) -> None:
        # The client whose turn is next stands first.
        self._lines: OrderedDict[str, deque[Item]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def push(self, client: str, item: Item) -> None:
        """Add an item behind the others of its client."""
        self._lines.setdefault(client, deque()).append(item)

    def pop(self) -> Item:
        """Take the first item of the client whose turn it is, which then stands last.

        Raises:
            IndexError: there is none.
        """
        if not self._lines:
            message = "the queue is empty"
            raise IndexError(message)
        client, line = self._lines.popitem(last=False)
        item = line.popleft()
        if line:
            self._lines[client] = line
        return item

    def remove(self, client: str, item: Item) -> bool:
        """Take an item out, wherever it stands; return whether it was there."""
        line = self._lines.get(client, deque())
        if item not in line:
            return False
        line.remove(item)
        if not line:
            del self._lines[client]
        return True
