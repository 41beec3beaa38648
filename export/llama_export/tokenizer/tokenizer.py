"""What a tokenizer is to everything that uses one, and how one is loaded.

Text is only ever text: a special token that somebody types is encoded letter by letter. What puts
special tokens in knows their ids, or encodes what a template wrote. The kinds are in files of their
own, which know no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from llama_export.tokenizer.files import Kind


class StreamDecoder(Protocol):
    """Decodes ids one at a time, into whole characters only."""

    def push(self, token_id: int) -> str:
        """Return the text that an id completes; an unfinished character waits for the next id.

        Raises:
            TokenizerError: the id is outside the vocabulary.
        """

    def bytes_of(self, token_id: int) -> bytes:
        """Return the bytes that an id adds to a text that goes on, whatever was decoded before.

        A special token adds its name; an id that means nothing, or not the same everywhere, none.

        Raises:
            TokenizerError: the id is outside the vocabulary.
        """

    def flush(self) -> str:
        """Return what waited: U+FFFD for a character that was never finished, or "".

        Afterwards it decodes another text, from its beginning.
        """


class Tokenizer(Protocol):
    """Text to ids and back."""

    @property
    def vocab_size(self) -> int:
        """The largest id and one; ids between may mean nothing."""

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Ids of the control tokens by name; typed text never becomes one."""

    @property
    def bos_token_id(self) -> int | None:
        """Id of the token that begins a text; None: the model has none."""

    @property
    def eos_token_id(self) -> int | None:
        """Id of the token that ends what the model writes; None: the files name none."""

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """The ids before every text: the first token, where the checkpoint adds it, or nothing."""

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """Encode text. Nothing in it is taken for a special token, and none is added.

        Args:
            text: the text.
            continues: whether a special token or other text comes before. Some SentencePiece
                vocabularies put a blank before a text at the very beginning and nowhere else.

        Raises:
            TokenizerError: the text holds a lone surrogate, which is no character.
        """

    def encode_rendered(self, text: str) -> list[int]:
        """Encode what a template wrote: the names of special tokens become their ids.

        Nothing is added; a template writes the first token itself.

        Raises:
            TokenizerError: as `encode`.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids to text; bytes that are not UTF-8 become U+FFFD, special tokens their names.

        Raises:
            TokenizerError: an id is outside the vocabulary.
        """

    def token_name(self, token_id: int) -> str | None:
        """Return the name of a special or added token; None: the id is a piece of text, or none."""

    def stream_decoder(self, *, continues: bool = False) -> StreamDecoder:
        """Return what decodes ids one at a time.

        Args:
            continues: whether other text comes before. SentencePiece puts a blank before a text,
                which falls away at its very beginning and nowhere else.
        """

    def files(self) -> Mapping[str, bytes]:
        """Return a bundle's tokenizer files by name; a checkpoint's own are copied as they are."""

    @property
    def file(self) -> str:
        """Name of the one of `files` that loads the tokenizer again."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user must know of it, such as clients that cannot read its files."""

    def config_keys(self) -> dict[str, object]:
        """Return the keys of the `tokenizer_config.json` that belongs to `files`."""


def encode_text(tokenizer: Tokenizer, text: str, *, parse_special: bool = False) -> list[int]:
    """Encode a whole text, with the tokenizer's prefix in front.

    Args:
        tokenizer: tokenizer of the model.
        text: the text.
        parse_special: whether names of special tokens in it become their ids; a prefix that it
            begins with itself is then not added again.

    Raises:
        TokenizerError: the text holds a lone surrogate.
    """
    prefix = list(tokenizer.prefix_ids)
    if not parse_special:
        return [*prefix, *tokenizer.encode(text)]
    ids = tokenizer.encode_rendered(text)
    return ids if prefix and ids[: len(prefix)] == prefix else [*prefix, *ids]


def special_names_in(tokenizer: Tokenizer, text: str) -> list[str]:
    """Return the names of special tokens that a text holds, in the order of their ids."""
    found = tokenizer.special_tokens.items()
    return [name for name, _ in sorted(found, key=lambda each: each[1]) if name and name in text]


def load_tokenizer(path: Path) -> Tokenizer:
    """Load a tokenizer, with what the tokenizer_config.json beside it says of it.

    Of a folder, tokenizer.json counts, because fine-tunes change their tokens there. A
    tokenizer.model beside it counts where both have the same tokens: converters have made files
    that encode otherwise than what the model was trained with.

    Args:
        path: its file, or a folder that holds one. The first bytes decide what it is, not its name.

    Raises:
        TokenizerError: there is no such file, it is damaged, or it is of no kind that is known.
    """
    from llama_export.tokenizer.files import MODEL_FILE, Kind, find_tokenizer, read_file
    from llama_export.tokenizer.settings import read_settings

    place = find_tokenizer(path)
    folder = path if path.is_dir() else path.parent
    settings = read_settings(folder)
    kind, data = read_file(place)
    model = folder / MODEL_FILE
    if kind is Kind.JSON and path.is_dir() and model != place and model.is_file():
        from llama_export.tokenizer.two_files import choose

        return choose((place, data), (model, *read_file(model)), settings)
    return _load(kind)(data, settings, str(place))


def _load(kind: Kind) -> Callable[[bytes, Mapping[str, object], str], Tokenizer]:
    """Return what loads a kind of file; each has a library of its own, which no other needs."""
    from llama_export.tokenizer.files import Kind

    if kind is Kind.JSON:
        from llama_export.tokenizer.json_tokenizer import JsonTokenizer

        return JsonTokenizer.from_bytes
    if kind is Kind.RANKS:
        from llama_export.tokenizer.tiktoken_tokenizer import TiktokenTokenizer

        return TiktokenTokenizer.from_bytes
    from llama_export.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer

    return SentencePieceTokenizer.from_bytes
