"""Whose step it is: threads that share one model take turns, each as long as the others.

A model computes with all cores, so two steps at once are no faster than one after the other; and a
runtime that keeps the cache inside has room for one conversation. It knows threads and seconds;
it does not know what a step is.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


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
