"""What a verification reads, and how much of it: the built-in text, and a budget by model size.

It knows texts and token counts; it runs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import cycle, islice
from typing import Protocol

# Multiply-adds of the whole run. A step costs about one per parameter: 1.24 billion for 1B.
_FULL_WORK = 3e11
_QUICK_POSITIONS = 32
_FULL_POSITIONS = (64, 1000)

# A step in exact float32 costs about 1 s at 1B: the int8 head has no fast kernel there.
_QUICK_EXACT_WORK = 5e9
_FULL_EXACT_WORK = 2e10
_FEWEST_EXACT_STEPS = 4

_FILES = ("fairy-tale.txt", "plain-prose.txt")


class TextEncoder(Protocol):
    """The part of a tokenizer that is needed here."""

    @property
    def bos_token_id(self) -> int:
        """The token that every text begins with."""
        ...

    def encode(self, text: str) -> list[int]:
        """Turn a text into tokens."""
        ...


@dataclass(frozen=True)
class Budget:
    """How much to measure.

    Args:
        positions: tokens that the artifact reads; each gives one row of logits.
        exact_steps: how many of the last of them are single steps in exact float32; those
            before are one prefill.
    """

    positions: int
    exact_steps: int


def plan_budget(num_parameters: int, max_context: int, *, quick: bool) -> Budget:
    """Choose how much to measure, so that the time does not grow with the model.

    Args:
        num_parameters: unique parameters.
        max_context: the artifact's capacity in tokens.
        quick: the short version.
    """
    if quick:
        positions, exact_work = _QUICK_POSITIONS, _QUICK_EXACT_WORK
    else:
        fewest, most = _FULL_POSITIONS
        positions = min(max(int(_FULL_WORK / num_parameters), fewest), most)
        exact_work = _FULL_EXACT_WORK
    positions = min(positions, max_context)
    steps = max(int(exact_work / num_parameters), _FEWEST_EXACT_STEPS)
    # At least a quarter is prefilled, so that steps follow a real prefill.
    return Budget(positions, min(steps, positions - positions // 4 - 1))


def sample_text() -> str:
    """Return the built-in text: a fairy tale, then plain prose."""
    folder = resources.files(__package__) / "texts"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in _FILES)


def sample_token_ids(encoder: TextEncoder, count: int) -> list[int]:
    """Return the built-in text's first tokens, from its start again when it is too short."""
    return cycled_token_ids(encoder.bos_token_id, encoder.encode(sample_text()), count)


def cycled_token_ids(bos_token_id: int, token_ids: Sequence[int], count: int) -> list[int]:
    """Return `count` tokens: the beginning of text, then the given ones over and over."""
    return [bos_token_id, *islice(cycle(token_ids), count - 1)]
