"""The linear algebra of calibrated methods, against plain float64 and textbook forms."""

from __future__ import annotations

import pytest
import torch
from artifacts.weight_problems import objective, require_storable, weight_problem

from llama_quantize import GroupedInt, InputStatistics, find_method
from llama_quantize.methods.solving.damping import damped, upper_factor
from llama_quantize.methods.solving.descent import descend
from llama_quantize.methods.solving.feedback import round_with_feedback
from llama_quantize.methods.solving.targets import corrected

INT4 = GroupedInt(4, 32)
# Rows, columns, form: odd numbers of rows, a last block that is shorter, groups as large as a block
# or larger, and one group a row of an odd number of columns.
SHAPES = {
    "int4 g32": (24, 128, INT4),
    "int4 g32, a short last block": (7, 288, INT4),
    "int4 g64": (5, 320, GroupedInt(4, 64)),
    "int4 g128": (9, 384, GroupedInt(4, 128)),
    "int4 g256": (3, 512, GroupedInt(4, 256)),
    "int8 g32": (11, 288, GroupedInt(8, 32)),
    "int8 row": (4, 301, GroupedInt(8, None)),
    "one row": (1, 64, INT4),
}
each_shape = pytest.mark.parametrize(("rows", "columns", "scheme"), SHAPES.values(), ids=SHAPES)


def test_a_share_of_the_mean_diagonal_is_added():
    gram = weight_problem(2, 48).inputs.gram
    found = damped(gram, 0.03)
    mean = gram.double().diagonal().mean()
    expected = gram.double() + 0.03 * mean * torch.eye(48, dtype=torch.float64)
    assert torch.allclose(found.double(), expected, rtol=1e-6)
    assert found is not gram
    assert torch.equal(damped(torch.zeros(3, 3), 0.03), torch.eye(3)), "nothing ever fires"


def test_the_factor_is_a_unit_upper_triangle():
    matrix = damped(weight_problem(2, 96).inputs.gram, 0.03)
    upper = upper_factor(matrix).double()
    assert torch.equal(upper, upper.triu())
    assert torch.equal(upper.diagonal(), torch.ones(96, dtype=torch.float64))
    # U D Uᵀ gives the matrix back, D being what is left on the diagonal.
    inverse = torch.linalg.inv(upper)
    middle = inverse @ matrix.double() @ inverse.T
    off = middle - torch.diag(middle.diagonal())
    scale = middle.diagonal().sqrt()
    assert float((off / scale / scale.unsqueeze(1)).abs().max()) < 1e-4
    assert float(middle.diagonal().min()) > 0


def test_the_target_is_a_ridge_regression():
    problem = weight_problem(13, 96)
    found = corrected(problem.weight, problem.inputs, 0.3)
    gram, cross = problem.inputs.gram.double(), problem.inputs.cross.double()
    ridge = 0.3 * gram.diagonal().mean() * torch.eye(96, dtype=torch.float64)
    expected = problem.weight.double() + torch.linalg.solve(gram + ridge, cross.T).T
    difference = float((found.double() - expected).abs().max())
    assert difference < 1e-5 * float(expected.abs().max())
    # Without the ridge, or with the sums turned round, it is another weight.
    assert float((problem.weight - found).abs().max()) > 100 * difference
    bare = problem.weight.double() + torch.linalg.solve(gram, cross.T).T
    assert float((bare - expected).abs().max()) > 100 * difference


def test_the_target_is_the_weight_where_nothing_is_known_to_be_lost():
    problem = weight_problem(3, 32)
    inputs = InputStatistics(problem.inputs.gram, problem.inputs.count)
    assert corrected(problem.weight, inputs, 0.3) is problem.weight


def textbook_gptq(target, gram, scales, scheme) -> torch.Tensor:
    """Round column after column with the Cholesky factor of the inverse; float64."""
    low, high = scheme.code_range
    columns = target.shape[1]
    group = columns // scales.shape[1]
    inverse = torch.linalg.cholesky(torch.linalg.inv(gram.double()), upper=True)
    left = target.double().clone()
    codes = torch.empty_like(left)
    for column in range(columns):
        scale = scales[:, column // group].double()
        codes[:, column] = (left[:, column] / scale).round().clamp(low, high)
        error = (left[:, column] - codes[:, column] * scale) / inverse[column, column]
        left[:, column:] -= error.unsqueeze(1) * inverse[column, column:]
    return codes


@each_shape
def test_rounding_with_feedback_is_gptq(rows, columns, scheme):
    problem = weight_problem(rows, columns)
    gram = damped(problem.inputs.gram, 0.03)
    codes, scales = round_with_feedback(problem.weight, upper_factor(gram), scheme)
    require_storable(codes, scales, scheme)
    assert scales.shape == (rows, scheme.groups(columns))
    expected = textbook_gptq(problem.weight, gram, scales, scheme)
    # A tie that falls to the other side changes what follows it in its row.
    same_rows = (codes.double() == expected).all(1)
    assert same_rows.float().mean() > 0.7
    assert objective(problem.weight, codes, scales, gram) == pytest.approx(
        objective(problem.weight, expected, scales, gram), rel=1e-2
    )
    group = columns // scales.shape[1]
    plain = problem.weight / scales.repeat_interleave(group, 1)
    nearest = plain.round().clamp(*scheme.code_range)
    plainly = objective(problem.weight, nearest, scales, gram)
    assert objective(problem.weight, codes, scales, gram) < (0.9 if rows > 1 else 1) * plainly


def test_a_groups_scale_is_searched_for_its_columns_as_they_then_are():
    problem = weight_problem(6, 128)
    gram = damped(problem.inputs.gram, 0.03)
    codes, scales = round_with_feedback(problem.weight, upper_factor(gram), INT4)
    search = find_method("clip_search")
    _, first = search.quantize(problem.weight[:, :32], INT4)
    assert torch.equal(scales[:, :1], first.float())
    # The columns of the second group, moved by what the first one's rounding leaves.
    here, rest = slice(0, 32), slice(32, None)
    exact = gram.double()
    errors = problem.weight[:, here].double() - codes[:, here] * scales[:, :1].double()
    moves = errors @ exact[here, rest] @ torch.linalg.inv(exact[rest, rest])
    moved = (problem.weight[:, rest].double() + moves)[:, :32].float()
    _, second = search.quantize(moved, INT4)
    _, unmoved = search.quantize(problem.weight[:, 32:64], INT4)
    step = 2.0**-7  # of a bf16 value: one that is as good to six digits may be next to it
    assert torch.allclose(scales[:, 1:2], second.float(), rtol=step)
    assert not torch.allclose(scales[:, 1:2], unmoved.float(), rtol=3 * step)


def test_without_correlation_it_is_the_search_for_scales():
    weight = weight_problem(8, 96).weight
    codes, scales = round_with_feedback(weight, upper_factor(torch.eye(96)), INT4)
    expected, expected_scales = find_method("clip_search").quantize(weight, INT4)
    assert torch.equal(codes.to(torch.int8), expected)
    assert torch.equal(scales.to(torch.bfloat16), expected_scales)


def rounded(problem, scheme):
    """Begin as plain rounding with searched scales does."""
    codes, scales = find_method("clip_search").quantize(problem.weight, scheme)
    return codes.float(), scales.float()


@each_shape
def test_every_sweep_lowers_the_objective_by_what_it_says(rows, columns, scheme):
    problem = weight_problem(rows, columns)
    gram = damped(problem.inputs.gram, 0.03)
    codes, scales = rounded(problem, scheme)
    at = [objective(problem.weight, codes, scales, gram)]
    for _ in range(4):
        (fall,) = descend(problem.weight, codes, scales, gram, scheme, 1)
        require_storable(codes, scales, scheme)
        at.append(objective(problem.weight, codes, scales, gram))
        assert fall == pytest.approx(at[-2] - at[-1], rel=1e-3, abs=1e-5 * at[0])
        assert at[-1] <= at[-2]
    assert at[1] < 0.9 * at[0]
    again, again_scales = rounded(problem, scheme)
    falls = descend(problem.weight, again, again_scales, gram, scheme, 4)
    assert len(falls) == 4
    assert sum(falls) == pytest.approx(at[0] - at[-1], rel=1e-2)


def test_a_fixed_point_stays():
    problem = weight_problem(10, 96)
    gram = damped(problem.inputs.gram, 0.03)
    codes, scales = rounded(problem, INT4)
    descend(problem.weight, codes, scales, gram, INT4, 60)
    before = codes.clone(), scales.clone()
    assert descend(problem.weight, codes, scales, gram, INT4, 1) == [0.0]
    assert torch.equal(codes, before[0])
    assert torch.equal(scales, before[1])
    # There no single code is better one step up or down: the objective says so itself.
    least = objective(problem.weight, codes, scales, gram)
    for row, column in ((0, 0), (3, 40), (9, 95)):
        for step in (-1, 1):
            other = codes.clone()
            other[row, column] += step
            assert objective(problem.weight, other, scales, gram) > least


def test_what_is_exact_stays_exact():
    codes, scales = rounded(weight_problem(6, 64), INT4)
    exact = codes * scales.repeat_interleave(32, 1)
    gram = damped(weight_problem(6, 64).inputs.gram, 0.03)
    before = codes.clone()
    assert sum(descend(exact, codes, scales, gram, INT4, 2)) == pytest.approx(0, abs=1e-9)
    assert torch.equal(codes, before)


@pytest.mark.parametrize("size", [1e-9, 1e7])
def test_scales_stay_within_what_is_stored(size):
    """The best scale of tiny weights is below the least one, of huge ones above the largest."""
    problem = weight_problem(4, 64)
    gram = damped(problem.inputs.gram, 0.03)
    target = problem.weight * size
    codes = torch.ones(4, 64)
    scales = torch.full((4, 2), 2.0**-17 if size < 1 else 65280.0)
    descend(target, codes, scales, gram, INT4, 2)
    require_storable(codes, scales, INT4)
