"""Ctrl-C while an answer is written is noted, and interrupts nothing by itself.

What runs looks at the note at moments of its own choosing, so nothing is torn apart.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from llama_export.commands.interrupts import InterruptedBySignal


class Press:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.noted = False

    def refuse(self, _done: int = 0, _total: int = 0) -> None:
        """Stop a long reading between two pieces, if Ctrl-C was pressed.

        Raises:
            InterruptedBySignal: it was.
        """
        if self.noted:
            raise InterruptedBySignal(signal.SIGINT)


@contextmanager
def noted_press() -> Iterator[Press]:
    """Note Ctrl-C within the block instead of raising `InterruptedBySignal`."""
    press = Press()

    def note(_number: int, _frame: FrameType | None) -> None:
        press.noted = True

    before = signal.signal(signal.SIGINT, note)
    try:
        yield press
    finally:
        signal.signal(signal.SIGINT, before)
