"""The recipe of a checkpoint whose codes are kept, and what a user must know of how it is read.

It knows storage forms and names of methods; it reads nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_export.checkpoints.packed.packing import Found, Packing
from llama_export.llama.names import HEAD, TABLE

if TYPE_CHECKING:
    from llama_quantize.recipe import QuantRecipe
    from llama_quantize.scheme import GroupedInt, Scheme

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


def kept_notes_of(
    label: str, packings: Mapping[str, Packing], kept: Kept, found: Mapping[str, Found]
) -> tuple[str, ...]:
    """Describe which codes are kept, a note for each form.

    Args:
        label: name of the method.
        packings: how each packed weight is read.
        kept: which codes are kept.
        found: tensors of each packed weight.
    """
    names: dict[GroupedInt, list[str]] = {}
    for name, each in packings.items():
        if name in kept.names and each.kept is not None:
            names.setdefault(each.kept, []).append(name)
    return tuple(
        f"{label}: the codes of {_weights(len(some))} kept as they are, {form.label}; "
        f"{_scales_note(packings[some[0]], found[some[0]])}"
        for form, some in names.items()
    )


def lost_notes_of(label: str, packings: Mapping[str, Packing], kept: Kept) -> tuple[str, ...]:
    """Describe which codes cannot be kept, a note for each reason.

    Args:
        label: name of the method.
        packings: how each packed weight is read.
        kept: which codes are kept.
    """
    lost = Counter(
        each.lost or "a table has one scale a row here"
        for name, each in packings.items()
        if name not in kept.names
    )
    return tuple(
        f"{label}: {_weights(count)} dequantised and quantised again, because {why}"
        for why, count in lost.items()
    )


def _weights(count: int) -> str:
    return "1 weight is" if count == 1 else f"{count} weights are"


def _scales_note(packing: Packing, found: Found) -> str:
    """Describe what becomes of scales, measured on one weight's."""
    dtype = found.entries[packing.scales].dtype
    if dtype == "BF16":
        return "so are their scales"
    import numpy as np

    scales = found.look(packing.scales).astype(np.float32) * np.float32(packing.unit)
    bits = scales.view(np.uint32)
    even = (bits >> 16 & 1) + np.uint32(0x7FFF)
    rounded = ((bits + even) & np.uint32(0xFFFF0000)).view(np.float32)
    with np.errstate(invalid="ignore"):  # what is not finite is refused when it is read
        noise, signal = (
            float(np.square(each, dtype=np.float64).sum()) for each in (scales - rounded, scales)
        )
    if noise == 0:
        return "so are their scales"
    text = f"their scales are rounded from {dtype} to bfloat16"
    if not noise < signal:
        return text
    return f"{text}, {10 * math.log10(signal / noise):.0f} dB below the weights"
