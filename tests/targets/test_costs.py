"""Lines through measured points: between them, beyond the last, and never below the first."""

from __future__ import annotations

import pytest

from llama_export.targets.costs import Cost, Costs

COSTS = Costs(
    unchecked=(Cost(10, 100, 1.0), Cost(20, 200, 3.0), Cost(40, 200, 4.0)),
    checked=(Cost(10, 1000, 10.0), Cost(20, 2000, 30.0)),
)


@pytest.mark.parametrize(
    ("size", "memory", "seconds"),
    [(1, 100, 1.0), (10, 100, 1.0), (15, 150, 2.0), (20, 200, 3.0), (30, 200, 3.5), (80, 200, 6.0)],
)
def test_an_unmeasured_size_is_on_the_line(size, memory, seconds):
    found = COSTS.of(size, verify=False)
    assert (found.num_parameters, found.memory_bytes, found.elapsed_s) == (size, memory, seconds)


def test_the_check_has_a_line_of_its_own():
    assert COSTS.of(20, verify=True) == Cost(20, 2000, 30.0)
