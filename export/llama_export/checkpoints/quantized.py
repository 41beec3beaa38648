"""Weights that an earlier export quantised and kept, as a checkpoint: their codes are the source's.

It opens the folder `weights/` of an export; it knows nothing of how the codes were chosen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
    tokenizer_bytes,
)
from llama_export.errors import CheckpointError
from llama_export.llama.config import LlamaConfig
from llama_export.llama.names import expected_shapes, tied_names
from llama_export.tokenizer.tokenizer import Tokenizer, load_tokenizer
from llama_quantize.checkpoint.files import RECORD_FILE, WEIGHTS_FILE, is_quantized
from llama_quantize.checkpoint.record import Record
from llama_quantize.printable import shown_name

if TYPE_CHECKING:
    from torch import Tensor

    from llama_quantize.checkpoint.weights import QuantizedWeights
    from llama_quantize.recipe import QuantRecipe
    from llama_quantize.tensor import QuantizedTensor


@dataclass(frozen=True, eq=False)
class QuantizedCheckpoint:
    """Opened quantised weights.

    Args:
        folder: folder that holds them.
        config: shape of the model.
    """

    folder: Path
    config: LlamaConfig
    _record: Record = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the stored tensors in model order."""
        return tuple(self.shapes)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each of them."""
        return {stats.name: stats.shape for stats in self._record.summary.stats}

    @property
    def tied(self) -> Mapping[str, str]:
        """Names that are stored nowhere and mean another tensor."""
        return self._record.tied

    @property
    def size_bytes(self) -> int:
        """Size of the weights."""
        return self._record.weights_bytes

    @property
    def recipe(self) -> QuantRecipe:
        """What the weights were quantised by."""
        return self._record.recipe

    @property
    def weights_folder(self) -> Path:
        """The folder itself."""
        return self.folder

    @cached_property
    def _weights(self) -> QuantizedWeights:
        """The mapped weights: torch comes with them, and a plan reads the record alone."""
        from llama_quantize.checkpoint.weights import QuantizedWeights

        return QuantizedWeights.open(self.folder, check_hash=False)

    def tensor(self, name: str) -> Tensor | QuantizedTensor:
        """Map a tensor, or codes and scales.

        Raises:
            QuantizationError: there is no such tensor, or the weights are damaged.
        """
        return self._weights.get(name)

    @property
    def notes(self) -> tuple[str, ...]:
        """Nothing: it is read as it is."""
        return ()

    @property
    def kept_notes(self) -> tuple[str, ...]:
        """Nothing: its codes are always kept."""
        return ()

    def release(self) -> None:
        """Keep the pages: the targets still read these very weights."""


class QuantizedFormat:
    """The folder `weights/` of an export: quantised weights beside config.json and tokenizer."""

    def wanted(self, files: Collection[str]) -> WantedFiles | Fault | None:
        """Refuse a repository of quantised weights: they are read from a folder alone."""
        if RECORD_FILE not in files or WEIGHTS_FILE not in files:
            return None
        hint = "download it and name the folder, or name the checkpoint that it was made from"
        return Fault("holds the quantised weights of an export", hint)

    def is_complete(self, path: Path) -> bool:
        """Whether record, weights and config.json are there."""
        return self.recognises(path) and all(
            (path / name).is_file() for name in (WEIGHTS_FILE, CONFIG_FILE)
        )

    def recognises(self, path: Path) -> bool:
        """Whether the folder has the record of a quantised checkpoint."""
        return is_quantized(path)

    def read_config(self, path: Path, options: ReadOptions = AS_IT_IS) -> LlamaConfig:
        """Read config.json, as `Format.read_config` says."""
        return LlamaConfig.read(path / CONFIG_FILE)

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
    ) -> QuantizedCheckpoint:
        """Read the record, as `Format.open` says; the weights are mapped when one is read."""
        record = Record.read(path)
        record.require_size(path)
        checkpoint = QuantizedCheckpoint(path, config or self.read_config(path), record)
        _require_same_shapes(checkpoint)
        return checkpoint


def _require_same_shapes(checkpoint: QuantizedCheckpoint) -> None:
    """Refuse a record of another model than config.json describes."""
    found, expected = dict(checkpoint.shapes), expected_shapes(checkpoint.config)
    ties = dict(checkpoint.tied), dict(tied_names(checkpoint.config))
    if found == expected and ties[0] == ties[1]:
        return
    odd = [name for name in {**expected, **found} if found.get(name) != expected.get(name)]
    first = f"{shown_name(odd[0])}, {len(odd)} tensors in all" if odd else "the tied tensors"
    message = (
        f"{checkpoint.folder}: {RECORD_FILE} and {CONFIG_FILE} are of different models: they "
        f"disagree on {first}"
    )
    raise CheckpointError(message, "take all files from the same export")
