"""Read a Hugging Face checkpoint: config.json and safetensors, one file or sharded.

Tensors are mapped, never copied: reading one touches the file's pages and nothing else. Names,
shapes and dtypes must match the config exactly. It knows nothing of quantisation, targets or
where the folder came from. torch is imported when a tensor is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.checkpoints.checkpoint import (
    AS_IT_IS,
    Companions,
    Fault,
    ReadOptions,
    WantedFiles,
)
from llama_export.checkpoints.companions import read_companions
from llama_export.checkpoints.hugging_face_files import (
    CONFIG_FILE,
    INDEX_FILE,
    SINGLE_FILE,
    has_all_weights,
    no_folder,
    read_index,
    tokenizer_bytes,
    wanted_files,
    weights_fault,
)
from llama_export.checkpoints.safetensors_header import TensorEntry, read_header
from llama_export.errors import CheckpointError, UnsupportedModelError
from llama_export.llama.config import LlamaConfig, read_keys
from llama_export.llama.config_keys import shown
from llama_export.llama.names import HEAD, TABLE, expected_shapes, tied_names
from llama_export.tokenizer.tokenizer import Tokenizer, load_tokenizer
from llama_quantize.printable import shown_name

if TYPE_CHECKING:
    from torch import Tensor

_DTYPES = ("BF16", "F16", "F32")
# Old checkpoints carry the rotary frequencies, which follow from the config.
_IGNORED = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")
# Where a config.json says that its weights are no floats, today and once.
_QUANTIZED = ("quantization_config", "compression_config")
_LAYER = re.compile(r"model\.layers\.(\d{1,6})\.")
_MAX_PROBLEMS = 12
_COMPARED_ROWS = 4096


@dataclass(frozen=True)
class HfCheckpoint:
    """An open checkpoint whose every tensor was found to be what its config asks for.

    Args:
        folder: folder that holds it.
        config: shape of the model.
        names: names of the tensors in model order; no `lm_head.weight` when that is tied.
        shapes: shape of each of them.
        size_bytes: size of these tensors in the files.
    """

    folder: Path
    config: LlamaConfig
    names: tuple[str, ...] = field(repr=False)
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    size_bytes: int
    _files: Mapping[str, str] = field(repr=False)
    _readers: dict[str, Callable[[str], Tensor]] = field(repr=False)
    _has_spare_head: bool = field(repr=False)

    @classmethod
    def open(cls, folder: Path, config: LlamaConfig | None = None) -> HfCheckpoint:
        """Open a checkpoint folder and check all of it but the values.

        Args:
            folder: folder that holds config.json and the weights.
            config: what its config.json says; None: it is read now.

        Raises:
            ConfigError: config.json is missing or wrong.
            UnsupportedModelError: it is not a Llama that can be exported.
            CheckpointError: a file is missing or damaged, or a tensor is missing, unexpected or
                of the wrong shape or dtype; every fault found is named.
        """
        if not folder.is_dir():
            raise no_folder(folder)
        config = config or _read_config(folder / CONFIG_FILE)
        problems: list[str] = []
        files, entries = _read_files(folder, problems)
        shapes = expected_shapes(config)
        problems += _compare_layers(config.num_hidden_layers, entries)
        problems += _compare(shapes, entries, config.tie_word_embeddings)
        _raise_any(folder, problems)
        return cls(
            folder=folder,
            config=config,
            names=tuple(shapes),
            shapes=shapes,
            size_bytes=sum(entries[name].end - entries[name].start for name in shapes),
            _files=files,
            _readers={},  # a file is mapped when it is first read: a plan needs no torch
            _has_spare_head=HEAD in entries and HEAD not in shapes,
        )

    @property
    def tied(self) -> Mapping[str, str]:
        """Names that mean another tensor: the head of a tied model."""
        return tied_names(self.config)

    @property
    def recipe(self) -> None:
        """Nothing: the tensors are floats."""

    @property
    def weights_folder(self) -> None:
        """Nothing: the tensors are in another form."""

    def tensor(self, name: str) -> Tensor:
        """Map a tensor; its memory is the file's. The first time, the values are checked too.

        Raises:
            CheckpointError: there is no tensor of that name, or a tied head is stored that differs
                from its table.
        """
        if name not in self.shapes:
            message = f"the checkpoint {self.folder} has no tensor called {name}"
            raise CheckpointError(message)
        if self._has_spare_head:
            _ = self._tied_head_is_a_copy
        return self._mapped(name)

    @property
    def notes(self) -> tuple[str, ...]:
        """Nothing: it is read as it is."""
        return ()

    def release(self) -> None:
        """Return the mapped pages to the system; a later read maps the files again."""
        self._readers.clear()

    def _mapped(self, name: str) -> Tensor:
        file = self._files[name]
        if file not in self._readers:
            self._readers[file] = _map(self.folder / file)
        return self._readers[file](name)

    @cached_property
    def _tied_head_is_a_copy(self) -> bool:
        """Accept a stored copy of the tied table, and nothing else under the head's name."""
        import torch

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
        return True


def _read_files(folder: Path, problems: list[str]) -> tuple[dict[str, str], dict[str, TensorEntry]]:
    """Find the weight files and read their headers; add the faults that are found to `problems`."""
    if fault := weights_fault(_file_names(folder)):
        message = f"{folder} {fault.text}"
        raise CheckpointError(message, fault.hint)
    single = (folder / SINGLE_FILE).is_file()
    index = None if single else read_index(folder / INDEX_FILE)
    wanted = [SINGLE_FILE] if index is None else sorted(set(index.values()))
    files: dict[str, str] = {}
    entries: dict[str, TensorEntry] = {}
    for name in wanted:
        if not (folder / name).is_file():
            problems.append(f"{shown_name(name)} is missing, and {INDEX_FILE} names it")
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


def _file_names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir() if path.is_file()]
    except OSError as error:
        message = f"the checkpoint folder {folder} cannot be read: {error.strerror or error}"
        raise CheckpointError(message, "check its permissions and its disk") from None


def _compare_index(
    index: Mapping[str, str], file: str, header: Mapping[str, TensorEntry]
) -> list[str]:
    named = {tensor for tensor, where in index.items() if where == file}
    absent = [
        f"{INDEX_FILE} puts {shown_name(tensor)} into {file}, which does not hold it"
        for tensor in sorted(named - set(header))
    ]
    unnamed = [
        f"{file} holds {shown_name(tensor)}, which {INDEX_FILE} does not put there"
        for tensor in sorted(set(header) - named)
    ]
    return absent + unnamed


def _compare(
    shapes: Mapping[str, tuple[int, ...]], entries: Mapping[str, TensorEntry], tied: bool
) -> list[str]:
    problems = [f"{name} is missing" for name in shapes if name not in entries]
    for name, entry in entries.items():
        if _IGNORED.fullmatch(name) or (tied and name == HEAD):
            continue
        if name not in shapes:
            problems.append(f"{shown_name(name)} {list(entry.shape)} is not part of this model")
        elif entry.shape != shapes[name]:
            problems.append(
                f"{name} must be {list(shapes[name])} by config.json, found {list(entry.shape)}"
            )
        elif entry.dtype not in _DTYPES:
            found = shown_name(entry.dtype)
            problems.append(f"{name} must be BF16, F16 or F32, found {found}")
    return problems


def _compare_layers(layers: int, entries: Collection[str]) -> list[str]:
    """Compare the number of layers, whose tensors would otherwise be named one by one."""
    found = len({match[1] for name in entries if (match := _LAYER.match(name))})
    if found == layers:
        return []
    return [f"config.json says {layers} layers, and the files hold tensors of {found}"]


def _raise_any(folder: Path, problems: list[str]) -> None:
    if not problems:
        return
    shown = problems[:_MAX_PROBLEMS]
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown)} more")
    message = f"the checkpoint {folder} cannot be used:" + "".join(f"\n  {line}" for line in shown)
    hint = "download the checkpoint again; if it is complete, it is not of the model in config.json"
    raise CheckpointError(message, hint)


def _map(path: Path) -> Callable[[str], Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        reader: Callable[[str], Tensor] = safe_open(path, framework="pt").get_tensor
    except (SafetensorError, OSError) as error:
        message = f"{path} cannot be mapped: {error}"
        raise CheckpointError(message, "download the file again") from None
    return reader


def _read_config(path: Path) -> LlamaConfig:
    """Read a config.json; refuse weights that another program quantised: they are no floats."""
    keys = read_keys(path)
    for key in _QUANTIZED:
        if keys.get(key):
            message = f"{path}: the weights are quantised ({key} = {shown(keys[key])})"
            raise UnsupportedModelError(message, "use the original checkpoint of floats")
    return LlamaConfig.from_hf(keys, where=str(path))


class HuggingFaceFormat:
    """The transformers layout: a folder with config.json, a tokenizer and .safetensors files."""

    def wanted(self, files: Collection[str]) -> WantedFiles | Fault:
        """Choose what an export needs of a repository; never None: it is the common format."""
        return wanted_files(files)

    def is_complete(self, path: Path) -> bool:
        """Whether config.json and all weights are there."""
        return (path / CONFIG_FILE).is_file() and has_all_weights(path)

    def recognises(self, path: Path) -> bool:
        """Whether the folder has a config.json."""
        return (path / CONFIG_FILE).is_file()

    def read_config(self, path: Path, options: ReadOptions = AS_IT_IS) -> LlamaConfig:
        """Read config.json, as `Format.read_config` says."""
        return _read_config(path / CONFIG_FILE)

    def read_tokenizer(self, path: Path) -> Tokenizer:
        """Load the folder's tokenizer, as `Format.read_tokenizer` says."""
        return load_tokenizer(path)

    def read_companions(self, path: Path) -> Companions:
        """Read the small files of the folder, as `Format.read_companions` says."""
        return read_companions(path)

    def tokenizer_bytes(self, path: Path) -> int:
        """Return the size of the tokenizer in a bundle, from the folder's files."""
        return tokenizer_bytes(path)

    def open(
        self, path: Path, config: LlamaConfig | None = None, options: ReadOptions = AS_IT_IS
    ) -> HfCheckpoint:
        """Open the folder, as `Format.open` says."""
        return HfCheckpoint.open(path, config)
