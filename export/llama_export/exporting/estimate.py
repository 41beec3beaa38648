"""What an export will take, before any work: sizes, memory, time, from shape and recipe alone.

Sizes are computed from the layout. Memory and time are fitted to the measurements in
docs/performance.md, made with int4 on 2 cores, and are shown as "about". It knows no machine and
prints nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llama_export.errors import UsageError
from llama_export.llama.names import expected_shapes
from llama_export.sources.catalogue import ModelShape
from llama_export.targets import registry
from llama_export.targets.footprint import ArtifactParts
from llama_export.targets.target import LoweringOptions
from llama_quantize.checkpoint.weights_file import stored_tensors
from llama_quantize.recipe import QuantRecipe
from llama_quantize.scheme import Scheme

DEFAULT_RECIPE = "int4"
# The context at which memory to run and bytes per token are quoted.
QUOTED_CONTEXT = 1024

# Parameters, then peak anonymous memory and seconds of an export, without and with its check:
# the demo, the 1B and the 3B shape.
_MEASURED = (
    (5_773_056, 290e6, 350e6, 5.0, 5.7),
    (1_235_814_400, 420e6, 2680e6, 36.2, 55.2),
    (3_212_749_824, 430e6, 4900e6, 93.9, 147.3),
)
_MEASURED_CORES = 2
# More cores than these were never measured, and reading and hashing do not get faster.
_MOST_CORES = 8
_START_S = 4.0
# Of the small files: NOTICE and three configurations; manifest.json and the record by layer.
_SMALL_FILES_BYTES = 6_000
_MANIFEST_BYTES, _MANIFEST_LAYER_BYTES = 3_600, 2_480
_RECORD_BYTES, _RECORD_TENSOR_BYTES = 920, 220
_HEADER_ENTRY_BYTES, _HEADER_ALIGNMENT = 120, 4096


@dataclass(frozen=True)
class TargetEstimate:
    """One bundle.

    Args:
        max_context: positions that its KV cache has.
        parts: the artifact by kind; exact.
        bundle_bytes: all files, within 1 %.
        resident_bytes: memory after loading, without a KV cache; about.
        scratch_bytes: what the disk holds besides, while the bundle is made.
    """

    target: str
    max_context: int
    parts: ArtifactParts
    bundle_bytes: int
    resident_bytes: int
    scratch_bytes: int = 0

    def run_bytes(self, context: int) -> int:
        """Return the memory to run it with so many positions in the cache."""
        return self.resident_bytes + context * self.parts.kv_bytes_per_token

    def to_json(self) -> dict[str, object]:
        """Return plain data."""
        return {
            "target": self.target,
            "max_context": self.max_context,
            "bundle_bytes": self.bundle_bytes,
            "resident_bytes": self.resident_bytes,
            "scratch_bytes": self.scratch_bytes,
            "kv_cache_bytes_per_token": self.parts.kv_bytes_per_token,
            "read_bytes_per_token": self.parts.read_bytes_per_token(QUOTED_CONTEXT),
            "parts": {part.kind: part.size_bytes for part in self.parts.parts},
        }


@dataclass(frozen=True)
class ExportEstimate:
    """A whole export.

    Args:
        weights_bytes: the `weights/` folder; 0 when the source is one already.
        memory_bytes: peak of the export, mapped files not counted; about.
        elapsed_s: without the download; about.
    """

    model: str
    num_parameters: int
    recipe: str
    group_size: int | None
    download_bytes: int
    weights_bytes: int
    targets: tuple[TargetEstimate, ...]
    memory_bytes: int
    elapsed_s: float
    verify: bool

    @property
    def disk_bytes(self) -> int:
        """What the output's disk must have free; the weights are needed even if not kept."""
        kept = self.weights_bytes + sum(target.bundle_bytes for target in self.targets)
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
            "targets": [target.to_json() for target in self.targets],
        }


def choose_context(target: str, config_limit: int, asked: int | None) -> int:
    """Choose how many positions a target's artifact has.

    Raises:
        UsageError: less than one, or more than the model knows.
    """
    if asked is None:
        return min(registry.default_max_context(target), config_limit)
    if not 1 <= asked <= config_limit:
        message = f"--max-context: expected 1 to {config_limit}, which is what the model knows, "
        raise UsageError(message + f"found {asked}")
    return asked


def estimate(
    shape: ModelShape,
    targets: Sequence[str],
    chosen: QuantRecipe,
    max_context: int | None,
    options: LoweringOptions,
    *,
    verify: bool,
    cores: int,
) -> ExportEstimate:
    """Add up what an export would write and need.

    Args:
        shape: the model; if it is quantised already, its own recipe counts and not `chosen`.
        targets: which bundles.
        chosen: what becomes of each tensor.
        max_context: what was asked for; None: each target's default.
        options: of the artifacts.
        verify: whether the check follows.
        cores: of the machine.

    Raises:
        QuantizationError: the recipe does not fit the shape.
        LoweringError: a target cannot run a width.
    """
    used = chosen if shape.weights is None else shape.weights.recipe
    shapes = expected_shapes(shape.config)
    schemes = used.resolve(shapes).schemes
    num_parameters = shape.config.num_parameters
    return ExportEstimate(
        model=shape.name,
        num_parameters=num_parameters,
        recipe=used.name,
        group_size=_group_size(schemes),
        download_bytes=shape.download_bytes,
        weights_bytes=_weights_bytes(shape, shapes, schemes) if shape.weights is None else 0,
        targets=tuple(
            _target(target, shape, shapes, schemes, max_context, options) for target in targets
        ),
        memory_bytes=memory_bytes(num_parameters, verify=verify),
        elapsed_s=_elapsed_s(num_parameters, cores, verify=verify),
        verify=verify,
    )


def memory_bytes(num_parameters: int, *, verify: bool) -> int:
    """Return the peak memory of an export, about."""
    return round(_between(num_parameters, 2 if verify else 1))


def _elapsed_s(num_parameters: int, cores: int, *, verify: bool) -> float:
    work_s = _between(num_parameters, 4 if verify else 3) - _START_S
    return _START_S + work_s * _MEASURED_CORES / min(cores, _MOST_CORES)


def _between(num_parameters: int, column: int) -> float:
    """Draw straight lines through what was measured, the last one beyond the largest model."""
    points = [(row[0], row[column]) for row in _MEASURED]
    for left, right in itertools.pairwise(points):
        if num_parameters <= right[0] or right == points[-1]:
            slope = (right[1] - left[1]) / (right[0] - left[0])
            return left[1] + slope * (max(num_parameters, points[0][0]) - left[0])
    return points[-1][1]


def _target(
    target: str,
    shape: ModelShape,
    shapes: Mapping[str, tuple[int, ...]],
    schemes: Mapping[str, Scheme],
    asked: int | None,
    options: LoweringOptions,
) -> TargetEstimate:
    max_context = choose_context(target, shape.config.max_position_embeddings, asked)
    parts, resident = registry.predict(target, shape.config, shapes, schemes, max_context, options)
    manifest = _MANIFEST_BYTES + shape.config.num_hidden_layers * _MANIFEST_LAYER_BYTES
    bundle = parts.size_bytes + shape.tokenizer_bytes + manifest + _SMALL_FILES_BYTES
    scratch = registry.scratch_bytes(target, shapes, schemes)
    return TargetEstimate(target, max_context, parts, bundle, resident, scratch)


def _weights_bytes(
    shape: ModelShape, shapes: Mapping[str, tuple[int, ...]], schemes: Mapping[str, Scheme]
) -> int:
    forms = stored_tensors(schemes, shapes)
    data = sum(math.prod(size) * dtype.itemsize for dtype, size in forms.values())
    header = len(forms) * _HEADER_ENTRY_BYTES
    header += -header % _HEADER_ALIGNMENT
    record = _RECORD_BYTES + len(shapes) * _RECORD_TENSOR_BYTES
    return data + header + record + shape.tokenizer_bytes + _SMALL_FILES_BYTES


def _group_size(schemes: Mapping[str, Scheme]) -> int | None:
    sizes = {getattr(scheme, "group_size", None) for scheme in schemes.values()} - {None}
    return sizes.pop() if len(sizes) == 1 else None
