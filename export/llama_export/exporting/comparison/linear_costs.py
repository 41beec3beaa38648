"""Find the linears whose forms cost most, on the beginning of the text that is compared.

One pass there and back measures the curvature, another one each form's error; the recipes share
both. Costs are those of searched scales: a calibrated method's are less, everywhere by about the
same share, so shares are what is shown of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from llama_export.calibration.curvature import measure_curvature
from llama_export.calibration.scratch import Scratch
from llama_export.calibration.sensitivity import measure_costs
from llama_export.exporting.comparison.figures import LinearCost
from llama_export.exporting.pipeline import Progress
from llama_export.sources.source import Source
from llama_quantize.budget import Choice
from llama_quantize.scheme import GroupedInt, Scheme

SHOWN = 5
"""Linears that are named of a recipe."""
# More of them hardly change which linears come first.
_TOKENS = 1024

Schemes = Mapping[str, Scheme]


def measure_forms(
    source: Source, windows: Tensor, recipes: Sequence[Schemes], scratch: Path, progress: Progress
) -> Mapping[str, tuple[Choice, ...]]:
    """Measure what each form that a recipe has costs each linear.

    Args:
        source: model of floats.
        windows: token ids int64 `[B, S]`.
        recipes: form of each tensor, by recipe.
        scratch: folder for what does not fit into memory.
        progress: where the steps are shown.

    Returns:
        The costs of each linear's forms; none where no linear has codes.
    """
    forms = dict.fromkeys(
        scheme
        for schemes in recipes
        for name, scheme in schemes.items()
        if isinstance(scheme, GroupedInt) and "_proj." in name
    )
    if not forms:
        return {}
    some = windows[: max(1, _TOKENS // windows.shape[1])]
    with progress.step("Measuring the curvature") as advance:
        curvature = measure_curvature(
            source.config,
            source.checkpoint.tensor,
            some,
            0,
            Scratch(scratch / "curvature-of-costs", ""),
            advance,
        )
    with progress.step("Measuring which linears cost most") as advance:
        return measure_costs(source.checkpoint, some, curvature, tuple(forms), advance)


def costliest(costs: Mapping[str, tuple[Choice, ...]], schemes: Schemes) -> tuple[LinearCost, ...]:
    """Return the linears that cost a recipe most.

    Args:
        costs: costs of each linear's forms.
        schemes: the recipe's form of each tensor.
    """
    found = {
        name: next((each.cost for each in row if each.scheme == schemes[name]), 0.0)
        for name, row in costs.items()
    }
    total = math.fsum(found.values())
    if total <= 0:
        return ()
    most = sorted((name for name in found if found[name] > 0), key=lambda name: -found[name])
    return tuple(
        LinearCost(name, schemes[name].label, found[name] / total) for name in most[:SHOWN]
    )
