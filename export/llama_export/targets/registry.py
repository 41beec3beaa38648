"""Which targets there are, and where each one's lowering and session are.

The one place that knows all targets; a target's package is imported when it is used. Opening a
session imports no torch, which would cost seconds and 200 MB before the first token.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.activations import RoundedInputs
from llama_export.bundle import Bundle
from llama_export.errors import BackendUnavailableError, BundleError, UsageError
from llama_export.graph import GraphSpec
from llama_export.parts import ArtifactParts
from llama_export.taps import Tapped
from llama_export.targets import FloatArray, Session

if TYPE_CHECKING:
    from llama_export.config import LlamaConfig
    from llama_export.trace import TracedLlama
    from llama_quantize.scheme import Scheme
    from llama_quantize.weights import QuantizedWeights

TARGETS = ("onnx",)
_TOOLKITS = {"onnx": ("onnx", "onnxruntime")}


@dataclass(frozen=True)
class LoweringOptions:
    """What a user may choose about an artifact."""

    accuracy_level: int = 4
    all_logits: bool = False


@dataclass(frozen=True)
class Lowered:
    """What a lowering wrote into the bundle's folder.

    Args:
        config_keys: what the target's stock clients read in config.json beyond the model's own.
    """

    artifact: str
    graph: GraphSpec
    config_keys: Mapping[str, object]


def parse_targets(values: Sequence[str]) -> tuple[str, ...]:
    """Read `--target`: repeated, comma-separated, or "all".

    Raises:
        UsageError: no target, or one that does not exist.
    """
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    unknown = [name for name in names if name not in (*TARGETS, "all")]
    if unknown or not names:
        found = ", ".join(map(repr, unknown)) or "nothing"
        message = f"--target: expected {' or '.join(TARGETS)} or all, found {found}"
        raise UsageError(message, "executorch and coreml are planned; this version writes ONNX")
    if "all" in names:
        return TARGETS
    return tuple(dict.fromkeys(names))


def require_toolkit(target: str) -> None:
    """Fail before any work when a target's toolkit is not installed.

    Raises:
        BackendUnavailableError: with the extra's name.
    """
    missing = [name for name in _TOOLKITS[target] if importlib.util.find_spec(name) is None]
    if missing:
        message = f"the {target} target needs {' and '.join(missing)}, not installed here"
        hint = f"pip install {' '.join(missing)}, of the extra {target!r}"
        raise BackendUnavailableError(message, hint)


def lower(
    target: str,
    traced: TracedLlama,
    weights: QuantizedWeights,
    folder: Path,
    options: LoweringOptions,
) -> Lowered:
    """Write a target's artifact, and what its stock clients need beside it, into a folder."""
    _require_known(target)
    from llama_export.targets.onnx.genai import write_genai_config
    from llama_export.targets.onnx.lower import MODEL_FILE
    from llama_export.targets.onnx.lower import lower as lower_onnx
    from llama_export.targets.onnx.transformers_js import transformers_js_keys

    graph = lower_onnx(
        traced,
        weights,
        folder,
        accuracy_level=options.accuracy_level,
        all_logits=options.all_logits,
    )
    write_genai_config(folder, traced.config, traced.max_context, MODEL_FILE)
    return Lowered(MODEL_FILE, graph, transformers_js_keys(MODEL_FILE))


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
        accuracy_level: run at this level instead of the artifact's own; 1 is exact, and slow.
        verbose: let the runtime's messages through.
    """
    _require_known(bundle.manifest.target)
    from llama_export.targets.onnx.session import OnnxSession

    return OnnxSession.open(
        bundle.artifact,
        GraphSpec.from_json(bundle.manifest.graph),
        threads=threads,
        accuracy_level=accuracy_level,
        verbose=verbose,
    )


def read_back(bundle: Bundle) -> dict[str, tuple[str, str]]:
    """Hash the codes and scales that an artifact holds, read from its own bytes."""
    _require_known(bundle.manifest.target)
    from llama_export.targets.onnx.read_back import read_back as read_onnx

    return read_onnx(bundle.artifact)


def read_back_floats(bundle: Bundle) -> dict[str, str]:
    """Hash the norms and float matrices that an artifact holds, as float32 values."""
    _require_known(bundle.manifest.target)
    from llama_export.targets.onnx.read_back import read_back_floats as read_onnx

    return read_onnx(bundle.artifact)


def read_back_rotary(bundle: Bundle) -> dict[str, FloatArray]:
    """Read the rotary tables that an artifact holds: "cos NAME" and "sin NAME" `[C, D/2]`."""
    _require_known(bundle.manifest.target)
    from llama_export.targets.onnx.read_back import read_back_rotary as read_onnx

    return read_onnx(bundle.artifact)


def rounded_inputs(bundle: Bundle) -> RoundedInputs | None:
    """Say which products of an artifact round their input; None: not known for this machine."""
    _require_known(bundle.manifest.target)
    from llama_export.targets.onnx.activations import rounded_inputs as rounded_by_onnx

    return rounded_by_onnx(bundle.artifact)


def probe(
    bundle: Bundle, chunks: Sequence[Sequence[int]], *, threads: int | None = None
) -> tuple[Tapped, ...]:
    """Run chunks of tokens from an empty cache in exact arithmetic, and look inside.

    Args:
        bundle: of any target that runs on this machine.
        chunks: the tokens, one call of the artifact each; together at most its context.
        threads: of the runtime; None leaves it to the runtime.

    Returns:
        What each chunk held at the points of `llama_export.taps`.

    Raises:
        BundleError: the runtime cannot load or run the artifact.
    """
    _require_known(bundle.manifest.target)
    from llama_export.targets.onnx.probe import probe as probe_onnx

    spec = GraphSpec.from_json(bundle.manifest.graph)
    return probe_onnx(bundle.artifact, spec, chunks, threads=threads)


def describe(bundle: Bundle) -> ArtifactParts:
    """Say what an artifact is made of, in bytes; no weight is read."""
    _require_known(bundle.manifest.target)
    from llama_export.targets.onnx.describe import describe as describe_onnx

    return describe_onnx(bundle.artifact, GraphSpec.from_json(bundle.manifest.graph))


def predict(
    target: str,
    config: LlamaConfig,
    shapes: Mapping[str, tuple[int, ...]],
    schemes: Mapping[str, Scheme],
    max_context: int,
) -> tuple[ArtifactParts, int]:
    """Say what an export would write, and the bytes that it would hold in memory when loaded."""
    _require_known(target)
    from llama_export.targets.onnx import sizes

    parts = sizes.predict(config, shapes, schemes, max_context)
    return parts, sizes.resident_bytes(shapes, schemes)


def _require_known(target: str) -> None:
    if target not in TARGETS:
        message = (
            f"the target {target!r} is not known to this version; it knows {', '.join(TARGETS)}"
        )
        raise BundleError(message, "update llama-export")
