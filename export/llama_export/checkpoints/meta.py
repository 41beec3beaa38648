"""Checkpoints in Meta's own layout: params.json beside consolidated.NN.pth, in any number.

It finds the parts, reads what they say of the model, and opens the weights as what they are.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.checkpoints.checkpoint import (
    AS_IT_IS,
    Checkpoint,
    Companions,
    ReadOptions,
    WantedFiles,
)
from llama_export.checkpoints.hugging_face_files import no_folder, tokenizer_bytes
from llama_export.checkpoints.meta_config import Found, make_config
from llama_export.checkpoints.meta_files import MetaFiles, find_files, wanted
from llama_export.checkpoints.meta_params import MetaParams
from llama_export.errors import CheckpointError, UsageError
from llama_export.llama.config import LlamaConfig
from llama_export.tokenizer.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from llama_export.checkpoints.meta_shards import Shards


class MetaFormat:
    """A folder with params.json and .pth files, such a file, or a folder with `original/`."""

    def wanted(self, files: Collection[str]) -> WantedFiles | None:
        """Choose the files of a repository; None: it has no weights in this form alone."""
        return wanted(files)

    def is_complete(self, path: Path) -> bool:
        """Whether params.json and every shard are there: the shards' shapes tell their number."""
        files = find_files(path)
        if files is None or not files.weights:
            return False
        try:
            self.open(path)
        except CheckpointError:
            return False
        return True

    def recognises(self, path: Path) -> bool:
        """Whether it has params.json, and no weights of another layout."""
        return find_files(path) is not None

    def read_config(self, path: Path, options: ReadOptions = AS_IT_IS) -> LlamaConfig:
        """Read params.json, and from the weights, if they are there, what it does not say.

        Raises:
            ConfigError, UnsupportedModelError: as `Format.read_config`.
            CheckpointError, TokenizerError: the weights or the tokenizer cannot be read.
        """
        files = _files(path)
        return _describe(files, options, _shards(files) if files.weights else None)[1]

    def read_tokenizer(self, path: Path) -> Tokenizer:
        """Load the tokenizer beside params.json, or one level up."""
        return load_tokenizer(_files(path).tokenizer_folder)

    def read_companions(self, path: Path) -> Companions:
        """Return nothing: Meta's layout has no such files."""
        return Companions()

    def tokenizer_bytes(self, path: Path) -> int:
        """Return the size of the tokenizer in a bundle, from the folder's files."""
        return tokenizer_bytes(_files(path).tokenizer_folder)

    def open(
        self, path: Path, config: LlamaConfig | None = None, options: ReadOptions = AS_IT_IS
    ) -> Checkpoint:
        """Open a checkpoint, as `Format.open` says.

        `config` is not believed: before the weights are there, it is assumed in part.
        """
        from llama_export.checkpoints.meta_floats import MetaCheckpoint
        from llama_export.checkpoints.meta_quantized import Adaptors, MetaQuantizedCheckpoint

        files = _files(path)
        shards = _shards(files)
        params, config, notes = _describe(files, options, shards)
        if options.merge_adaptors and not (params.lora_rank and params.group_size):
            message = f"--merge-adaptors: {path} has codes with no side branches to be merged"
            raise UsageError(message, "leave --merge-adaptors out")
        if params.group_size is None:
            return MetaCheckpoint.of(path, config, shards, notes)
        adaptors = Adaptors(params.lora_rank, params.lora_scale)
        merged = adaptors if options.merge_adaptors else None
        return MetaQuantizedCheckpoint.of(
            path,
            config,
            shards,
            group_size=params.group_size,
            merged=merged,
            notes=notes,
        )


def _files(path: Path) -> MetaFiles:
    files = find_files(path)
    if files is None:
        raise no_folder(path)
    return files


def _shards(files: MetaFiles) -> Shards:
    from llama_export.checkpoints.meta_shards import Shards

    files.require_weights()
    return Shards(files.folder, files.weights)


def _describe(
    files: MetaFiles, options: ReadOptions, shards: Shards | None
) -> tuple[MetaParams, LlamaConfig, tuple[str, ...]]:
    """Read what files say of a model; notes tell what was inferred."""
    params = MetaParams.read(files.params)
    found = None if shards is None else _found(params, shards)
    tokenizer = load_tokenizer(files.tokenizer_folder)
    return params, *make_config(params, found, tokenizer, options)


def _found(params: MetaParams, shards: Shards) -> Found:
    """Find out from the tensors what params.json may leave open."""
    from llama_export.checkpoints.meta_checks import require_names, require_shards
    from llama_export.checkpoints.meta_names import FIRST_QUERY, MetaTensor
    from llama_export.checkpoints.meta_shards import is_tied, table_rows

    require_names(shards)
    query = (params.n_heads * params.head_dim, params.dim)
    require_shards(shards, MetaTensor(FIRST_QUERY, query, (0,)))
    vocab_size = params.vocab_size or table_rows(shards, params.dim)
    return Found(vocab_size, is_tied(shards))
