"""A Llama 3 vocabulary as data: which bytes have which id, and the special tokens after them.

It knows neither the files that it comes in (`files`) nor how text is encoded with it (`tokenizer`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from llama_export.errors import TokenizerError
from llama_quantize.printable import shown_name

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


# Llama 3 has 128,000 text tokens of 128 bytes at most, 0.8 MB together, and 256 special ones.
# Merges are found by cutting each token at each place, and the engine makes one pattern of all
# names, so lengths are bounded too.
MOST_TOKENS = 2**20
MOST_IDS = 2**24
"""Ids from here on are no token's: a table of them would be larger than any model's."""
_MOST_TOKEN_BYTES = 256
_MOST_BYTES = 4 * 2**20
_MOST_SPECIAL_TOKENS = 2**15
_MOST_NAME_CHARACTERS = 256


def check_ranks(ranks: Mapping[bytes, int], where: str) -> None:
    """Refuse ranks with a gap, and a vocabulary in which some text would have no tokens.

    Args:
        ranks: rank of each text token.
        where: name of the file, for messages.

    Raises:
        TokenizerError: a single byte has no token, the ranks are not 0 to n-1, or there are more
            or longer tokens than any Llama has.
    """
    _check_sizes(ranks, where)
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        message = f"{where}: {len(missing)} of the 256 single bytes have no token: {some(missing)}"
        raise TokenizerError(message, NOT_LLAMA3)
    odd = [rank for rank in ranks.values() if type(rank) is not int]
    if odd:
        message = f"{where}: a rank must be a whole number, found {some(odd)}"
        raise TokenizerError(message, GET_ANOTHER)
    if sorted(ranks.values()) != list(range(len(ranks))):
        message = f"{where}: the ranks of its {len(ranks)} tokens are not 0 to {len(ranks) - 1}"
        raise TokenizerError(message, GET_ANOTHER)


def check_special_tokens(
    tokens: Sequence[tuple[object, object]], where: str
) -> list[tuple[str, int]]:
    """Refuse names and ids that no added token can have, and return the others.

    Args:
        tokens: name and id of each, of any type, as a file gave them.
        where: name of the file, for messages.

    Raises:
        TokenizerError: a name or an id is of another type, given twice, or too long.
    """
    names = [name for name, _ in tokens if isinstance(name, str) and _is_name(name)]
    ids = [token_id for _, token_id in tokens if isinstance(token_id, int) and is_id(token_id)]
    fault = ""
    if len(tokens) > _MOST_SPECIAL_TOKENS:
        fault = f"it has {len(tokens)} special tokens, expected at most {_MOST_SPECIAL_TOKENS}"
    elif len(names) < len(tokens):
        odd = [name for name, _ in tokens if not (isinstance(name, str) and _is_name(name))]
        fault = f"a special token's name must be 1 to {_MOST_NAME_CHARACTERS} characters of text"
        fault += f", found {some(odd)}"
    elif len(ids) < len(tokens):
        odd_ids = [each for _, each in tokens if not is_id(each)]
        fault = f"a special token's id must be a whole number below {MOST_IDS}, found "
        fault += some(odd_ids)
    elif len(set(names)) < len(names):
        twice = [name for name, count in Counter(names).items() if count > 1]
        fault = f"special tokens are given twice: {some(twice)}"
    if fault:
        message = f"{where}: {fault}"
        raise TokenizerError(message, GET_ANOTHER)
    return list(zip(names, ids, strict=True))


def is_id(value: object) -> bool:
    """Whether it can be the id of a token."""
    return type(value) is int and 0 <= value < MOST_IDS


def some(items: Sequence[object]) -> str:
    """Render the first three items of a list, and "..." if there are more."""
    shown = ", ".join(shown_name(repr(item)) for item in items[:3])
    return shown + (", ..." if len(items) > 3 else "")


def _check_sizes(ranks: Collection[bytes], where: str) -> None:
    longest = max(map(len, ranks), default=0)
    fault = ""
    if len(ranks) > MOST_TOKENS:
        fault = f"it has {len(ranks)} tokens, expected at most {MOST_TOKENS}"
    elif longest > _MOST_TOKEN_BYTES:
        fault = f"it has a token of {longest} bytes, expected at most {_MOST_TOKEN_BYTES}"
    elif sum(map(len, ranks)) > _MOST_BYTES:
        fault = f"its tokens are more than {_MOST_BYTES} bytes together"
    elif b"" in ranks:
        fault = "it has a token of no bytes"
    if fault:
        message = f"{where}: {fault}"
        raise TokenizerError(message, NOT_LLAMA3)


def _is_name(name: str) -> bool:
    """Whether it has the length of a name, and no half of a surrogate pair, which is no text."""
    halves = any("\ud800" <= letter <= "\udfff" for letter in name)
    return 0 < len(name) <= _MOST_NAME_CHARACTERS and not halves
