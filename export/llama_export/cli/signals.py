"""SIGINT, SIGTERM and SIGHUP as an exception, so that every clean-up runs; Ctrl-C as a note.

While an answer is written, Ctrl-C is noted and interrupts nothing by itself. What runs looks at the
note at moments of its own choosing, so nothing is torn apart. A long call of the runtime looks at
nothing for seconds, and Python's handlers wait for its end; a thread is told of the signal all the
same, and says that it was heard. The module does not know what runs.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from types import FrameType
from typing import NoReturn


class InterruptedBySignal(BaseException):
    """One of these signals: unwinds through every clean-up, and ends with 128 + the signal.

    Args:
        number: number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def raise_on_signals() -> None:
    """Let SIGINT, SIGTERM and, where the platform has it, SIGHUP raise `InterruptedBySignal`."""
    signal.signal(signal.SIGINT, _raise_interrupted)
    signal.signal(signal.SIGTERM, _raise_interrupted)
    hang_up = getattr(signal, "SIGHUP", None)
    # `nohup` sets it to be ignored, and means it.
    if hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:
        signal.signal(hang_up, _raise_interrupted)


def restore_signals() -> None:
    """Let these signals end the process at once again, where they still raise an exception.

    For a run that has ended: an exception in what Python does last would be shown as a traceback.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is _raise_interrupted:
            signal.signal(number, signal.SIG_DFL)


def _raise_interrupted(number: int, _frame: FrameType | None) -> NoReturn:
    raise InterruptedBySignal(number)


class Press:
    """Whether Ctrl-C was pressed, and whether the user still waits for a sign that it was heard.

    `awaited` is true until then; whoever writes something sets it to false, because text that
    stops is sign enough.
    """

    def __init__(self) -> None:
        self.noted = False
        self.awaited = True

    def refuse(self, _done: int = 0, _total: int = 0) -> None:
        """Stop a long reading between two pieces, if Ctrl-C was pressed.

        Raises:
            InterruptedBySignal: Ctrl-C was pressed.
        """
        if self.noted:
            raise InterruptedBySignal(signal.SIGINT)


@contextmanager
def noted_press(on_first: Callable[[], None]) -> Iterator[Press]:
    """Note Ctrl-C within the block instead of raising `InterruptedBySignal`.

    Args:
        on_first: what to call at once, in a thread, at the first press that is awaited.

    Yields:
        The note.
    """
    press = Press()

    def note(_number: int, _frame: FrameType | None) -> None:
        press.noted = True

    before = signal.signal(signal.SIGINT, note)
    try:
        with _watched(press, on_first):
            yield press
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _watched(press: Press, on_first: Callable[[], None]) -> Iterator[None]:
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        watcher = Thread(target=_watch, args=(reader, press, on_first), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            writer.close()
            watcher.join()


def _watch(reader: socket.socket, press: Press, on_first: Callable[[], None]) -> None:
    """Wait for the numbers of signals, a byte each, until the other end is closed."""
    while numbers := reader.recv(64):
        if signal.SIGINT in numbers and press.awaited:
            press.awaited = False
            with suppress(OSError):  # a terminal that is gone
                on_first()
