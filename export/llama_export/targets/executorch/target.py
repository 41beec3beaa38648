"""The ExecuTorch target as the registry calls it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.bundle.graph_spec import GraphSpec
from llama_export.errors import BackendUnavailableError, UsageError
from llama_export.llama.activations import RoundedInputs
from llama_export.targets.executorch.running.runtime import require_version
from llama_export.targets.footprint import ArtifactParts
from llama_export.targets.session import FloatArray
from llama_export.targets.target import About, Lowered, LoweringOptions

if TYPE_CHECKING:
    from llama_export.llama.config import LlamaConfig
    from llama_export.llama.trace import TracedLlama
    from llama_export.targets.executorch.running.session import ExecutorchSession
    from llama_quantize.checkpoint.weights import QuantizedWeights
    from llama_quantize.scheme import Scheme

TOOLKITS = ("executorch",)
# The runtime sets memory apart for the whole cache when it loads a program: 2048 positions of the
# 1B are 134 MB, 8192 would be 537 MB.
DEFAULT_MAX_CONTEXT = 2048
XNNPACK = "xnnpack"
DELEGATES = (XNNPACK, "vulkan", "coreml")
KV_CACHES = ("state", "io")
KV_DTYPES = ("float32", "float16")


def require_options(options: LoweringOptions) -> None:
    """Refuse what a `.pte` cannot be.

    Raises:
        UsageError: with the values that there are.
        BackendUnavailableError: another version of the toolkit is installed.
    """
    given = (
        ("--delegate", options.delegate, DELEGATES),
        ("--kv-cache", options.kv_cache or "state", KV_CACHES),
        ("--kv-dtype", options.kv_dtype, KV_DTYPES),
    )
    for name, value, known in given:
        if value not in known:
            message = f"{name}: expected {', '.join(known[:-1])} or {known[-1]}, found {value!r}"
            raise UsageError(message)
    require_version(coreml=options.delegate == "coreml")
    if options.delegate != XNNPACK and (
        options.kv_cache == "io" or options.kv_dtype != "float32" or options.all_logits
    ):
        message = f"--delegate {options.delegate} keeps a float32 KV cache inside, and one row"
        raise UsageError(message, "leave --kv-cache, --kv-dtype and --all-logits out")


def lower(
    traced: TracedLlama,
    weights: QuantizedWeights,
    folder: Path,
    options: LoweringOptions,
    about: About,
) -> Lowered:
    """Write the artifact into a folder."""
    from llama_export.targets.executorch.xnnpack.lower import MODEL_FILE, PteOptions
    from llama_export.targets.executorch.xnnpack.lower import lower as lower_executorch

    chosen = PteOptions(
        kv_cache=options.kv_cache or "state",
        kv_dtype=options.kv_dtype,
        all_logits=options.all_logits,
        share_table=options.share_table,
    )
    stops = about.stop_token_ids
    if options.delegate == XNNPACK:
        graph = lower_executorch(traced, weights, folder, chosen, stop_token_ids=stops)
        return Lowered(MODEL_FILE, graph)
    from llama_export.targets.executorch.single_delegate.lower import lower_whole

    graph, report = lower_whole(
        traced, weights, folder, chosen, delegate=options.delegate, stop_token_ids=stops
    )
    # Core ML's own format hides the cache, which it keeps in float16.
    item_bytes = 2 if options.delegate == "coreml" else 4
    cache = traced.config.num_key_value_heads * traced.config.head_dim * item_bytes
    per_token = 2 * traced.config.num_hidden_layers * cache
    delegate = {**report.to_json(), "kv_bytes_per_token": per_token}
    return Lowered(MODEL_FILE, replace(graph, delegate=delegate), runs_here=False)


def open_session(
    artifact: Path,
    spec: GraphSpec,
    *,
    threads: int | None,
    accuracy_level: int | None,
    verbose: bool,
) -> ExecutorchSession:
    """Load an artifact into ExecuTorch; it has one way to compute, whatever the level.

    Raises:
        BackendUnavailableError: its delegate does not run on this machine.
    """
    name = spec.delegate.get("name", XNNPACK)
    if name != XNNPACK:
        message = f"{artifact} is lowered for {name}, and cannot run here"
        raise BackendUnavailableError(message, "export without --delegate to run it here")
    from llama_export.targets.executorch.running.session import ExecutorchSession

    return ExecutorchSession.open(artifact, spec, threads=threads, verbose=verbose)


def read_back(artifact: Path) -> dict[str, tuple[str, str]]:
    """Hash the codes and scales that an artifact holds, read from its own bytes."""
    from llama_export.targets.executorch.reading.read_back import read_back

    return read_back(artifact)


def read_back_floats(artifact: Path) -> dict[str, str]:
    """Hash the norms that an artifact holds, as float32 values."""
    from llama_export.targets.executorch.reading.read_back import read_back_floats

    return read_back_floats(artifact)


def read_back_rotary(artifact: Path) -> dict[str, FloatArray]:
    """Read the rotary tables that an artifact holds: "cos NAME" and "sin NAME" `[C, D/2]`."""
    from llama_export.targets.executorch.reading.read_back import read_back_rotary

    return read_back_rotary(artifact)


def rounded_inputs(artifact: Path) -> RoundedInputs | None:
    """Say which products of an artifact round their input; None: not known for this machine."""
    from llama_export.targets.executorch.reading.activations import rounded_inputs

    return rounded_inputs(artifact)


def describe(artifact: Path, spec: GraphSpec) -> ArtifactParts:
    """Say what an artifact is made of, in bytes; no weight is read."""
    from llama_export.targets.executorch.reading.describe import describe

    return describe(artifact, spec)


def predict(
    config: LlamaConfig,
    shapes: Mapping[str, tuple[int, ...]],
    schemes: Mapping[str, Scheme],
    max_context: int,
    options: LoweringOptions,
) -> tuple[ArtifactParts, int]:
    """Say what an export would write, and the bytes that it would hold in memory when loaded."""
    from llama_export.targets.executorch import sizes

    parts = sizes.predict(config, shapes, schemes, max_context, options)
    return parts, sizes.resident_bytes(config, shapes, schemes, max_context)
