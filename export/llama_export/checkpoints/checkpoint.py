"""What a checkpoint is to everything that reads one, and what a format of checkpoints must say.

It is the seam alone: it knows no format and no file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from llama_quantize.source import TensorSource

if TYPE_CHECKING:
    from llama_export.llama.config import LlamaConfig
    from llama_export.tokenizer.tokenizer import Tokenizer
    from llama_quantize.recipe import QuantRecipe


@dataclass(frozen=True)
class ReadOptions:
    """How a user wants a checkpoint to be read, where its files do not say it.

    Args:
        rope_factor: factor of Llama 3.1's rotary scaling, for a layout that does not record it.
        base: model that an adapter is laid over, a folder or a name; None: what the adapter names.
        adapters: folders of adapters that are laid over the model, one after the other.
        merge_adaptors: whether side branches are merged into the weights, which are then quantised
            again.
        requantize: whether codes that a checkpoint holds are given up for another form.
        accept_loss: whether weights are read that have lost more than int4 would lose.
        head_tokens: texts whose tokens, beside those that end a text, are the only ones that the
            model can write; empty: all.
    """

    rope_factor: float | None = None
    base: str | None = None
    adapters: tuple[str, ...] = ()
    merge_adaptors: bool = False
    requantize: bool = False
    accept_loss: bool = False
    head_tokens: tuple[str, ...] = ()


AS_IT_IS = ReadOptions()
"""A checkpoint is read as its files say."""

GUARD_ANSWERS = (
    "safe",
    "\n\nsafe",
    "unsafe\n" + ",".join(f"S{number}" for number in range(1, 15)),
    "\n\nunsafe\n",
)
"""All that Llama Guard says, as texts for `head_tokens`."""


@dataclass(frozen=True)
class Companions:
    """What a checkpoint says of itself beside its config, its tokenizer and its weights.

    Args:
        tokenizer_config: keys of its tokenizer_config.json; None: it has none.
        generation_config: keys of its generation_config.json; None: it has none.
        chat_templates: templates that a chat is written with, by name; the usual one is `default`.
    """

    tokenizer_config: Mapping[str, object] | None = None
    generation_config: Mapping[str, object] | None = None
    chat_templates: Mapping[str, str] = field(default_factory=dict)


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
        """The forms of what is quantised already, and of the rest; None: all of it is floats."""

    @property
    def weights_folder(self) -> Path | None:
        """Folder that `quantize_to` wrote, to be lowered as it is; None: it is another form."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user must know of how it was read, such as that it is quantised once more."""

    @property
    def kept_notes(self) -> tuple[str, ...]:
        """Those of the notes that are true as long as codes are kept."""

    def release(self) -> None:
        """Return mapped pages to the system; a later read maps the files again."""


@dataclass(frozen=True)
class WantedFiles:
    """The files of a repository that an export needs.

    Args:
        small: configuration, tokenizer and licence files.
        weights: files that hold the weights.
        last: the file that is fetched after all others: a folder that has it has them all.
        opened: the one of the weights that stands for the model, because the weights themselves
            hold config and tokenizer; empty: the folder does.
        index: the one of the weights that names the others; empty: there is none.
    """

    small: tuple[str, ...]
    weights: tuple[str, ...]
    last: str
    opened: str = ""
    index: str = ""


REPOSITORY = "organisation/name"
"""What stands for the repository in the hint of a `Fault`."""


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

    def read_config(self, path: Path, options: ReadOptions = AS_IT_IS) -> LlamaConfig:
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

    def read_companions(self, path: Path) -> Companions:
        """Read what else the checkpoint says of itself.

        Raises:
            ConfigError: a file of it is damaged.
            CheckpointError: one is a link out of the folder.
        """

    def tokenizer_bytes(self, path: Path) -> int:
        """Return the size of the tokenizer's files in a bundle, about."""

    def open(
        self, path: Path, config: LlamaConfig | None = None, options: ReadOptions = AS_IT_IS
    ) -> Checkpoint:
        """Open a checkpoint and check all of it but the values.

        Args:
            path: folder or file of the checkpoint.
            config: what `read_config` returned for it; None: it is read now.
            options: how the user wants it to be read.

        Raises:
            ConfigError, UnsupportedModelError: as `read_config`.
            CheckpointError, QuantizationError: a file is missing or damaged, or a tensor is not
                what the config asks for.
        """
