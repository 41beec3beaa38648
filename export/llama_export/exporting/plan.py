"""The plan of an export: all that is decided and refused before the work, and then executed.

`plan_export` resolves a request once: the model, the recipe, and for each target its options,
context, sizes and cost. `run_export` executes what it says, and a dry run prints it. It imports no
torch and no toolkit, and of a repository it fetches the small files alone; a plan that is only
shown fetches nothing of an alias that is read as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from llama_export.bundle.publish import Publication
from llama_export.calibration.options import MOST_TOKENS, OWN_TEXT, WINDOW_TOKENS
from llama_export.calibration.text_files import list_files
from llama_export.checkpoints.formats import require_useful
from llama_export.errors import UsageError
from llama_export.exporting.estimate import (
    ExportEstimate,
    TargetEstimate,
    estimate,
    with_calibration,
)
from llama_export.exporting.request import ExportRequest
from llama_export.exporting.resources import Resources, look_for_resources, refusal_of
from llama_export.llama.config import LlamaConfig
from llama_export.llama.names import expected_shapes
from llama_export.sources.adapters import name_with_adapters
from llama_export.sources.catalogue import (
    ModelShape,
    describe_remote,
    download_of,
    shape_of_named,
)
from llama_export.sources.resolve import NamedModel
from llama_export.sources.source import WEIGHTS_FOLDER
from llama_export.system.machine import Machine
from llama_export.targets import registry
from llama_export.targets.options import TargetOptions
from llama_export.targets.target import Target
from llama_quantize.fitting import with_fitting_groups
from llama_quantize.recipe import (
    GROUP_SIZES,
    QuantRecipe,
    with_rules_beside,
    without_spent_rules,
)


@dataclass(frozen=True)
class TargetPlan:
    """One bundle of an export.

    Args:
        target: target of the bundle.
        options: the target's options, with defaults for what was not chosen.
        folder: folder that the bundle is put in place as.
        estimate: its context, its sizes and its cost.
    """

    target: Target
    options: TargetOptions
    folder: Path
    estimate: TargetEstimate


@dataclass(frozen=True)
class ExportPlan:
    """A whole export, decided.

    Args:
        request: request that is planned.
        named: meaning of the model's name, with the adapters over it.
        model: facts about the model that need no weights.
        chosen: recipe that was asked for, or the default.
        recipe: storage form of its weights; those that are quantised already keep theirs.
        targets: bundles in the order of their making.
        publication: the folders that are put in place together, and what they may replace.
        estimate: sizes, memory and time of all of it.
        resources: this machine's disks and memory beside them.
    """

    request: ExportRequest
    named: NamedModel
    model: ModelShape
    chosen: QuantRecipe
    recipe: QuantRecipe
    targets: tuple[TargetPlan, ...]
    publication: Publication
    estimate: ExportEstimate
    resources: Resources

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user must know of how the model is read, as far as its weights are here."""
        return (*self.model.notes, *self.width_notes)

    @property
    def width_notes(self) -> tuple[str, ...]:
        """What becomes of the weights that no group divides."""
        return tuple(_width_notes(self.chosen, self.model))

    @property
    def output(self) -> Path:
        """Folder of the bundles and of the quantised weights."""
        return self.request.output_folder


def plan_export(request: ExportRequest, *, to_show: bool = False) -> ExportPlan:
    """Decide everything about an export, and refuse what can be refused before its work.

    Args:
        request: request of a user.
        to_show: whether the plan is shown first: what is in the way of it, and what this machine
            lacks, then waits in `plan.resources` and is not refused at once.

    Raises:
        BackendUnavailableError: a target's toolkit is not installed.
        UsageError: an option or its value is not the target's, or does not fit the model.
        OutputError: an output exists, or a disk is too small.
        PromptError: a text to calibrate on cannot be read.
        HubError, GatedModelError: there is no model of that name, or it cannot be fetched.
        CheckpointError, ConfigError, TokenizerError, UnsupportedModelError: no export can start
            from the model's files.
        QuantizationError: the recipe does not fit, or quantised weights are damaged.
        LoweringError: a target cannot run a width.
    """
    options = {name: request.options_of(name) for name in request.targets}
    for name, own in options.items():
        registry.require_toolkit(name)
        registry.get(name).check(own)
    chosen = request.chosen_recipe()
    # Read after hours of a download, a name that was misspelt would be found late.
    list_files(request.calibration.files)
    publication = Publication(
        request.output_folder, request.targets, None, request.force, request.keep_extra
    )
    taken = refusal_of(publication)
    if taken is not None and not to_show:
        raise taken
    named, model = _look_at_model(request)
    recipe = _recipe_for(request, model, chosen)
    if model.recipe is None and recipe.is_calibrated:
        _require_windows(request.calibration.tokens, model.config)
    machine = Machine()
    found = _estimate(request, model, recipe, options, machine.cores())
    publication = _with_weights(publication, request, model)
    taken = taken or refusal_of(publication)
    resources = look_for_resources(
        found, request.output_folder, machine, download=download_of(named, model), taken=taken
    )
    if not to_show:
        resources.require()
        if model.description is None:
            # An alias, whose shape is known: its small files are judged before gigabytes come.
            found_there = describe_remote(
                named, revision=named.revision, token=request.token, options=named.reading
            )
            model = replace(model, description=found_there)
    return ExportPlan(
        request=request,
        named=named,
        model=model,
        chosen=chosen,
        recipe=recipe,
        targets=tuple(
            TargetPlan(registry.get(name), options[name], request.output_folder / name, each)
            for name, each in zip(request.targets, found.targets, strict=True)
        ),
        publication=publication,
        estimate=found,
        resources=resources,
    )


def _estimate(
    request: ExportRequest,
    model: ModelShape,
    recipe: QuantRecipe,
    options: Mapping[str, TargetOptions],
    cores: int,
) -> ExportEstimate:
    found = estimate(
        model,
        request.targets,
        recipe,
        request.max_context,
        options,
        verify=request.verify,
        cores=cores,
    )
    return with_calibration(found, model, recipe, request.calibration.tokens, cores)


def _look_at_model(request: ExportRequest) -> tuple[NamedModel, ModelShape]:
    """Find the model and what is known of it without its weights."""
    named = name_with_adapters(
        request.model, request.reading, revision=request.revision, token=request.token
    )
    if request.chooses_codes:
        named = replace(named, reading=replace(named.reading, requantize=True))
    model = shape_of_named(
        named, revision=named.revision, token=request.token, options=named.reading
    )
    if model.description is not None:
        require_useful(model.description.path, request.reading)
    return named, model


def _with_weights(
    publication: Publication, request: ExportRequest, model: ModelShape
) -> Publication:
    """Add the quantised weights to what is put in place, or older ones to what goes."""
    place = request.output_folder / WEIGHTS_FOLDER
    source = model.weights_folder
    if source is None and request.keep_weights:
        return replace(publication, names=(*publication.names, WEIGHTS_FOLDER))
    if source is not None and place.is_dir() and place.samefile(source):
        return publication
    return replace(publication, outdated=WEIGHTS_FOLDER)


def _require_windows(tokens: int, config: LlamaConfig) -> None:
    """Refuse fewer tokens than a window has, and more than anybody waits for.

    Raises:
        UsageError: as said.
    """
    window = min(WINDOW_TOKENS, config.longest_context)
    if not window <= tokens <= MOST_TOKENS:
        expected = f"expected {window}, which is one window, to {MOST_TOKENS}"
        message = f"--calibration-tokens: {expected}, found {tokens}"
        raise UsageError(message, f"leave it out for {OWN_TEXT.tokens}")


def _width_notes(chosen: QuantRecipe, model: ModelShape) -> list[str]:
    """Name each width that no group divides, and what becomes of it."""
    if model.recipe is not None:
        return []
    shapes = expected_shapes(model.config)
    _, unfit = with_fitting_groups(chosen, shapes)
    widths = sorted({shapes[name][1] for name in unfit})
    counts = {width: sum(shapes[name][1] == width for name in unfit) for width in widths}
    return [
        f"no group of {', '.join(map(str, GROUP_SIZES))} divides rows of {width} weights: "
        f"{'this matrix is' if count == 1 else f'these {count} matrices are'} int8 with one scale "
        "a row"
        for width, count in counts.items()
    ]


def _recipe_for(request: ExportRequest, model: ModelShape, chosen: QuantRecipe) -> QuantRecipe:
    """Return the recipe of the weights: the model's own if it is quantised already."""
    if model.recipe is None:
        return fitted_recipe(chosen, model.config)
    if request.chooses_codes:
        message = f"{request.model} is quantised already, as {model.recipe.name}"
        hint = "leave out what asks for other weights, or name the original checkpoint"
        raise UsageError(message, hint)
    return model.recipe


def fitted_recipe(chosen: QuantRecipe, config: LlamaConfig) -> QuantRecipe:
    """Return a recipe with what a model's shape needs besides: other forms, and more rules."""
    shapes = expected_shapes(config)
    fitting, _ = with_fitting_groups(without_spent_rules(chosen, shapes), shapes)
    return with_rules_beside(fitting, shapes)
