"""The whole export, in the order of the picture: checkpoint, weights, trace, lowering, bundle.

It knows the order of the steps and nothing of how any of them works. It prints nothing: progress
goes to the `Progress` that it is given.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from llama_export.bundle.bundle import Bundle, seal
from llama_export.bundle.publish import publish, refuse_existing, scratch
from llama_export.errors import UsageError
from llama_export.exporting.calibration import calibration_for
from llama_export.exporting.estimate import DEFAULT_RECIPE, ExportEstimate, choose_context, estimate
from llama_export.exporting.provenance import (
    about_artifact,
    describe_quantization,
    stops_of,
    versions_used,
)
from llama_export.exporting.resources import Room, first_refusal, look_for_room
from llama_export.llama.trace import trace
from llama_export.sources.catalogue import ModelShape, download_of, shape_of
from llama_export.sources.licence import licence_notice
from llama_export.sources.resolve import resolve_model
from llama_export.sources.source import WEIGHTS_FOLDER, Source, open_source
from llama_export.system.machine import Machine
from llama_export.targets import registry
from llama_export.targets.target import Lowered, LoweringOptions
from llama_export.tokenizer.tokenizer import write_tokenizer_files
from llama_export.verify import VerifyReport, verify_bundle
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.recipe import QuantRecipe, recipe


class Progress(Protocol):
    """Where the steps of an export are shown."""

    def step(self, label: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """Show a step; the callable takes how much of it is done, and of how much."""


@dataclass(frozen=True)
class ExportRequest:
    """What a user asks for.

    Args:
        model: an alias, a hub id, a folder, or "demo".
        targets: which artifacts.
        output: the folder that gets one bundle a target; None: `./<model>`.
        recipe: "int4", "int8", "bf16" or "fp16"; None: int4, or what quantised weights have.
        group_size: weights that share a scale; None: the recipe's own.
        max_context: None: the target's own default, or the model's own if that is less.
        keep_weights: keep the quantised weights in `OUTPUT/weights`.
        verify: run a short verification and publish nothing that fails it.
        force: replace what is there.
        calibration_windows: token ids that methods may be calibrated on, windows of one length;
            no built-in recipe asks for them yet.
    """

    model: str
    targets: tuple[str, ...]
    output: Path | None = None
    recipe: str | None = None
    group_size: int | None = None
    max_context: int | None = None
    options: LoweringOptions = field(default_factory=LoweringOptions)
    revision: str | None = None
    token: str | None = None
    keep_weights: bool = True
    verify: bool = True
    force: bool = False
    calibration_windows: tuple[tuple[int, ...], ...] = ()


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


class VerificationFailedError(Exception):
    """A fresh artifact failed its verification and was not published; a result, exit code 1."""

    def __init__(self, target: str, report: VerifyReport) -> None:
        super().__init__(f"the {target} artifact failed its verification")
        self.target = target
        self.report = report


def export_bundle(request: ExportRequest, progress: Progress) -> ExportResult:
    """Turn a checkpoint into one proved bundle a target.

    Raises:
        LlamaExportError: the model, the output or a toolkit cannot be used.
        QuantizationError: a weight or the recipe cannot be used.
        VerificationFailedError: an artifact does not compute what it should.
    """
    begun = time.perf_counter()
    for target in request.targets:
        registry.require_toolkit(target)
        registry.require_options(target, request.options)
    chosen = recipe(request.recipe or DEFAULT_RECIPE, request.group_size)
    output = request.output or _default_output(request.model)
    # Before a download of gigabytes, not after it.
    for target in request.targets:
        refuse_existing(output / target, force=request.force)
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
        registry.require_options(target, request.options)
    chosen = recipe(request.recipe or DEFAULT_RECIPE, request.group_size)
    shape = shape_of(request.model, revision=request.revision, token=request.token)
    machine = Machine()
    found = estimate(
        shape,
        request.targets,
        chosen,
        request.max_context,
        request.options,
        verify=request.verify,
        cores=machine.cores(),
    )
    output = request.output or _default_output(request.model)
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
            about = about_artifact(source, weights)
            lowered = registry.lower(target, traced, weights, folder, request.options, about)
            tokenizer_file = _write_model_files(source, folder, lowered.config_keys)
        with progress.step("Hashing the files"):
            _seal(folder, target, lowered, source, weights, tokenizer_file)
        if request.verify and lowered.runs_here:
            with progress.step("Checking against the eager model") as advance:
                report = verify_bundle(
                    Bundle.open(folder),
                    weights=weights,
                    checkpoint=source.original,
                    quick=True,
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
    seal(
        folder,
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
        created_with=versions_used(target),
    )


def _default_output(model: str) -> Path:
    """Name the output after the alias, the repository or the folder, in the current folder."""
    name = Path(model).name
    return Path(name if name not in ("", "..") else Path(model).resolve().name)
