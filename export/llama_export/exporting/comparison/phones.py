"""Find which targets take a recipe, and judge the phones that would run its bundle.

It is arithmetic over what each target would write; nothing ran on a phone.
"""

from __future__ import annotations

from collections.abc import Mapping

from llama_export.errors import LlamaExportError
from llama_export.exporting.comparison.figures import JudgedPhone
from llama_export.exporting.estimate import TargetEstimate, estimate
from llama_export.exporting.judged_phones import judge_phones
from llama_export.sources.catalogue import ModelShape
from llama_export.system.machine import Machine
from llama_export.targets import registry
from llama_quantize.errors import QuantizationError
from llama_quantize.recipe import QuantRecipe


def estimates_of(shape: ModelShape, recipe: QuantRecipe) -> dict[str, TargetEstimate]:
    """Return what each target would write that has such an artifact, by its name.

    Args:
        shape: the model.
        recipe: recipe as it fits the model.
    """
    found = {name: _estimate(shape, name, recipe) for name in registry.TARGETS}
    return {name: each for name, each in found.items() if each is not None}


def judged_phones(estimates: Mapping[str, TargetEstimate]) -> tuple[JudgedPhone, ...]:
    """Judge each phone by the target that it would run, at a context of 1024.

    Args:
        estimates: what each target would write.

    Returns:
        The phones; none where the model is too small for the arithmetic to say anything.
    """
    return tuple(
        JudgedPhone(phone.name, each.estimate.target, each.fits(phone), each.bound(phone))
        for each in judge_phones(estimates.values())
        for phone in each.phones
    )


def _estimate(shape: ModelShape, target: str, recipe: QuantRecipe) -> TargetEstimate | None:
    """Return what a target would write; None: it has no such artifact."""
    options = {target: registry.get(target).Options()}
    try:
        found = estimate(
            shape, (target,), recipe, None, options, verify=False, cores=Machine().cores()
        )
    except (LlamaExportError, QuantizationError):
        return None
    return found.targets[0]
