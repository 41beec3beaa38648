"""The models that have a name here, and the shape of whatever `--model` names.

It reads no weight and downloads none: an alias's shape is known, a folder has a config.json, and
of another repository config.json alone is fetched. It knows nothing of targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llama_export.llama.config import PRESETS, LlamaConfig
from llama_export.sources.repository import fetch
from llama_export.sources.resolve import ALIASES, DEMO, DEMO_FOLDER, name_model
from llama_quantize.checkpoint.store import RECORD_FILE
from llama_quantize.checkpoint.weights import QuantizedWeights

_GATED_OWNER = "meta-llama/"
_BF16_BYTES = 2
_TOKENIZER_FILE = "tokenizer.model"
_TOKENIZER_JSON = "tokenizer.json"
# Llama 3's vocabulary as a bundle holds it: tokenizer.model and the tokenizer.json made from it.
_LLAMA_3_VOCABULARY = 128256
_LLAMA_3_TOKENIZER_BYTES = 2_183_982 + 6_082_682
# tokenizer.json beside a tokenizer.model: between 2.1 times it (4,096 tokens) and 2.8 (128,256).
_JSON_PER_MODEL, _JSON_SPECIAL_BYTES = 2.15, 33_800


@dataclass(frozen=True)
class KnownModel:
    """A model with a name of its own; `hub_id` is None for the demo inside the package."""

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


@dataclass(frozen=True)
class ModelShape:
    """What is known of a model without its weights.

    Args:
        name: what to call it.
        config: its shape.
        tokenizer_bytes: of the tokenizer files in a bundle.
        download_bytes: what an export would fetch if nothing is cached; 0 for a local folder.
        weights: the quantised weights, when it is a `weights/` folder.
    """

    name: str
    config: LlamaConfig
    tokenizer_bytes: int
    download_bytes: int
    weights: QuantizedWeights | None = None


@dataclass(frozen=True)
class Download:
    """What is still to be fetched of a repository, about, and the cache that it goes to."""

    size_bytes: int
    folder: Path


def known_models() -> tuple[KnownModel, ...]:
    """Return the demo and every alias.

    Raises:
        ConfigError: the demo's config.json is missing or damaged.
    """
    demo = KnownModel(DEMO, None, LlamaConfig.read(DEMO_FOLDER / "config.json"))
    return (
        demo,
        *(KnownModel(name, hub_id, _preset(name)) for name, hub_id in ALIASES.items()),
    )


def shape_of(model: str, *, revision: str | None = None, token: str | None = None) -> ModelShape:
    """Find the shape of what `--model` names.

    Raises:
        HubError, GatedModelError, OutputError: as `resolve_model`, for what is on the hub.
        CheckpointError, ConfigError, UnsupportedModelError: the folder or its config.json.
        QuantizationError: it holds quantised weights that are damaged.
    """
    named = name_model(model, revision=revision)
    if named.folder is not None:
        return _folder_shape(named.name, named.folder)
    if model in ALIASES:
        config = _preset(model)
    else:
        folder, _ = fetch(named.hub_id, revision=revision, token=token, config_only=True)
        config = LlamaConfig.read(folder / "config.json")
    download_bytes = config.num_parameters * _BF16_BYTES
    return ModelShape(named.name, config, _tokenizer_bytes(config, None), download_bytes)


def download_of(model: str, shape: ModelShape, *, revision: str | None = None) -> Download | None:
    """Compare a repository with what the hub's cache holds of it; None for a local folder.

    What an interrupted download or another revision left counts as there: the files themselves
    are compared when the download begins.

    Raises:
        HubError, CheckpointError: as `shape_of`.
    """
    named = name_model(model, revision=revision)
    if named.folder is not None:
        return None
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    cache = Path(constants.HF_HUB_CACHE).expanduser().resolve()
    storage = cache / repo_folder_name(repo_id=named.hub_id, repo_type="model")
    # The files of a commit are links to blobs, except where the system has no links.
    files = (path for path in storage.rglob("*") if path.is_file() and not path.is_symlink())
    there = sum(path.stat().st_size for path in files)
    return Download(max(0, shape.download_bytes - there), cache)


def _preset(alias: str) -> LlamaConfig:
    """An Instruct model has its base model's shape."""
    return PRESETS[alias.removesuffix("-Instruct")]


def _folder_shape(name: str, folder: Path) -> ModelShape:
    config = LlamaConfig.read(folder / "config.json")
    weights = None
    if (folder / RECORD_FILE).is_file():
        weights = QuantizedWeights.open(folder, check_hash=False)
    return ModelShape(name, config, _tokenizer_bytes(config, folder), 0, weights)


def _tokenizer_bytes(config: LlamaConfig, folder: Path | None) -> int:
    """Return the size of both tokenizer files, from those that are there."""
    if config.vocab_size == _LLAMA_3_VOCABULARY or folder is None:
        return _LLAMA_3_TOKENIZER_BYTES
    sizes = [
        (folder / name).stat().st_size if (folder / name).is_file() else 0
        for name in (_TOKENIZER_FILE, _TOKENIZER_JSON)
    ]
    model_bytes = sizes[0]
    return model_bytes + (sizes[1] or int(model_bytes * _JSON_PER_MODEL) + _JSON_SPECIAL_BYTES)
