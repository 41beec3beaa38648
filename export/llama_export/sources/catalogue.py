"""The models that have a name here, and the shape of whatever `--model` names.

It reads no weight and downloads none: an alias's shape is known, a folder is described by its own
files, and of another repository the small files alone are fetched. It knows nothing of targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.checkpoints.checkpoint import AS_IT_IS, ReadOptions
from llama_export.checkpoints.formats import find_format
from llama_export.llama.config import LlamaConfig
from llama_export.llama.presets import PRESETS
from llama_export.sources.repository import Fetched, fetch
from llama_export.sources.resolve import ALIASES, DEMO, DEMO_FOLDER, NamedModel, name_model
from llama_export.sources.source import Description, describe, notes_beside

if TYPE_CHECKING:
    from llama_export.checkpoints.checkpoint import Checkpoint
    from llama_quantize.recipe import QuantRecipe

_GATED_OWNER = "meta-llama/"
_BF16_BYTES = 2
# A vocabulary as a bundle holds it: of Llama 3 tokenizer.model and the tokenizer.json made from it,
# of SmolLM2 its tokenizer.json.
_LLAMA_3_VOCABULARY = 128256
_TOKENIZER_BYTES = {_LLAMA_3_VOCABULARY: 2_183_982 + 6_082_682, 49152: 2_104_556}


@dataclass(frozen=True)
class KnownModel:
    """A model with a name of its own.

    Args:
        name: its name for `--model`.
        hub_id: repository on the hub; None: the demo inside the package.
        config: its shape.
    """

    name: str
    hub_id: str | None
    config: LlamaConfig

    @property
    def gated(self) -> bool:
        """Whether a licence must be accepted on the hub first."""
        return (self.hub_id or "").startswith(_GATED_OWNER)

    @property
    def checkpoint_bytes(self) -> int:
        """The size of the bfloat16 weights."""
        return self.config.num_parameters * _BF16_BYTES

    @property
    def shape(self) -> ModelShape:
        """What is known without opening anything, for a list of all models."""
        path, download_bytes = (None, self.checkpoint_bytes) if self.hub_id else (DEMO_FOLDER, 0)
        size_bytes = _tokenizer_bytes(self.config, path)
        return ModelShape(self.name, self.config, size_bytes, download_bytes)


@dataclass(frozen=True)
class ModelShape:
    """What is known of a model without its weights.

    Args:
        name: name of the model.
        config: its shape.
        tokenizer_bytes: size of the tokenizer files in a bundle.
        download_bytes: size of what an export fetches if nothing is cached; 0: a local model.
        description: what its own files say; None: an alias, of which nothing was fetched.
        missing_bytes: how much of it is not cached; None: only the cache's size tells.
    """

    name: str
    config: LlamaConfig
    tokenizer_bytes: int
    download_bytes: int
    description: Description | None = None
    missing_bytes: int | None = None

    @property
    def recipe(self) -> QuantRecipe | None:
        """What it was quantised by already; None: floats, or the weights are not fetched yet."""
        checkpoint = self._checkpoint
        return None if checkpoint is None else checkpoint.recipe

    @property
    def weights_folder(self) -> Path | None:
        """Folder of quantised weights that are lowered as they are; None: they are written anew."""
        checkpoint = self._checkpoint
        return None if checkpoint is None else checkpoint.weights_folder

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user must know of how it is read, as far as its files are fetched."""
        if self.description is None:
            return ()
        checkpoint = self.description.checkpoint
        if checkpoint is not None and checkpoint.weights_folder is not None:
            return checkpoint.notes
        own = () if checkpoint is None else checkpoint.notes
        return (*own, *notes_beside(self.description))

    @property
    def _checkpoint(self) -> Checkpoint | None:
        return None if self.description is None else self.description.checkpoint


@dataclass(frozen=True)
class Download:
    """What is still to be fetched of a repository.

    Args:
        size_bytes: bytes that are missing, about.
        folder: cache that they go to.
    """

    size_bytes: int
    folder: Path


def known_models() -> tuple[KnownModel, ...]:
    """Return the demo and every alias.

    Raises:
        ConfigError: the demo's config.json is missing or damaged.
    """
    demo = KnownModel(DEMO, None, find_format(DEMO_FOLDER).read_config(DEMO_FOLDER))
    return (
        demo,
        *(KnownModel(name, hub_id, PRESETS[name]) for name, hub_id in ALIASES.items()),
    )


def shape_of(model: str, *, revision: str | None = None, token: str | None = None) -> ModelShape:
    """Find the shape of what `--model` names.

    Raises:
        HubError, GatedModelError, OutputError: as `resolve_model`, for what is on the hub.
        CheckpointError, ConfigError, TokenizerError, UnsupportedModelError, QuantizationError: as
            `describe`: no export can start from the folder, or from the repository's small files.
    """
    named = name_model(model, revision=revision)
    return shape_of_named(named, revision=revision, token=token)


def shape_of_named(
    named: NamedModel,
    *,
    revision: str | None = None,
    token: str | None = None,
    options: ReadOptions = AS_IT_IS,
) -> ModelShape:
    """Find the shape of a model whose name was looked up, as `shape_of` does."""
    if named.is_alias:
        return KnownModel(named.name, named.hub_id, PRESETS[named.name]).shape
    if named.path is not None:
        found, download_bytes, missing_bytes = describe(named.path, options=options), 0, None
    else:
        fetched = _small_files(named, revision, token)
        found = _described(fetched, options)
        missing_bytes = fetched.missing_bytes
        checkpoint, parameters = found.checkpoint, found.config.num_parameters
        download_bytes = checkpoint.size_bytes if checkpoint else parameters * _BF16_BYTES
    size_bytes = _tokenizer_bytes(found.config, found.path)
    return ModelShape(named.name, found.config, size_bytes, download_bytes, found, missing_bytes)


def describe_remote(
    named: NamedModel,
    *,
    revision: str | None = None,
    token: str | None = None,
    options: ReadOptions = AS_IT_IS,
) -> Description:
    """Fetch the small files of a repository, and refuse what no export can start from.

    Of a model in GGUF the beginnings of its files are fetched, which say what its tensors are too.

    Raises:
        HubError, GatedModelError, OutputError: as `resolve_model`.
        CheckpointError, ConfigError, TokenizerError, UnsupportedModelError: as `describe`.
    """
    return _described(_small_files(named, revision, token), options)


def _small_files(named: NamedModel, revision: str | None, token: str | None) -> Fetched:
    return fetch(named.on_hub, revision=revision, token=token, weights=False)


def _described(fetched: Fetched, options: ReadOptions) -> Description:
    return describe(fetched.path, with_weights=bool(fetched.file), options=options)


def download_of(named: NamedModel, shape: ModelShape) -> Download | None:
    """Compare a repository with what the hub's cache holds of it; None for a local model.

    What an interrupted download or another revision left counts as there: the files themselves
    are compared when the download begins.
    """
    if named.path is not None:
        return None
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    cache = Path(constants.HF_HUB_CACHE).expanduser().resolve()
    storage = cache / repo_folder_name(repo_id=named.hub_id, repo_type="model")
    # The files of a commit are links to blobs, except where the system has no links.
    files = (path for path in storage.rglob("*") if path.is_file() and not path.is_symlink())
    if shape.missing_bytes is not None:
        return Download(shape.missing_bytes, cache)
    there = sum(path.stat().st_size for path in files)
    return Download(max(0, shape.download_bytes - there), cache)


def _tokenizer_bytes(config: LlamaConfig, path: Path | None) -> int:
    """Return the size of the tokenizer files; of an alias it is known, else the format says it."""
    if path is None or config.vocab_size == _LLAMA_3_VOCABULARY:
        return _TOKENIZER_BYTES[config.vocab_size]
    return find_format(path).tokenizer_bytes(path)
