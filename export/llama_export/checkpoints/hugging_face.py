"""Read a Hugging Face checkpoint: config.json and safetensors, one file or sharded.

Tensors are mapped, never copied: reading one touches the file's pages and nothing else. Names,
shapes and dtypes must match the config exactly. It knows nothing of quantisation, targets or
where the folder came from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from llama_export.checkpoints.safetensors_header import TensorEntry, read_header
from llama_export.errors import CheckpointError
from llama_export.llama.config import LlamaConfig
from llama_export.llama.names import HEAD, TABLE, expected_shapes

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_DTYPES: Mapping[str, torch.dtype] = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
}
# Old checkpoints carry the rotary frequencies, which follow from the config.
_IGNORED = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")
_MAX_PROBLEMS = 12
_COMPARED_ROWS = 4096


@dataclass(frozen=True)
class HfCheckpoint:
    """An open checkpoint whose every tensor was found to be what its config asks for.

    Attributes:
        folder: where it lies.
        config: its shape.
        names: the tensors in model order; no `lm_head.weight` when that is tied.
        shapes: their shapes.
        size_bytes: what these tensors take in the files.
    """

    folder: Path
    config: LlamaConfig
    names: tuple[str, ...] = field(repr=False)
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    size_bytes: int
    _entries: Mapping[str, TensorEntry] = field(repr=False)
    _files: Mapping[str, str] = field(repr=False)
    _readers: dict[str, Callable[[str], Tensor]] = field(repr=False)

    @classmethod
    def open(cls, folder: Path) -> HfCheckpoint:
        """Open a checkpoint folder and check all of it but the values.

        Raises:
            ConfigError: config.json is missing or wrong.
            UnsupportedModelError: it is no Llama that can be exported.
            CheckpointError: a file is missing or damaged, or a tensor is missing, unexpected or
                of the wrong shape or dtype; every fault found is named.
        """
        if not folder.is_dir():
            fault = "is a file, not a folder" if folder.exists() else "does not exist"
            message = f"the checkpoint folder {folder} {fault}"
            hint = "name a folder that holds config.json and model.safetensors"
            raise CheckpointError(message, hint)
        config = LlamaConfig.read(folder / "config.json")
        problems: list[str] = []
        files, entries = _read_files(folder, problems)
        shapes = expected_shapes(config)
        problems += _compare(shapes, entries, config.tie_word_embeddings)
        _raise_any(folder, problems)
        readers = {name: _map(folder / name) for name in sorted(set(files.values()))}
        checkpoint = cls(
            folder=folder,
            config=config,
            names=tuple(shapes),
            shapes=shapes,
            size_bytes=sum(entries[name].end - entries[name].start for name in shapes),
            _entries=entries,
            _files=files,
            _readers=readers,
        )
        if HEAD in entries and HEAD not in shapes:
            checkpoint._check_tied_head()
        return checkpoint

    def dtype(self, name: str) -> torch.dtype:
        """Return the dtype that a tensor is stored in: bfloat16, float16 or float32."""
        return _DTYPES[self._entry(name).dtype]

    def tensor(self, name: str) -> Tensor:
        """Map a tensor; its memory is the file's.

        Raises:
            CheckpointError: there is no tensor of that name.
        """
        self._entry(name)
        return self._mapped(name)

    def release(self) -> None:
        """Give the mapped pages back to the system; a later read maps the files again."""
        self._readers.clear()

    def _entry(self, name: str) -> TensorEntry:
        if name not in self.shapes:
            message = f"the checkpoint {self.folder} has no tensor called {name}"
            raise CheckpointError(message)
        return self._entries[name]

    def _mapped(self, name: str) -> Tensor:
        file = self._files[name]
        if file not in self._readers:
            self._readers[file] = _map(self.folder / file)
        return self._readers[file](name)

    def _check_tied_head(self) -> None:
        """Accept a stored copy of the tied table, and nothing else under the head's name."""
        table, head = self._mapped(TABLE), self._mapped(HEAD)
        same = table.dtype == head.dtype and table.shape == head.shape
        for row in range(0, table.shape[0] if same else 0, _COMPARED_ROWS):
            block = slice(row, row + _COMPARED_ROWS)
            # As bytes: NaN equals itself here, and -0 does not equal 0.
            if not torch.equal(table[block].view(torch.uint8), head[block].view(torch.uint8)):
                same = False
                break
        if not same:
            message = (
                f"{self.folder}: config.json ties {HEAD} to {TABLE}, but the file holds a "
                f"{HEAD} that differs from it"
            )
            hint = "set tie_word_embeddings to false in config.json if the two really differ"
            raise CheckpointError(message, hint)


def _read_files(folder: Path, problems: list[str]) -> tuple[dict[str, str], dict[str, TensorEntry]]:
    """Find the weight files and read their headers; the faults found are added to `problems`."""
    if (folder / SINGLE_FILE).is_file():
        index = None
        wanted = [SINGLE_FILE]
    elif (folder / INDEX_FILE).is_file():
        index = _read_index(folder / INDEX_FILE)
        wanted = sorted(set(index.values()))
    else:
        raise _no_weights(folder)
    files: dict[str, str] = {}
    entries: dict[str, TensorEntry] = {}
    for name in wanted:
        if not (folder / name).is_file():
            problems.append(f"{name} is missing, and {INDEX_FILE} names it")
            continue
        try:
            header = read_header(folder / name)
        except CheckpointError as error:
            problems.append(error.message)
            continue
        if index is not None:
            problems += _compare_index(index, name, header)
        entries |= header
        files |= dict.fromkeys(header, name)
    # What the damaged files hold is unknown: a list of all their tensors would bury the cause.
    _raise_any(folder, problems)
    return files, entries


def _compare_index(
    index: Mapping[str, str], file: str, header: Mapping[str, TensorEntry]
) -> list[str]:
    named = {tensor for tensor, where in index.items() if where == file}
    absent = [
        f"{INDEX_FILE} puts {tensor} into {file}, which does not hold it"
        for tensor in sorted(named - set(header))
    ]
    unnamed = [
        f"{file} holds {tensor}, which {INDEX_FILE} does not put there"
        for tensor in sorted(set(header) - named)
    ]
    return absent + unnamed


def _read_index(path: Path) -> dict[str, str]:
    """Read tensor name -> shard file name, refusing every path that is not inside the folder."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        message = f"{path} cannot be read: {error}"
        raise CheckpointError(message, "download the file again") from None
    index = raw.get("weight_map") if isinstance(raw, dict) else None
    if not isinstance(index, dict) or not index:
        message = f"{path}: expected an object weight_map of tensor names and file names"
        raise CheckpointError(message, "download the file again")
    unsafe = sorted({repr(name) for name in index.values() if not _is_inside(name)})
    if unsafe:
        message = (
            f"{path}: a shard must be a .safetensors file inside the folder, "
            f"found {', '.join(unsafe[:_MAX_PROBLEMS])}"
        )
        raise CheckpointError(message, "do not use this checkpoint: its index was tampered with")
    return index


def _is_inside(name: object) -> bool:
    """Tell whether a shard's name stays in the folder, on every system's reading of it."""
    if not isinstance(name, str) or not name.endswith(".safetensors") or "\0" in name:
        return False
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    return not (windows.drive or windows.root or posix.root or ".." in windows.parts)


def _compare(
    shapes: Mapping[str, tuple[int, ...]], entries: Mapping[str, TensorEntry], tied: bool
) -> list[str]:
    problems = [f"{name} is missing" for name in shapes if name not in entries]
    for name, entry in entries.items():
        if _IGNORED.fullmatch(name) or (tied and name == HEAD):
            continue
        if name not in shapes:
            problems.append(f"{name} {list(entry.shape)} is not part of this model")
        elif entry.shape != shapes[name]:
            problems.append(
                f"{name} must be {list(shapes[name])} by config.json, found {list(entry.shape)}"
            )
        elif entry.dtype not in _DTYPES:
            problems.append(f"{name} must be BF16, F16 or F32, found {entry.dtype}")
    return problems


def _raise_any(folder: Path, problems: list[str]) -> None:
    if not problems:
        return
    shown = problems[:_MAX_PROBLEMS]
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown)} more")
    message = f"the checkpoint {folder} cannot be used:" + "".join(f"\n  {line}" for line in shown)
    hint = "download the checkpoint again; if it is complete, it is not of the model in config.json"
    raise CheckpointError(message, hint)


def _no_weights(folder: Path) -> CheckpointError:
    found = sorted(path.name for path in folder.iterdir() if path.is_file())
    loose = [name for name in found if name.endswith(".safetensors")]
    pickles = [name for name in found if name.endswith((".bin", ".pth", ".pt"))]
    message = f"{folder} holds neither {SINGLE_FILE} nor {INDEX_FILE}"
    if loose:
        hint = f"found {', '.join(loose[:4])}: download {INDEX_FILE}, which says what is in them"
    elif pickles:
        message += f", only {', '.join(pickles[:4])}"
        hint = (
            "pickle files can run code, so they are not read; take the repository's .safetensors "
            "files, or load the model in transformers and save it with save_pretrained"
        )
    else:
        hint = "download the weights into this folder"
    return CheckpointError(message, hint)


def _map(path: Path) -> Callable[[str], Tensor]:
    try:
        reader: Callable[[str], Tensor] = safe_open(path, framework="pt").get_tensor
    except (SafetensorError, OSError) as error:
        message = f"{path} cannot be mapped: {error}"
        raise CheckpointError(message, "download the file again") from None
    return reader
