"""Find which targets take a recipe, and judge the phones that would run its bundle.

It is arithmetic over what each target would write; nothing ran on a phone.
"""

from __future__ import annotations

from collections.abc import Mapping

from llama_export.errors import LlamaExportError
from llama_export.exporting.comparison.figures import JudgedPhone
from llama_export.exporting.estimate import QUOTED_CONTEXT, TargetEstimate, estimate
from llama_export.exporting.phones import phones_of
from llama_export.sources.catalogue import ModelShape
from llama_export.system.machine import Machine
from llama_export.targets import registry
from llama_quantize.errors import QuantizationError
from llama_quantize.recipe import QuantRecipe

# Smaller models decode from the processor's caches: the memory's speed says nothing of them.
_SMALLEST_BYTES = 50_000_000


def estimates_of(shape: ModelShape, recipe: QuantRecipe) -> dict[str, TargetEstimate]:
    """Return what each target would write that has such an artifact, by its name.

    Args:
        shape: the model.
        recipe: recipe as it fits the model.
    """
    found = {name: _estimate(shape, name, recipe) for name in registry.TARGETS}
    return {name: each for name, each in found.items() if each is not None}


def judge_phones(estimates: Mapping[str, TargetEstimate]) -> tuple[JudgedPhone, ...]:
    """Judge each phone by the target that it would run, at a context of 1024.

    Args:
        estimates: what each target would write.

    Returns:
        The phones; none where the model is too small for the arithmetic to say anything.
    """
    suited = {
        name: each for name, each in estimates.items() if each.bundle_bytes >= _SMALLEST_BYTES
    }
    by_target = phones_of({name: registry.get(name).phone_systems for name in suited})
    judged = []
    for name, phones in by_target.items():
        each = suited[name]
        context = min(QUOTED_CONTEXT, each.max_context)
        needed, read = each.run_bytes(context), each.footprint.read_bytes_per_token(context)
        for phone in phones:
            fits = phone.verdict(needed)
            speed = None if fits == "no" else phone.tokens_per_s(read)
            judged.append(JudgedPhone(phone.name, name, fits, speed))
    return tuple(judged)


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
