"""What an export will take, before any work: sizes, memory, time, from shape and recipe alone.

Sizes are computed from the layout. Memory and time come from each target's own measurements, made
with int4 on 2 cores, and are shown as "about". It knows no machine and prints nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from llama_export.errors import UsageError
from llama_export.exporting.calibration_cost import CalibrationCost, calibration_cost
from llama_export.llama.names import Shapes, expected_shapes
from llama_export.sources.catalogue import ModelShape
from llama_export.targets import registry
from llama_export.targets.costs import MEASURED_CORES
from llama_export.targets.footprint import Footprint
from llama_export.targets.options import TargetOptions
from llama_quantize.recipe import QuantRecipe
from llama_quantize.scheme import GroupedInt, Scheme, shared_group_size

# The context at which memory to run and bytes per token are quoted.
QUOTED_CONTEXT = 1024

# More cores than these were never measured, and reading and hashing do not get faster.
_MOST_CORES = 8
_START_S = 4.0
# Of the small files: NOTICE and three configurations; manifest.json and the record by layer.
_SMALL_FILES_BYTES = 3_400
_MANIFEST_BYTES, _MANIFEST_LAYER_BYTES = 4_600, 2_480
# Of an export that is checked.
_GOLDEN_BYTES = 36_500
_RECORD_BYTES, _RECORD_TENSOR_BYTES = 920, 220
_HEADER_ENTRY_BYTES, _HEADER_ALIGNMENT = 120, 4096


@dataclass(frozen=True)
class TargetEstimate:
    """One bundle.

    Args:
        target: name of the target.
        max_context: positions of its KV cache.
        footprint: the artifact by kind, exact, and its memory when loaded, about.
        bundle_bytes: size of all files, within 1 %.
        memory_bytes: peak memory of its export, mapped files not counted; about.
        elapsed_s: time of an export to this target alone, without the download; about.
        scratch_bytes: what the disk holds besides, while the bundle is made.
    """

    target: str
    max_context: int
    footprint: Footprint
    bundle_bytes: int
    memory_bytes: int
    elapsed_s: float
    scratch_bytes: int = 0

    def run_bytes(self, context: int) -> int:
        """Return the memory to run it with so many positions in the cache."""
        return self.footprint.resident_bytes + context * self.footprint.kv_bytes_per_token

    def to_json(self) -> dict[str, object]:
        """Return plain data."""
        return {
            "target": self.target,
            "max_context": self.max_context,
            "bundle_bytes": self.bundle_bytes,
            "resident_bytes": self.footprint.resident_bytes,
            "scratch_bytes": self.scratch_bytes,
            "memory_bytes": self.memory_bytes,
            "elapsed_s": round(self.elapsed_s, 1),
            "kv_cache_bytes_per_token": self.footprint.kv_bytes_per_token,
            "read_bytes_per_token": self.footprint.read_bytes_per_token(QUOTED_CONTEXT),
            "parts": {part.kind: part.size_bytes for part in self.footprint.parts},
        }


@dataclass(frozen=True)
class ExportEstimate:
    """A whole export.

    Args:
        model: name of the model.
        num_parameters: size of the model; a tied table counts once.
        recipe: name of the recipe.
        group_size: number of weights that share a scale; None where there is no one number.
        download_bytes: size of what is still to be fetched.
        weights_bytes: size of the `weights/` folder; 0 when the source is one already.
        targets: one estimate a target.
        verify: whether the check is part of it.
        calibration: what a calibration takes; None: no method asks for one.
        root_bytes: size of the files at the output's root.
    """

    model: str
    num_parameters: int
    recipe: str
    group_size: int | None
    download_bytes: int
    weights_bytes: int
    targets: tuple[TargetEstimate, ...]
    verify: bool
    calibration: CalibrationCost | None = None
    root_bytes: int = 0

    @property
    def memory_bytes(self) -> int:
        """Peak memory of the export, about: its parts come one after the other."""
        calibration = 0 if self.calibration is None else self.calibration.memory_bytes
        return max(calibration, *(target.memory_bytes for target in self.targets))

    @property
    def elapsed_s(self) -> float:
        """Time of the whole export, without the download; about."""
        calibration = 0.0 if self.calibration is None else self.calibration.elapsed_s
        return calibration + sum(target.elapsed_s for target in self.targets)

    @property
    def disk_bytes(self) -> int:
        """What the output's disk must have free.

        All bundles are made before the first is put in place, and what they replace stays until
        then. The weights are needed even if not kept, and what a calibration left until all is in
        place.
        """
        kept = self.weights_bytes + sum(target.bundle_bytes for target in self.targets)
        kept += self.root_bytes
        kept += 0 if self.calibration is None else self.calibration.scratch_bytes
        return kept + max(target.scratch_bytes for target in self.targets)

    def to_json(self) -> dict[str, object]:
        """Return plain data."""
        return {
            "model": self.model,
            "parameters": self.num_parameters,
            "recipe": self.recipe,
            "group_size": self.group_size,
            "download_bytes": self.download_bytes,
            "weights_bytes": self.weights_bytes,
            "disk_bytes": self.disk_bytes,
            "memory_bytes": self.memory_bytes,
            "elapsed_s": round(self.elapsed_s, 1),
            "verify": self.verify,
            "calibration": None if self.calibration is None else self.calibration.to_json(),
            "targets": [target.to_json() for target in self.targets],
        }


def choose_context(target: str, config_limit: int, asked: int | None) -> int:
    """Choose how many positions a target's artifact has.

    Raises:
        UsageError: less than one, or more than the model knows.
    """
    if asked is None:
        return min(registry.get(target).default_max_context, config_limit)
    if not 1 <= asked <= config_limit:
        message = f"--max-context: expected 1 to {config_limit}, the model's limit, found {asked}"
        raise UsageError(message)
    return asked


def estimate(
    shape: ModelShape,
    targets: Sequence[str],
    used: QuantRecipe,
    max_context: int | None,
    options: Mapping[str, TargetOptions],
    *,
    verify: bool,
    cores: int,
) -> ExportEstimate:
    """Add up what an export would write and need.

    Args:
        shape: the model.
        targets: names of the targets.
        used: recipe of the weights; of a model that is quantised already, its own.
        max_context: number of positions that was asked for; None: each target's default.
        options: each target's own options by its name.
        verify: whether the check follows.
        cores: number of the machine's cores.

    Raises:
        QuantizationError: the recipe does not fit the shape.
        LoweringError: a target cannot run a width.
        UsageError: a target has no such artifact.
    """
    shapes = expected_shapes(shape.config)
    schemes = used.resolve(shapes).schemes
    num_parameters = shape.config.num_parameters
    layout = _Layout(shape, shapes, schemes)
    return ExportEstimate(
        model=shape.name,
        num_parameters=num_parameters,
        recipe=used.name,
        group_size=shared_group_size(schemes.values()),
        download_bytes=shape.download_bytes,
        weights_bytes=0 if shape.weights_folder else _weights_bytes(shape, shapes, schemes),
        targets=tuple(
            _target(layout, target, max_context, options[target], verify=verify, cores=cores)
            for target in targets
        ),
        verify=verify,
        root_bytes=shape.tokenizer_bytes + _SMALL_FILES_BYTES,
    )


def with_calibration(
    found: ExportEstimate, shape: ModelShape, used: QuantRecipe, tokens: int, cores: int
) -> ExportEstimate:
    """Add what a calibration takes to an export's estimate, where a method asks for one.

    Args:
        found: estimate without it.
        shape: the model; of one that is quantised already, no codes are chosen.
        used: recipe of the weights.
        tokens: number of tokens that were asked for.
        cores: number of the machine's cores.
    """
    if shape.recipe is not None:
        return found
    methods = used.resolve(expected_shapes(shape.config)).methods
    cost = calibration_cost(shape.config, methods, tokens, cores)
    kept = found.weights_bytes + (0 if cost is None else cost.kept_bytes)
    return replace(found, calibration=cost, weights_bytes=kept)


def memory_bytes(targets: Sequence[str], num_parameters: int, *, verify: bool) -> int:
    """Return the peak memory of an export, about: the targets are made one after the other."""
    costs = (registry.get(target).costs for target in targets)
    return round(max(each.of(num_parameters, verify=verify).memory_bytes for each in costs))


def _seconds(measured_s: float, cores: int) -> float:
    """Spread what was measured on a few cores over a machine's; starting up takes as long."""
    return _START_S + (measured_s - _START_S) * MEASURED_CORES / min(cores, _MOST_CORES)


@dataclass(frozen=True)
class _Layout:
    """A model, with the shape and the storage form of each of its unique tensors."""

    model: ModelShape
    shapes: Shapes
    schemes: Mapping[str, Scheme]


def _target(
    layout: _Layout,
    target: str,
    asked: int | None,
    options: TargetOptions,
    *,
    verify: bool,
    cores: int,
) -> TargetEstimate:
    known, config = registry.get(target), layout.model.config
    max_context = choose_context(target, config.longest_context, asked)
    known.check(options, layout.schemes, max_context)
    footprint = known.predict(config, layout.shapes, layout.schemes, max_context, options)
    manifest = _MANIFEST_BYTES + config.num_hidden_layers * _MANIFEST_LAYER_BYTES
    # What cannot run here is not checked either.
    checked = verify and known.runs_here(options)
    files = layout.model.tokenizer_bytes + manifest + _SMALL_FILES_BYTES
    files += _GOLDEN_BYTES if checked else 0
    cost = known.costs.of(config.num_parameters, verify=checked)
    return TargetEstimate(
        target,
        max_context,
        footprint,
        bundle_bytes=footprint.size_bytes + files,
        memory_bytes=round(cost.memory_bytes),
        elapsed_s=_seconds(cost.elapsed_s, cores),
        scratch_bytes=known.scratch_bytes(layout.shapes, layout.schemes),
    )


def _weights_bytes(shape: ModelShape, shapes: Shapes, schemes: Mapping[str, Scheme]) -> int:
    data = sum(scheme.size_bytes(shapes[name]) for name, scheme in schemes.items())
    # Codes and scales are an entry each.
    entries = sum(2 if isinstance(scheme, GroupedInt) else 1 for scheme in schemes.values())
    header = entries * _HEADER_ENTRY_BYTES
    header += -header % _HEADER_ALIGNMENT
    record = _RECORD_BYTES + len(shapes) * _RECORD_TENSOR_BYTES
    return data + header + record + shape.tokenizer_bytes + _SMALL_FILES_BYTES
