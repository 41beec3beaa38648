"""The recipe of a checkpoint whose codes are kept, and what a user must know of how it is read.

It knows storage forms and names of methods; it reads nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_export.checkpoints.packed.packing import Packing
from llama_export.llama.names import HEAD, TABLE

if TYPE_CHECKING:
    from llama_quantize.recipe import QuantRecipe
    from llama_quantize.scheme import Scheme

_TABLES = (TABLE, HEAD)


@dataclass(frozen=True)
class Kept:
    """Which codes are kept.

    Args:
        recipe: forms of these, and of all other tensors; None: none are kept.
        names: tensors whose codes are kept.
    """

    recipe: QuantRecipe | None
    names: frozenset[str]


def choose_kept(packings: Mapping[str, Packing], shapes: Mapping[str, tuple[int, ...]]) -> Kept:
    """Choose the codes to be kept, and make the recipe that keeps them.

    What comes as floats among the linears gets the form that most of these have. A token table and
    a head have one scale a row, as in every recipe.

    Args:
        packings: how each packed weight is read.
        shapes: shape of each tensor of the model.
    """
    from llama_quantize.kept import kept_recipe
    from llama_quantize.scheme import Float, GroupedInt

    kept = {name: each.kept for name, each in packings.items() if each.kept is not None}
    linears = Counter(form for name, form in kept.items() if name not in _TABLES)
    if not linears:
        return Kept(None, frozenset())
    usual = linears.most_common(1)[0][0]
    schemes: dict[str, Scheme] = {}
    for name, shape in shapes.items():
        if len(shape) != 2:
            schemes[name] = Float("bfloat16")
        elif name in _TABLES:
            schemes[name] = GroupedInt(8, None)
        else:
            schemes[name] = kept.get(name, usual)
    labels = sorted({form.label for form in linears})
    recipe = kept_recipe(schemes, f"kept {' and '.join(labels)}")
    return Kept(recipe, frozenset(name for name, form in kept.items() if schemes[name] == form))


def notes_of(label: str, packings: Mapping[str, Packing], kept: Kept) -> tuple[str, ...]:
    """Describe what became of the packed weights, a note for each thing."""
    forms = Counter(packings[name].kept for name in kept.names)
    notes = [
        f"{label}: the codes of {count} weights are kept as they are, {form.label}; their scales "
        "are rounded to bfloat16"
        for form, count in forms.items()
        if form is not None
    ]
    lost = Counter(
        each.lost or "a table has one scale a row here"
        for name, each in packings.items()
        if name not in kept.names
    )
    notes += [
        f"{label}: {count} weights are dequantised and quantised again, because {why}"
        for why, count in lost.items()
    ]
    return tuple(notes)
