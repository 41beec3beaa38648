"""The whole export, in the order of the picture: checkpoint, weights, trace, lowering, bundle.

It knows the order of the steps and nothing of how any of them works. It prints nothing: progress
goes to the `Progress` that it is given.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from llama_export.bundle.bundle import Bundle, seal
from llama_export.bundle.manifest import FORMAT_VERSION, Manifest
from llama_export.bundle.publish import publish, scratch
from llama_export.errors import UsageError
from llama_export.exporting.calibration import calibration_for
from llama_export.exporting.estimate import ExportEstimate, choose_context, estimate
from llama_export.exporting.provenance import (
    artifact_metadata,
    describe_quantization,
    stops_of,
    versions_used,
)
from llama_export.exporting.request import ExportRequest, refuse_early
from llama_export.exporting.resources import Room, first_refusal, look_for_room
from llama_export.llama.trace import trace
from llama_export.sources.catalogue import ModelShape, download_of, shape_of
from llama_export.sources.licence import licence_notice
from llama_export.sources.resolve import resolve_model
from llama_export.sources.source import WEIGHTS_FOLDER, Source, open_source
from llama_export.system.machine import Machine
from llama_export.targets import registry
from llama_export.targets.target import Lowered
from llama_export.tokenizer.tokenizer import write_tokenizer_files
from llama_export.verification.rows import VerificationFailedError, VerifyReport
from llama_export.verification.verify import VerifySettings, verify_bundle
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.recipe import QuantRecipe


class Progress(Protocol):
    """Where the steps of an export are shown."""

    def step(self, label: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """Show a step; the callable takes how much of it is done, and of how much."""


@dataclass(frozen=True)
class ExportedBundle:
    """One target's result."""

    bundle: Bundle
    report: VerifyReport | None


@dataclass(frozen=True)
class ExportResult:
    """All results of one export."""

    output: Path
    bundles: tuple[ExportedBundle, ...]
    elapsed_s: float

    def __repr__(self) -> str:
        made = ", ".join(each.bundle.manifest.target for each in self.bundles)
        return f"<ExportResult {self.output}: {made} in {self.elapsed_s:.1f} s>"

    def to_json(self) -> dict[str, Any]:
        """Return what was written, and each bundle's verification."""
        return {
            "output": str(self.output),
            "elapsed_s": round(self.elapsed_s, 2),
            "bundles": [
                {
                    "target": exported.bundle.manifest.target,
                    "folder": str(exported.bundle.folder),
                    "size_bytes": exported.bundle.size_bytes,
                    "verification": exported.report.to_json() if exported.report else None,
                }
                for exported in self.bundles
            ],
        }


def export_bundle(request: ExportRequest, progress: Progress) -> ExportResult:
    """Turn a checkpoint into one proved bundle a target.

    Raises:
        LlamaExportError: the model, the output or a toolkit cannot be used.
        QuantizationError: a weight or the recipe cannot be used.
        VerificationFailedError: an artifact does not compute what it should.
    """
    begun = time.perf_counter()
    refuse_early(request)
    chosen, output = request.chosen_recipe(), request.output_folder
    # Before a download of gigabytes, not after it.
    plan = plan_export(request)
    plan.room.require()
    with progress.step(f"Opening {request.model}") as advance:
        model = resolve_model(
            request.model, revision=request.revision, token=request.token, progress=advance
        )
        source = open_source(model, plan.shape.description)
    with _quantized_weights(source, chosen, request, output, progress) as weights:
        bundles = tuple(
            _export_target(target, weights, source, request, output, progress)
            for target in request.targets
        )
    return ExportResult(output, bundles, time.perf_counter() - begun)


@dataclass(frozen=True)
class ExportPlan:
    """What an export would take, and what there is for it."""

    shape: ModelShape
    estimate: ExportEstimate
    room: Room


def plan_export(request: ExportRequest) -> ExportPlan:
    """Add up what an export would take; of a repository, the small files alone are fetched.

    Raises:
        LlamaExportError, QuantizationError: the model, the recipe or an option cannot be used.
    """
    for target in request.targets:
        registry.get(target).check(request.options_of(target))
    chosen = request.chosen_recipe()
    shape = shape_of(request.model, revision=request.revision, token=request.token)
    machine = Machine()
    found = estimate(
        shape,
        request.targets,
        chosen,
        request.max_context,
        {target: request.options_of(target) for target in request.targets},
        verify=request.verify,
        cores=machine.cores(),
    )
    output = request.output_folder
    # A source that is quantised already is not written again.
    weights = (WEIGHTS_FOLDER,) if request.keep_weights and found.weights_bytes else ()
    places = [output / name for name in (*request.targets, *weights)]
    room = look_for_room(
        found,
        output,
        machine,
        download=download_of(request.model, shape, revision=request.revision),
        taken=first_refusal(places, force=request.force),
    )
    return ExportPlan(shape, found, room)


def _export_target(
    target: str,
    weights: QuantizedWeights,
    source: Source,
    request: ExportRequest,
    output: Path,
    progress: Progress,
) -> ExportedBundle:
    """Trace, lower, seal, verify, publish: nothing is under its name before it is proved."""
    report = None
    limit = source.config.max_position_embeddings
    max_context = choose_context(target, limit, request.max_context)
    with progress.step("Tracing the model"):
        traced = trace(source.config, max_context)
    with publish(output / target, force=request.force) as folder:
        with progress.step(f"Lowering to {target}"):
            metadata = artifact_metadata(source, weights)
            lowered = registry.get(target).lower(
                traced, weights, folder, request.options_of(target), metadata
            )
            tokenizer_file = _write_model_files(source, folder, lowered.config_keys)
        with progress.step("Hashing the files"):
            _seal(folder, target, lowered, source, weights, tokenizer_file)
        if request.verify and lowered.runs_here:
            with progress.step("Checking against the eager model") as advance:
                report = verify_bundle(
                    Bundle.open(folder),
                    weights=weights,
                    checkpoint=source.original,
                    settings=VerifySettings(quick=True),
                    progress=advance,
                )
            if not report.passed:
                raise VerificationFailedError(target, report)
    return ExportedBundle(Bundle.open(output / target), report)


@contextmanager
def _quantized_weights(
    source: Source,
    chosen: QuantRecipe,
    request: ExportRequest,
    output: Path,
    progress: Progress,
) -> Iterator[QuantizedWeights]:
    """Give the source's own quantised weights, or quantise its checkpoint into a folder."""
    if source.weights is not None:
        if request.recipe is not None or request.group_size is not None:
            message = f"{source.folder} is quantised already, as {source.weights.recipe.name}"
            hint = "leave --quantize and --group-size out, or name the original checkpoint"
            raise UsageError(message, hint)
        yield source.weights
        return
    checkpoint = source.checkpoint
    place = output / WEIGHTS_FOLDER
    opened = publish(place, force=request.force) if request.keep_weights else scratch(place)
    with opened as folder:
        total = checkpoint.size_bytes
        with progress.step(f"Quantising to {chosen.name}") as advance:
            quantize_to(
                folder,
                checkpoint,
                chosen,
                calibration_for(chosen, checkpoint, request.calibration_windows),
                progress=lambda done: advance(done, total),
                metadata=source.identity(),
            )
        _write_model_files(source, folder, {})
        # Hashed as they were written, a moment ago.
        yield QuantizedWeights.open(folder, check_hash=False)


def _write_model_files(source: Source, folder: Path, config_keys: Mapping[str, object]) -> str:
    """Write what clients want beside the weights; return the tokenizer file to load."""
    _write_json(folder / "config.json", source.config.to_hf() | dict(config_keys))
    _write_json(folder / "generation_config.json", source.generation_config())
    _write_json(folder / "tokenizer_config.json", source.tokenizer_config())
    notices = licence_notice(source.info.name, source.info.hub_id, source.folder)
    for name, content in notices.items():
        (folder / name).write_bytes(content)
    return write_tokenizer_files(source.tokenizer, folder)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _seal(
    folder: Path,
    target: str,
    lowered: Lowered,
    source: Source,
    weights: QuantizedWeights,
    tokenizer_file: str,
) -> None:
    """Write the manifest, with the hash of every file and of every weight's codes and scales."""
    draft = Manifest(
        format_version=FORMAT_VERSION,
        target=target,
        artifact=lowered.artifact,
        model=source.info,
        graph=lowered.graph.to_json(),
        quantization=describe_quantization(weights),
        tokenizer={
            "file": tokenizer_file,
            "vocab_size": source.tokenizer.vocab_size,
            "bos_token_id": source.tokenizer.bos_token_id,
            "stop_token_ids": stops_of(source),
        },
        files={},
        created_with=versions_used(target),
        runs_here=lowered.runs_here,
    )
    seal(folder, draft)
