"""What an export starts from: a checkpoint, or weights that were quantised before.

It opens the folder that `--model` stands for and checks that its parts belong together. It does
not quantise, trace or write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_export.bundle import Bundle
from llama_export.checkpoints.hf import HfCheckpoint
from llama_export.config import LlamaConfig
from llama_export.errors import TokenizerError
from llama_export.hub import DEMO, ModelSource, resolve_model
from llama_export.manifest import ModelInfo
from llama_export.tokenizer import Tokenizer
from llama_quantize.store import RECORD_FILE
from llama_quantize.weights import QuantizedWeights

WEIGHTS_FOLDER = "weights"
TIED_HEAD: Mapping[str, str] = {"lm_head.weight": "model.embed_tokens.weight"}


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

    @property
    def tied(self) -> Mapping[str, str]:
        """Weights that are another weight's storage."""
        return TIED_HEAD if self.config.tie_word_embeddings else {}


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
    info = ModelInfo(model.name, model.hub_id, model.revision, config.to_hf())
    return Source(info, model.folder, config, tokenizer, checkpoint, weights)


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


@dataclass(frozen=True)
class Reference:
    """What a bundle is compared with; a part that is not at hand is None."""

    weights: QuantizedWeights | None
    checkpoint: HfCheckpoint | None


def reference_for(bundle: Bundle, checkpoint: str | None, weights: Path | None) -> Reference:
    """Find the quantised weights and the checkpoint that a bundle was made from.

    Args:
        bundle: opened.
        checkpoint: as `--model` takes it; None: the demo for a demo bundle, else nothing.
        weights: the folder of the quantised weights; None: `weights/` beside the bundle, if there.

    Raises:
        LlamaExportError, QuantizationError: what was named cannot be opened.
    """
    beside = bundle.folder.resolve().parent / WEIGHTS_FOLDER
    if weights is None and (beside / RECORD_FILE).is_file():
        weights = beside
    model = bundle.manifest.model
    if checkpoint is None and (model.name, model.hub_id) == (DEMO, None):
        checkpoint = DEMO
    return Reference(
        weights=None if weights is None else QuantizedWeights.open(weights),
        checkpoint=(
            None if checkpoint is None else HfCheckpoint.open(resolve_model(checkpoint).folder)
        ),
    )
