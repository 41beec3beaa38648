"""Whether a bundle's model was trained on turns of a conversation.

It knows the manifest and the tokenizer's settings; it does not know how a turn is written.
"""

from __future__ import annotations

from llama_export.bundle.bundle import Bundle
from llama_export.errors import BundleError
from llama_export.sources.resolve import DEMO
from llama_export.tokenizer.special_tokens import END_OF_TURN, SPECIAL_TOKENS
from llama_quantize.strict_json import JsonFault, read_object


def is_for_chat(bundle: Bundle) -> bool:
    """Return whether a model was trained on turns: it has a template, and its own end of turn.

    The demo has both, to look like the real ones, and knows nothing but tales.

    Raises:
        BundleError: the tokenizer's settings cannot be read.
    """
    manifest = bundle.manifest
    if manifest.model.name == DEMO or "tokenizer_config.json" not in manifest.files:
        return False
    path = bundle.path("tokenizer_config.json")
    try:
        keys = read_object(path)
    except (OSError, JsonFault) as error:
        message = f"{path} cannot be read: {error}"
        raise BundleError(message, "export the bundle again") from error
    ends, bos = manifest.model.config.get("eos_token_id"), manifest.tokenizer["bos_token_id"]
    if bos is None:
        return "chat_template" in keys
    end_of_turn = int(bos) + SPECIAL_TOKENS.index(END_OF_TURN)
    has_end = end_of_turn in (ends if isinstance(ends, list | tuple) else [ends])
    return has_end and "chat_template" in keys
