"""How a bundle's model is talked with: what its tokenizer_config.json says of it.

It reads a bundle's file; it does not know how a turn is written.
"""

from __future__ import annotations

from llama_export.bundle.bundle import Bundle
from llama_export.errors import BundleError
from llama_export.sources.chat_settings import own_chat_format
from llama_export.sources.resolve import DEMO
from llama_export.tokenizer.chat.chat_format import ChatFormat
from llama_export.tokenizer.tokenizer import Tokenizer
from llama_quantize.strict_json import JsonFault, read_object

_SETTINGS = "tokenizer_config.json"


def read_chat_format(bundle: Bundle, tokenizer: Tokenizer) -> ChatFormat:
    """Read how a bundle's dialogs are written.

    Raises:
        BundleError: the tokenizer's settings cannot be read.
    """
    if _SETTINGS not in bundle.manifest.files:
        return ChatFormat.of(tokenizer, {})
    path = bundle.path(_SETTINGS)
    try:
        return own_chat_format(bundle.manifest.model.name, tokenizer, read_object(path))
    except (OSError, JsonFault) as error:
        message = f"{path} cannot be read: {error}"
        raise BundleError(message, "export the bundle again") from error


def is_for_chat(bundle: Bundle, chat_format: ChatFormat) -> bool:
    """Return whether a model was trained to answer: it has a template.

    The demo has one, to look like the real models, and knows nothing but tales.
    """
    return chat_format.is_for_chat and not _is_demo(bundle)


def _is_demo(bundle: Bundle) -> bool:
    return bundle.manifest.model.name == DEMO
