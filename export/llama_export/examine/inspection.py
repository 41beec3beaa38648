"""What is inside a bundle or a `weights/` folder: parts, inputs and outputs, files, origin.

It reads manifests and headers, and no weight unless hashes are asked for. How an artifact is laid
out is its target's business (`Target.describe`). It prints nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llama_export.bundle.bundle import Bundle
from llama_export.bundle.graph_spec import GraphSpec, TensorSpec
from llama_export.bundle.manifest import MANIFEST_NAME
from llama_export.targets import registry
from llama_export.targets.footprint import Part
from llama_export.targets.stored import StoredArtifact
from llama_export.tokenizer.files import read_vocabulary
from llama_quantize.checkpoint.files import RECORD_FILE, WEIGHTS_FILE

_COMMON_FILES: Mapping[str, str] = {
    "config.json": "the model's shape",
    "generation_config.json": "the model's sampling settings",
    "tokenizer.model": "vocabulary, Meta's form",
    "tokenizer.json": "vocabulary, Hugging Face's form",
    "tokenizer_config.json": "special tokens, chat template",
    "NOTICE": "whose model, which licence",
    "manifest.json": "what the bundle is, with hashes",
    WEIGHTS_FILE: "the quantised weights",
    RECORD_FILE: "the recipe, and each tensor's error",
}
_LICENCE_FILES = re.compile(r"LICEN[SC]E|USE_POLICY", re.IGNORECASE)
_TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json")
_OTHER_FILE = "not the export's own"


@dataclass(frozen=True)
class FileNote:
    """A file, and what it is."""

    name: str
    size_bytes: int
    purpose: str


@dataclass(frozen=True)
class TensorGroup:
    """Inputs or outputs that differ in their layer only."""

    names: str
    count: int
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Inspection:
    """Everything that `inspect` says.

    Args:
        kind: "bundle" or "weights".
        hashes: "not checked", or "as written".
        unlisted: files of the folder that the manifest does not know; only with hashes.
    """

    folder: str
    kind: str
    model: Mapping[str, Any]
    quantization: Mapping[str, Any]
    graph: Mapping[str, Any]
    inputs: tuple[TensorGroup, ...]
    outputs: tuple[TensorGroup, ...]
    states: tuple[TensorGroup, ...]
    parts: tuple[Part, ...]
    files: tuple[FileNote, ...]
    tokenizer: Mapping[str, Any]
    created_with: Mapping[str, str]
    licence: str
    size_bytes: int
    hashes: str
    unlisted: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {"format_version": 1, **asdict(self)}


def inspect_bundle(
    bundle: Bundle, *, check_hashes: bool = False, progress: Callable[[int], None] | None = None
) -> Inspection:
    """Look into a bundle.

    Args:
        bundle: opened.
        check_hashes: read every byte and compare it with the manifest.
        progress: called with the bytes read since its last call.

    Raises:
        BundleError: a file was changed, or the artifact cannot be read.
        BackendUnavailableError: the target's toolkit is not installed.
        TokenizerError: the tokenizer's file cannot be read.
    """
    unlisted = bundle.check_hashes(progress) if check_hashes else ()
    manifest, spec = bundle.manifest, GraphSpec.from_json(bundle.manifest.graph)
    artifact = registry.get(manifest.target).describe(StoredArtifact(bundle.artifact, spec))
    sizes = {name: entry.size_bytes for name, entry in manifest.files.items()}
    sizes[MANIFEST_NAME] = (bundle.folder / MANIFEST_NAME).stat().st_size
    parts = [
        *artifact.parts,
        *_side_parts(sizes, leave_out=artifact.counted),
    ]
    config = manifest.model.config
    return Inspection(
        folder=str(bundle.folder),
        kind="bundle",
        model={
            "name": manifest.model.name,
            "hub_id": manifest.model.hub_id,
            "revision": manifest.model.revision,
            "config": dict(config),
        },
        quantization={
            **{key: value for key, value in manifest.quantization.items() if key != "tensors"},
            "tensors": len(manifest.quantization["tensors"]),
        },
        graph={
            "target": manifest.target,
            "artifact": manifest.artifact,
            "runs_here": manifest.runs_here,
            "max_context": spec.max_context,
            "all_logits": spec.all_logits,
            "kv_cache": spec.kv_cache,
            "delegate": dict(spec.delegate),
            "functions": dict(spec.functions),
            "kv_bytes_per_token": artifact.kv_bytes_per_token,
            "read_bytes_per_token": artifact.read_bytes_per_token(0),
        },
        inputs=group_tensors(spec.inputs),
        outputs=group_tensors(spec.outputs),
        states=group_tensors(spec.states),
        parts=tuple(parts),
        files=_file_notes(sizes, artifact.files),
        tokenizer={**manifest.tokenizer, "stop_token_names": _stop_token_names(bundle)},
        created_with=dict(manifest.created_with),
        licence=_licence(bundle.folder),
        size_bytes=sum(sizes.values()),
        hashes="as written" if check_hashes else "not checked",
        unlisted=unlisted,
    )


def inspect_weights(folder: Path, *, check_hashes: bool = False) -> Inspection:
    """Look into the `weights/` folder of an export.

    Raises:
        QuantizationError: it is none, or it is damaged.
    """
    from llama_quantize.checkpoint.weights import QuantizedWeights

    weights = QuantizedWeights.open(folder, check_hash=check_hashes)
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    kinds: dict[str, int] = {}
    for stats in weights.stats:
        kinds[stats.label] = kinds.get(stats.label, 0) + stats.size_bytes
    parts = [Part(kind, size, 0) for kind, size in sorted(kinds.items(), key=lambda item: -item[1])]
    own = [name for name in sizes if name == WEIGHTS_FILE]
    header = sizes[WEIGHTS_FILE] - sum(kinds.values())
    parts.append(Part("header and padding", header, 0))
    return Inspection(
        folder=str(folder),
        kind="weights",
        model=dict(weights.metadata),
        quantization={
            "recipe": weights.recipe.name,
            "bits_per_weight": round(weights.summary.bits_per_weight, 4),
            "sqnr_db": weights.summary.sqnr_db,
            "tensors": len(weights.stats),
        },
        graph={},
        inputs=(),
        outputs=(),
        states=(),
        parts=(*parts, *_side_parts(sizes, leave_out=own)),
        files=_file_notes(sizes, {}),
        tokenizer={},
        created_with={},
        licence=_licence(folder),
        size_bytes=sum(sizes.values()),
        hashes="as written" if check_hashes else "not checked",
    )


def group_tensors(specs: Iterable[TensorSpec]) -> tuple[TensorGroup, ...]:
    """Collapse what is the same for every layer: `present.{0-15}.key`."""
    groups: dict[tuple[str, str, tuple[int | str, ...]], list[int]] = {}
    for spec in specs:
        stem = re.sub(r"\.(\d+)\.", ".{}.", spec.name, count=1)
        number = re.search(r"\.(\d+)\.", spec.name)
        key = (stem, spec.dtype, spec.shape)
        groups.setdefault(key, []).append(int(number.group(1)) if number else 0)
    return tuple(
        TensorGroup(
            stem.replace("{}", f"{{{min(layers)}-{max(layers)}}}"), len(layers), dtype, shape
        )
        for (stem, dtype, shape), layers in groups.items()
    )


def _side_parts(sizes: Mapping[str, int], *, leave_out: Iterable[str]) -> list[Part]:
    """Add up the files beside the artifact."""
    left_out = set(leave_out)
    tokenizer = sum(size for name, size in sizes.items() if name in _TOKENIZER_FILES)
    rest = sum(
        size
        for name, size in sizes.items()
        if name not in _TOKENIZER_FILES and name not in left_out
    )
    return [Part("tokenizer", tokenizer, 0), Part("other files", rest, 0)]


def _file_notes(sizes: Mapping[str, int], target_files: Mapping[str, str]) -> tuple[FileNote, ...]:
    def purpose(name: str) -> str:
        known = target_files.get(name) or _COMMON_FILES.get(name)
        if known is None and _LICENCE_FILES.match(name):
            known = "the model's own licence text"
        return known or _OTHER_FILE

    return tuple(
        FileNote(name, size, purpose(name))
        for name, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    )


def _stop_token_names(bundle: Bundle) -> list[str | None]:
    """Name the stop tokens, in the manifest's order; None is one that is not special."""
    tokenizer = bundle.manifest.tokenizer
    special = read_vocabulary(bundle.path(tokenizer["file"])).special_tokens
    names = {token: name for name, token in special.items()}
    return [names.get(token) for token in tokenizer["stop_token_ids"]]


def _licence(folder: Path) -> str:
    """Return the sentence of NOTICE that names the licence."""
    try:
        text = (folder / "NOTICE").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return "no NOTICE"
    sentences = re.split(r"(?<=[.])\s+|\n\s*\n", text)
    found = next((part for part in sentences if re.search("licen", part, re.IGNORECASE)), "")
    return " ".join(found.split()) or "NOTICE names none"
