"""What an export starts from: a checkpoint, or weights that were quantised before.

It opens the folder that `--model` stands for and checks that its parts belong together. It does
not quantise, trace or write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_export.bundle.manifest import ModelInfo
from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.errors import CheckpointError, ConfigError, TokenizerError
from llama_export.llama.config import LlamaConfig
from llama_export.llama.names import tied_names
from llama_export.sources.resolve import ModelSource
from llama_export.tokenizer.tokenizer import Tokenizer, tokenizer_config
from llama_quantize.checkpoint.store import RECORD_FILE
from llama_quantize.checkpoint.weights import QuantizedWeights

WEIGHTS_FOLDER = "weights"


@dataclass(frozen=True)
class Source:
    """An opened model: exactly one of `checkpoint` and `weights` is there.

    Args:
        checkpoint: float weights, to be quantised.
        weights: quantised by an earlier export (its `weights/` folder).
    """

    info: ModelInfo
    folder: Path
    config: LlamaConfig
    tokenizer: Tokenizer
    checkpoint: HfCheckpoint | None
    weights: QuantizedWeights | None

    def require_checkpoint(self) -> HfCheckpoint:
        """Return the float weights of a source that has no quantised ones."""
        if self.checkpoint is None:
            message = f"{self.folder} holds neither a checkpoint nor quantised weights"
            raise CheckpointError(message, "name a folder with .safetensors files")
        return self.checkpoint

    def identity(self) -> dict[str, str]:
        """Say where the weights come from, to be kept with the quantised ones."""
        found = {"name": self.info.name, "hub_id": self.info.hub_id, "revision": self.info.revision}
        return {key: value for key, value in found.items() if value is not None}

    def tokenizer_config(self) -> dict[str, object]:
        """Return our tokenizer_config.json, with the checkpoint's own template and end token.

        A base model has no chat template, and a fine-tune may have another one than Llama 3.2's.
        """
        ours = tokenizer_config(self.tokenizer)
        theirs = _read_json(self.folder / "tokenizer_config.json")
        if theirs is None:
            return ours
        del ours["chat_template"]
        kept = ("chat_template", "eos_token", "pad_token")
        return ours | {key: theirs[key] for key in kept if isinstance(theirs.get(key), str)}

    def generation_config(self) -> dict[str, object]:
        """Return the checkpoint's generation_config.json, or the one that Meta ships."""
        theirs = _read_json(self.folder / "generation_config.json")
        if theirs is not None:
            return theirs
        return {
            "bos_token_id": self.config.bos_token_id,
            "eos_token_id": list(self.config.eos_token_id),
            "do_sample": True,
            "temperature": 0.6,
            "top_p": 0.9,
        }

    @property
    def tied(self) -> Mapping[str, str]:
        """Weights that are another weight's storage."""
        return tied_names(self.config)


def open_source(model: ModelSource) -> Source:
    """Open a model's folder.

    Raises:
        ConfigError, CheckpointError, TokenizerError, UnsupportedModelError: see their readers.
        QuantizationError: the folder holds quantised weights that are damaged.
    """
    config = LlamaConfig.read(model.folder / "config.json")
    tokenizer = Tokenizer.load(model.folder)
    require_same_vocabulary(tokenizer, config, model.folder)
    checkpoint, weights = None, None
    if (model.folder / RECORD_FILE).is_file():
        weights = QuantizedWeights.open(model.folder)
    else:
        checkpoint = HfCheckpoint.open(model.folder)
    known = weights.metadata if weights is not None else {}
    info = ModelInfo(
        name=known.get("name", model.name),
        hub_id=known.get("hub_id", model.hub_id),
        revision=known.get("revision", model.revision),
        config=config.to_hf(),
    )
    return Source(info, model.folder, config, tokenizer, checkpoint, weights)


def _read_json(path: Path) -> dict[str, object] | None:
    """Read an optional JSON object.

    Raises:
        ConfigError: it is there and damaged.
    """
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        message = f"{path} cannot be read: {error}"
        raise ConfigError(message, "download the file again, or remove it") from None
    if not isinstance(value, dict):
        message = f"{path}: expected a JSON object, found {type(value).__name__}"
        raise ConfigError(message, "download the file again, or remove it")
    return value


def require_same_vocabulary(tokenizer: Tokenizer, config: LlamaConfig, folder: Path) -> None:
    """Refuse a tokenizer that does not fit the model's table.

    Raises:
        TokenizerError: the sizes or the ids of the first token differ.
    """
    sizes = (tokenizer.vocab_size, config.vocab_size)
    starts = (tokenizer.bos_token_id, config.bos_token_id)
    if sizes[0] > sizes[1] or starts[0] != starts[1]:
        message = (
            f"the tokenizer in {folder} belongs to another model: it has {sizes[0]} tokens and "
            f"begins a text with {starts[0]}; config.json says {sizes[1]} and {starts[1]}"
        )
        raise TokenizerError(message, "take both files from the same repository")
