"""What is verified and what it is held against, with a bundle's parts laid out.

It opens and names things; it runs and judges nothing. Weights and a checkpoint of another model
are refused here, because the reference could not be computed from them, or would mislead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.errors import BundleError
from llama_export.llama.activations import RoundedInputs
from llama_export.llama.config import LlamaConfig
from llama_export.llama.intermediates import FloatArray, Probe
from llama_export.llama.names import expected_shapes
from llama_export.verify.samples import Text, built_in_text, read_text, tokenize

if TYPE_CHECKING:
    from llama_export.bundle.bundle import Bundle
    from llama_export.checkpoints.checkpoint import Checkpoint
    from llama_export.targets.session import Session
    from llama_quantize.checkpoint.weights import QuantizedWeights

    Hashes = Mapping[str, tuple[str, str]]

_OTHER_FILES = "tokenizer and other files"
_REST = "norms and the rest"


@dataclass(frozen=True)
class Subject:
    """What is verified, and what it is held against.

    Args:
        target: the bundle's target.
        model: the model's name.
        config: the model's shape.
        open_session: gives a fresh session, exact or as shipped.
        read_back: gives the sha256 of each quantised tensor's codes and scales in the artifact.
        check_hashes: gives the files that the manifest does not list; raises BundleError when a
            listed one is not what was written.
        recorded: the same hashes as `read_back`, from the manifest; empty when it has none.
        read_text: gives what is read.
        weights: the quantised weights; None when they were not kept.
        checkpoint: the checkpoint they were made from; None when it is not at hand.
        read_floats: gives the sha256 of each float weight in the artifact, as float32; None: this
            target's cannot be read.
        read_rotary: gives its rotary tables, "cos ..." and "sin ..."; None: it has none, or they
            cannot be read.
        rounding: says how the artifact's products round their inputs as shipped; None: not known.
        probe: looks inside the artifact in exact arithmetic; None: this target cannot be tapped.
        sizes_bytes: the bundle's parts; empty where they are not known.
        kv_dtype: of the artifact's KV cache, and so of its attention.
        open_reference: gives what computes as the runtime should; None: the runtime itself does.
    """

    target: str
    model: str
    config: LlamaConfig
    open_session: Callable[[bool], Session]
    read_back: Callable[[], Hashes]
    check_hashes: Callable[[], Sequence[str]]
    recorded: Hashes
    read_text: Callable[[], Text]
    weights: QuantizedWeights | None
    checkpoint: Checkpoint | None
    read_floats: Callable[[], Mapping[str, str]] | None = None
    read_rotary: Callable[[], Mapping[str, FloatArray]] | None = None
    rounding: Callable[[], RoundedInputs | None] = lambda: None
    probe: Probe | None = None
    sizes_bytes: Callable[[], Mapping[str, int]] = dict
    kv_dtype: str = "float32"
    open_reference: Callable[[], Session | None] = lambda: None


def subject_of(
    bundle: Bundle,
    *,
    weights: QuantizedWeights | None,
    checkpoint: Checkpoint | None,
    text: Path | None,
    threads: int | None,
) -> Subject:
    """Lay a bundle's parts out.

    Args:
        bundle: what to check.
        weights: the quantised weights that it holds, if they are at hand.
        checkpoint: the original, if it is at hand.
        text: a file to read instead of the built-in text.
        threads: the runtime's threads; None is its own choice.

    Raises:
        BackendUnavailableError: this machine's runtime cannot run the artifact.
        BundleError: the bundle's model or target is not understood.
        PromptError: the text cannot be read. That it is too short shows when it is tokenized,
            and no file of the bundle is opened before the hashes were compared.
    """
    from llama_export.targets import registry
    from llama_export.targets.stored import StoredArtifact
    from llama_export.tokenizer.tokenizer import Tokenizer

    registry.require_runs_here(bundle)
    manifest = bundle.manifest
    target, artifact = registry.get(manifest.target), StoredArtifact.of(bundle)
    stored = cache(lambda: target.stored(artifact))
    given = None if text is None else read_text(text)

    def tokenized() -> Text:
        tokenizer = Tokenizer.load(bundle.path(manifest.tokenizer["file"]))
        if text is None or given is None:
            return built_in_text(tokenizer)
        return tokenize(tokenizer, given, text)

    return Subject(
        target=manifest.target,
        model=manifest.model.name,
        config=LlamaConfig.from_hf(manifest.model.config, where="manifest.json"),
        open_session=lambda exact: target.open_session(artifact, exact=exact, threads=threads),
        read_back=lambda: stored().quantized,
        check_hashes=bundle.check_hashes,
        recorded=recorded_hashes(manifest.quantization),
        read_floats=lambda: stored().floats,
        read_rotary=lambda: stored().rotary,
        read_text=tokenized,
        weights=weights,
        checkpoint=checkpoint,
        rounding=lambda: target.rounded_inputs(artifact),
        probe=target.probe(artifact, threads=threads),
        sizes_bytes=lambda: bundle_parts(bundle),
        kv_dtype=str(manifest.graph.get("delegate", {}).get("kv_dtype", "float32")),
        open_reference=lambda: target.open_reference(artifact, threads=threads),
    )


def recorded_hashes(quantization: Mapping[str, object]) -> dict[str, tuple[str, str]]:
    """Read the hashes of codes and scales out of a manifest's `quantization`."""
    tensors = quantization.get("tensors")
    if not isinstance(tensors, Mapping):
        return {}
    return {
        str(name): (str(entry["codes_sha256"]), str(entry["scales_sha256"]))
        for name, entry in tensors.items()
        if "codes_sha256" in entry
    }


def bundle_parts(bundle: Bundle) -> dict[str, int]:
    """Add up a bundle's files in the few parts that a reader wants to see."""
    from llama_export.targets import registry
    from llama_export.targets.footprint import SCALES
    from llama_export.targets.stored import StoredArtifact

    parts: dict[str, int] = {}
    footprint = registry.get(bundle.manifest.target).describe(StoredArtifact.of(bundle))
    for part in footprint.parts:
        kind = part.kind.replace(" codes", " linears")
        kept = kind.endswith(("linears", "table", "weights")) or kind == SCALES
        name = kind if kept else _REST
        parts[name] = parts.get(name, 0) + part.size_bytes
    parts[_REST] = parts.pop(_REST, 0)
    parts[_OTHER_FILES] = max(bundle.size_bytes - sum(parts.values()), 0)
    return parts


def refuse_other_model(subject: Subject) -> None:
    """Refuse weights and a checkpoint that are not of the bundle's model.

    Raises:
        BundleError: names the first tensor that differs.
    """
    expected = expected_shapes(subject.config)
    sources: dict[str, Mapping[str, tuple[int, ...]]] = {}
    if subject.weights is not None:
        held = set(subject.weights.names())
        shapes = {name: subject.weights.get(name).shape for name in expected if name in held}
        sources["quantised weights"] = {name: tuple(shape) for name, shape in shapes.items()}
    if subject.checkpoint is not None:
        sources["checkpoint"] = subject.checkpoint.shapes
        if not _same_maths(subject.config, subject.checkpoint.config):
            message = "the checkpoint's config.json and the bundle's describe different models"
            raise BundleError(message, "give the checkpoint that the bundle was made from")
    for source, shapes_found in sources.items():
        for name, shape in expected.items():
            if shapes_found.get(name) != shape:
                message = (
                    f"the {source} are not the bundle's: {name} should be {shape}, "
                    f"found {shapes_found.get(name, 'nothing')}"
                )
                raise BundleError(message, f"give the {source} that the bundle was made from")


def _same_maths(one: LlamaConfig, other: LlamaConfig) -> bool:
    """Compare the fields that a forward pass depends on; which token ends a text is not one."""
    return one == replace(
        other,
        bos_token_id=one.bos_token_id,
        eos_token_id=one.eos_token_id,
        max_position_embeddings=one.max_position_embeddings,
    )
