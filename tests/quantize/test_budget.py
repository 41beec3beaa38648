"""The choice of forms within a budget, held against trying all of them."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_quantize import GroupedInt
from llama_quantize.budget import Choice, OverBudgetError, fewest_bytes, least_cost

SCHEMES = (*(GroupedInt(4, size) for size in (256, 128, 64, 32)), GroupedInt(8, None))


@st.composite
def tables(draw):
    """Up to five tensors; more bytes mostly cost less, as forms do, but not always."""
    table = {}
    for index in range(draw(st.integers(1, 5))):
        count = draw(st.integers(1, len(SCHEMES)))
        sizes = draw(st.lists(st.integers(1, 60), min_size=count, max_size=count))
        costs = draw(st.lists(st.floats(0, 10, width=16), min_size=count, max_size=count))
        table[f"t{index}"] = tuple(map(Choice, SCHEMES, sizes, costs))
    return table


def size_of(chosen):
    return sum(each.size_bytes for each in chosen)


def cost_of(chosen):
    return math.fsum(each.cost for each in chosen)


def whole(table):
    return list(itertools.product(*table.values()))


def largest_step(table, key):
    """The most that one tensor can change by."""
    spans = [[key(each) for each in choices] for choices in table.values()]
    return max(max(span) - min(span) for span in spans)


@settings(max_examples=300, deadline=None)
@given(tables(), st.integers(1, 320))
def test_the_least_cost_is_that_of_all_but_one_step(table, budget):
    fitting = [each for each in whole(table) if size_of(each) <= budget]
    if not fitting:
        with pytest.raises(OverBudgetError) as caught:
            least_cost(table, budget)
        assert caught.value.least == min(map(size_of, whole(table)))
        return
    chosen = least_cost(table, budget)
    assert list(chosen) == list(table)
    assert all(chosen[name] in table[name] for name in table)
    assert size_of(chosen.values()) <= budget
    found, best = cost_of(chosen.values()), min(map(cost_of, fitting))
    assert best <= found + 1e-9
    assert found <= best + largest_step(table, lambda each: each.cost) + 1e-9
    # No one form for all is better, and no change of one tensor or of two.
    for scheme in SCHEMES:
        same = [[each for each in choices if each.scheme == scheme] for choices in table.values()]
        if all(same) and size_of(uniform := [each for (each,) in same]) <= budget:
            assert found <= cost_of(uniform) + 1e-9
    near = [
        each
        for each in fitting
        if sum(a is not b for a, b in zip(each, chosen.values(), strict=True)) <= 2
    ]
    assert found <= min(map(cost_of, near)) + 1e-9


@settings(max_examples=200, deadline=None)
@given(tables(), st.floats(0, 60))
def test_the_fewest_bytes_are_those_of_all_but_one_step(table, most):
    fitting = [each for each in whole(table) if cost_of(each) <= most]
    if not fitting:
        with pytest.raises(OverBudgetError):
            fewest_bytes(table, most)
        return
    chosen = fewest_bytes(table, most)
    assert cost_of(chosen.values()) <= most
    found, best = size_of(chosen.values()), min(map(size_of, fitting))
    assert best <= found <= best + largest_step(table, lambda each: each.size_bytes)


def many(count):
    """Tensors of some kinds whose errors differ by far, as those of a model do."""
    table = {}
    for index in range(count):
        weights, noise = 1000 * (1 + index % 5), 1.1 ** ((index * 7919) % 97)
        table[f"t{index}"] = tuple(
            Choice(scheme, round(weights * bits / 8), noise * weights * error)
            for scheme, bits, error in zip(
                SCHEMES, (4.0625, 4.125, 4.25, 4.5, 8), (1.9, 1.6, 1.3, 1, 0.004), strict=True
            )
        )
    return table


def test_a_model_of_many_tensors_is_searched_quickly_and_the_same_way():
    table = many(400)
    uniform = [choices[2] for choices in table.values()]
    chosen = least_cost(table, size_of(uniform))
    assert cost_of(chosen.values()) < 0.75 * cost_of(uniform)
    assert len({each.scheme for each in chosen.values()}) > 2
    shuffled = dict(sorted(table.items(), key=lambda each: each[0][::-1]))
    again = least_cost(shuffled, size_of(uniform))
    assert cost_of(again.values()) == pytest.approx(cost_of(chosen.values()), rel=1e-3)
    assert least_cost(table, size_of(uniform)) == chosen
    # What is spent for the cost that was reached is what was given.
    back = fewest_bytes(table, cost_of(chosen.values()))
    assert size_of(back.values()) <= size_of(uniform)


def test_a_budget_for_everything_takes_the_best_and_a_smaller_one_the_smallest():
    table = many(9)
    best = least_cost(table, 10**9)
    assert {each.scheme for each in best.values()} == {SCHEMES[-1]}
    smallest = size_of(choices[0] for choices in table.values())
    assert {each.scheme for each in least_cost(table, smallest).values()} == {SCHEMES[0]}
    with pytest.raises(OverBudgetError, match="the least possible is"):
        least_cost(table, smallest - 1)
    assert least_cost({}, 0) == {}
