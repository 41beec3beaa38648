"""Let the first signal interrupt and the rest wait, so that no clean-up is torn apart.

A handler that raises may do so between any two steps. Within the block the first signal does what
it always did, unless signals are held just then; whatever comes after it, or while they are held,
is noted and delivered when the block has ended. It knows nothing of what the block does.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# What an interrupt is told when it comes too late to stop anything.
IN_PLACE = "the new output is in place"

_WATCHED = ("SIGINT", "SIGTERM", "SIGHUP")

_Handler = Callable[[int, FrameType | None], object]


class Interrupts:
    """The state of a block: whether signals are held, and which one waits."""

    def __init__(self) -> None:
        self._held = False
        self._waiting: int | None = None
        self._before: dict[int, _Handler] = {}

    def hold(self) -> None:
        """Hold back every signal from here to the end of the block."""
        self._held = True

    def take_over(self) -> None:
        """Stand in front of the handlers; only the main thread may, and only it is interrupted."""
        if threading.current_thread() is not threading.main_thread():
            return
        for name in _WATCHED:
            number = getattr(signal, name, None)
            # What the system does by itself, or ignores, stays as it is.
            if number is not None and callable(before := signal.getsignal(number)):
                self._before[number] = before
                signal.signal(number, self._arrived)

    def give_back(self) -> None:
        """Restore the handlers, and deliver the signal that waits."""
        for number, before in self._before.items():
            signal.signal(number, before)
        if self._waiting is not None:
            signal.raise_signal(self._waiting)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if self._held:
            if self._waiting is None:
                self._waiting = number
            return
        self._held = True
        self._before[number](number, frame)
        self._held = False  # the handler did not raise: nothing is interrupted


@contextmanager
def noted_in_place() -> Iterator[None]:
    """Note on an interrupt of the block that the output is whole all the same."""
    try:
        yield
    except BaseException as late:
        add_note(late, IN_PLACE)
        raise


class Note(str):
    """A note that was added to an exception on its way, and none of its own."""

    __slots__ = ()


def notes_of(error: BaseException) -> list[str]:
    """Return what was added to an exception on its way."""
    return [each for each in getattr(error, "__notes__", []) if isinstance(each, Note)]


def add_note(error: BaseException, text: str) -> None:
    """Do what `error.add_note` does, which Python 3.10 does not have yet."""
    error.__notes__ = [*getattr(error, "__notes__", []), Note(text)]


@contextmanager
def one_interrupt() -> Iterator[Interrupts]:
    """Let at most one signal interrupt the block.

    Yields:
        The switch that holds signals back.
    """
    interrupts = Interrupts()
    try:
        interrupts.take_over()
        yield interrupts
    finally:
        interrupts.give_back()
