"""What is inside a bundle or a `weights/` folder: parts, inputs and outputs, files, origin.

It reads manifests and headers, and no weight unless hashes are asked for. It prints nothing, and
does not know how an artifact is laid out: that is its target's business (`Target.describe`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llama_export.bundle.bundle import Bundle
from llama_export.bundle.graph_spec import TensorSpec
from llama_export.bundle.journal import warn_if_unfinished
from llama_export.bundle.manifest import MANIFEST_NAME
from llama_export.sources.manifest_fields import describe_calibration
from llama_export.sources.reading import how_it_was_read
from llama_export.sources.source import IDENTITY
from llama_export.targets import registry
from llama_export.targets.footprint import Part
from llama_export.targets.stored import StoredArtifact
from llama_export.tokenizer.tokenizer import load_tokenizer
from llama_quantize.checkpoint.files import (
    CALIBRATION_FILE,
    RECORD_FILE,
    WEIGHTS_FILE,
    is_quantized,
)

# Told how many bytes have been read, of how many.
Progress = Callable[[int, int], None]

_COMMON_FILES: Mapping[str, str] = {
    "config.json": "the model's shape",
    "generation_config.json": "the model's sampling settings",
    "tokenizer.model": "vocabulary, Meta's form",
    "tokenizer.json": "vocabulary, Hugging Face's form",
    "tokenizer_config.json": "special tokens, chat template",
    "golden.json": "what it answers, for apps to compare",
    "NOTICE": "whose model, which licence",
    "manifest.json": "what the bundle is, with hashes",
    WEIGHTS_FILE: "the quantised weights",
    RECORD_FILE: "the recipe, and each tensor's error",
    CALIBRATION_FILE: "the tokens that they were calibrated on",
}
_LICENCE_FILES = re.compile(r"LICEN[SC]E|USE_POLICY", re.IGNORECASE)
_TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json")
_OTHER_FILE = "not the export's own"


@dataclass(frozen=True)
class FileNote:
    """A file and its purpose.

    Args:
        name: path inside the folder.
        size_bytes: length of the file.
        purpose: what the file is for, in a few words.
    """

    name: str
    size_bytes: int
    purpose: str


@dataclass(frozen=True)
class TensorGroup:
    """Inputs or outputs that differ only in their layer.

    Args:
        names: the names as one, such as `present.{0-15}.key`.
        count: number of tensors.
        dtype: type of their elements.
        shape: their dimensions, each a number or the name of what varies.
    """

    names: str
    count: int
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Inspection:
    """Everything that `inspect` finds.

    Args:
        folder: the folder.
        kind: "bundle" or "weights".
        model: name, hub_id, revision and config of the model, and how it was read.
        quantization: recipe, bits per weight and error of the weights, and their number.
        graph: target and signature of the artifact; empty for weights.
        inputs: inputs of the artifact.
        outputs: outputs of the artifact.
        states: caches that the artifact keeps inside.
        parts: what takes the space, by kind.
        files: the files, largest first.
        tokenizer: file, size and stop tokens of the tokenizer.
        memory: what a manifest says of the memory to run it; empty for weights and older bundles.
        chat: the turns of a dialog, or why there are none; empty as `memory`.
        created_with: versions by package name.
        licence: sentence of NOTICE that names the licence.
        size_bytes: size of all files.
        hashes: "not checked" or "as written".
        unlisted: files of the folder that the manifest does not list; known only with hashes.
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
    memory: Mapping[str, int]
    chat: Mapping[str, Any]
    created_with: Mapping[str, str]
    licence: str
    size_bytes: int
    hashes: str
    unlisted: tuple[str, ...] = ()

    def __repr__(self) -> str:
        facts = [self.model.get("name"), self.graph.get("target"), self.quantization.get("recipe")]
        known = ", ".join(str(fact) for fact in facts if fact)
        return f"<Inspection of the {self.kind} {self.folder}: {known}, {self.size_bytes} bytes>"

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {"format_version": 1, **asdict(self)}


def inspect_folder(
    folder: Path, *, check_hashes: bool = False, progress: Progress | None = None
) -> Inspection:
    """Look into a bundle, or into the `weights/` folder of an export.

    Args:
        folder: the folder.
        check_hashes: whether to read every byte and compare it with what was written.
        progress: function to call while a bundle's files are hashed.

    Raises:
        BundleError: the folder is no bundle, a file was changed, or the artifact cannot be read.
        BackendUnavailableError: the target's toolkit is not installed.
        TokenizerError: the tokenizer's file cannot be read.
        QuantizationError: the folder's quantised weights are damaged.
    """
    if is_quantized(folder) and not (folder / MANIFEST_NAME).exists():
        return inspect_weights(folder, check_hashes=check_hashes)
    return inspect_bundle(Bundle.open(folder), check_hashes=check_hashes, progress=progress)


def inspect_bundle(
    bundle: Bundle, *, check_hashes: bool = False, progress: Progress | None = None
) -> Inspection:
    """Look into a bundle.

    Args:
        bundle: opened bundle.
        check_hashes: whether to read every byte and compare it with the manifest.
        progress: function to call while the files are hashed.

    Raises:
        BundleError: a file was changed, or the artifact cannot be read.
        BackendUnavailableError: the target's toolkit is not installed.
        TokenizerError: the tokenizer's file cannot be read.
    """
    unlisted = bundle.check_hashes(_summed(progress, bundle.size_bytes)) if check_hashes else ()
    manifest, spec = bundle.manifest, bundle.manifest.spec
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
        model={**manifest.model.to_json(), "config": dict(config)},
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
        memory=dict(manifest.memory or {}),
        chat=dict(manifest.chat or {}),
        created_with=dict(manifest.created_with),
        licence=_licence(bundle.folder),
        size_bytes=sum(sizes.values()),
        hashes="as written" if check_hashes else "not checked",
        unlisted=unlisted,
    )


def inspect_weights(folder: Path, *, check_hashes: bool = False) -> Inspection:
    """Look into the `weights/` folder of an export.

    Args:
        folder: the folder.
        check_hashes: whether to read every byte and compare it with the record.

    Raises:
        QuantizationError: the folder holds no quantised weights, or damaged ones.
    """
    from llama_quantize.checkpoint.weights import QuantizedWeights

    warn_if_unfinished(folder)
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
        model={
            **{key: text for key, text in weights.metadata.items() if key in IDENTITY},
            **how_it_was_read(weights.metadata),
        },
        quantization={
            "recipe": weights.recipe.name,
            "bits_per_weight": round(weights.summary.bits_per_weight, 4),
            "sqnr_db": weights.summary.sqnr_db,
            "tensors": len(weights.stats),
            **describe_calibration(weights),
        },
        graph={},
        inputs=(),
        outputs=(),
        states=(),
        parts=(*parts, *_side_parts(sizes, leave_out=own)),
        files=_file_notes(sizes, {}),
        tokenizer={},
        memory={},
        chat={},
        created_with={},
        licence=_licence(folder),
        size_bytes=sum(sizes.values()),
        hashes="as written" if check_hashes else "not checked",
    )


def group_tensors(specs: Iterable[TensorSpec]) -> tuple[TensorGroup, ...]:
    """Collapse tensors that are the same in every layer, such as `present.{0-15}.key`."""
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


def _summed(progress: Progress | None, total: int) -> Callable[[int], None] | None:
    """Turn the bytes since the last call into the bytes so far."""
    if progress is None:
        return None
    done = 0

    def count(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        progress(done, total)

    return count


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
    """Name the stop tokens, in the manifest's order; None stands for one that is not special."""
    tokenizer = bundle.manifest.tokenizer
    loaded = load_tokenizer(bundle.path(tokenizer["file"]))
    return [loaded.token_name(token_id) for token_id in tokenizer["stop_token_ids"]]


def _licence(folder: Path) -> str:
    """Return the sentence of NOTICE that names the licence."""
    try:
        text = (folder / "NOTICE").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return "no NOTICE"
    sentences = re.split(r"(?<=[.])\s+|\n\s*\n", text)
    found = next((part for part in sentences if re.search("licen", part, re.IGNORECASE)), "")
    return " ".join(found.split()) or "NOTICE names none"
