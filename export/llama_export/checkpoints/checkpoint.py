"""What a checkpoint is to everything that reads one, and what a format of checkpoints must say.

It is the seam alone: it knows no format and no file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from llama_quantize.source import TensorSource

if TYPE_CHECKING:
    from llama_export.llama.config import LlamaConfig
    from llama_export.tokenizer.tokenizer import Tokenizer
    from llama_quantize.recipe import QuantRecipe


class Checkpoint(TensorSource, Protocol):
    """An open checkpoint whose every tensor was found to be what its config asks for.

    A tensor may come quantised; then its codes are kept. Names are Hugging Face's.
    """

    @property
    def folder(self) -> Path:
        """Where it is, with its small files."""

    @property
    def config(self) -> LlamaConfig:
        """Shape of the model."""

    @property
    def size_bytes(self) -> int:
        """Size of the tensors in the files."""

    @property
    def recipe(self) -> QuantRecipe | None:
        """What it was quantised by already; None: it is floats, which any recipe may quantise."""

    @property
    def weights_folder(self) -> Path | None:
        """Folder that `quantize_to` wrote, to be lowered as it is; None: it is another form."""

    def tokenizer_config(self) -> Mapping[str, object] | None:
        """Read the keys of its tokenizer_config.json; None if it has none.

        Raises:
            ConfigError: it is damaged.
            CheckpointError: it is a link out of the folder.
        """

    def generation_config(self) -> Mapping[str, object] | None:
        """Read the keys of its generation_config.json; None if it has none.

        Raises:
            ConfigError, CheckpointError: as `tokenizer_config`.
        """

    def release(self) -> None:
        """Return mapped pages to the system; a later read maps the files again."""


@dataclass(frozen=True)
class WantedFiles:
    """The files of a repository that an export needs.

    Args:
        small: configuration, tokenizer and licence files.
        weights: files that hold the weights.
        last: the small file that is fetched after all others: a folder that has it has them all.
    """

    small: tuple[str, ...]
    weights: tuple[str, ...]
    last: str


@dataclass(frozen=True)
class Fault:
    """Why no export can start from some files.

    Args:
        text: what is wrong, to be read after the name of the folder or repository.
        hint: what to do next.
    """

    text: str
    hint: str


class Format(Protocol):
    """A form that checkpoints come in. All but `open` costs little and reads no weight."""

    def wanted(self, files: Collection[str]) -> WantedFiles | Fault | None:
        """Choose what an export needs of a repository's files.

        Args:
            files: paths in the repository, with `/`.

        Returns:
            The files, or why they cannot be used; None: nothing of this format is among them.
        """

    def is_complete(self, path: Path) -> bool:
        """Whether all weights are there; another program may have fetched a part of them."""

    def recognises(self, path: Path) -> bool:
        """Whether the folder or file holds a checkpoint of this format."""

    def read_config(self, path: Path) -> LlamaConfig:
        """Read the shape of the model.

        Raises:
            ConfigError: it is missing or wrong.
            UnsupportedModelError: the model is not a Llama that can be exported.
        """

    def read_tokenizer(self, path: Path) -> Tokenizer:
        """Load the tokenizer.

        Raises:
            TokenizerError: there is none, it is damaged, or it is not a Llama 3 tokenizer.
        """

    def tokenizer_bytes(self, path: Path) -> int:
        """Return the size of the tokenizer's files in a bundle, about."""

    def open(self, path: Path, config: LlamaConfig | None = None) -> Checkpoint:
        """Open a checkpoint and check all of it but the values.

        Args:
            path: folder or file of the checkpoint.
            config: what `read_config` returned for it; None: it is read now.

        Raises:
            ConfigError, UnsupportedModelError: as `read_config`.
            CheckpointError, QuantizationError: a file is missing or damaged, or a tensor is not
                what the config asks for.
        """
