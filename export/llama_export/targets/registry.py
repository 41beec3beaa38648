"""Which targets there are, and the one module of each that everything else goes through.

The one place that knows all targets; a target's package is imported when it is used. Opening a
session imports no more than its runtime needs.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from llama_export.bundle.bundle import Bundle
from llama_export.bundle.graph_spec import GraphSpec
from llama_export.errors import BackendUnavailableError, BundleError, UsageError
from llama_export.llama.activations import RoundedInputs
from llama_export.llama.intermediates import Probe
from llama_export.targets.footprint import ArtifactParts
from llama_export.targets.session import FloatArray, Session
from llama_export.targets.target import About, Lowered, LoweringOptions

if TYPE_CHECKING:
    from llama_export.llama.config import LlamaConfig
    from llama_export.llama.trace import TracedLlama
    from llama_quantize.checkpoint.weights import QuantizedWeights
    from llama_quantize.scheme import Scheme

TARGETS = ("onnx", "executorch", "coreml")

# What only some targets have.
OWN_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "accuracy_level": ("onnx",),
    "kv_dtype": ("executorch",),
    "delegate": ("executorch",),
    "share_table": ("executorch",),
    "functions": ("coreml",),
    "deployment_target": ("coreml",),
}


class Target(Protocol):
    """What a target's module `target` holds."""

    TOOLKITS: tuple[str, ...]
    DEFAULT_MAX_CONTEXT: int
    require_options: Callable[[LoweringOptions], None]
    read_back: Callable[[Path], dict[str, tuple[str, str]]]
    read_back_floats: Callable[[Path], dict[str, str]]
    read_back_rotary: Callable[[Path], dict[str, FloatArray]]
    rounded_inputs: Callable[[Path], RoundedInputs | None]
    describe: Callable[[Path, GraphSpec], ArtifactParts]
    predict: Callable[
        [
            LlamaConfig,
            Mapping[str, tuple[int, ...]],
            Mapping[str, Scheme],
            int,
            LoweringOptions,
        ],
        tuple[ArtifactParts, int],
    ]
    lower: Callable[[TracedLlama, QuantizedWeights, Path, LoweringOptions, About], Lowered]

    def open_session(
        self,
        artifact: Path,
        spec: GraphSpec,
        *,
        threads: int | None,
        accuracy_level: int | None,
        verbose: bool,
    ) -> Session:
        """Load an artifact into its runtime."""


def parse_targets(values: Sequence[str]) -> tuple[str, ...]:
    """Read `--target`: repeated, comma-separated, or "all".

    Raises:
        UsageError: no target, or one that does not exist.
    """
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    unknown = [name for name in names if name not in (*TARGETS, "all")]
    if unknown or not names:
        found = ", ".join(map(repr, unknown)) or "nothing"
        message = f"--target: expected {', '.join(TARGETS)} or all, found {found}"
        raise UsageError(message)
    if "all" in names:
        return TARGETS
    return tuple(dict.fromkeys(names))


def require_wanted(given: Collection[str], targets: Sequence[str]) -> None:
    """Refuse options that none of the targets has, rather than ignore them.

    Args:
        given: names of options, of which those in `OWN_OPTIONS` are looked at.
        targets: of the export.

    Raises:
        UsageError: names the option and the targets that have it.
    """
    for name, owners in OWN_OPTIONS.items():
        if name in given and not set(owners) & set(targets):
            option = "--" + name.replace("_", "-")
            message = f"{option}: {' and '.join(targets)} cannot use it; {' and '.join(owners)} can"
            raise UsageError(message, f"leave {option} out, or choose --target {owners[0]}")


def require_toolkit(target: str) -> None:
    """Fail before any work when a target's toolkit is not installed.

    Raises:
        BackendUnavailableError: with the extra's name.
    """
    missing = [name for name in toolkits(target) if not _is_installed(name)]
    if missing:
        message = f"the {target} target needs {' and '.join(missing)}, not installed here"
        own = getattr(_target(target), "missing_hint", None)
        hint = own() if own else f"pip install {' '.join(missing)}, of the extra {target!r}"
        raise BackendUnavailableError(message, hint)


def _is_installed(name: str) -> bool:
    """Tell a package from a folder of its name that happens to be on the path, as a bundle's is."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is not None:
        return found is not None
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def require_runs_here(bundle: Bundle) -> None:
    """Refuse an artifact that was lowered for what this machine does not have.

    Raises:
        BackendUnavailableError: with what it was lowered for.
    """
    delegate = bundle.manifest.graph.get("delegate", {})
    if "not run" in str(delegate.get("status", "")):
        message = f"{bundle.artifact} is lowered for {delegate.get('name')}, and cannot run here"
        raise BackendUnavailableError(message, "inspect says what is in it")


def require_measurable(bundle: Bundle) -> None:
    """Refuse to measure the speed of what is not the artifact's runtime.

    Raises:
        BackendUnavailableError: this machine does not have that runtime.
    """
    require_runs_here(bundle)
    found = stand_in(bundle.manifest.target)
    if found:
        message = f"{bundle.artifact} would be run by {found} here, whose speed says nothing"
        raise BackendUnavailableError(message, "measure it on a Mac, where Core ML runs it")


def toolkits(target: str) -> tuple[str, ...]:
    """Return the packages that a target's artifact is made with."""
    return _target(target).TOOLKITS


def require_options(target: str, options: LoweringOptions) -> None:
    """Fail before any work when a target has no such artifact.

    Raises:
        UsageError: with the values that there are.
    """
    _target(target).require_options(options)


def default_max_context(target: str) -> int:
    """Return how many positions a target's artifact has when nobody asks for another number."""
    return _target(target).DEFAULT_MAX_CONTEXT


def lower(
    target: str,
    traced: TracedLlama,
    weights: QuantizedWeights,
    folder: Path,
    options: LoweringOptions,
    about: About,
) -> Lowered:
    """Write a target's artifact, and what its stock clients need beside it, into a folder.

    Args:
        target: one of `TARGETS`.
        traced: the graph.
        weights: the quantised checkpoint, mapped.
        folder: exists.
        options: what the user chose.
        about: the model, for artifacts that describe themselves.
    """
    return _target(target).lower(traced, weights, folder, options, about)


def open_session(
    bundle: Bundle,
    *,
    threads: int | None = None,
    accuracy_level: int | None = None,
    verbose: bool = False,
) -> Session:
    """Load a bundle's artifact into its runtime.

    Args:
        bundle: of any target that runs on this machine.
        threads: of the runtime; None leaves it to the runtime.
        accuracy_level: run at this level instead of the artifact's own, where the runtime has
            levels; 1 is exact, and slow.
        verbose: let the runtime's messages through.
    """
    return _target(bundle.manifest.target).open_session(
        bundle.artifact,
        GraphSpec.from_json(bundle.manifest.graph),
        threads=threads,
        accuracy_level=accuracy_level,
        verbose=verbose,
    )


def stand_in(target: str) -> str:
    """Say what runs an artifact here in place of its runtime; empty where the runtime runs it."""
    found = getattr(_target(target), "stand_in", None)
    return "" if found is None else str(found())


def open_reference(bundle: Bundle, *, threads: int | None = None) -> Session | None:
    """Load an artifact into what computes as its runtime should; None: that is the runtime itself.

    Core ML on a Mac is held against the evaluator. Elsewhere the evaluator is what runs.
    """
    found = getattr(_target(bundle.manifest.target), "open_reference", None)
    if found is None:
        return None
    spec = GraphSpec.from_json(bundle.manifest.graph)
    session: Session | None = found(bundle.artifact, spec, threads=threads)
    return session


def read_back(bundle: Bundle) -> dict[str, tuple[str, str]]:
    """Hash the codes and scales that an artifact holds, read from its own bytes."""
    return _target(bundle.manifest.target).read_back(bundle.artifact)


def read_back_floats(bundle: Bundle) -> dict[str, str]:
    """Hash the norms and float matrices that an artifact holds, as float32 values."""
    return _target(bundle.manifest.target).read_back_floats(bundle.artifact)


def read_back_rotary(bundle: Bundle) -> dict[str, FloatArray]:
    """Read the rotary tables that an artifact holds: "cos NAME" and "sin NAME" `[C, D/2]`."""
    return _target(bundle.manifest.target).read_back_rotary(bundle.artifact)


def rounded_inputs(bundle: Bundle) -> RoundedInputs | None:
    """Say which products of an artifact round their input; None: not known for this machine."""
    return _target(bundle.manifest.target).rounded_inputs(bundle.artifact)


def probe(bundle: Bundle, *, threads: int | None = None) -> Probe | None:
    """Return what looks inside an artifact while it runs in exact arithmetic.

    The probe takes chunks of tokens, one call of the artifact each, and gives what each chunk held
    at the points of `llama_export.llama.intermediates`. It raises BundleError when the runtime
    cannot load or run the artifact. None: this target's artifacts cannot be looked into.

    Args:
        bundle: of any target that runs on this machine.
        threads: of the runtime; None leaves it to the runtime.
    """
    found = getattr(_target(bundle.manifest.target), "probe", None)
    if found is None:
        return None
    graph = bundle.manifest.graph
    return lambda chunks: found(
        bundle.artifact, GraphSpec.from_json(graph), chunks, threads=threads
    )


def describe(bundle: Bundle) -> ArtifactParts:
    """Say what an artifact is made of, in bytes; no weight is read."""
    spec = GraphSpec.from_json(bundle.manifest.graph)
    return _target(bundle.manifest.target).describe(bundle.artifact, spec)


def predict(
    target: str,
    config: LlamaConfig,
    shapes: Mapping[str, tuple[int, ...]],
    schemes: Mapping[str, Scheme],
    max_context: int,
    options: LoweringOptions,
) -> tuple[ArtifactParts, int]:
    """Say what an export would write, and the bytes that it would hold in memory when loaded."""
    return _target(target).predict(config, shapes, schemes, max_context, options)


def scratch_bytes(
    target: str, shapes: Mapping[str, tuple[int, ...]], schemes: Mapping[str, Scheme]
) -> int:
    """Say what the output's disk holds besides the artifact while it is made."""
    found = getattr(_target(target), "scratch_bytes", None)
    return 0 if found is None else int(found(shapes, schemes))


def _target(name: str) -> Target:
    if name not in TARGETS:
        message = f"the target {name!r} is not known to this version; it knows {', '.join(TARGETS)}"
        raise BundleError(message, "update llama-export")
    return cast("Target", importlib.import_module(f"llama_export.targets.{name}.target"))
