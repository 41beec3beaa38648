"""A table of costs becomes a recipe, and the recipe means what was chosen."""

from __future__ import annotations

import pytest
from artifacts.tiny import UNTIED

from llama_export.calibration.recipe_search import Budget, FormCosts, recipe_of
from llama_export.errors import UsageError
from llama_export.exporting.plan import fitted_recipe
from llama_export.llama.names import expected_shapes
from llama_quantize import GroupedInt
from llama_quantize.budget import Choice

SHAPES = expected_shapes(UNTIED)
LINEARS = [name for name in SHAPES if name.endswith("_proj.weight")]
FORMS = (GroupedInt(4, 128), GroupedInt(4, 64), GroupedInt(4, 32), GroupedInt(8, None))
FIXED = 100_000


def made_up(errors=(1.6, 1.3, 1.0, 0.01)) -> FormCosts:
    return FormCosts(
        {
            name: tuple(
                Choice(form, form.size_bytes(SHAPES[name]), error * 1.5 ** (5 * index % 14))
                for form, error in zip(FORMS, errors, strict=True)
            )
            for index, name in enumerate(LINEARS)
        },
        FIXED,
    )


def test_one_form_for_all_is_listed_by_size_and_beaten_by_a_mix():
    costs = made_up()
    uniform = costs.uniform()
    assert [each.label for each in uniform] == ["int4 g128", "int4 g64", "int4 g32", "int8 row"]
    for each in uniform[:3]:
        found = costs.within(Budget(most_bytes=each.size_bytes))
        assert found.size_bytes <= each.size_bytes
        assert found.kl <= each.kl
        back = costs.within(Budget(most_kl=each.kl))
        assert back.kl <= each.kl
        assert back.size_bytes <= each.size_bytes
    middle = costs.within(Budget(most_bytes=uniform[2].size_bytes))
    assert middle.kl < 0.8 * uniform[2].kl
    assert middle.size_bytes - FIXED == sum(c.size_bytes for c in middle.forms.values())


def test_a_form_that_some_linear_lacks_is_no_uniform_one():
    costs = made_up()
    cut = {name: row[1:] if "down" in name else row for name, row in costs.choices.items()}
    labels = [each.label for each in FormCosts(cut, FIXED).uniform()]
    assert labels == ["int4 g64", "int4 g32", "int8 row"]


def test_the_recipe_gives_each_linear_its_form():
    costs = made_up()
    found = costs.within(Budget(most_bytes=costs.uniform()[2].size_bytes))
    written = recipe_of(found, "found", "a note")
    resolved = fitted_recipe(written.recipe(), UNTIED).resolve(SHAPES)
    assert {name: resolved.schemes[name] for name in LINEARS} == {
        name: choice.scheme for name, choice in found.forms.items()
    }
    assert resolved.schemes["lm_head.weight"] == GroupedInt(8, None)
    assert (written.name, written.note) == ("found", "a note")
    # What most linears have is the base, and is not listed.
    listed = sum(len(rule.matches) for rule in written.rules)
    assert listed <= len(LINEARS) - len(LINEARS) // len(FORMS)
    everything = costs.within(Budget(most_bytes=10**9))
    int8 = fitted_recipe(recipe_of(everything, "int8", "").recipe(), UNTIED).resolve(SHAPES)
    assert {int8.schemes[name].label for name in LINEARS} == {"int8 row"}


def test_a_method_scales_every_cost():
    costs = made_up()
    better = costs.by_a_method(0.5)
    for before, after in zip(costs.uniform(), better.uniform(), strict=True):
        assert after.kl == pytest.approx(before.kl / 2)
        assert after.size_bytes == before.size_bytes
    assert better.costliest() == costs.costliest()
    first, last = costs.costliest()[0], costs.costliest()[-1]
    assert costs.choices[first][0].cost > 100 * costs.choices[last][0].cost


def test_a_budget_is_one_of_the_two():
    for both in ({}, {"most_bytes": 1, "most_kl": 1.0}):
        with pytest.raises(UsageError, match="expected one of the two"):
            Budget(**both)


def test_a_budget_that_nothing_keeps_to_says_the_least():
    costs = made_up()
    least = costs.uniform()[0].size_bytes
    with pytest.raises(UsageError, match=r"of which token table and norms are 0\.10 MB") as caught:
        costs.within(Budget(most_bytes=least - 1))
    shown = float(caught.value.message.split("possible is ")[1].split(" MB")[0])
    assert least <= shown * 1e6 < least + 20_000
    assert costs.within(Budget(most_bytes=least)).size_bytes == least
    with pytest.raises(UsageError, match="nats is the least possible"):
        costs.within(Budget(most_kl=0.0))
