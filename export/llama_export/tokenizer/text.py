"""What no tokenizer can encode: text that is not made of characters.

It knows no tokenizer.
"""

from __future__ import annotations

from llama_export.errors import TokenizerError


def require_characters(text: str) -> None:
    """Refuse text that has no UTF-8.

    Raises:
        TokenizerError: the text holds a lone surrogate, which is no character.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        found = f"U+{ord(text[error.start]):04X}"
        message = f"text cannot be encoded: a lone surrogate, {found}, at {error.start}"
        hint = "read the text as UTF-8, without the error handler surrogateescape"
        raise TokenizerError(message, hint) from None
