"""A Llama 3 vocabulary as data: which bytes have which id, and the special tokens after them.

It knows neither the files that it comes in (`files`) nor how text is encoded with it (`tokenizer`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llama_export.errors import TokenizerError

NOT_LLAMA3 = "use the tokenizer of a Llama 3, or of a fine-tune that keeps its text tokens"
GET_ANOTHER = "take tokenizer.model or tokenizer.json from the model's own repository"


@dataclass(frozen=True)
class Vocabulary:
    """Tokens and their ids: ranks 0 to n-1 for text, and special tokens from n on.

    Args:
        ranks: rank of each text token, by its bytes; every single byte is a token.
        special_tokens: id of each special token by name, in the order of the ids.
    """

    ranks: Mapping[bytes, int]
    special_tokens: Mapping[str, int]

    def __repr__(self) -> str:
        return (
            f"<Vocabulary of {len(self.ranks)} text and {len(self.special_tokens)} special tokens>"
        )

    @property
    def size(self) -> int:
        """Number of ids."""
        return len(self.ranks) + len(self.special_tokens)

    @property
    def tokens(self) -> list[bytes]:
        """The text tokens, by rank."""
        return sorted(self.ranks, key=self.ranks.__getitem__)


def check_ranks(ranks: Mapping[bytes, int], where: str) -> None:
    """Refuse ranks with a gap, and a vocabulary in which some text would have no tokens.

    Args:
        ranks: rank of each text token.
        where: name of the file, for messages.

    Raises:
        TokenizerError: a single byte has no token, or the ranks are not 0 to n-1.
    """
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        message = f"{where}: {len(missing)} of the 256 single bytes have no token: {some(missing)}"
        raise TokenizerError(message, NOT_LLAMA3)
    if sorted(ranks.values()) != list(range(len(ranks))):
        message = f"{where}: the ranks of its {len(ranks)} tokens are not 0 to {len(ranks) - 1}"
        raise TokenizerError(message, GET_ANOTHER)


def some(items: list[str] | list[int]) -> str:
    """Render the first three items of a list, and "..." if there are more."""
    return ", ".join(repr(item) for item in items[:3]) + (", ..." if len(items) > 3 else "")
