"""The ONNX target as the registry calls it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.bundle.graph_spec import GraphSpec
from llama_export.errors import UsageError
from llama_export.llama.activations import RoundedInputs
from llama_export.llama.intermediates import Tapped
from llama_export.targets.footprint import ArtifactParts
from llama_export.targets.onnx.running.session import OnnxSession
from llama_export.targets.session import FloatArray
from llama_export.targets.target import About, Lowered, LoweringOptions

if TYPE_CHECKING:
    from llama_export.llama.config import LlamaConfig
    from llama_export.llama.trace import TracedLlama
    from llama_quantize.checkpoint.weights import QuantizedWeights
    from llama_quantize.scheme import Scheme

TOOLKITS = ("onnx", "onnxruntime")
DEFAULT_MAX_CONTEXT = 8192


def require_options(options: LoweringOptions) -> None:
    """Refuse what an ONNX artifact cannot be.

    Raises:
        UsageError: with the options that there are.
    """
    if options.kv_cache not in (None, "io"):
        message = f"--kv-cache {options.kv_cache}: an ONNX graph takes and gives its KV cache"
        raise UsageError(message, "leave --kv-cache out for the onnx target")
    if options.kv_dtype != "float32":
        message = f"--kv-dtype {options.kv_dtype}: the onnx target's KV cache is float32"
        raise UsageError(message, "leave --kv-dtype out for the onnx target")


def lower(
    traced: TracedLlama,
    weights: QuantizedWeights,
    folder: Path,
    options: LoweringOptions,
    about: About,
) -> Lowered:
    """Write the artifact, and what its stock clients need beside it, into a folder."""
    from llama_export.targets.onnx.lowering.genai import write_genai_config
    from llama_export.targets.onnx.lowering.lower import MODEL_FILE
    from llama_export.targets.onnx.lowering.lower import lower as lower_onnx
    from llama_export.targets.onnx.lowering.transformers_js import transformers_js_keys

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
    artifact: Path,
    spec: GraphSpec,
    *,
    threads: int | None,
    accuracy_level: int | None,
    verbose: bool,
) -> OnnxSession:
    """Load an artifact into onnxruntime."""
    return OnnxSession.open(
        artifact, spec, threads=threads, accuracy_level=accuracy_level, verbose=verbose
    )


def read_back(artifact: Path) -> dict[str, tuple[str, str]]:
    """Hash the codes and scales that an artifact holds, read from its own bytes."""
    from llama_export.targets.onnx.reading.read_back import read_back

    return read_back(artifact)


def read_back_floats(artifact: Path) -> dict[str, str]:
    """Hash the norms and float matrices that an artifact holds, as float32 values."""
    from llama_export.targets.onnx.reading.read_back import read_back_floats

    return read_back_floats(artifact)


def read_back_rotary(artifact: Path) -> dict[str, FloatArray]:
    """Read the rotary tables that an artifact holds: "cos NAME" and "sin NAME" `[C, D/2]`."""
    from llama_export.targets.onnx.reading.read_back import read_back_rotary

    return read_back_rotary(artifact)


def rounded_inputs(artifact: Path) -> RoundedInputs | None:
    """Say which products of an artifact round their input; None: not known for this machine."""
    from llama_export.targets.onnx.reading.activations import rounded_inputs

    return rounded_inputs(artifact)


def probe(
    artifact: Path, spec: GraphSpec, chunks: Sequence[Sequence[int]], *, threads: int | None
) -> tuple[Tapped, ...]:
    """Run chunks of tokens from an empty cache in exact arithmetic, and look inside."""
    from llama_export.targets.onnx.running.probe import probe

    return probe(artifact, spec, chunks, threads=threads)


def describe(artifact: Path, spec: GraphSpec) -> ArtifactParts:
    """Say what an artifact is made of, in bytes; no weight is read."""
    from llama_export.targets.onnx.reading.describe import describe

    return describe(artifact, spec)


def predict(
    config: LlamaConfig,
    shapes: Mapping[str, tuple[int, ...]],
    schemes: Mapping[str, Scheme],
    max_context: int,
    options: LoweringOptions,
) -> tuple[ArtifactParts, int]:
    """Say what an export would write, and the bytes that it would hold in memory when loaded."""
    from llama_export.targets.onnx import sizes

    parts = sizes.predict(config, shapes, schemes, max_context)
    return parts, sizes.resident_bytes(shapes, schemes)
