"""The format of a Hugging Face folder whose config.json has a `quantization_config`.

All but the weights is as in any such folder; it knows no method.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from llama_export.checkpoints.checkpoint import AS_IT_IS, Companions, ReadOptions
from llama_export.checkpoints.hugging_face import HuggingFaceFormat
from llama_export.checkpoints.hugging_face_files import CONFIG_FILE
from llama_export.checkpoints.packed.checkpoint import PackedCheckpoint
from llama_export.checkpoints.packed.methods import has_settings, method_of
from llama_export.llama.config import LlamaConfig
from llama_export.tokenizer.tokenizer import Tokenizer

_LAYOUT = HuggingFaceFormat()


class PackedFormat:
    """The transformers layout, with weights that another program quantised."""

    def wanted(self, files: Collection[str]) -> None:
        """Choose nothing: by its files' names a repository is like any other of the layout."""

    def is_complete(self, path: Path) -> bool:
        """Whether config.json and all weights are there."""
        return _LAYOUT.is_complete(path)

    def recognises(self, path: Path) -> bool:
        """Whether the folder's config.json says how its weights are quantised."""
        return has_settings(path / CONFIG_FILE)

    def read_config(self, path: Path, options: ReadOptions = AS_IT_IS) -> LlamaConfig:
        """Read config.json, as `Format.read_config` says; refuse weights that are not read."""
        config = LlamaConfig.read(path / CONFIG_FILE)
        method_of(path / CONFIG_FILE)
        return config

    def read_tokenizer(self, path: Path) -> Tokenizer:
        """Load the folder's tokenizer, as `Format.read_tokenizer` says."""
        return _LAYOUT.read_tokenizer(path)

    def read_companions(self, path: Path) -> Companions:
        """Read the small files of the folder, as `Format.read_companions` says."""
        return _LAYOUT.read_companions(path)

    def tokenizer_bytes(self, path: Path) -> int:
        """Return the size of the tokenizer in a bundle, from the folder's files."""
        return _LAYOUT.tokenizer_bytes(path)

    def open(
        self, path: Path, config: LlamaConfig | None = None, options: ReadOptions = AS_IT_IS
    ) -> PackedCheckpoint:
        """Open the folder, as `Format.open` says."""
        return PackedCheckpoint.open(path, config)
