"""The small files that stand beside weights and artifacts: configurations, tokenizer, licence.

They are gathered once for an export and written into each of its folders; and gathered again, from
the checkpoint or from what was kept with the weights, to be compared with a bundle's. The module
compares nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from llama_export.bundle.manifest import path_fault
from llama_export.bundle.model_info import ModelInfo
from llama_export.bundle.ownership import HASH_OF
from llama_export.checkpoints.checkpoint import Checkpoint
from llama_export.checkpoints.companions import GENERATION_CONFIG_FILE, TOKENIZER_CONFIG_FILE
from llama_export.checkpoints.formats import read_small_files, read_tokenizer, reading_of
from llama_export.checkpoints.hugging_face_files import CONFIG_FILE
from llama_export.errors import CheckpointError
from llama_export.sources.chat_settings import completed
from llama_export.sources.licence import NOTICE_NAME, licence_folder, licence_notice
from llama_export.sources.source import Source
from llama_export.tokenizer.chat.chat_format import ChatFormat
from llama_export.tokenizer.tokenizer import Tokenizer, load_tokenizer
from llama_quantize.strict_json import parse_object

if TYPE_CHECKING:
    from llama_quantize.checkpoint.weights import QuantizedWeights


@dataclass(frozen=True)
class ModelFiles:
    """What every folder of an export says about its model.

    Args:
        config: keys of config.json.
        generation_config: keys of generation_config.json.
        tokenizer_config: keys of tokenizer_config.json.
        notices: licence files by name.
        tokenizer: tokenizer of the model.
    """

    config: Mapping[str, object]
    generation_config: Mapping[str, object]
    tokenizer_config: Mapping[str, object]
    notices: Mapping[str, bytes]
    tokenizer: Tokenizer

    @classmethod
    def of(cls, source: Source) -> ModelFiles:
        """Gather the files of an opened model.

        Raises:
            ConfigError: one of its configurations is damaged.
            CheckpointError: one of its files cannot be copied.
        """
        info = source.info
        return cls(
            config=source.config.to_hf(),
            generation_config=source.generation_config(),
            tokenizer_config=source.tokenizer_config(),
            notices=licence_notice(info.name, info.hub_id, licence_folder(source.path)),
            tokenizer=source.tokenizer,
        )

    @property
    def notice(self) -> str:
        """Text of the NOTICE; a checkpoint's own part of it may have any encoding."""
        return self.notices[NOTICE_NAME].decode("utf-8", errors="replace")

    @cached_property
    def contents(self) -> Mapping[str, bytes]:
        """Content of each file by its name."""
        return {
            CONFIG_FILE: json_bytes(self.config),
            GENERATION_CONFIG_FILE: json_bytes(self.generation_config),
            TOKENIZER_CONFIG_FILE: json_bytes(self.tokenizer_config),
            **self.notices,
            **self.tokenizer.files(),
        }

    def expected(self, origin: str) -> ExpectedFiles:
        """Return what the small files of a bundle of the model should hold.

        Args:
            origin: where that is known from, as a phrase.
        """
        form = ChatFormat.of(self.tokenizer, self.tokenizer_config)
        return ExpectedFiles(origin, self.contents, form)

    def fingerprints(self) -> dict[str, str]:
        """Return what is kept with the weights, so that a bundle's files can be proved by it."""
        return {
            f"{HASH_OF}{name}": hashlib.sha256(content).hexdigest()
            for name, content in self.contents.items()
        }

    def write(self, folder: Path, config_keys: Mapping[str, object] | None = None) -> None:
        """Write all of them.

        Args:
            folder: existing folder.
            config_keys: more keys of config.json.
        """
        own = {CONFIG_FILE: json_bytes({**self.config, **(config_keys or {})})}
        for name, content in {**self.contents, **own}.items():
            (folder / name).write_bytes(content)


@dataclass(frozen=True)
class ExpectedFiles:
    """What the small files of a bundle should hold.

    Args:
        origin: where that is known from, as a phrase.
        contents: content of each file by its name; config.json without its target's own keys.
        chat_format: how the model's dialogs are written; None: it is not known.
    """

    origin: str
    contents: Mapping[str, bytes]
    chat_format: ChatFormat | None = None


def expected_files(
    info: ModelInfo, weights: QuantizedWeights | None, checkpoint: Checkpoint | None
) -> ExpectedFiles | None:
    """Gather what a bundle's files should hold: from its checkpoint, else from its weights' folder.

    Args:
        info: name and origin that the bundle gives; its licence notice repeats them.
        weights: quantised weights that the bundle was made from.
        checkpoint: checkpoint that these were made from.

    Returns:
        None: neither tells.

    Raises:
        CheckpointError: a file beside the weights is not what was written there.
        ConfigError, TokenizerError: one of the checkpoint's files is damaged.
    """
    if checkpoint is not None:
        path, options = checkpoint.folder, reading_of(checkpoint)
        tokenizer, companions = read_tokenizer(path, options), read_small_files(path, options)
        config = completed(checkpoint.config, tokenizer, companions)
        source = Source(
            info=replace(info, config=config.to_hf()),
            path=path,
            config=config,
            tokenizer=tokenizer,
            companions=companions,
            checkpoint=checkpoint,
            weights=None,
        )
        return ModelFiles.of(source).expected("the checkpoint")
    kept = {} if weights is None else _kept_files(weights)
    if weights is None or not kept:
        return None
    form = _kept_format(weights, kept)
    return ExpectedFiles("the files kept with the weights", kept, form)


def json_bytes(value: Mapping[str, object]) -> bytes:
    """Render a configuration, always with the same bytes."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode("utf-8")


def _kept_format(weights: QuantizedWeights, kept: Mapping[str, bytes]) -> ChatFormat | None:
    """Read how dialogs are written from the files beside the weights, whose hashes are right."""
    if TOKENIZER_CONFIG_FILE not in kept:
        return None
    settings = parse_object(kept[TOKENIZER_CONFIG_FILE])
    return ChatFormat.of(load_tokenizer(weights.folder), settings)


def _kept_files(weights: QuantizedWeights) -> dict[str, bytes]:
    """Read the files beside the weights; none where an older version kept no hashes.

    Raises:
        CheckpointError: one is missing, or not what was written.
    """
    hashes = {
        key.removeprefix(HASH_OF): sha256
        for key, sha256 in weights.metadata.items()
        if key.startswith(HASH_OF)
    }
    kept = {}
    for name, sha256 in hashes.items():
        content = _read(weights.folder, name)
        if content is None or hashlib.sha256(content).hexdigest() != sha256:
            found = "is missing" if content is None else "is not what was written there"
            message = f"{weights.folder / name} {found}, so no bundle can be compared with it"
            hint = "name the checkpoint that the bundle was made from, or export the model again"
            raise CheckpointError(message, hint)
        kept[name] = content
    return kept


def _read(folder: Path, name: str) -> bytes | None:
    if path_fault(name) or len(PurePosixPath(name).parts) != 1:
        return None
    try:
        return (folder / name).read_bytes()
    except OSError:
        return None
