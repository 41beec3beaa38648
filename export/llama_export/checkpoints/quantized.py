"""Weights that an earlier export quantised and kept, as a checkpoint: their codes are the source's.

It opens the folder `weights/` of an export; it knows nothing of how the codes were chosen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.checkpoints.checkpoint import Fault, WantedFiles
from llama_export.checkpoints.hugging_face_files import (
    CONFIG_FILE,
    GENERATION_CONFIG_FILE,
    TOKENIZER_CONFIG_FILE,
    read_settings,
)
from llama_export.llama.config import LlamaConfig
from llama_export.tokenizer.tokenizer import Tokenizer
from llama_quantize.checkpoint.files import RECORD_FILE, WEIGHTS_FILE, is_quantized

if TYPE_CHECKING:
    from torch import Tensor

    from llama_quantize.checkpoint.weights import QuantizedWeights
    from llama_quantize.tensor import QuantizedTensor


@dataclass(frozen=True, eq=False)
class QuantizedCheckpoint:
    """Opened quantised weights.

    Args:
        folder: folder that holds them.
        config: shape of the model.
        weights: the weights; an export lowers them as they are.
    """

    folder: Path
    config: LlamaConfig
    weights: QuantizedWeights = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the stored tensors in model order."""
        return self.weights.names()

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each of them."""
        return {stats.name: stats.shape for stats in self.weights.stats}

    @property
    def tied(self) -> Mapping[str, str]:
        """Names that are stored nowhere and mean another tensor."""
        return self.weights.tied

    @property
    def size_bytes(self) -> int:
        """Size of the weights and their record."""
        return self.weights.size_bytes

    def tensor(self, name: str) -> Tensor | QuantizedTensor:
        """Map a tensor, or codes and scales.

        Raises:
            QuantizationError: there is no such tensor.
        """
        return self.weights.get(name)

    def tokenizer(self) -> Tokenizer:
        """Load the tokenizer of the folder, as `Checkpoint.tokenizer` says."""
        return Tokenizer.load(self.folder)

    def tokenizer_config(self) -> Mapping[str, object] | None:
        """Read its tokenizer_config.json, as `Checkpoint.tokenizer_config` says."""
        return read_settings(self.folder / TOKENIZER_CONFIG_FILE)

    def generation_config(self) -> Mapping[str, object] | None:
        """Read its generation_config.json, as `Checkpoint.generation_config` says."""
        return read_settings(self.folder / GENERATION_CONFIG_FILE)

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

    def read_config(self, path: Path) -> LlamaConfig:
        """Read config.json, as `Format.read_config` says."""
        return LlamaConfig.read(path / CONFIG_FILE)

    def read_tokenizer(self, path: Path) -> Tokenizer:
        """Load the folder's tokenizer, as `Format.read_tokenizer` says."""
        return Tokenizer.load(path)

    def open(self, path: Path, config: LlamaConfig | None = None) -> QuantizedCheckpoint:
        """Map the weights, as `Format.open` says; `weights.require_unchanged` hashes them."""
        from llama_quantize.checkpoint.weights import QuantizedWeights

        config = config or self.read_config(path)
        return QuantizedCheckpoint(path, config, QuantizedWeights.open(path, check_hash=False))
