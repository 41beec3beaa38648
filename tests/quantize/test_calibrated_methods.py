"""The calibrated methods: better than what knows no inputs, and safe where inputs say little."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from artifacts.weight_problems import objective, require_storable, weight_problem

from llama_quantize import GroupedInt, InputStatistics, Needs, QuantizationError, find_method
from llama_quantize.methods.solving.damping import damped
from llama_quantize.methods.solving.targets import corrected

INT4 = GroupedInt(4, 32)
METHODS = ("gptq_descent", "curvature_descent")
each_method = pytest.mark.parametrize("method", METHODS)


def quantized(method: str, weight, inputs, scheme=INT4) -> tuple[torch.Tensor, torch.Tensor]:
    codes, scales = find_method(method).quantize(weight, scheme, inputs)
    assert (codes.dtype, scales.dtype) == (torch.int8, torch.bfloat16)
    assert codes.shape == weight.shape
    assert scales.shape == (len(weight), scheme.groups(weight.shape[1]))
    require_storable(codes.float(), scales.float(), scheme)
    return codes.float(), scales.float()


@each_method
@pytest.mark.parametrize(
    "scheme",
    [INT4, GroupedInt(4, 64), GroupedInt(4, 128), GroupedInt(8, 32), GroupedInt(8, None)],
    ids=lambda scheme: scheme.label,
)
def test_they_come_closer_to_the_target_than_a_search_for_scales(method, scheme):
    problem = weight_problem(19, 256)
    target = corrected(problem.weight, problem.inputs, 0.3)
    gram = damped(problem.inputs.gram, 0.03)
    curvature = problem.inputs.curvature if method == "curvature_descent" else None
    found = {}
    for name in (method, "clip_search", "nearest"):
        chosen = quantized(name, problem.weight, problem.inputs, scheme)
        found[name] = objective(target, *chosen, gram, curvature)
    assert found[method] < 0.5 * found["clip_search"]
    assert found["clip_search"] < 1.2 * found["nearest"]


def test_curvature_is_worth_asking_for_and_left_out_where_it_is_not_known():
    problem = weight_problem(19, 256)
    blind = replace(problem.inputs, curvature=None)
    plain = quantized("gptq_descent", problem.weight, problem.inputs)
    assert all(map(torch.equal, plain, quantized("curvature_descent", problem.weight, blind)))
    known = quantized("curvature_descent", problem.weight, problem.inputs)
    target = corrected(problem.weight, problem.inputs, 0.3)
    gram, curvature = damped(problem.inputs.gram, 0.03), problem.inputs.curvature
    assert objective(target, *known, gram, curvature) < 0.8 * objective(
        target, *plain, gram, curvature
    )


@each_method
def test_the_same_inputs_give_the_same_codes(method):
    problem = weight_problem(19, 256)
    one = quantized(method, problem.weight, problem.inputs)
    assert all(map(torch.equal, one, quantized(method, problem.weight, problem.inputs)))
    bfloat16 = problem.weight.bfloat16()
    low = quantized(method, bfloat16, problem.inputs)
    assert all(map(torch.equal, low, quantized(method, bfloat16.float(), problem.inputs)))


@each_method
def test_they_leave_what_they_are_given_as_it_is(method):
    problem = weight_problem(19, 64)
    given = (problem.weight, *vars(problem.inputs).values())
    tensors = [each for each in given if isinstance(each, torch.Tensor)]
    before = [each.clone() for each in tensors]
    quantized(method, problem.weight, problem.inputs)
    assert len(tensors) == 4
    assert all(map(torch.equal, before, tensors))


def without_columns(inputs: InputStatistics, columns) -> InputStatistics:
    gram, cross = inputs.gram.clone(), inputs.cross.clone()
    gram[columns] = gram[:, columns] = cross[:, columns] = 0.0
    return replace(inputs, gram=gram, cross=cross)


@each_method
def test_weights_of_channels_that_never_fire_are_rounded_by_themselves(method):
    problem = weight_problem(19, 128)
    dead = slice(64, 96)
    codes, scales = quantized(method, problem.weight, without_columns(problem.inputs, dead))
    expected, expected_scales = quantized("clip_search", problem.weight[:, dead], None)
    # Rows make up for each other there as elsewhere.
    curvature = damped(problem.inputs.curvature, 0.01) if method == "curvature_descent" else None
    found, searched = (
        objective(problem.weight[:, dead], *each, torch.eye(32), curvature)
        for each in ((codes[:, dead], scales[:, 2:3]), (expected, expected_scales))
    )
    assert found < 1.001 * searched


@each_method
def test_rows_whose_outputs_never_matter_are_rounded_all_the_same(method):
    problem = weight_problem(19, 128)
    curvature = problem.inputs.curvature.clone()
    curvature[3] = curvature[:, 3] = 0.0
    inputs = replace(problem.inputs, curvature=curvature)
    codes, scales = quantized(method, problem.weight, inputs)
    target = corrected(problem.weight, inputs, 0.3)
    gram = damped(inputs.gram, 0.03)
    searched = quantized("clip_search", target, None)
    rows = slice(3, 4)
    assert objective(target[rows], codes[rows], scales[rows], gram) < 0.6 * objective(
        target[rows], searched[0][rows], searched[1][rows], gram
    )


@each_method
def test_a_weight_without_any_input_is_rounded_as_without_calibration(method):
    problem = weight_problem(19, 96)
    nothing = InputStatistics(torch.zeros(96, 96), 512, torch.zeros(19, 96), torch.zeros(19, 19))
    codes, scales = quantized(method, problem.weight, nothing)
    expected = quantized("clip_search", problem.weight, None)
    identity = torch.eye(96)
    assert objective(problem.weight, codes, scales, identity) <= objective(
        problem.weight, *expected, identity
    ) * (1 + 1e-6)


@each_method
@pytest.mark.parametrize("tokens", [1, 7, 100])
def test_fewer_tokens_than_columns_are_no_trouble(method, tokens):
    problem = weight_problem(19, 256, tokens=tokens)
    rank = torch.linalg.matrix_rank(problem.inputs.gram.double(), rtol=1e-6)
    assert rank <= tokens < 256
    codes, scales = quantized(method, problem.weight, problem.inputs)
    values = codes * scales.repeat_interleave(32, 1)
    # It may not run away from the weight to please a handful of tokens.
    assert float((values - problem.weight).norm()) < 0.5 * float(problem.weight.norm())


@each_method
@pytest.mark.parametrize("size", [1e-12, 1e12])
def test_the_size_of_the_inputs_does_not_matter(method, size):
    problem = weight_problem(9, 64)
    inputs = problem.inputs
    scaled = InputStatistics(
        inputs.gram * size, inputs.count, inputs.cross * size, inputs.curvature * size
    )
    target, gram = corrected(problem.weight, inputs, 0.3), damped(inputs.gram, 0.03)
    curvature = inputs.curvature if method == "curvature_descent" else None
    found = objective(target, *quantized(method, problem.weight, scaled), gram, curvature)
    usual = objective(target, *quantized(method, problem.weight, inputs), gram, curvature)
    assert found == pytest.approx(usual, rel=0.1)


@each_method
def test_a_repeated_input_does_no_harm(method):
    """Two channels that are always equal make the Gram matrix singular."""
    problem = weight_problem(9, 64)
    inputs = problem.inputs
    twice = torch.arange(64)
    twice[1::2] = twice[::2]
    same = replace(inputs, gram=inputs.gram[twice][:, twice], cross=inputs.cross[:, twice])
    codes, scales = quantized(method, problem.weight, same)
    target, gram = corrected(problem.weight, same, 0.3), damped(same.gram, 0.03)
    curvature = inputs.curvature if method == "curvature_descent" else None
    searched = objective(target, *quantized("clip_search", target, None), gram, curvature)
    assert objective(target, codes, scales, gram, curvature) < 0.7 * searched


@each_method
def test_zero_weights_stay_zero(method):
    inputs = replace(weight_problem(5, 64).inputs, cross=torch.zeros(5, 64))
    codes, _ = quantized(method, torch.zeros(5, 64), inputs)
    assert not codes.any()


@each_method
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e9])
def test_weights_that_no_code_stands_for_are_refused(method, value):
    problem = weight_problem(9, 64)
    weight = problem.weight.clone()
    weight[4, 33] = value
    with pytest.raises(QuantizationError, match=r"at \[4, 33\]"):
        quantized(method, weight, problem.inputs)


@each_method
@pytest.mark.parametrize("part", ["gram", "cross", "curvature"])
def test_statistics_that_are_not_finite_are_refused(method, part):
    problem = weight_problem(9, 64)
    broken = getattr(problem.inputs, part).clone()
    broken[5, 5] = torch.nan
    with pytest.raises(QuantizationError, match="not finite") as caught:
        quantized(method, problem.weight, replace(problem.inputs, **{part: broken}))
    assert caught.value.hint


@each_method
def test_without_statistics_nothing_is_guessed(method):
    assert find_method(method).needs >= Needs.TARGETS
    with pytest.raises(QuantizationError, match=f"the method {method} needs the statistics"):
        find_method(method).quantize(torch.ones(2, 32), INT4)


@each_method
def test_a_weight_of_another_shape_than_its_groups_is_refused(method):
    problem = weight_problem(9, 48)
    with pytest.raises(QuantizationError, match="do not divide into groups of 32"):
        quantized(method, problem.weight, problem.inputs)
