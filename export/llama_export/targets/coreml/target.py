"""The Core ML target as the registry calls it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.bundle.graph_spec import GraphSpec
from llama_export.errors import UsageError
from llama_export.llama.activations import RoundedInputs
from llama_export.llama.intermediates import Tapped
from llama_export.targets.coreml.signature import FIXED, MAIN, CoremlForm
from llama_export.targets.footprint import ArtifactParts
from llama_export.targets.session import FloatArray
from llama_export.targets.target import About, Lowered, LoweringOptions

if TYPE_CHECKING:
    from llama_export.llama.config import LlamaConfig
    from llama_export.llama.trace import TracedLlama
    from llama_export.targets.coreml.running.session import CoremlSession
    from llama_quantize.checkpoint.weights import QuantizedWeights
    from llama_quantize.scheme import Scheme

TOOLKITS = ("coremltools",)
# A package sets memory apart for the whole cache of a conversation: 2048 positions of the 1B are
# 67 MB.
DEFAULT_MAX_CONTEXT = 2048
KV_CACHES = ("state", "io")
FUNCTIONS = (MAIN, FIXED)
DEPLOYMENT_TARGETS = ("iOS18", "iOS17")
# The accuracy level at which the evaluator rounds nothing to float16.
EXACT_LEVEL = 1
# coremltools 9 has no wheel from this Python on.
_TOO_NEW = (3, 14)


def missing_hint() -> str:
    """Say what to do where coremltools is not installed."""
    if sys.platform == "win32":
        return (
            "it has no wheel for Windows: export on Linux, on a Mac, or in WSL; packages are "
            "verified and run on Windows too, by the evaluator"
        )
    if sys.version_info >= _TOO_NEW:
        return f"it has wheels for Python below {'.'.join(map(str, _TOO_NEW))}: use another Python"
    return "pip install coremltools, of the extra 'coreml'"


def require_options(options: LoweringOptions) -> None:
    """Refuse what a package cannot be.

    Raises:
        UsageError: with the values that there are.
    """
    given = (
        ("--kv-cache", options.kv_cache or "state", KV_CACHES),
        ("--functions", options.functions, FUNCTIONS),
        ("--deployment-target", options.deployment_target, DEPLOYMENT_TARGETS),
    )
    for name, value, known in given:
        if value not in known:
            message = f"{name}: expected {' or '.join(known)}, found {value!r}"
            raise UsageError(message, _below_ios_17(name))
    form = _form(options)
    if form.deployment_target == "iOS17" and form.kv_cache == "state":
        message = "--deployment-target iOS17: a KV cache inside the package needs iOS 18"
        raise UsageError(message, "add --kv-cache io and --quantize fp16, which iOS 17 has")
    if form.fixed and form.kv_cache == "io":
        message = f"--functions {FIXED} shares its KV cache as a state, and --kv-cache is io"
        raise UsageError(message, "leave --kv-cache out")
    if form.fixed and options.all_logits:
        message = f"--all-logits: with --functions {FIXED} the last token's logits come out"
        raise UsageError(message, "leave --functions out: its one function gives every row")


def lower(
    traced: TracedLlama,
    weights: QuantizedWeights,
    folder: Path,
    options: LoweringOptions,
    about: About,
) -> Lowered:
    """Write the package into a folder."""
    from llama_export.targets.coreml.lowering.lower import PACKAGE
    from llama_export.targets.coreml.lowering.lower import lower as lower_coreml

    graph = lower_coreml(traced, weights, folder, _form(options), about)
    return Lowered(PACKAGE, graph)


def open_session(
    artifact: Path,
    spec: GraphSpec,
    *,
    threads: int | None,
    accuracy_level: int | None,
    verbose: bool,
) -> CoremlSession:
    """Load a package: into Core ML on a Mac, else into the evaluator; at level 1 always that."""
    from llama_export.targets.coreml.running.core_ml import runs_core_ml

    if accuracy_level is None and runs_core_ml():
        from llama_export.targets.coreml.running.core_ml import CoremlRuntime
        from llama_export.targets.coreml.running.session import CoremlSession

        return CoremlSession(CoremlRuntime.open(artifact, verbose=verbose), spec)
    return evaluated(artifact, spec, threads=threads, exact=accuracy_level == EXACT_LEVEL)


def stand_in() -> str:
    """Say what runs a package where there is no Core ML; empty on a Mac."""
    from llama_export.targets.coreml.running.core_ml import runs_core_ml

    return "" if runs_core_ml() else "the evaluator"


def open_reference(artifact: Path, spec: GraphSpec, *, threads: int | None) -> CoremlSession | None:
    """Load a package into the evaluator where `open_session` takes Core ML; else None."""
    from llama_export.targets.coreml.running.core_ml import runs_core_ml

    return evaluated(artifact, spec, threads=threads, exact=False) if runs_core_ml() else None


def evaluated(
    artifact: Path, spec: GraphSpec, *, threads: int | None, exact: bool
) -> CoremlSession:
    """Load a package into the evaluator.

    Args:
        artifact: the package.
        spec: its signature, from the manifest.
        threads: of PyTorch; None leaves it as it is.
        exact: round nothing to float16.
    """
    from coreml_evaluator import Evaluator
    from llama_export.targets.coreml.running.session import CoremlSession

    mode = "fp32" if exact else "fp16"
    return CoremlSession(Evaluator.open(artifact, mode=mode, threads=threads), spec)


def read_back(artifact: Path) -> dict[str, tuple[str, str]]:
    """Hash the codes and scales that a package holds, read from its own bytes."""
    from llama_export.targets.coreml.reading.read_back import read_back

    return read_back(artifact)


def read_back_floats(artifact: Path) -> dict[str, str]:
    """Hash the norms and float matrices that a package holds, as float32 values."""
    from llama_export.targets.coreml.reading.read_back import read_back_floats

    return read_back_floats(artifact)


def read_back_rotary(artifact: Path) -> dict[str, FloatArray]:
    """Read the rotary tables that a package holds: "cos NAME" and "sin NAME" `[C, D/2]`."""
    from llama_export.targets.coreml.reading.read_back import read_back_rotary

    return read_back_rotary(artifact)


def rounded_inputs(artifact: Path) -> RoundedInputs | None:
    """Say which products of a package round their input to integers: none."""
    return {}


def probe(
    artifact: Path, spec: GraphSpec, chunks: Sequence[Sequence[int]], *, threads: int | None
) -> tuple[Tapped, ...]:
    """Run chunks of tokens from an empty cache, rounding nothing, and look inside."""
    from llama_export.targets.coreml.running.probe import probe

    return probe(artifact, spec, chunks, threads=threads)


def describe(artifact: Path, spec: GraphSpec) -> ArtifactParts:
    """Say what a package is made of, in bytes; no weight is read."""
    from llama_export.targets.coreml.reading.describe import describe

    return describe(artifact, spec)


def predict(
    config: LlamaConfig,
    shapes: Mapping[str, tuple[int, ...]],
    schemes: Mapping[str, Scheme],
    max_context: int,
    options: LoweringOptions,
) -> tuple[ArtifactParts, int]:
    """Say what an export would write, and the bytes that it would hold in memory when loaded.

    Raises:
        UsageError: the deployment target cannot hold the recipe's weights.
    """
    from llama_export.targets.coreml import sizes

    form = _form(options)
    sizes.require_possible(schemes, max_context, form)
    parts = sizes.predict(config, shapes, schemes, max_context, form)
    return parts, sizes.resident_bytes(parts)


def scratch_bytes(shapes: Mapping[str, tuple[int, ...]], schemes: Mapping[str, Scheme]) -> int:
    """Say what the output's disk holds besides the package while it is made."""
    from llama_export.targets.coreml import sizes

    return sizes.scratch_bytes(shapes, schemes)


def _form(options: LoweringOptions) -> CoremlForm:
    return CoremlForm(options.kv_cache or "state", options.functions, options.deployment_target)


def _below_ios_17(name: str) -> str:
    if name != "--deployment-target":
        return ""
    return "int4 in groups needs iOS18; iOS17 takes --quantize fp16 with --kv-cache io"
