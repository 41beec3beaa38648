"""The descent with all rows coupled: never a rise, and as good as one step after the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from artifacts.weight_problems import WeightProblem, objective, require_storable, weight_problem

from llama_quantize import GroupedInt, find_method
from llama_quantize.groupwise import storable
from llama_quantize.methods.solving import coupled_descent
from llama_quantize.methods.solving.coupled_descent import CoupledProblem, descend_coupled
from llama_quantize.methods.solving.damping import damped
from llama_quantize.methods.solving.descent import descend

INT4 = GroupedInt(4, 32)
# Rows in one block and in several, the last of them short; columns in one panel and in several; odd
# numbers; groups that fill a panel; one group a row.
SHAPES = {
    "int4 g32": (24, 128, INT4),
    "int4 g32, several blocks and panels": (67, 544, INT4),
    "int4 g64": (65, 320, GroupedInt(4, 64)),
    "int4 g128": (9, 384, GroupedInt(4, 128)),
    "int4 g256": (35, 768, GroupedInt(4, 256)),
    "int8 g32": (11, 288, GroupedInt(8, 32)),
    "int8 row": (4, 301, GroupedInt(8, None)),
    "one row": (1, 64, INT4),
}
each_shape = pytest.mark.parametrize(("rows", "columns", "scheme"), SHAPES.values(), ids=SHAPES)


def coupled(found: WeightProblem, scheme: GroupedInt = INT4) -> CoupledProblem:
    gram, curvature = damped(found.inputs.gram, 0.03), damped(found.inputs.curvature, 0.01)
    return CoupledProblem(found.weight, gram, curvature, scheme)


def rounded(problem: CoupledProblem) -> tuple[torch.Tensor, torch.Tensor]:
    codes, scales = find_method("clip_search").quantize(problem.target, problem.scheme)
    return codes.float(), scales.float()


def at(problem: CoupledProblem, codes, scales) -> float:
    return objective(problem.target, codes, scales, problem.gram, problem.curvature)


def require_falls(problem: CoupledProblem, codes, scales, sweeps: int) -> list[float]:
    """Descend, and hold each sweep to the objective; returns it before and after each."""
    found = [at(problem, codes, scales)]
    for _ in range(sweeps):
        (fall,) = descend_coupled(problem, codes, scales, 1)
        require_storable(codes, scales, problem.scheme)
        found.append(at(problem, codes, scales))
        assert fall == pytest.approx(found[-2] - found[-1], rel=1e-3, abs=1e-4 * found[0])
        assert found[-1] <= found[-2] * (1 + 1e-6)
    return found


@each_shape
def test_every_sweep_lowers_the_objective_by_what_it_says(rows, columns, scheme):
    problem = coupled(weight_problem(rows, columns), scheme)
    codes, scales = rounded(problem)
    found = require_falls(problem, codes, scales, 3)
    assert found[1] < 0.9 * found[0]
    again, again_scales = rounded(problem)
    falls = descend_coupled(problem, again, again_scales, 3)
    assert len(falls) == 3
    assert sum(falls) == pytest.approx(found[0] - found[-1], rel=1e-2)


@pytest.mark.parametrize(("directions", "most"), [(40, 1.05), (20, 1.12), (5, 1.5)])
def test_it_is_about_as_good_as_one_step_after_the_other(directions, most):
    problem = coupled(weight_problem(64, 256, directions=directions))
    codes, scales = rounded(problem)
    reference = codes.double().numpy(), scales.double().numpy()
    for _ in range(4):
        one_by_one(problem, *reference)
    descend_coupled(problem, codes, scales, 4)
    assert at(problem, codes, scales) < most * at(problem, *map(torch.from_numpy, reference))


def one_by_one(problem: CoupledProblem, codes: np.ndarray, scales: np.ndarray) -> None:
    """Descend row after row, column after column and scale after scale, in float64."""
    low, high = problem.scheme.code_range
    gram, curvature = problem.gram.double().numpy(), problem.curvature.double().numpy()
    group = codes.shape[1] // scales.shape[1]
    through = (problem.target.double().numpy() - codes * scales.repeat(group, 1)) @ gram
    for row, own in enumerate(curvature.diagonal()):
        pull = curvature[row] @ through  # the row of O E H, kept true
        before = codes[row] * scales[row].repeat(group)
        for number, start in enumerate(range(0, codes.shape[1], group)):
            scale = scales[row, number]
            for column in range(start, start + group):
                step = round(
                    codes[row, column] + pull[column] / (own * gram[column, column] * scale)
                )
                step = min(max(step, low), high) - codes[row, column]
                codes[row, column] += step
                pull -= step * scale * own * gram[column]
            part = slice(start, start + group)
            taken = codes[row, part]
            slope, curve = taken @ pull[part], own * (taken @ gram[part, part] @ taken)
            step = float(storable(torch.tensor(scale + slope / max(curve, 1e-30)))) - scale
            if step * (step * curve - 2 * slope) < 0:
                scales[row, number] += step
                pull -= step * own * (taken @ gram[part])
        through[row] -= (codes[row] * scales[row].repeat(group) - before) @ gram


def test_fewer_rows_take_a_step_at_once_where_few_directions_matter(monkeypatch):
    few, many = (coupled(weight_problem(64, 256, directions=number)) for number in (5, 200))
    assert coupled_descent._rows_at_once(few.curvature) == 8
    assert 16 < coupled_descent._rows_at_once(many.curvature) <= 32
    assert coupled_descent._rows_at_once(torch.eye(1000)) == 64
    found = rounded(few)
    descend_coupled(few, *found, 4)
    monkeypatch.setattr(coupled_descent, "_rows_at_once", lambda _: 64)
    wide = rounded(few)
    descend_coupled(few, *wide, 4)
    assert at(few, *found) < 0.85 * at(few, *wide)


def test_without_curvature_it_is_as_good_as_the_plain_descent():
    found = weight_problem(40, 192)
    gram = damped(found.inputs.gram, 0.03)
    problem = CoupledProblem(found.weight, gram, torch.eye(40), INT4)
    codes, scales = rounded(problem)
    plain = codes.clone(), scales.clone()
    descend_coupled(problem, codes, scales, 4)
    descend(problem.target, *plain, gram, INT4, 4)
    assert at(problem, codes, scales) < 1.02 * at(problem, *plain)


def test_what_knows_of_curvature_is_better_there():
    """The twin: were the curvature left out, or its rows in another order, it would be worse."""
    problem = coupled(weight_problem(40, 192))
    best = rounded(problem)
    descend_coupled(problem, *best, 4)
    plain = rounded(problem)
    descend(problem.target, *plain, problem.gram, INT4, 4)
    assert at(problem, *best) < 0.8 * at(problem, *plain)
    turned = CoupledProblem(
        problem.target, problem.gram, problem.curvature.flip(0, 1).contiguous(), INT4
    )
    wrong = rounded(problem)
    descend_coupled(turned, *wrong, 4)
    assert at(problem, *wrong) > 1.2 * at(problem, *best)


def rank_one(size: int, damping: float, seed: int) -> torch.Tensor:
    direction = torch.randn(size, 1, generator=torch.Generator().manual_seed(seed))
    return damped(direction @ direction.t(), damping)


@pytest.mark.parametrize("damping", [1e-4, 1e-2])
def test_steps_that_get_in_each_others_way_are_taken_one_by_one(monkeypatch, damping):
    """Of rank one, every element off the diagonals is as large as on them."""
    taken = []
    one_by_one = coupled_descent._Panel._falling

    def counted(self, *arguments):
        kept = one_by_one(self, *arguments)
        taken.append((int(kept.sum()), len(kept)))
        return kept

    monkeypatch.setattr(coupled_descent._Panel, "_falling", counted)
    target = weight_problem(80, 192).weight
    problem = CoupledProblem(target, rank_one(192, damping, 1), rank_one(80, damping, 2), INT4)
    codes, scales = rounded(problem)
    found = require_falls(problem, codes, scales, 4)
    assert taken, "no turn was a rise"
    assert any(0 < kept < rows for kept, rows in taken)
    assert found[-1] < 0.5 * found[0]


def test_a_fixed_point_stays():
    problem = coupled(weight_problem(12, 96))
    codes, scales = rounded(problem)
    descend_coupled(problem, codes, scales, 60)
    before = codes.clone(), scales.clone()
    assert descend_coupled(problem, codes, scales, 1) == [pytest.approx(0.0, abs=1e-9)]
    assert torch.equal(codes, before[0])
    assert torch.equal(scales, before[1])


def test_panels_and_blocks_do_not_decide_how_good_it_is(monkeypatch):
    problem = coupled(weight_problem(48, 256))
    whole = rounded(problem)
    descend_coupled(problem, *whole, 4)
    monkeypatch.setattr(coupled_descent, "_PANEL_GROUPS", 3)
    monkeypatch.setattr(coupled_descent, "_rows_at_once", lambda _: 5)
    parts = rounded(problem)
    require_falls(problem, *parts, 4)
    assert at(problem, *parts) == pytest.approx(at(problem, *whole), rel=0.05)
