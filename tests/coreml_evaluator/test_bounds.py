"""A few bytes of a program may not ask for more memory than any machine has."""

from __future__ import annotations

import pytest
import torch

from coreml_evaluator.arguments import Arguments, OpError
from coreml_evaluator.ops import OPS
from coreml_evaluator.values import Value
from coreml_evaluator.workers import open_workers

HUGE = 2**20


def ints(*numbers: int) -> list[Value]:
    return [Value(torch.tensor(numbers, dtype=torch.int32), "int32")]


def number(value: int) -> list[Value]:
    return [Value(torch.tensor(value, dtype=torch.int32), "int32")]


ROW = [Value(torch.ones(4, 8), "fp32")]
CASES = {
    "fill": {"shape": ints(HUGE, HUGE), "value": number(1)},
    "tile": {"x": ROW, "reps": ints(HUGE, HUGE)},
    "pad": {"x": ROW, "pad": ints(0, HUGE, HUGE, 0)},
    "one_hot": {"indices": ints(*range(4096)), "one_hot_vector_size": number(HUGE)},
}


def run(name: str, given):
    with open_workers(1) as workers:
        return OPS[name].run(Arguments(given, "CoreML8", workers, False))


@pytest.mark.parametrize("name", CASES)
def test_a_result_that_no_memory_holds_is_refused(name):
    with pytest.raises(OpError, match="at most 2147483648 elements"):
        run(name, CASES[name])


def test_results_of_a_usual_size_are_computed():
    assert run("fill", {"shape": ints(3, 2), "value": number(7)}).shape == (3, 2)
    assert run("tile", {"x": ROW, "reps": ints(2, 3)}).shape == (8, 24)
    assert run("pad", {"x": ROW, "pad": ints(0, 1, 2, 0)}).shape == (5, 10)
