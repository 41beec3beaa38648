"""What is common to tokenizers of every kind: text and ids that none takes, and pieces of a byte.

It knows no tokenizer.
"""

from __future__ import annotations

import re

from llama_export.errors import TokenizerError

BLANK_LETTER = "\u2581"
"""What SentencePiece, and whoever follows it, writes for a blank."""

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


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


def outside(token_id: int, vocab_size: int) -> TokenizerError:
    """Return the error for an id that no token has."""
    message = f"token id {token_id} is outside the vocabulary of {vocab_size}"
    return TokenizerError(message, "use the tokenizer of the model that wrote the ids")


def byte_of_piece(piece: str) -> bytes | None:
    """Return the byte that SentencePiece's `<0x0A>` stands for; None: it is another piece."""
    match = _BYTE_PIECE.fullmatch(piece)
    return None if match is None else bytes([int(match[1], 16)])


def with_blanks(piece: str) -> str:
    """Return the text that a piece stands for, with blanks where it has their letter."""
    return piece.replace(BLANK_LETTER, " ")
