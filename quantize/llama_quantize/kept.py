"""Make the recipe of a checkpoint that comes quantised: rules that fit what its tensors are.

It knows names and storage forms; it knows no model, no method but the defaults, and no tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from llama_quantize.recipe import DEFAULT_METHOD, QuantRecipe, QuantRule
from llama_quantize.scheme import GroupedInt, Scheme

_INDEX = re.compile(r"\.(\d+)\.")
# Of one pattern, so that none comes near the longest that a rule may have.
_MOST_INDICES, _MOST_ENDS = 100, 8


def kept_recipe(schemes: Mapping[str, Scheme], name: str = "kept") -> QuantRecipe:
    """Make the recipe in which each tensor has the form that it is said to have.

    A pattern names tensors of one form and no tensor of another, whatever layers or modules have
    it; a form may need several. A tensor that comes as floats and gets a form with codes is rounded
    to nearest where it has one scale a row, and else by the default method.

    Args:
        schemes: storage form of each unique tensor: that of its codes where they are kept.
        name: name of the recipe.
    """
    rules = tuple(
        QuantRule(pattern, scheme, _method(scheme))
        for scheme in dict.fromkeys(schemes.values())
        for pattern in _patterns(scheme, schemes)
    )
    return QuantRecipe(name, rules)


def _method(scheme: Scheme) -> str:
    by_row = isinstance(scheme, GroupedInt) and scheme.group_size is None
    return "nearest" if by_row else DEFAULT_METHOD


def _patterns(scheme: Scheme, schemes: Mapping[str, Scheme]) -> Iterator[str]:
    """Yield patterns of the names that have a form, and of no other name among them."""
    indices: dict[tuple[str, str], list[str]] = {}
    elsewhere = set()
    for name, each in schemes.items():
        before, index, after = _parts(name)
        if each == scheme:
            indices.setdefault((before, after), []).append(index)
        else:
            elsewhere.add((before, after))
    # Names that differ in nothing but their ends share a pattern.
    ends: dict[str, list[str]] = {}
    for (before, after), found in indices.items():
        for stem in _stems(before, found, everywhere=(before, after) not in elsewhere):
            ends.setdefault(stem, []).append(re.escape(after))
    for stem, group in ends.items():
        for begin in range(0, len(group), _MOST_ENDS):
            yield stem + _one_of(group[begin : begin + _MOST_ENDS])


def _parts(name: str) -> tuple[str, str, str]:
    """Split a name at its first number, such as a layer's; without one all of it is the end."""
    found = _INDEX.search(name)
    if found is None:
        return "", "", name
    return name[: found.start()], found[1], name[found.end() :]


def _stems(before: str, indices: list[str], *, everywhere: bool) -> Iterator[str]:
    """Yield the patterns of what stands before an end."""
    if not before:
        yield ""
    elif everywhere:
        yield rf"{re.escape(before)}\.\d+\."
    else:
        for begin in range(0, len(indices), _MOST_INDICES):
            some = indices[begin : begin + _MOST_INDICES]
            yield rf"{re.escape(before)}\.{_one_of(some)}\."


def _one_of(patterns: list[str]) -> str:
    return patterns[0] if len(patterns) == 1 else f"({'|'.join(patterns)})"
