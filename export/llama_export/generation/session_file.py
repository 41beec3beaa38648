"""The file of a session or a conversation: texts, tokens, KV cache, and the bundle that wrote it.

It is an .npz without compression: `conversation.json`, then the keys and values of each layer,
used rows only, each entry with the checksum that a zip gives it. Nothing in it is ever executed:
no pickle is written, and none is read. The module knows nothing of how a session runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from llama_export.bundle.manifest import Manifest
from llama_export.errors import LlamaExportError, OutputError, PromptError
from llama_export.generation.sampling import Sampling
from llama_export.llama.intermediates import FloatArray
from llama_export.targets.session import KeyValueArrays
from llama_quantize.strict_json import parse_object

FORMAT_VERSION = 2
# Version 1 kept the tokens of each turn too, which are made anew from the texts.
_READ_VERSIONS = (1, 2)

_RECORD = "conversation.json"
_RECORD_LIMIT_BYTES = 64 * 2**20
# What an array's own header may add to its rows.
_HEADER_LIMIT_BYTES = 4096
# numpy's own parser evaluates the header; what is written here has one form.
_ARRAY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '<f4', 'fortran_order': False, "
    rb"'shape': \((\d{1,10}), (\d{1,10}), (\d{1,10})\), \} *\n",
    re.DOTALL,
)
_MOST_TOKENS = 2**31 - 1
_ROLES = ("system", "user", "assistant")
_DAMAGED_HINT = "the file was changed or is incomplete: copy it again, or begin a new conversation"


@dataclass(frozen=True)
class BundleIdentity:
    """What must be the same for a KV cache to mean the same: not the folder, not the notices.

    Args:
        name: description for people.
        sha256: hash of the model's config, the graph, every quantised tensor's hash, and the
            bytes of the artifact and of the tokenizer.
    """

    name: str
    sha256: str

    @classmethod
    def of(cls, manifest: Manifest) -> BundleIdentity:
        """Derive a bundle's identity from its manifest."""
        tokenizer_file = str(manifest.tokenizer["file"])
        files = {
            path: entry.sha256
            for path, entry in manifest.files.items()
            if path.startswith(manifest.artifact) or path == tokenizer_file
        }
        content = {
            "target": manifest.target,
            "config": manifest.model.config,
            "graph": manifest.graph,
            "tensors": manifest.quantization["tensors"],
            "files": files,
        }
        text = json.dumps(content, sort_keys=True)
        name = f"{manifest.model.name} ({manifest.target}, {manifest.quantization['recipe']})"
        return cls(name, hashlib.sha256(text.encode()).hexdigest())

    def __str__(self) -> str:
        # It may come from a file that somebody made to steer the terminal.
        text = f"{self.name} {self.sha256:.8}"
        return "".join(letter for letter in text if letter.isprintable())[:120]


@dataclass(frozen=True)
class Turn:
    """One message of a conversation.

    Args:
        role: "system", "user" or "assistant".
        text: the message as text.
    """

    role: str
    text: str


@dataclass(frozen=True)
class SavedSession:
    """The content of a file.

    Args:
        bundle: identity of the bundle that wrote it.
        token_ids: tokens in the cache.
        layers: each layer's keys and values, `[K, position, D]`; empty where only the texts were
            asked for.
        turns: turns of a conversation; empty for a plain text.
        sampling: how the conversation's answers are drawn.
        max_tokens: largest number of tokens of an answer.
    """

    bundle: BundleIdentity
    token_ids: tuple[int, ...]
    layers: Sequence[KeyValueArrays]
    turns: tuple[Turn, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int = 0


def write_session_file(path: Path, saved: SavedSession) -> None:
    """Write a file, whole or not at all, and replace an older one of that name.

    Raises:
        OutputError: it cannot be written there, or the disk is full.
    """
    refuse_unwritable(path)
    partial = _partial(path)
    try:
        try:
            with partial.open("wb") as file:
                _write_archive(file, saved)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            with suppress(FileNotFoundError):
                partial.unlink()
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror or error}"
        raise OutputError(message, "choose another place, or free some space") from error


def refuse_unwritable(path: Path) -> None:
    """Refuse a path where no file can be written, before there is anything to lose.

    Raises:
        OutputError: the path is a folder, or its folder is missing or cannot be written to.
    """
    if not path.name or "\0" in path.name:
        message = f"{str(path)!r:.200} is not a file name"
        raise OutputError(message, "give the file's name too")
    partial = _partial(path)
    try:
        if path.is_dir():
            message = f"{path} cannot be written: it is a folder"
            raise OutputError(message, "give the file's name too")
        if path.exists() and not path.is_file():
            message = f"{path} cannot be written: it is a device or a pipe, and no file"
            raise OutputError(message, "give the name of a file")
        # Rights alone do not tell: a disk can be read-only, and a name too long.
        partial.touch()
        partial.unlink()
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror or error}"
        hint = "choose another place; the folder must exist and let you write"
        raise OutputError(message, hint) from error


def read_session_file(path: Path, expected: BundleIdentity | None) -> SavedSession:
    """Read a file.

    Args:
        path: file that `write_session_file` wrote.
        expected: identity of the open bundle. None: take a file of any bundle, but without the
            cache, which means nothing to another one.

    Raises:
        PromptError: the file is missing, a folder, damaged, of a newer format, or another
            bundle's.
    """
    try:
        if path.is_dir():
            message = f"{path} is a folder, and no saved conversation"
            raise PromptError(message, "give a file that /save, --save or `save` wrote")
        if path.exists() and not path.is_file():
            # A device may have no end, and a pipe no beginning to go back to.
            message = f"{path} is a device or a pipe, and no saved conversation"
            raise PromptError(message, "give a file that /save, --save or `save` wrote")
        with zipfile.ZipFile(path) as archive:
            _refuse_inflated(archive, path.stat().st_size)
            record = _read_record(archive)
            _refuse_newer(record, path)
            bundle = BundleIdentity(**record["bundle"])
            if expected is not None and bundle.sha256 != expected.sha256:
                raise _other_bundle(path, bundle, expected)
            return SavedSession(
                bundle=bundle,
                token_ids=_ids(record["token_ids"]),
                layers=() if expected is None else _read_layers(archive, record),
                turns=tuple(_turn(turn) for turn in record["turns"]),
                sampling=Sampling(**record["sampling"]),
                max_tokens=_count(record["max_tokens"]),
            )
    except PromptError:
        raise
    except FileNotFoundError:
        message = f"{path} does not exist"
        raise PromptError(message, "give a file that /save, --save or `save` wrote") from None
    except (OSError, zipfile.BadZipFile, EOFError, struct.error) as error:
        raise _damaged(path, error) from error
    except (LookupError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        # What a record edited by hand can lead to: a missing or infinite number, a value of
        # another type, endless nesting, an entry that is encrypted or oddly compressed.
        raise _damaged(path, error) from error
    except LlamaExportError as error:  # the sampling's own refusal
        raise _damaged(path, error) from error


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial-{os.getpid()}")


def _write_archive(file: IO[bytes], saved: SavedSession) -> None:
    record = {
        "format_version": FORMAT_VERSION,
        "bundle": asdict(saved.bundle),
        "layers": len(saved.layers),
        "rows": list(saved.layers[0][0].shape) if saved.layers else [0, 0, 0],
        "token_ids": [int(token) for token in saved.token_ids],
        "turns": [asdict(turn) for turn in saved.turns],
        "sampling": asdict(saved.sampling),
        "max_tokens": saved.max_tokens,
    }
    text = json.dumps(record, sort_keys=True, allow_nan=False)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        # A ZipInfo of our own has a constant date, so the same conversation gives the same bytes.
        archive.writestr(zipfile.ZipInfo(_RECORD), text.encode())
        for layer, pair in enumerate(saved.layers):
            for kind, rows in zip(("key", "value"), pair, strict=True):
                entry = zipfile.ZipInfo(_entry(kind, layer))
                with archive.open(entry, "w", force_zip64=True) as stream:
                    array = np.ascontiguousarray(rows, dtype=np.float32)
                    np.lib.format.write_array(stream, array, allow_pickle=False)


def _entry(kind: str, layer: int) -> str:
    return f"{kind}.{layer}.npy"


def _refuse_inflated(archive: zipfile.ZipFile, size_bytes: int) -> None:
    """Refuse entries that are more together than the file: nothing of ours is compressed."""
    claimed = sum(info.file_size for info in archive.infolist())
    if claimed > size_bytes:
        message = f"its entries should be {claimed} bytes, and the file has {size_bytes}"
        raise ValueError(message)


def _read_record(archive: zipfile.ZipFile) -> dict[str, Any]:
    info = archive.getinfo(_RECORD)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > _RECORD_LIMIT_BYTES:
        message = f"{_RECORD} is compressed or longer than {_RECORD_LIMIT_BYTES} bytes"
        raise ValueError(message)
    return parse_object(archive.read(info), most_bytes=_RECORD_LIMIT_BYTES)


def _read_layers(archive: zipfile.ZipFile, record: Mapping[str, Any]) -> list[KeyValueArrays]:
    heads, positions, head_dim = map(_count, record["rows"])
    if positions != len(record["token_ids"]):
        message = f"{len(record['token_ids'])} tokens, but {positions} rows of cache"
        raise ValueError(message)
    shape = (heads, positions, head_dim)
    return [
        (
            _read_rows(archive, _entry("key", layer), shape),
            _read_rows(archive, _entry("value", layer), shape),
        )
        for layer in range(_count(record["layers"]))
    ]


def _read_rows(archive: zipfile.ZipFile, name: str, shape: tuple[int, int, int]) -> FloatArray:
    """Read one entry, whose length is checked before memory is taken for it."""
    info = archive.getinfo(name)
    expected_bytes = 4 * shape[0] * shape[1] * shape[2]
    plain = info.compress_type == zipfile.ZIP_STORED
    if not plain or not 0 <= info.file_size - expected_bytes <= _HEADER_LIMIT_BYTES:
        message = f"{name}: expected {expected_bytes} bytes, found {info.file_size}"
        raise ValueError(message)
    content = archive.read(info)  # to the very end: there the checksum is compared
    header = _ARRAY_HEADER.match(content)
    found = None if header is None else tuple(map(int, header.groups()))
    if header is None or found != shape or len(content) - header.end() != expected_bytes:
        message = f"{name}: expected an array of float32 {shape}"
        raise ValueError(message)
    rows = np.frombuffer(content, dtype="<f4", offset=header.end()).reshape(shape)
    if not np.isfinite(rows).all():
        message = f"{name}: it holds what is not a finite number"
        raise ValueError(message)
    return rows


def _ids(raw: object) -> tuple[int, ...]:
    if not isinstance(raw, list) or not all(type(each) is int and each >= 0 for each in raw):
        message = f"expected a list of token ids, found {raw!r:.80}"
        raise ValueError(message)
    return tuple(raw)


def _count(raw: object) -> int:
    if type(raw) is not int or not 0 <= raw <= _MOST_TOKENS:
        message = f"expected a number of tokens, found {raw!r:.80}"
        raise ValueError(message)
    return raw


def _turn(raw: Mapping[str, Any]) -> Turn:
    if raw["role"] not in _ROLES or not isinstance(raw["text"], str):
        message = f"expected a turn with role and text, found {raw!r:.80}"
        raise ValueError(message)
    raw["text"].encode()  # half a surrogate pair is no text
    return Turn(str(raw["role"]), raw["text"])


def _refuse_newer(record: Mapping[str, Any], path: Path) -> None:
    version = record["format_version"]
    if version not in _READ_VERSIONS:
        message = (
            f"{path} has format_version {version!r:.20}; this llama-export reads format_version "
            f"{FORMAT_VERSION}"
        )
        raise PromptError(message, "update llama-export")


def _other_bundle(path: Path, found: BundleIdentity, expected: BundleIdentity) -> PromptError:
    message = f"{path} is of another bundle: it was saved with {found}, and this is {expected}"
    hint = "open it with its own bundle; in a chat, /load --text FILE takes over the texts alone"
    return PromptError(message, hint)


def _damaged(path: Path, error: BaseException) -> PromptError:
    reason = str(error) or type(error).__name__
    message = f"{path} is not a saved conversation, or it is damaged: {reason:.300}"
    return PromptError(message, _DAMAGED_HINT)
