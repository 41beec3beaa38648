"""The small files beside a checkpoint's config: tokenizer and generation settings, chat templates.

It finds a template wherever its maker's version of transformers put it, and reads text; it renders
nothing, and opens neither weights nor tokenizers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llama_export.checkpoints.checkpoint import Companions
from llama_export.checkpoints.own_files import own_file
from llama_export.errors import ConfigError
from llama_quantize.printable import shown_name
from llama_quantize.strict_json import JsonFault, read_object

TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
GENERATION_CONFIG_FILE = "generation_config.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"
TEMPLATES_FOLDER = "additional_chat_templates"
DEFAULT_TEMPLATE = "default"
"""Name of the template that a chat is written with when no other is asked for."""

_KEY = "chat_template"
_POINTER = b"version https://git-lfs.github.com/spec/"
_MOST_TEMPLATE_BYTES = 2**20
_MOST_TEMPLATES = 32
_TOKENS = ((int,), "a token id or a list of them")
_NUMBER = ((int, float), "a number")
_COUNT = ((int,), "a whole number")
# Bundles take the file over, and clients read these keys of it.
_GENERATION_TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), _TOKENS),
    **dict.fromkeys(("temperature", "top_p", "min_p", "repetition_penalty"), _NUMBER),
    **dict.fromkeys(("top_k", "max_length", "max_new_tokens", "min_length"), _COUNT),
    "do_sample": ((bool,), "true or false"),
}
# Real ones are some kB; one that lists every added token of Llama 3, 50 kB.
_MOST_SETTINGS_BYTES = 4 * 2**20


def read_companions(folder: Path) -> Companions:
    """Read what a checkpoint's folder says of itself beside config, tokenizer and weights.

    Raises:
        ConfigError: a file of it is damaged, or longer than any template.
        CheckpointError: one is a link out of the folder.
    """
    settings = read_settings(folder / TOKENIZER_CONFIG_FILE)
    return Companions(
        settings,
        read_generation_config(folder / GENERATION_CONFIG_FILE),
        _chat_templates(folder, settings),
    )


def _chat_templates(folder: Path, settings: Mapping[str, object] | None) -> dict[str, str]:
    """Return the templates by name; files of their own count before the key of older versions.

    Where the default one has a file, nothing that the key says counts: transformers reads it so.
    """
    default = own_file(folder / CHAT_TEMPLATE_FILE)
    found = (settings or {}).get(_KEY) if default is None else None
    named = _in_key(found, folder / TOKENIZER_CONFIG_FILE)
    for path in sorted((folder / TEMPLATES_FOLDER).glob("*.jinja"))[:_MOST_TEMPLATES]:
        if (place := own_file(path)) is not None:
            named[path.stem] = _read_template(place)
    if default is not None:
        named[DEFAULT_TEMPLATE] = _read_template(default)
    return named


def _in_key(found: object, where: Path) -> dict[str, str]:
    """Return the templates in a key: none, one, or several as a list or an object by name."""
    if found is None:
        return {}
    if isinstance(found, str):
        return {DEFAULT_TEMPLATE: found}
    if isinstance(found, dict):
        found = [{"name": name, "template": text} for name, text in found.items()]
    named: dict[str, str] = {}
    for each in found if isinstance(found, list) else (None,):
        match each:
            case {"name": str(name), "template": str(text)}:
                named[name] = text
            case _:
                message = (
                    f"{where}: {_KEY} must be a template, or several that each have a name, "
                    f"found {shown_name(repr(found))}"
                )
                raise ConfigError(message, "correct it, download the file again, or remove the key")
    return named


def read_settings(path: Path) -> Mapping[str, object] | None:
    """Read an optional JSON object, such as tokenizer_config.json; None if it is not there.

    Raises:
        ConfigError: it is there and damaged, or holds what is not JSON to every reader.
        CheckpointError: it is a link out of the folder, or no file.
    """
    place = own_file(path)
    if place is None:
        return None
    try:
        return read_object(place, most_bytes=_MOST_SETTINGS_BYTES)
    except (OSError, JsonFault) as error:
        message = f"{path} cannot be read: {error}"
        raise ConfigError(message, "correct it, download it again, or remove it") from None


def read_generation_config(path: Path) -> Mapping[str, object] | None:
    """Read an optional generation_config.json, whose well-known keys have the types they must have.

    Raises:
        ConfigError, CheckpointError: as `read_settings`, or a key has a value of another type.
    """
    settings = read_settings(path)
    for key, (types, expected) in _GENERATION_TYPES.items():
        value = None if settings is None else settings.get(key)
        listed = value if key.endswith("token_id") and isinstance(value, list) else [value]
        if value is not None and not all(type(each) in types for each in listed):
            message = f"{path}: {key} must be {expected}, found {shown_name(repr(value))}"
            raise ConfigError(message, "correct it, download it again, or remove it")
    return settings


def _read_template(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_TEMPLATE_BYTES + 1)
        if content.startswith(_POINTER):
            message = f"the chat template {path} is a git-lfs pointer in place of the file"
            raise ConfigError(message, "run git lfs install and git lfs pull in the clone")
        if len(content) <= _MOST_TEMPLATE_BYTES:
            return content.decode("utf-8")
        fault = f"it is longer than {_MOST_TEMPLATE_BYTES} bytes"
    except (OSError, UnicodeDecodeError) as error:
        fault = str(error)
    message = f"the chat template {path} cannot be read: {fault}"
    raise ConfigError(message, "download the file again, or remove it")
