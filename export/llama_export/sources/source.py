"""What an export starts from: a checkpoint of any format, with its tokenizer and its origin.

It opens what `--model` stands for and checks that its parts belong together. It does
not quantise, trace or write.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.bundle.model_info import ModelInfo
from llama_export.checkpoints.checkpoint import (
    AS_IT_IS,
    Checkpoint,
    Companions,
    ReadOptions,
)
from llama_export.checkpoints.dequantized import DequantizedCheckpoint
from llama_export.checkpoints.formats import (
    open_checkpoint,
    read_config,
    read_small_files,
    read_tokenizer,
    require_recognised,
)
from llama_export.errors import CheckpointError, TokenizerError
from llama_export.llama.config import LlamaConfig
from llama_export.sources.chat_settings import (
    chat_settings,
    completed,
    generation_settings,
    template_notes,
)
from llama_export.sources.head_tokens import with_head_tokens
from llama_export.sources.licence import licence_folder, licence_notice
from llama_export.sources.reading import (
    READING,
    noted,
    parse_reading_text,
    reading_text,
    recorded,
)
from llama_export.sources.resolve import ModelSource, model_name
from llama_export.tokenizer.tokenizer import Tokenizer
from llama_quantize.checkpoint.files import RECORD_FILE
from llama_quantize.printable import shown_name

if TYPE_CHECKING:
    from llama_quantize.checkpoint.weights import QuantizedWeights

_ORIGIN = {
    "hub_id": re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII),
    "revision": re.compile(r"[0-9a-f]{7,64}"),
}
WEIGHTS_FOLDER = "weights"
"""Name of the folder beside the bundles that keeps the quantised weights."""
IDENTITY = ("name", "hub_id", "revision")
"""Keys of the metadata of quantised weights that say where they come from."""
# Tokens that were added without a larger table: to pad with, turns' ends, a list of reserved ones.
_MOST_BEYOND = 1024
# What a config.json says that was made by transformers for another tokenizer than Llama 2's.
_DEFAULT_BOS = 1


@dataclass(frozen=True)
class Description:
    """What a model's files say of themselves, read once for the plan and for the export.

    Args:
        path: folder or file that it was read from.
        config: shape of the model.
        tokenizer: its tokenizer, which fits the shape.
        companions: what else it says of itself.
        checkpoint: the opened checkpoint; None: its weights are not fetched yet.
    """

    path: Path
    config: LlamaConfig
    tokenizer: Tokenizer
    companions: Companions
    checkpoint: Checkpoint | None


@dataclass(frozen=True)
class Source:
    """An opened model.

    Args:
        info: name, origin and config for the manifest.
        path: folder or file of the checkpoint, for its licence files.
        config: shape of the model, with every token that ends a text.
        tokenizer: tokenizer of the model.
        companions: what else the model says of itself.
        checkpoint: its weights, of floats or quantised.
        weights: quantised weights that an earlier export kept, lowered as they are; None: the
            checkpoint is another one.
    """

    info: ModelInfo
    path: Path
    config: LlamaConfig
    tokenizer: Tokenizer
    companions: Companions
    checkpoint: Checkpoint
    weights: QuantizedWeights | None

    @property
    def original(self) -> Checkpoint | None:
        """What quantised weights are compared with; None: the source is those weights.

        Codes that were kept are compared with the file that they came from.
        """
        return None if self.weights is not None else self.checkpoint

    def identity(self) -> dict[str, str]:
        """Return where the weights come from, to be kept with the quantised ones."""
        found = {key: getattr(self.info, key) for key in IDENTITY}
        found[READING] = reading_text(self.info) or None
        return {key: value for key, value in found.items() if value is not None}

    def tokenizer_config(self) -> dict[str, object]:
        """Return our tokenizer_config.json, with the checkpoint's own templates."""
        return chat_settings(self.tokenizer, self.companions, self.info.name)

    def generation_config(self) -> dict[str, object]:
        """Return the checkpoint's generation_config.json, or the one that Meta ships."""
        return generation_settings(self.config, self.companions)


def describe(
    path: Path, *, with_weights: bool = True, options: ReadOptions = AS_IT_IS
) -> Description:
    """Read what a model's files say of themselves, and refuse what no export can start from.

    Args:
        path: folder or file of the model.
        with_weights: whether its weights are there and are opened too, which reads headers only;
            of a repository, the small files may have been fetched alone.
        options: how the user wants the checkpoint to be read.

    Raises:
        ConfigError, TokenizerError, UnsupportedModelError: config.json or the tokenizer is missing,
            damaged, or of a model that cannot be exported.
        CheckpointError, QuantizationError: the weights are missing, damaged or of another model, or
            a small file beside them cannot be copied into a bundle.
    """
    require_recognised(path)
    config = read_config(path, options)
    tokenizer = read_tokenizer(path, options)
    require_same_vocabulary(tokenizer, config, path)
    companions = read_small_files(path, options)
    config = with_head_tokens(completed(config, tokenizer, companions), tokenizer, options)
    checkpoint = open_checkpoint(path, config, options) if with_weights else None
    # What is copied into bundles is read now, so that a fault in it does not wait for the work.
    licence_notice("", None, licence_folder(path))
    return Description(path, config, tokenizer, companions, checkpoint)


def open_source(
    model: ModelSource,
    description: Description | None = None,
    options: ReadOptions = AS_IT_IS,
) -> Source:
    """Open a model's files; quantised weights are hashed, because they are lowered as they are.

    Args:
        model: place and origin.
        description: what `describe` returned for the same path. None, of another path, or without
            weights: everything is read now.
        options: how the user wants the checkpoint to be read.

    Raises:
        ConfigError, CheckpointError, TokenizerError, UnsupportedModelError, QuantizationError: as
            `describe`.
    """
    if description is None or description.path != model.path or description.checkpoint is None:
        # Of a repository some was assumed before its weights were there, which may say otherwise.
        description = describe(model.path, options=options)
    checkpoint = description.checkpoint or open_checkpoint(model.path, description.config, options)
    weights = _opened(checkpoint.weights_folder)
    if weights is not None:
        info = _info_of(weights, model)
    else:
        notes = noted((*checkpoint.notes, *notes_beside(description)))
        identity = model_name(model.name), model.hub_id, model.revision
        # A wish that a checkpoint of floats does not need is not kept with it.
        given_up = isinstance(checkpoint, DequantizedCheckpoint)
        reading = recorded(replace(options, requantize=given_up))
        info = ModelInfo(*identity, {}, model.adapters, reading, notes, model.file)
    return Source(
        info=replace(info, config=description.config.to_hf()),
        path=model.path,
        config=description.config,
        tokenizer=description.tokenizer,
        companions=description.companions,
        checkpoint=checkpoint,
        weights=weights,
    )


def require_same_vocabulary(tokenizer: Tokenizer, config: LlamaConfig, path: Path) -> None:
    """Refuse a tokenizer that certainly is another model's.

    It may lack tokens of the table, which may be padded, and may have added tokens beyond it, such
    as one to pad with, which the model never writes. Text must stay inside the table.

    Raises:
        TokenizerError: a token of text is beyond the table, or the one that begins a text, or the
            token that config.json begins a text with is one of text.
    """
    own, bos = tokenizer.bos_token_id, config.bos_token_id
    fault = ""
    if tokenizer.vocab_size - config.vocab_size > _MOST_BEYOND:
        fault = f"it has {tokenizer.vocab_size} tokens, and the table {config.vocab_size}"
    elif beyond := _text_beyond(tokenizer, config.vocab_size):
        fault = f"its tokens of text go up to id {beyond}, and the table has {config.vocab_size}"
    elif own is not None and own >= config.vocab_size:
        fault = f"it begins a text with {own}, and the table has {config.vocab_size}"
    elif _begins_with_text(tokenizer, own, bos):
        fault = f"it begins a text with {own}, and config.json with {bos}, a token of text here"
    if fault:
        message = f"the tokenizer in {path} belongs to another model: {fault}"
        raise TokenizerError(message, "take both files from the same repository")


def _begins_with_text(tokenizer: Tokenizer, own: int | None, bos: int | None) -> bool:
    """Whether a config names another beginning than its tokenizer, and one that is text there."""
    if None in (own, bos) or bos in (own, _DEFAULT_BOS):
        return False
    return tokenizer.token_name(bos or 0) is None


def _text_beyond(tokenizer: Tokenizer, vocab_size: int) -> int | None:
    """Return the last token of text beyond a table; None: there is none."""
    beyond = range(tokenizer.vocab_size - 1, vocab_size - 1, -1)
    return next((each for each in beyond if tokenizer.token_name(each) is None), None)


def notes_beside(description: Description) -> tuple[str, ...]:
    """Return what a user must know of a model's tokenizer and chat templates."""
    known = vocabulary_notes(description.tokenizer, description.config)
    return (*known, *template_notes(description.companions.chat_templates))


def vocabulary_notes(tokenizer: Tokenizer, config: LlamaConfig) -> tuple[str, ...]:
    """Return what a user must know of a tokenizer and a table that are not of one size."""
    names = [tokenizer.token_name(each) for each in range(config.vocab_size, tokenizer.vocab_size)]
    if not names:
        return tokenizer.notes
    note = (
        f"the tokenizer has {len(names)} added token{'s' if len(names) > 1 else ''} beyond the "
        f"model's table of {config.vocab_size}, which it never writes: "
        f"{shown_name(str(names[0]), 60)}"
    )
    return (*tokenizer.notes, note)


def _info_of(weights: QuantizedWeights, model: ModelSource) -> ModelInfo:
    """Return where quantised weights say that they come from, and how that was read.

    Raises:
        CheckpointError: it is no origin that a manifest could hold.
    """
    for key, pattern in _ORIGIN.items():
        value = weights.metadata.get(key)
        if value is not None and not pattern.fullmatch(value):
            message = (
                f"{weights.folder / RECORD_FILE}: metadata.{key} is {shown_name(repr(value))}, "
                "which is neither a repository nor a commit of one"
            )
            raise CheckpointError(message, f"correct it, or take {key} out of the metadata")
    known, text = weights.metadata, weights.metadata.get(READING)
    where = str(weights.folder / RECORD_FILE)
    read = ModelInfo("", None, None, {}) if text is None else parse_reading_text(text, where)
    return replace(
        read,
        name=model_name(known.get("name", model.name)),
        hub_id=known.get("hub_id", model.hub_id),
        revision=known.get("revision", model.revision),
    )


def _opened(folder: Path | None) -> QuantizedWeights | None:
    if folder is None:
        return None
    from llama_quantize.checkpoint.weights import QuantizedWeights

    return QuantizedWeights.open(folder)
