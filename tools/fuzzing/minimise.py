"""Make a failing case smaller while it still fails in the same way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fuzzing.cases import Case
from fuzzing.edits import Edit, shrunk

_MOST_RUNS = 40


def minimise(case: Case, still_fails: Callable[[Case], bool]) -> Case:
    """Leave out edits, then make each of them smaller.

    Args:
        case: case that fails.
        still_fails: runs a case, and returns whether it fails as this one does.
    """
    left = [_MOST_RUNS]

    def fails(edits: tuple[Edit, ...]) -> bool:
        left[0] -= 1
        return left[0] >= 0 and still_fails(replace(case, edits=edits))

    edits = _without(case.edits, fails)
    for index in range(len(edits)):
        edits = _smaller(edits, index, fails)
    return replace(case, edits=edits)


def _without(
    edits: tuple[Edit, ...], fails: Callable[[tuple[Edit, ...]], bool]
) -> tuple[Edit, ...]:
    for index in reversed(range(len(edits))):
        fewer = edits[:index] + edits[index + 1 :]
        if fewer and fails(fewer):
            edits = fewer
    return edits


def _smaller(
    edits: tuple[Edit, ...], index: int, fails: Callable[[tuple[Edit, ...]], bool]
) -> tuple[Edit, ...]:
    found = True
    while found:
        found = False
        for less in shrunk(edits[index]):
            fewer = (*edits[:index], less, *edits[index + 1 :])
            if fails(fewer):
                edits, found = fewer, True
                break
    return edits
