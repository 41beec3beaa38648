"""The files of a checkpoint in the transformers layout: which are needed, and which are missing.

It knows names, config.json, the tokenizer and the index of shards; it opens no weight and imports
no torch, so that it can refuse what is missing before anything is fetched or loaded.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Collection
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

_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_SMALL_FILES = (
    CONFIG_FILE,
    GENERATION_CONFIG_FILE,
    TOKENIZER_CONFIG_FILE,
    CHAT_TEMPLATE_FILE,
    f"{TEMPLATES_FOLDER}/*.jinja",
    *TOKENIZER_FILES,
    "LICENSE*",
    "LICENCE*",
    "NOTICE*",
    "USE_POLICY*",
)
_PICKLES = (".bin", ".pth", ".pt")
_LAYOUT_HINT = "name a folder or repository in the transformers layout"
# tokenizer.json beside a tokenizer.model: between 2.1 times it (4,096 tokens) and 2.8 (128,256).
_JSON_PER_MODEL, _JSON_SPECIAL_BYTES = 2.15, 33_800
_MOST_NAMES = 4
_MOST_PATHS = 12
_MOST_NAME_CHARACTERS = 200
# The largest file beside the weights but the tokenizer: the index of 405B is 0.1 MB.
_MOST_SETTINGS_BYTES = 4 * 2**20


def no_folder(path: Path) -> CheckpointError:
    """Return the error for what is a file of no format, or is not there."""
    # os.path, because to Path a name that is too long is an error, not a name of nothing.
    exists = os.path.exists(path)  # noqa: PTH110
    fault = "is a file, not a folder" if exists else "does not exist"
    message = f"the checkpoint folder {shown_name(str(path), 300)} {fault}"
    return CheckpointError(message, f"name a folder that holds {CONFIG_FILE} and {SINGLE_FILE}")


def tokenizer_bytes(folder: Path) -> int:
    """Return the size of both tokenizer files in a bundle, about, from those that are there."""
    sizes = {
        path.suffix: path.stat().st_size
        for path in map(folder.joinpath, TOKENIZER_FILES)
        if path.is_file()
    }
    model_bytes, json_bytes = sizes.get(".model", 0), sizes.get(".json")
    return model_bytes + (json_bytes or int(model_bytes * _JSON_PER_MODEL) + _JSON_SPECIAL_BYTES)


def wanted_files(files: Collection[str]) -> WantedFiles | Fault:
    """Choose what an export needs of a repository, or return why it cannot start from it."""
    if fault := weights_fault(files):
        return fault
    if CONFIG_FILE not in files:
        return Fault(f"has no {CONFIG_FILE}", _LAYOUT_HINT)
    shards = sorted(name for name in files if _SHARD.fullmatch(name))
    weights = [SINGLE_FILE] if SINGLE_FILE in files else [*shards, INDEX_FILE]
    # `*` stands for any character, the slash too: a pattern must not reach into a subfolder.
    small = sorted(
        name
        for name in files
        if any(
            name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name, pattern)
            for pattern in _SMALL_FILES
        )
    )
    return WantedFiles(tuple(small), tuple(weights), CONFIG_FILE)


def weights_fault(files: Collection[str]) -> Fault | None:
    """Explain why there are no weights to read among some files; None if there are."""
    if SINGLE_FILE in files or INDEX_FILE in files:
        return None
    loose = sorted(name for name in files if name.endswith(".safetensors"))
    pickles = sorted(name for name in files if name.endswith(_PICKLES))
    text = f"has no .safetensors weights ({SINGLE_FILE}, or {INDEX_FILE} and its shards)"
    if loose:
        names = ", ".join(loose[:_MOST_NAMES])
        hint = f"found {names}: download {INDEX_FILE}, which says what is in them"
    elif pickles:
        text += f", only {', '.join(pickles[:_MOST_NAMES])}"
        hint = (
            "pickle files can run code, so they are not read; take the repository's .safetensors "
            "files, or load the model in transformers and save it with save_pretrained"
        )
    else:
        hint = f"download the weights, or {_LAYOUT_HINT}"
    return Fault(text, hint)


def has_all_weights(folder: Path) -> bool:
    """Whether the single file or every shard that the index names is there."""
    if (folder / SINGLE_FILE).is_file():
        return True
    try:
        index = read_index(folder / INDEX_FILE)
    except CheckpointError:
        return False
    return all((folder / name).is_file() for name in set(index.values()))


def read_index(path: Path) -> dict[str, str]:
    """Read the shard of each tensor, refusing every path that is not inside the folder.

    Raises:
        CheckpointError: the index is damaged, or names a file elsewhere.
    """
    try:
        raw = read_object(path, most_bytes=_MOST_SETTINGS_BYTES)
    except (OSError, JsonFault) as error:
        message = f"{path} cannot be read: {error}"
        raise CheckpointError(message, "download the file again") from None
    index = raw.get("weight_map")
    if not isinstance(index, dict) or not index:
        message = f"{path}: expected an object weight_map of tensor names and file names"
        raise CheckpointError(message, "download the file again")
    unsafe = sorted({shown_name(repr(name)) for name in index.values() if not _is_inside(name)})
    if unsafe:
        message = (
            f"{path}: a shard must be a .safetensors file inside the folder, "
            f"found {', '.join(unsafe[:_MOST_PATHS])}"
        )
        raise CheckpointError(message, "do not use this checkpoint: its index was tampered with")
    return index


def _is_inside(name: object) -> bool:
    """Whether a shard's name stays in the folder, on every system's reading of it."""
    if not isinstance(name, str) or not name.endswith(".safetensors"):
        return False
    if len(name) > _MOST_NAME_CHARACTERS or printable(name, keep="") != name:
        return False
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    return not (windows.drive or windows.root or posix.root or ".." in windows.parts)
