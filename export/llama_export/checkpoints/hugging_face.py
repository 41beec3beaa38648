"""Read a Hugging Face checkpoint: config.json and weights, one file or sharded.

Tensors are mapped, never copied: reading one touches the file's pages and nothing else. Each
tensor of the model must be there, in its shape. It knows nothing of quantisation, targets or
where the folder came from. torch is imported when a tensor is read, or where a pickle is opened.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
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
    has_all_weights,
    no_folder,
    tokenizer_bytes,
    wanted_files,
)
from llama_export.checkpoints.model_tensors import ModelTensors
from llama_export.checkpoints.safetensors_header import TensorEntry
from llama_export.checkpoints.unrecognised import fault_of_names
from llama_export.checkpoints.weight_files import WeightFiles, unusable
from llama_export.checkpoints.weight_names import biased, match_names
from llama_export.errors import CheckpointError, UnsupportedModelError
from llama_export.llama.config import LlamaConfig, read_keys
from llama_export.llama.config_keys import shown
from llama_export.llama.names import HEAD, TABLE, expected_shapes
from llama_export.tokenizer.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

# Where a config.json says that its weights are no floats, today and once.
_QUANTIZED = ("quantization_config", "compression_config")
_MOST_ITEM_BYTES = 4
_COMPARED_ROWS = 4096


@dataclass(frozen=True)
class HfCheckpoint(ModelTensors):
    """An open checkpoint whose every tensor was found to be what its config asks for.

    Args:
        folder: folder that holds it.
        size_bytes: size of the tensors in the files.
        notes: what a user must know of what was passed over.
    """

    folder: Path
    size_bytes: int
    notes: tuple[str, ...]
    _files: WeightFiles = field(repr=False)
    _stored: Mapping[str, str] = field(repr=False)

    @classmethod
    def open(cls, folder: Path, config: LlamaConfig | None = None) -> HfCheckpoint:
        """Open a checkpoint folder and check all of it but the values.

        Args:
            folder: folder that holds config.json and the weights.
            config: what its config.json says; None: it is read now.

        Raises:
            ConfigError: config.json is missing or wrong.
            UnsupportedModelError: it is not a Llama that can be exported.
            CheckpointError: a file is missing or damaged, or a tensor is missing, of the wrong
                shape or dtype, or changes what a Llama computes; every fault found is named.
        """
        if not folder.is_dir():
            raise no_folder(folder)
        config = config or _read_config(folder / CONFIG_FILE)
        files = WeightFiles.open(folder)
        return cls.of(files, files.entries, config)

    @classmethod
    def of(
        cls, files: WeightFiles, entries: Mapping[str, TensorEntry], config: LlamaConfig
    ) -> HfCheckpoint:
        """Open a checkpoint whose files are open, and check all of it but the values.

        Args:
            files: files of the weights.
            entries: type and shape of each tensor in them, or of what stands for several.
            config: what config.json says.

        Raises:
            CheckpointError: as `open`.
        """
        shapes = expected_shapes(config)
        matched = match_names(shapes, entries, config.num_hidden_layers)
        if not matched.problems and (odd := [n for n in matched.biases if not files.is_zero(n)]):
            matched = biased(odd)
        if matched.problems:
            raise unusable(files.folder, matched.problems, matched.hint)
        opened = cls(
            folder=files.folder,
            config=config,
            shapes=shapes,
            size_bytes=sum(entries[matched.stored[name]].size_bytes for name in shapes),
            notes=(*files.notes, *matched.notes),
            _files=files,  # a file is mapped when it is first read: a plan needs no torch
            _stored=matched.stored,
        )
        if HEAD in matched.stored and HEAD not in shapes:
            opened._require_tied_head()
        return opened

    @property
    def recipe(self) -> None:
        """Nothing: the tensors are floats."""

    @property
    def kept_notes(self) -> tuple[str, ...]:
        """Nothing: there are no codes."""
        return ()

    def tensor(self, name: str) -> Tensor:
        """Map a tensor; its memory is the file's.

        Raises:
            CheckpointError: there is no tensor of that name, or its file cannot be mapped.
        """
        self.require(name, self.folder)
        return self._mapped(name)

    def release(self) -> None:
        """Return the mapped pages to the system; a later read maps the files again."""
        self._files.release()

    def _mapped(self, name: str) -> Tensor:
        tensor = self._files.tensor(self._stored[name])
        # float64 is no type of weights anywhere; the others stay as they are.
        return tensor.float() if tensor.element_size() > _MOST_ITEM_BYTES else tensor

    def _require_tied_head(self) -> None:
        """Accept a stored copy of the tied table, in any type, and nothing else as a head.

        Raises:
            CheckpointError: the head that is stored differs from the table.
        """
        table, head = self._mapped(TABLE), self._mapped(HEAD)
        for row in range(0, table.shape[0], _COMPARED_ROWS):
            block = slice(row, row + _COMPARED_ROWS)
            if not _same_values(table[block], head[block]):
                message = (
                    f"{self.folder}: config.json ties {HEAD} to {TABLE}, but the file holds a "
                    f"{HEAD} that differs from it"
                )
                hint = "set tie_word_embeddings to false in config.json if the two really differ"
                raise CheckpointError(message, hint)
        self.release()


def _same_values(one: Tensor, other: Tensor) -> bool:
    """Whether two blocks are equal, in the narrower of their types where these differ."""
    import torch

    narrow = min(one.dtype, other.dtype, key=lambda dtype: dtype.itemsize)
    # As bytes: NaN equals itself here, and -0 does not equal 0.
    blocks = [each.to(narrow).contiguous().view(torch.uint8) for each in (one, other)]
    return torch.equal(*blocks)


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
        return wanted_files(files, fault_of_names(files))

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
