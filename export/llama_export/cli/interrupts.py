"""SIGINT, SIGTERM and SIGHUP as an exception, so that every clean-up runs."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn


class InterruptedBySignal(BaseException):
    """One of these signals: unwinds through every clean-up, and ends with 128 + the signal."""

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


def _raise_interrupted(number: int, _frame: FrameType | None) -> NoReturn:
    raise InterruptedBySignal(number)
