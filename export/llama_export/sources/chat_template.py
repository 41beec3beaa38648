"""Find a checkpoint's chat template, wherever its maker's version of transformers put it.

It reads a text; it renders nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llama_export.checkpoints.own_files import own_file
from llama_export.errors import ConfigError

CHAT_TEMPLATE_FILE = "chat_template.jinja"
_MOST_BYTES = 2**20
_KEY, _DEFAULT = "chat_template", "default"


def chat_template(folder: Path, settings: Mapping[str, object] | None) -> str | None:
    """Return the template that a chat is written with; None: the checkpoint has none.

    transformers 5 writes a file of its own, which counts before the key that version 4 wrote.

    Args:
        folder: folder of the checkpoint.
        settings: keys of its tokenizer_config.json; None: it has none.

    Raises:
        ConfigError: the file is not a text, or too long to be a template.
        CheckpointError: it is a link out of the checkpoint.
    """
    place = own_file(folder / CHAT_TEMPLATE_FILE)
    if place is not None:
        return _read(place)
    found = (settings or {}).get(_KEY)
    if isinstance(found, list):  # several, by name
        named = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
        found = named.get(_DEFAULT)
    return found if isinstance(found, str) else None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) <= _MOST_BYTES:
            return content.decode("utf-8")
        fault = f"it is longer than {_MOST_BYTES} bytes"
    except (OSError, UnicodeDecodeError) as error:
        fault = str(error)
    message = f"the chat template {path} cannot be read: {fault}"
    raise ConfigError(message, "download the file again, or remove it")
