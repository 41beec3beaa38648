"""Ctrl-C while an answer is written is noted, and interrupts nothing by itself.

What runs looks at the note at moments of its own choosing, so nothing is torn apart. A long call
of the runtime looks at nothing for seconds, and Python's handlers wait for its end; a thread is
told of the signal all the same, and says that it was heard.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from types import FrameType

from llama_export.cli.interrupts import InterruptedBySignal


class Press:
    """Whether Ctrl-C was pressed, and whether its user still waits for a sign.

    `awaited` is true until then; whoever writes something sets it to false, because the text that
    stops is sign enough.
    """

    def __init__(self) -> None:
        self.noted = False
        self.awaited = True

    def refuse(self, _done: int = 0, _total: int = 0) -> None:
        """Stop a long reading between two pieces, if Ctrl-C was pressed.

        Raises:
            InterruptedBySignal: it was.
        """
        if self.noted:
            raise InterruptedBySignal(signal.SIGINT)


@contextmanager
def noted_press(on_first: Callable[[], None]) -> Iterator[Press]:
    """Note Ctrl-C within the block instead of raising `InterruptedBySignal`.

    Args:
        on_first: called in a thread at the first press, at once, while it is awaited.
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
