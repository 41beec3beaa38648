"""The whole export, in the order of the picture: checkpoint, weights, trace, lowering, bundle.

It knows the order of the steps and nothing of how any of them works. It prints nothing: progress
goes to the `Progress` that it is given.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Protocol

from llama_export.bundle.bundle import Bundle, seal
from llama_export.bundle.interrupts import add_note, noted_in_place
from llama_export.bundle.manifest import FORMAT_VERSION, Manifest
from llama_export.bundle.publish import publish
from llama_export.bundle.root_files import lay_out
from llama_export.calibration.calibrate import (
    CALIBRATION_FOLDER,
    Place,
    calibration_for,
    forget_calibration,
)
from llama_export.calibration.kept_windows import windows_file
from llama_export.calibration.streamed import StreamedCalibration
from llama_export.checkpoints.checkpoint import Checkpoint
from llama_export.exporting.left_over import left_over
from llama_export.exporting.plan import ExportPlan, TargetPlan, fitted_recipe, plan_export
from llama_export.exporting.provenance import (
    artifact_metadata,
    memory_needed,
    versions_used,
)
from llama_export.exporting.publishing.repository import root_of
from llama_export.exporting.request import ExportRequest
from llama_export.exporting.result import ExportedBundle, ExportResult
from llama_export.llama.names import TABLE
from llama_export.llama.trace import trace
from llama_export.sources.chat_settings import own_chat_format
from llama_export.sources.licence import licence_folder
from llama_export.sources.manifest_fields import (
    describe_chat,
    describe_quantization,
    describe_tokenizer,
)
from llama_export.sources.model_files import ModelFiles
from llama_export.sources.resolve import fetch_named
from llama_export.sources.source import WEIGHTS_FOLDER, Source, open_source
from llama_export.verification.golden.record import add_golden
from llama_export.verification.rows import VerificationFailedError, VerifyReport
from llama_export.verification.verify import VerifySettings, verify_bundle
from llama_quantize.checkpoint.files import CALIBRATION_FILE
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.checkpoint.weights import QuantizedWeights

# Beside the bundles in the hidden folder; nothing is published under this name.
_UNKEPT_WEIGHTS = "unkept-weights"


class Progress(Protocol):
    """Where the steps of an export are shown."""

    def step(self, label: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """Show a step; the callable takes how much of it is done, and of how much."""


def export_bundle(request: ExportRequest, progress: Progress) -> ExportResult:
    """Turn a checkpoint into one proved bundle a target.

    Raises:
        LlamaExportError, QuantizationError: as `plan_export` and `run_export`.
        VerificationFailedError: an artifact does not compute what it should.
    """
    return run_export(plan_export(request), progress)


def run_export(plan: ExportPlan, progress: Progress) -> ExportResult:
    """Do what a plan says.

    Raises:
        OutputError: the output appeared meanwhile, or cannot be written.
        LlamaExportError: the model could not be fetched, or its weights cannot be used.
        QuantizationError: a weight cannot be quantised.
        VerificationFailedError: an artifact does not compute what it should.
    """
    begun = time.perf_counter()
    # Nothing is under its name before all of it is made and proved.
    with _named_left_over(plan) as begin, publish(plan.publication) as work:
        begin()
        with progress.step(f"Opening {plan.request.model}") as advance:
            source = _open_source(plan, advance)
        files = ModelFiles.of(source)
        weights = _quantized_weights(work, plan, source, files, progress)
        chat = describe_chat(source.info.name, source.tokenizer, files.tokenizer_config)
        model = _Model(source, weights, describe_quantization(weights), chat, files)
        made = tuple(_export_target(work, plan, each, model, progress) for each in plan.targets)
        root_notes = _lay_out_root(work, plan, source)
    with noted_in_place():
        forget_calibration(plan.output)
    elapsed_s = time.perf_counter() - begun
    return ExportResult(plan.output, made, elapsed_s, plan.width_notes, root_notes)


@contextmanager
def _named_left_over(plan: ExportPlan) -> Iterator[Callable[[], None]]:
    """Note on whatever ends the block early what a calibration left to go on from.

    Yields:
        A function to call once the output is ours: what lies there before may be another export's.
    """
    ours = Event()
    try:
        yield ours.set
    except BaseException as error:
        note = left_over(plan.output, plan.model.config.num_hidden_layers)
        if ours.is_set() and note is not None:
            add_note(error, note)
        raise


def _open_source(plan: ExportPlan, advance: Callable[[int, int], None]) -> Source:
    """Open the model, and download its weights where needed."""
    revision, token = plan.named.revision, plan.request.token
    model = fetch_named(plan.named, revision=revision, token=token, progress=advance)
    return open_source(model, plan.model.description, plan.named.reading)


def _quantized_weights(
    work: Path, plan: ExportPlan, source: Source, files: ModelFiles, progress: Progress
) -> QuantizedWeights:
    """Return the source's own quantised weights, or quantise its checkpoint into a folder."""
    if source.weights is not None:
        return source.weights
    checkpoint, request = source.checkpoint, plan.request
    folder = work / (WEIGHTS_FOLDER if request.keep_weights else _UNKEPT_WEIGHTS)
    # Of a repository the plan may not know yet that codes are kept, or what its tensors are.
    recipe = checkpoint.recipe or fitted_recipe(plan.chosen, source.config)
    place = Place(request.output_folder / CALIBRATION_FOLDER, progress.step)
    calibration = calibration_for(
        recipe,
        checkpoint,
        own_chat_format(source.info.name, source.tokenizer, files.tokenizer_config),
        request.calibration,
        place,
    )
    with progress.step(f"Quantising to {recipe.name}") as advance:
        quantize_to(
            folder,
            checkpoint,
            recipe,
            calibration,
            progress=_shown(advance, checkpoint, calibration),
            metadata=source.identity() | files.fingerprints(),
        )
    files.write(folder)
    if calibration is not None:
        shutil.copyfile(windows_file(place.folder), folder / CALIBRATION_FILE)
    # Hashed as they were written, a moment ago.
    return QuantizedWeights.open(folder, check_hash=False)


def _shown(
    advance: Callable[[int, int], None],
    checkpoint: Checkpoint,
    calibration: StreamedCalibration | None,
) -> Callable[[int], None]:
    """Return what shows the source bytes that are done.

    With a calibration those of the layers count alone, and of them what an interrupted run left to
    do: the others take no time, and how much is left is told by the time that it took so far.
    """
    total, skipped = checkpoint.size_bytes, 0
    if calibration is not None:
        sizes = {name: math.prod(shape) for name, shape in checkpoint.shapes.items()}
        table = total * sizes[TABLE] // sum(sizes.values())
        done = calibration.layers_done / checkpoint.config.num_hidden_layers
        skipped = table + round((total - table) * done)
    return lambda done: advance(max(0, done - skipped), max(1, total - skipped))


@dataclass(frozen=True)
class _Model:
    """What all bundles of an export are made from."""

    source: Source
    weights: QuantizedWeights
    quantization: Mapping[str, object]
    chat: Mapping[str, object]
    files: ModelFiles


def _export_target(
    work: Path, plan: ExportPlan, each: TargetPlan, model: _Model, progress: Progress
) -> ExportedBundle:
    """Trace, lower, seal and verify one bundle, in the hidden folder."""
    name, source, weights = each.target.name, model.source, model.weights
    folder, report = work / name, None
    with progress.step(f"Tracing for {name}"):
        traced = trace(source.config, each.estimate.max_context)
    with progress.step(f"Lowering to {name}"):
        metadata = artifact_metadata(source, weights, model.files.notice)
        lowered = each.target.lower(traced, weights, folder, each.options, metadata)
        model.files.write(folder, lowered.config_keys)
    with progress.step(f"Hashing the files of {name}"):
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            target=name,
            artifact=lowered.artifact,
            model=source.info,
            graph=lowered.graph.to_json(),
            quantization=model.quantization,
            tokenizer=describe_tokenizer(source.tokenizer, source.config),
            files={},
            created_with=versions_used(name),
            runs_here=lowered.runs_here,
            memory=memory_needed(each, source.config, weights),
            chat=model.chat,
        )
        seal(folder, manifest)
    if plan.request.verify and lowered.runs_here:
        report = _verified(folder, model, progress)
    # Under the name that it will have when this export ends.
    return ExportedBundle(Bundle(each.folder, Bundle.open(folder).manifest), report)


def _lay_out_root(work: Path, plan: ExportPlan, source: Source) -> tuple[str, ...]:
    """Write the output's own files, which make it a repository of the hub; return notes on it."""
    # A checkpoint's folder must not get another config, tokenizer or NOTICE.
    if licence_folder(source.path).resolve() == plan.output.resolve():
        return (
            f"{plan.output} is the checkpoint's own folder, so no files for the hub are put there",
        )
    root = root_of(
        plan.output, {each.target.name: work / each.target.name for each in plan.targets}
    )
    return (*root.notes, *lay_out(plan.output, work, root.contents))


def _verified(folder: Path, model: _Model, progress: Progress) -> VerifyReport:
    """Check a bundle that is not published yet, and record what it answers.

    Raises:
        VerificationFailedError: it does not compute what it should.
    """
    bundle = Bundle.open(folder)
    name = bundle.manifest.target
    with progress.step(f"Checking {name} against the eager model") as advance:
        report = verify_bundle(
            bundle,
            weights=model.weights,
            checkpoint=model.source.original,
            files=model.files.expected("the model"),
            settings=VerifySettings(quick=True),
            progress=advance,
        )
    if report.failures:
        raise VerificationFailedError(name, report)
    with progress.step(f"Recording what {name} answers"):
        add_golden(bundle, report)
    return report
