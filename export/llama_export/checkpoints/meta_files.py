"""The files of a checkpoint in Meta's own layout: params.json, consolidated.NN.pth, a tokenizer.

It knows names and places, in a folder and in a repository; it opens no weight and reads no key.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from llama_export.checkpoints.checkpoint import WantedFiles
from llama_export.errors import CheckpointError
from llama_export.tokenizer.files import TOKENIZER_FILES
from llama_quantize.printable import shown_name

PARAMS_FILE = "params.json"
ORIGINAL = "original"
"""Subfolder of a Hugging Face repository that keeps Meta's own files."""

_SHARD = re.compile(r"consolidated\.(\d{2})\.pth")
_ENDINGS = (".pth", ".pt")
# Weights of other layouts: where they are, params.json is a leftover, or another program's.
_OTHERS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*")
_NOTICES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
_MOST_NAMES = 4


@dataclass(frozen=True)
class MetaFiles:
    """Where the parts of a checkpoint are.

    Args:
        path: the folder or file that was named.
        folder: folder of params.json.
        weights: files of the weights in the order of their shards; empty: there are none.
    """

    path: Path
    folder: Path
    weights: tuple[Path, ...]

    @property
    def params(self) -> Path:
        """The file params.json."""
        return self.folder / PARAMS_FILE

    @property
    def tokenizer_folder(self) -> Path:
        """Folder with a tokenizer: that of params.json, or the one above it, as Llama 1 came."""
        for folder in (self.folder, self.folder.parent):
            if any((folder / name).is_file() for name in TOKENIZER_FILES):
                return folder
        return self.folder

    def require_weights(self) -> None:
        """Refuse a folder without weights, with too many that are called anything, or with a gap.

        Raises:
            CheckpointError: names the files that are there, or the one that is not.
        """
        numbers = [int(match[1]) for each in self.weights if (match := _SHARD.fullmatch(each.name))]
        if not self.weights:
            message = f"{self.folder} has {PARAMS_FILE} and no weights: no consolidated.00.pth"
            raise CheckpointError(message, "download the weights into the same folder")
        if len(numbers) != len(self.weights) > 1:
            names = ", ".join(shown_name(each.name) for each in self.weights[:_MOST_NAMES])
            message = f"{self.folder} holds several files of weights: {names}"
            raise CheckpointError(message, "name the one that is meant")
        if numbers and numbers != list(range(len(numbers))):
            missing = min(set(range(max(numbers) + 1)) - set(numbers))
            message = f"{self.folder}: consolidated.{missing:02}.pth is missing"
            raise CheckpointError(message, "download all shards of the model")


def find_files(path: Path) -> MetaFiles | None:
    """Find the parts of a checkpoint by its folder, a file of its weights, or a folder around it.

    Returns:
        None: it is no checkpoint in this layout, or it has weights in another one too.
    """
    if path.is_file():
        if path.suffix not in _ENDINGS or not (path.parent / PARAMS_FILE).is_file():
            return None
        shards = _shards(_names(path.parent)) if _SHARD.fullmatch(path.name) else (path.name,)
        return MetaFiles(path, path.parent, tuple(path.parent / name for name in shards))
    names = _names(path)
    folder = path if PARAMS_FILE in names else path / ORIGINAL
    if _has_others(names) or not (folder / PARAMS_FILE).is_file():
        return None
    shards = _shards(names if folder == path else _names(folder))
    if not shards and "config.json" in names:
        return None
    return MetaFiles(path, folder, tuple(folder / name for name in shards))


def wanted(files: Collection[str]) -> WantedFiles | None:
    """Choose what an export needs of a repository; None: it has no such weights, or better ones."""
    top = [name for name in files if "/" not in name]
    if _has_others(top):
        return None
    for place in ("", f"{ORIGINAL}/"):
        inside = [name.removeprefix(place) for name in files if name.startswith(place)]
        shards = _shards([name for name in inside if "/" not in name])
        if PARAMS_FILE in inside and shards:
            small = {f"{place}{PARAMS_FILE}", *(name for name in top if _is_notice(name))}
            small |= {name for name in files if name in TOKENIZER_FILES}
            weights = tuple(f"{place}{name}" for name in shards)
            return WantedFiles(tuple(sorted(small)), weights, f"{place}{PARAMS_FILE}")
    return None


def _is_notice(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _NOTICES)


def _has_others(names: Collection[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in _OTHERS)


def _shards(names: Collection[str]) -> tuple[str, ...]:
    """Return the names of the shards, else of whatever else torch may have written."""
    numbered = sorted(name for name in names if _SHARD.fullmatch(name))
    return tuple(numbered or sorted(name for name in names if name.endswith(_ENDINGS)))


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir() if path.is_file()]
    except OSError:
        return []
