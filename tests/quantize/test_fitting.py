"""Rows that no group divides get one scale for themselves, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from artifacts.tiny import TINY, UNTIED

from llama_export.llama.names import expected_shapes
from llama_quantize.errors import QuantizationError
from llama_quantize.fitting import with_fitting_groups
from llama_quantize.recipe import recipe
from llama_quantize.scheme import GroupedInt

ROW = GroupedInt(8, None)


@pytest.mark.parametrize("name", ["int4", "int8", "bf16"])
def test_a_model_whose_rows_divide_keeps_its_recipe(name):
    chosen = recipe(name)
    assert with_fitting_groups(chosen, expected_shapes(TINY)) == (chosen, ())


@pytest.mark.parametrize(
    ("changes", "modules"),
    [
        ({"intermediate_size": 172}, {"down_proj"}),
        ({"head_dim": 10}, {"o_proj"}),
        ({"head_dim": 10, "intermediate_size": 37}, {"o_proj", "down_proj"}),
        ({"hidden_size": 40}, {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"}),
    ],
)
def test_only_rows_that_no_group_divides_change(changes, modules):
    shapes = expected_shapes(replace(TINY, num_hidden_layers=12, **changes))
    fitting, unfit = with_fitting_groups(recipe("int4"), shapes)
    assert {name.split(".")[-2] for name in unfit} == modules
    assert len(unfit) == 12 * len(modules)
    resolved = fitting.resolve(shapes)
    for name, scheme in resolved.schemes.items():
        by_row = name in unfit or "embed" in name or "lm_head" in name
        assert (scheme == ROW) == by_row
        assert resolved.methods.get(name) == (
            None if "norm" in name else "nearest" if by_row else "clip_search"
        )


def test_where_no_row_divides_the_rule_of_groups_is_gone():
    shapes = expected_shapes(replace(TINY, hidden_size=36, intermediate_size=37, head_dim=6))
    fitting, _ = with_fitting_groups(recipe("int4"), shapes)
    assert set(fitting.resolve(shapes).schemes.values()) == {ROW, recipe("int4").rules[2].scheme}


def test_int4_tables_of_such_rows_are_int8_again():
    shapes = expected_shapes(replace(UNTIED, hidden_size=40))
    fitting, unfit = with_fitting_groups(recipe("int4", table="int4"), shapes)
    assert {"model.embed_tokens.weight", "lm_head.weight"} < set(unfit)
    assert fitting.resolve(shapes).schemes["lm_head.weight"] == ROW


def test_a_group_that_another_one_replaces_stays_an_error():
    shapes = expected_shapes(replace(TINY, intermediate_size=1088))
    chosen = recipe("int4", 128)
    assert with_fitting_groups(chosen, shapes) == (chosen, ())
    with pytest.raises(QuantizationError, match="32 or 64"):
        chosen.resolve(shapes)
