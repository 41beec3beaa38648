"""Fit a recipe's groups to a model: a row that no group divides gets one scale for itself.

It knows names, widths and storage forms; it knows no tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from llama_quantize.kept import kept_recipe
from llama_quantize.recipe import GROUP_SIZES, QuantRecipe, QuantRule
from llama_quantize.scheme import Float, GroupedInt, Scheme

# Every target holds it.
_ONE_A_ROW = GroupedInt(8, None)


def with_fitting_groups(
    recipe: QuantRecipe, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[QuantRecipe, tuple[str, ...]]:
    """Make matrices whose rows no group size divides int8 with one scale a row.

    Rows that another group size divides are left as they are: that one can be asked for.

    Args:
        recipe: rules for the model.
        shapes: shapes of its unique tensors.

    Returns:
        The rules, and the names of those matrices; none: the rules are those that came.
    """
    rules = {name: _rule_of(recipe, name) for name in shapes}
    unfit = tuple(
        name for name, rule in rules.items() if rule is not None and _is_unfit(rule, shapes[name])
    )
    if not unfit:
        return recipe, ()
    forms: dict[str, Scheme] = {name: Float("bfloat16") for name in shapes}
    own = [
        rule
        for rule in kept_recipe(forms | dict.fromkeys(unfit, _ONE_A_ROW)).rules
        if rule.scheme == _ONE_A_ROW
    ]
    others = [rule for name, rule in rules.items() if name not in unfit]
    left = [rule for rule in recipe.rules if rule in others]
    return replace(recipe, rules=(*own, *left)), unfit


def _rule_of(recipe: QuantRecipe, name: str) -> QuantRule | None:
    return next((rule for rule in recipe.rules if rule.matches(name)), None)


def _is_unfit(rule: QuantRule, shape: tuple[int, ...]) -> bool:
    scheme = rule.scheme
    if not isinstance(scheme, GroupedInt) or scheme.group_size is None or len(shape) != 2:
        return False
    return not any(shape[1] % size == 0 for size in GROUP_SIZES)
