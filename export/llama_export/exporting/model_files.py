"""The small files that stand beside weights and artifacts: configurations, tokenizer, licence.

They are gathered once for an export and written into each of its folders.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_export.checkpoints.hugging_face_files import (
    CONFIG_FILE,
    GENERATION_CONFIG_FILE,
    TOKENIZER_CONFIG_FILE,
)
from llama_export.sources.licence import NOTICE_NAME, licence_folder, licence_notice
from llama_export.sources.source import Source
from llama_export.tokenizer.tokenizer import Tokenizer, write_tokenizer_files


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
        """Text of the NOTICE."""
        return self.notices[NOTICE_NAME].decode("utf-8")

    def write(self, folder: Path, config_keys: Mapping[str, object] | None = None) -> str:
        """Write all of them; return the name of the tokenizer file to load.

        Args:
            folder: existing folder.
            config_keys: more keys of config.json.
        """
        _write_json(folder / CONFIG_FILE, {**self.config, **(config_keys or {})})
        _write_json(folder / GENERATION_CONFIG_FILE, self.generation_config)
        _write_json(folder / TOKENIZER_CONFIG_FILE, self.tokenizer_config)
        for name, content in self.notices.items():
            (folder / name).write_bytes(content)
        return write_tokenizer_files(self.tokenizer, folder)


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
