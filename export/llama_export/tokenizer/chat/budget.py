"""How much a chat template may do: steps and characters are counted, so that no clock is needed.

A template is somebody else's program. Everything that it does costs steps, a long text one for
some characters of it; a single value has a largest size. The same template gives the same count
on every machine. The module knows no Jinja.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Item = TypeVar("Item")

# A dialog that fills 128k tokens is half a million characters, and takes some 100,000 steps.
MOST_STEPS = 2_000_000
MOST_CHARACTERS = 2**22
_CHARACTERS_A_STEP = 64
_MOST_DEPTH = 64


def named(words: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(words.split())


class OverBudgetError(Exception):
    """A template does more than any real one."""


class ForbiddenError(Exception):
    """A template reaches for something that no chat needs."""


class Budget:
    """What is left to one rendering of a template.

    Args:
        steps: number of steps that it may take.
    """

    def __init__(self, steps: int = MOST_STEPS) -> None:
        self._left = steps

    def spend(self, steps: int = 1) -> None:
        """Take steps away.

        Raises:
            OverBudgetError: none are left.
        """
        self._left -= steps
        if self._left < 0:
            message = "it takes too many steps"
            raise OverBudgetError(message)

    def spend_text(self, characters: int) -> None:
        """Take the steps of making so many characters, or elements of a list, away.

        Raises:
            OverBudgetError: they are too many for one value, or no steps are left.
        """
        if characters > MOST_CHARACTERS:
            message = "it makes too long a text"
            raise OverBudgetError(message)
        self.spend(1 + characters // _CHARACTERS_A_STEP)

    def weigh(self, value: object, depth: int = 0) -> int:
        """Count the characters of a value with all that it holds, and pay for them.

        What a list holds twice counts twice, as it does in the text that is made of it.

        Raises:
            OverBudgetError: there is too much, or it is nested too deeply.
        """
        if isinstance(value, str):
            self.spend_text(len(value))
            return len(value)
        if isinstance(value, int) or not isinstance(value, Collection) or isinstance(value, range):
            self.spend()
            return 16 + (value.bit_length() // 3 if isinstance(value, int) else 0)
        if depth >= _MOST_DEPTH:
            message = "it nests lists too deeply"
            raise OverBudgetError(message)
        self.spend(1 + len(value))
        total = 0
        for each in value.items() if isinstance(value, Mapping) else value:
            total += 4 + self.weigh(each, depth + 1)
            if total > MOST_CHARACTERS:
                self.spend_text(total)
        return total

    def counted(self, items: Iterator[Item]) -> Iterator[Item]:
        """Pass items on, each for a step."""
        for item in items:
            self.spend()
            yield item


_CURRENT: ContextVar[Budget] = ContextVar("budget of a chat template")


def current() -> Budget:
    """Return the budget of the rendering that goes on."""
    return _CURRENT.get()


@contextmanager
def budgeted(steps: int = MOST_STEPS) -> Iterator[Budget]:
    """Open a budget for what is done inside."""
    budget = Budget(steps)
    token = _CURRENT.set(budget)
    try:
        yield budget
    finally:
        _CURRENT.reset(token)
