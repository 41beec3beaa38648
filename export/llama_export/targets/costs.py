"""`Costs`: the time and memory of an export to a target, by the size of the model, as measured.

The measured points stand with each target. This module draws lines between them; it knows no
machine.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

# The machine of all points had so many.
MEASURED_CORES = 2


@dataclass(frozen=True)
class Cost:
    """One export, on `MEASURED_CORES` cores.

    Args:
        num_parameters: size of the model; a tied table counts once.
        memory_bytes: peak anonymous memory; mapped files are not counted.
        elapsed_s: whole process, without a download.
    """

    num_parameters: int
    memory_bytes: float
    elapsed_s: float


@dataclass(frozen=True)
class Costs:
    """Exports of models of increasing size to one target.

    Args:
        unchecked: exports with `--no-verify`.
        checked: exports with the short check that precedes publication.
    """

    unchecked: tuple[Cost, ...]
    checked: tuple[Cost, ...]

    def of(self, num_parameters: int, *, verify: bool) -> Cost:
        """Estimate one export.

        Args:
            num_parameters: size of the model; one below the smallest measured costs as much.
            verify: whether the check is part of it.
        """
        points = self.checked if verify else self.unchecked
        wanted = max(num_parameters, points[0].num_parameters)
        return Cost(
            num_parameters,
            _between(points, wanted, lambda point: point.memory_bytes),
            _between(points, wanted, lambda point: point.elapsed_s),
        )


def _between(points: tuple[Cost, ...], wanted: int, of: Callable[[Cost], float]) -> float:
    """Draw straight lines through the points; the last one goes on beyond the largest model."""
    for left, right in itertools.pairwise(points):
        if wanted <= right.num_parameters or right is points[-1]:
            slope = (of(right) - of(left)) / (right.num_parameters - left.num_parameters)
            return of(left) + slope * (wanted - left.num_parameters)
    return of(points[-1])
