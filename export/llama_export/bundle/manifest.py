"""manifest.json: what a bundle holds, parsed strictly and written the same way every time.

It knows the fields, their types, how they depend on each other, and which paths may stand in a
bundle. It never looks at the files that it names. `graph` is checked by its owner, `GraphSpec`, as
the rest is read; what `model.config` means is `LlamaConfig`'s business.
schemas/manifest.schema.json says the same in JSON Schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from llama_export.bundle.app_keys import CHAT, MEMORY, check_chat, check_memory
from llama_export.bundle.graph_spec import GraphSpec
from llama_export.bundle.json_object import JsonObject, is_integer
from llama_export.bundle.model_info import NAME, ModelInfo, parse_model
from llama_export.errors import BundleError
from llama_quantize.strict_json import JsonFault, parse_json

FORMAT_VERSION = 2
# Version 1 said in a delegate's words what version 2 says in `runs_here`.
_FIRST_VERSION = 1
MANIFEST_NAME = "manifest.json"

_SIZE_LIMIT_BYTES = 16 * 2**20  # an 8B model's manifest is under 200 kB
_FAULTS_SHOWN = 20
_OPTIONAL = (MEMORY, CHAT)
_TENSOR_HASHES = ("codes_sha256", "scales_sha256")
_MOST_BITS = 64
_MOST_TOKENS = 2**24
_DAMAGED_HINT = "the bundle was changed or is damaged: export it again"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TARGET = re.compile(r"[a-z][a-z0-9_-]*")
# Starts with a digit and holds no slash, so that neither a path nor a host name gets in.
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+!_-]{0,99}")
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ABSOLUTE = re.compile(r"[/\\~]|[A-Za-z]:[/\\]")


@dataclass(frozen=True)
class FileEntry:
    """The fingerprint of one file: its SHA-256 in lower-case hex, and its length."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """The whole of manifest.json, one field a key.

    Args:
        format_version: version of the format; 1 has no key `runs_here`.
        target: name of the target.
        artifact: path inside the folder of what the runtime loads.
        model: origin of the weights.
        graph: `GraphSpec.to_json()`.
        quantization: recipe, group_size, bits_per_weight, sqnr_db, tensors (hashes by name).
        tokenizer: file, vocab_size, bos_token_id, stop_token_ids; and prefix_token_ids where a text
            begins otherwise than with bos_token_id.
        files: fingerprint of each file by its path inside the folder.
        created_with: versions by package name.
        runs_here: whether the runtime on the exporting machine can run the artifact; what is
            lowered for another processor was never run.
        memory: resident_bytes of the loaded artifact without its KV cache, about, and
            kv_bytes_per_token; None: an older export did not say.
        chat: turns of a dialog as data, or the reason why there are none; None: as `memory`.
    """

    format_version: int
    target: str
    artifact: str
    model: ModelInfo
    graph: Mapping[str, Any]
    quantization: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    files: Mapping[str, FileEntry]
    created_with: Mapping[str, str]
    runs_here: bool
    memory: Mapping[str, int] | None = None
    chat: Mapping[str, Any] | None = None

    @cached_property
    def spec(self) -> GraphSpec:
        """The artifact's signature.

        Raises:
            BundleError: the graph is damaged; one that was read from a file is not.
        """
        return GraphSpec.from_json(self.graph)

    def __repr__(self) -> str:
        facts = (self.target, str(self.quantization.get("recipe")), f"{len(self.files)} files")
        return f"<Manifest of {self.model.name}: {', '.join(facts)}>"

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest.json.

        Raises:
            BundleError: the file is missing, no valid JSON, or of a newer format, or a field is
                wrong.
        """
        try:
            with path.open("rb") as file:
                content = file.read(_SIZE_LIMIT_BYTES + 1)
        except OSError as error:
            message = f"{path} cannot be read: {error.strerror or error}"
            raise BundleError(message, "give a folder that holds a manifest.json") from error
        return cls.from_text(content, where=str(path))

    @classmethod
    def from_text(cls, text: str | bytes, where: str = MANIFEST_NAME) -> Manifest:
        """Parse the text of a manifest.json; a key given twice, NaN and infinity are refused.

        Raises:
            BundleError: the text is not valid JSON, or of a newer format, or a field is wrong.
        """
        try:
            raw = parse_json(text, most_bytes=_SIZE_LIMIT_BYTES)
        except JsonFault as error:
            message = f"{where} is not valid JSON: {error}"
            raise BundleError(message, _DAMAGED_HINT) from None
        return cls.from_json(raw, where=where)

    @classmethod
    def from_json(cls, raw: object, where: str = MANIFEST_NAME) -> Manifest:
        """Check every field and build a manifest.

        Raises:
            BundleError: the format is newer (both versions are named), or fields are wrong (all
                faults are listed).
        """
        if not isinstance(raw, dict):
            message = f"{where}: expected a JSON object, found {type(raw).__name__}"
            raise BundleError(message, _DAMAGED_HINT)
        _refuse_newer(raw.get("format_version"), where)
        faults: list[str] = []
        manifest = _parse(JsonObject(raw, "", faults))
        if faults := faults or _cross_faults(manifest):
            more = len(faults) - _FAULTS_SHOWN
            shown = faults[:_FAULTS_SHOWN] + ([f"and {more} more faults"] if more > 0 else [])
            message = f"{where}: {'; '.join(shown)}"
            raise BundleError(message, _DAMAGED_HINT)
        return manifest

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object, as `from_json` takes it."""
        raw = {**asdict(self), "model": self.model.to_json()}
        if self.format_version == _FIRST_VERSION:
            del raw["runs_here"]
        return {k: value for k, value in raw.items() if k not in _OPTIONAL or value is not None}

    def to_text(self) -> str:
        """Return the file's text: sorted keys, two spaces, a newline at the end.

        Raises:
            BundleError: a field holds something that JSON cannot hold, such as NaN or a Path.
        """
        try:
            text = json.dumps(self.to_json(), sort_keys=True, indent=2, allow_nan=False)
        except (TypeError, ValueError) as error:
            message = f"{MANIFEST_NAME} cannot be written: {error}"
            raise BundleError(message, "this is a fault of the export: report it") from error
        return text + "\n"


def path_fault(path: str) -> str:
    """Return why a path may not stand in a manifest; "" when it may.

    A path must be a relative POSIX path to a file inside the folder that means the same on every
    system: no `..`, no backslash, no drive letter, no control character.
    """
    parts = path.split("/")
    if path.startswith("/") or _ABSOLUTE.match(path):
        return "is not relative"
    if ".." in parts:
        return "leads out of the folder"
    if "" in parts or "." in parts:
        return "has an empty part or a '.'"
    if "\\" in path or ":" in path:
        return "holds a backslash or a colon"
    if not all(32 <= ord(c) != 127 and not 0xD800 <= ord(c) <= 0xDFFF for c in path):
        return "holds a control character or half a surrogate pair"
    if path == MANIFEST_NAME:
        return "is the manifest itself"
    return ""


def _refuse_newer(version: object, where: str) -> None:
    if isinstance(version, int) and not isinstance(version, bool) and version > FORMAT_VERSION:
        message = (
            f"{where} has format_version {version}; "
            f"this llama-export reads format_version {FORMAT_VERSION}"
        )
        raise BundleError(message, "update llama-export, or export the model again with this one")


def _parse(top: JsonObject) -> Manifest:
    version = top.integer("format_version", minimum=1)
    first = version == _FIRST_VERSION
    later = ("runs_here", *_OPTIONAL) if first else ()
    top.only(name for name in Manifest.__dataclass_fields__ if name not in later)
    graph, tokenizer = top.child("graph"), top.child("tokenizer")
    GraphSpec.read(graph)
    chat = check_chat(top.child(CHAT), tokenizer.raw.get("vocab_size")) if CHAT in top.raw else None
    return Manifest(
        format_version=version,
        target=top.text("target", _TARGET, "a target's name in lower case"),
        artifact=_path(top, "artifact"),
        model=parse_model(top.child("model")),
        graph=graph.raw,
        quantization=_check_quantization(top.child("quantization")),
        tokenizer=_check_tokenizer(tokenizer),
        files=_parse_files(top.child("files")),
        created_with=_parse_versions(top.child("created_with")),
        runs_here=_ran_in_version_1(graph.raw) if first else top.boolean("runs_here"),
        memory=check_memory(top.child(MEMORY)) if MEMORY in top.raw else None,
        chat=chat,
    )


def _ran_in_version_1(graph: Mapping[str, Any]) -> bool:
    delegate = graph.get("delegate")
    status = delegate.get("status") if isinstance(delegate, dict) else None
    return "not run" not in str(status)


def _path(owner: JsonObject, key: str) -> str:
    value = owner.raw.get(key)
    reason = path_fault(value) if isinstance(value, str) else "is not text"
    if reason:
        owner.fault(key, f"a path inside the folder (this one {reason})")
    return str(value)


def _check_quantization(quantization: JsonObject) -> Mapping[str, Any]:
    """Check the fields that every bundle has; a recipe may add its own."""
    quantization.text("recipe", NAME, "a recipe's name")
    quantization.number("bits_per_weight", 0, _MOST_BITS)
    if not quantization.is_null("group_size"):
        quantization.integer("group_size", minimum=1, maximum=_MOST_TOKENS)
    if not quantization.is_null("sqnr_db"):
        quantization.number("sqnr_db")
    if "calibration" in quantization.raw:
        calibration = quantization.child("calibration")
        calibration.text("method", NAME, "a method's name")
        calibration.integer("tokens", minimum=1)
        calibration.text("ids_sha256", _SHA256, "64 hex digits")
    tensors = quantization.child("tensors")
    for name in tensors.raw:
        hashes = tensors.child(name)
        hashes.only(_TENSOR_HASHES)
        for key in _TENSOR_HASHES:
            hashes.text(key, _SHA256, "64 hex digits")
    return quantization.raw


def _check_tokenizer(tokenizer: JsonObject) -> Mapping[str, Any]:
    _path(tokenizer, "file")
    size = tokenizer.integer("vocab_size", minimum=1, maximum=_MOST_TOKENS)
    if not tokenizer.is_null("bos_token_id") and tokenizer.integer("bos_token_id") >= size:
        tokenizer.fault("bos_token_id", f"inside the vocabulary of {size}")
    _check_ids(tokenizer, "stop_token_ids", size, fewest=1)
    if "prefix_token_ids" in tokenizer.raw:
        _check_ids(tokenizer, "prefix_token_ids", size, fewest=0)
    return tokenizer.raw


def _check_ids(tokenizer: JsonObject, key: str, size: int, *, fewest: int) -> None:
    ids = tokenizer.raw.get(key)
    if not (isinstance(ids, list) and len(ids) >= fewest and all(is_integer(i) for i in ids)):
        tokenizer.fault(key, f"a list of {'at least one token id' if fewest else 'token ids'}")
    elif not all(0 <= token < size for token in ids):
        tokenizer.fault(key, f"inside the vocabulary of {size}")


def _parse_files(files: JsonObject) -> Mapping[str, FileEntry]:
    result = {}
    for path in files.raw:
        if reason := path_fault(path):
            files.fault(path, f"named by a path inside the folder (this one {reason})")
        entry = files.child(path)
        entry.only(FileEntry.__dataclass_fields__)
        sha256 = entry.text("sha256", _SHA256, "64 hex digits")
        result[path] = FileEntry(sha256, entry.integer("size_bytes"))
    return result


def _parse_versions(versions: JsonObject) -> Mapping[str, str]:
    for name in versions.raw:
        if not _PACKAGE.fullmatch(name):
            versions.fault(name, "named by a package")
    return {name: versions.text(name, _VERSION, "a version number") for name in versions.raw}


def _cross_faults(manifest: Manifest) -> list[str]:
    faults = []
    # A Core ML package is a folder: its files are listed, not itself.
    folders = {str(parent) for path in manifest.files for parent in PurePosixPath(path).parents}
    if manifest.artifact not in manifest.files and manifest.artifact not in folders:
        faults.append(f"artifact {manifest.artifact!r} is not among the files")
    if manifest.tokenizer["file"] not in manifest.files:
        faults.append(f"tokenizer.file {manifest.tokenizer['file']!r} is not among the files")
    return faults
