"""The files of a checkpoint in the transformers layout: which are needed, and which are missing.

It knows names, config.json, the tokenizer and the index of shards; it opens no weight and imports
no torch, so that it can refuse what is missing before anything is fetched or loaded.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from llama_export.checkpoints.checkpoint import Fault, WantedFiles
from llama_export.checkpoints.companions import (
    CHAT_TEMPLATE_FILE,
    GENERATION_CONFIG_FILE,
    TEMPLATES_FOLDER,
    TOKENIZER_CONFIG_FILE,
)
from llama_export.errors import CheckpointError
from llama_export.tokenizer.files import TOKENIZER_FILES
from llama_quantize.printable import printable, shown_name
from llama_quantize.strict_json import JsonFault, read_object

CONFIG_FILE = "config.json"
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLED_FILE = "pytorch_model.bin"
PICKLED_INDEX_FILE = "pytorch_model.bin.index.json"
PICKLED = ".bin"

_TENSORS = ".safetensors"
_SHARD = re.compile(r"(?:pytorch_)?model-\d+-of-(\d+)\.(?:safetensors|bin)", re.IGNORECASE)
_NO_MODEL = re.compile(r"adapter_model.*")
_SMALL_FILES = (
    CONFIG_FILE,
    GENERATION_CONFIG_FILE,
    TOKENIZER_CONFIG_FILE,
    CHAT_TEMPLATE_FILE,
    f"{TEMPLATES_FOLDER}/*.jinja",
    *TOKENIZER_FILES,
    "special_tokens_map.json",
    "added_tokens.json",
    "LICENSE*",
    "LICENCE*",
    "NOTICE*",
    "USE_POLICY*",
)
_LAYOUT_HINT = "name a folder or repository in the transformers layout"
# tokenizer.json beside a tokenizer.model: between 2.1 times it (4,096 tokens) and 2.8 (128,256).
_JSON_PER_MODEL, _JSON_SPECIAL_BYTES = 2.15, 33_800
_MOST_NAMES = 4
_MOST_PATHS = 12
_MOST_NAME_CHARACTERS = 200
# The largest file beside the weights but the tokenizer: the index of 405B is 0.1 MB.
_MOST_SETTINGS_BYTES = 4 * 2**20


def no_folder(path: Path, instead: Fault | None = None) -> CheckpointError:
    """Return the error for what is a file of no format, or is not there.

    Args:
        path: what was named.
        instead: what a file is, if that is known.
    """
    # os.path, because to Path a name that is too long is an error, not a name of nothing.
    exists = os.path.exists(path)  # noqa: PTH110
    fault = "is a file, not a folder" if exists else "does not exist"
    shown = shown_name(str(path), 300)
    if instead is not None:
        message = f"{shown} {instead.text}"
        return CheckpointError(message, instead.hint)
    message = f"{shown} {fault}"
    hint = f"name the folder of a checkpoint ({CONFIG_FILE} and its weights), or a file in GGUF"
    return CheckpointError(message, hint)


def tokenizer_bytes(folder: Path) -> int:
    """Return the size of both tokenizer files in a bundle, about, from those that are there."""
    sizes = {
        path.suffix: path.stat().st_size
        for path in map(folder.joinpath, TOKENIZER_FILES)
        if path.is_file()
    }
    model_bytes, json_bytes = sizes.get(".model", 0), sizes.get(".json")
    return model_bytes + (json_bytes or int(model_bytes * _JSON_PER_MODEL) + _JSON_SPECIAL_BYTES)


@dataclass(frozen=True)
class WeightLayout:
    """Which of a folder's files hold the weights.

    Args:
        single: file that holds all of them; empty: there is an index.
        index: file that names the others; empty: there is one alone.
    """

    single: str = ""
    index: str = ""

    @property
    def is_usual(self) -> bool:
        """Whether the files have the names that transformers gives them."""
        return self in _LAYOUTS


# transformers' order: whatever is there besides is not read.
_LAYOUTS = (
    WeightLayout(single=SINGLE_FILE),
    WeightLayout(index=INDEX_FILE),
    WeightLayout(single=PICKLED_FILE),
    WeightLayout(index=PICKLED_INDEX_FILE),
)


def weight_layout(files: Collection[str]) -> WeightLayout | None:
    """Choose the weight files among some files; None: there are none that can be read.

    They are those that transformers would read, or else the one .safetensors file that there is.
    """
    for layout in _LAYOUTS:
        if (layout.single or layout.index) in files:
            return layout
    alone = [name for name in files if name.endswith(_TENSORS) and not _NO_MODEL.fullmatch(name)]
    part = _SHARD.fullmatch(alone[0]) if len(alone) == 1 else None
    if len(alone) != 1 or "/" in alone[0] or (part and int(part[1]) != 1):
        return None
    return WeightLayout(single=alone[0])


def wanted_files(files: Collection[str], instead: Fault | None = None) -> WantedFiles | Fault:
    """Choose what an export needs of a repository, or return why it cannot start from it."""
    layout = weight_layout(files)
    if layout is None:
        return missing_weights(files, instead)
    if CONFIG_FILE not in files:
        return Fault(f"has no {CONFIG_FILE}", _LAYOUT_HINT)
    kind = PICKLED if layout.index == PICKLED_INDEX_FILE else _TENSORS
    shards = sorted(
        name for name in files if _SHARD.fullmatch(name) and name.lower().endswith(kind)
    )
    weights = [*shards, layout.index] if layout.index else [layout.single]
    small = sorted(filter(is_small_file, files))
    return WantedFiles(tuple(small), tuple(weights), CONFIG_FILE, index=layout.index)


def is_small_file(name: str) -> bool:
    """Whether a file of a repository is one that a bundle is made from, beside the weights."""
    # `*` stands for any character, the slash too: a pattern must not reach into a subfolder.
    return any(
        name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name, pattern)
        for pattern in _SMALL_FILES
    )


def missing_weights(files: Collection[str], instead: Fault | None) -> Fault:
    """Explain why there are no weights to read among some files.

    Args:
        files: paths in a folder or repository.
        instead: what these files are, if that is known.
    """
    text = f"has no weights ({SINGLE_FILE}, or {INDEX_FILE} and its shards)"
    if instead is not None:
        return Fault(f"{text}: it {instead.text}", instead.hint)
    loose = sorted(name for name in files if name.endswith(_TENSORS))
    if not loose:
        return Fault(text, f"download the weights, or {_LAYOUT_HINT}")
    names = ", ".join(map(shown_name, loose[:_MOST_NAMES]))
    return Fault(text, f"found {names}: download {INDEX_FILE}, which says what is in them")


def has_all_weights(folder: Path) -> bool:
    """Whether the single file or every shard that the index names is there."""
    layout = weight_layout([path.name for path in folder.iterdir() if path.is_file()])
    if layout is None or layout.single:
        return layout is not None
    try:
        index = read_index(folder / layout.index)
    except CheckpointError:
        return False
    return all((folder / name).is_file() for name in set(index.values()))


def read_index(path: Path) -> dict[str, str]:
    """Read the shard of each tensor, refusing every path that is not inside the folder.

    Raises:
        CheckpointError: the index is damaged, or names a file elsewhere.
    """
    suffix = PICKLED if path.name == PICKLED_INDEX_FILE else _TENSORS
    try:
        raw = read_object(path, most_bytes=_MOST_SETTINGS_BYTES)
    except (OSError, JsonFault) as error:
        message = f"{path} cannot be read: {error}"
        raise CheckpointError(message, "download the file again") from None
    index = raw.get("weight_map")
    if not isinstance(index, dict) or not index:
        message = f"{path}: expected an object weight_map of tensor names and file names"
        raise CheckpointError(message, "download the file again")
    unsafe = sorted(
        {shown_name(repr(name)) for name in index.values() if not _is_inside(name, suffix)}
    )
    if unsafe:
        message = (
            f"{path}: a shard must be a {suffix} file inside the folder, "
            f"found {', '.join(unsafe[:_MOST_PATHS])}"
        )
        raise CheckpointError(message, "do not use this checkpoint: its index was tampered with")
    return index


def _is_inside(name: object, suffix: str) -> bool:
    """Whether a shard's name stays in the folder, on every system's reading of it."""
    if not isinstance(name, str) or not name.endswith(suffix):
        return False
    if len(name) > _MOST_NAME_CHARACTERS or printable(name, keep="") != name:
        return False
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    return not (windows.drive or windows.root or posix.root or ".." in windows.parts)
