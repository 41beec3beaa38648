"""Quantise a model by several recipes, and read the texts with each, one layer in memory.

It puts the steps in order; nothing is lowered. Each recipe's weights lie in a temporary folder
until they are read, and what calibrations share is made once. It prints nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from llama_export.calibration.calibrate import Place, calibration_for
from llama_export.calibration.options import CalibrationOptions
from llama_export.errors import CheckpointError, LlamaExportError, UsageError
from llama_export.exporting.comparison.figures import (
    JudgedPhone,
    RecipeComparison,
    RecipeFigures,
    TextFigures,
)
from llama_export.exporting.comparison.identity import Identity
from llama_export.exporting.comparison.linear_costs import costliest, measure_forms
from llama_export.exporting.comparison.request import NamedText, RecipesRequest
from llama_export.exporting.comparison.texts import cut_text, describe_text
from llama_export.exporting.estimate import TargetEstimate, estimate
from llama_export.exporting.judged_phones import judge_phones
from llama_export.exporting.opening import open_floats
from llama_export.exporting.pipeline import Progress
from llama_export.exporting.plan import fitted_recipe
from llama_export.exporting.recipe_name import RecipeName
from llama_export.llama.names import expected_shapes
from llama_export.sources.catalogue import ModelShape
from llama_export.sources.chat_settings import own_chat_format
from llama_export.sources.model_files import ModelFiles
from llama_export.sources.resolve import NamedModel
from llama_export.sources.source import Source
from llama_export.system.machine import Machine
from llama_export.targets import registry
from llama_export.verification.artifact import same_maths
from llama_export.verification.measure.yardstick import Yardstick
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.errors import QuantizationError
from llama_quantize.recipe import QuantRecipe


def compare_recipes(
    request: RecipesRequest, identity: Identity, progress: Progress
) -> RecipeComparison:
    """Measure what each recipe makes of a model.

    Args:
        request: request of a user.
        identity: what the figures depend on besides.
        progress: where the steps are shown.

    Raises:
        UsageError: the model is quantised already, or its head is pruned.
        CheckpointError: the reference is another model.
        QuantizationError: a recipe does not fit.
        LlamaExportError: the model could not be fetched, or its weights or the texts cannot be
            used.
    """
    source = _open(request.named, request.token, progress)
    reference = source
    if request.reference is not None:
        reference = _open(request.reference, request.token, progress)
        _require_same_model(source, reference, request.texts)
    # What cannot be is refused before minutes of work.
    shapes = expected_shapes(source.config)
    recipes = [fitted_recipe(each.recipe(), source.config) for each in request.recipes]
    forms = [each.resolve(shapes).schemes for each in recipes]
    windows = [
        cut_text(text, source.tokenizer, source.config, request.positions) for text in request.texts
    ]
    with progress.step("Reading with the checkpoint"):
        yardstick = Yardstick(source.config, reference.checkpoint.tensor, windows)
        texts = tuple(map(describe_text, request.texts, windows, yardstick.nats))
    with tempfile.TemporaryDirectory(prefix="llama-export-") as folder:
        place = Path(folder)
        workshop = _Workshop(source, request.calibration, yardstick, place, progress)
        measured = [
            workshop.measure(name, recipe)
            for name, recipe in zip(request.recipes, recipes, strict=True)
        ]
        costs = measure_forms(source, windows[0].ids, forms, place, progress)
    shape = ModelShape(source.info.name, source.config, 0, 0)
    estimates = [estimates_of(shape, recipe) for recipe in recipes]
    figures = (
        replace(
            each,
            costliest=costliest(costs, schemes),
            targets=tuple(bundles),
            phones=judged_phones(bundles),
        )
        for each, schemes, bundles in zip(measured, forms, estimates, strict=True)
    )
    origin = {
        "hub_id": source.info.hub_id,
        "revision": source.info.revision,
        "file": source.info.file,
    }
    return RecipeComparison(
        model=source.info.name,
        origin={key: value for key, value in origin.items() if value},
        reference=reference.info.name,
        texts=texts,
        recipes=tuple(figures),
        identity=identity,
    )


@dataclass(frozen=True)
class _Workshop:
    """Makes a recipe's weights in a folder, reads the texts with them, and removes them.

    Args:
        source: model that is quantised.
        options: text of calibrations.
        yardstick: what the weights are read with.
        folder: folder to work in.
        progress: where the steps are shown.
    """

    source: Source
    options: CalibrationOptions
    yardstick: Yardstick
    folder: Path
    progress: Progress

    def measure(self, name: RecipeName, recipe: QuantRecipe) -> RecipeFigures:
        """Return a recipe's figures, without what its linears and the phones say."""
        folder = self.folder / "weights"
        source, checkpoint = self.source, self.source.checkpoint
        settings = ModelFiles.of(source).tokenizer_config
        form = own_chat_format(source.info.name, source.tokenizer, settings)
        # What two recipes' calibrations share is found here by the second one.
        place = Place(self.folder / "calibration", self.progress.step)
        calibration = calibration_for(recipe, checkpoint, form, self.options, place)
        with self.progress.step(f"Quantising to {name}") as advance:
            quantize_to(
                folder,
                checkpoint,
                recipe,
                calibration,
                progress=lambda done: advance(done, checkpoint.size_bytes),
            )
        weights = QuantizedWeights.open(folder, check_hash=False)
        with self.progress.step(f"Reading with {name}"):
            readings = self.yardstick.read(weights.get)
        texts = zip(readings, self.yardstick.nats, strict=True)
        figures = RecipeFigures(
            name=str(name),
            export_options=name.export_options(),
            rules=recipe.to_json(),
            calibration=weights.calibration or {},
            size_bytes=weights.summary.size_bytes,
            bits_per_weight=weights.summary.bits_per_weight,
            texts=tuple(TextFigures.of(*each) for each in texts),
        )
        shutil.rmtree(folder)
        return figures


def _open(named: NamedModel, token: str | None, progress: Progress) -> Source:
    """Open a model whose answers on a text can be scored."""
    source = open_floats(named, token, progress)
    if source.config.head_tokens:
        message = "--head-tokens: a head that lacks a text's tokens cannot be scored on it"
        raise UsageError(message, "compare with the whole head, and prune it in the export")
    return source


def _require_same_model(source: Source, reference: Source, texts: tuple[NamedText, ...]) -> None:
    """Refuse a reference of another shape, or one that reads the texts as other tokens."""
    if not same_maths(source.config, reference.config):
        message = f"{reference.info.name} and {source.info.name} are models of different shapes"
        raise CheckpointError(message, "--checkpoint: name what the model was made from")
    for text in texts:
        if source.tokenizer.encode(text.content) != reference.tokenizer.encode(text.content):
            message = f"{reference.info.name} reads {text.name} as other tokens"
            raise CheckpointError(message, "--checkpoint: name what the model was made from")


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
