"""What a tokenizer is to everything that uses one, and how one is loaded.

Text is only ever text: a special token that somebody types is encoded letter by letter. What puts
special tokens in knows their ids, or encodes what a template wrote. The kinds are in files of their
own, which know no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol


class StreamDecoder(Protocol):
    """Decodes ids one at a time, into whole characters only."""

    def push(self, token_id: int) -> str:
        """Return the text that an id completes; an unfinished character waits for the next id.

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

    def encode(self, text: str) -> list[int]:
        """Encode text. Nothing in it is taken for a special token, and none is added.

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

    def stream_decoder(self) -> StreamDecoder:
        """Return what decodes ids one at a time."""

    def files(self) -> Mapping[str, bytes]:
        """Return a bundle's tokenizer files by name; a checkpoint's own are copied as they are."""

    @property
    def file(self) -> str:
        """Name of the one of `files` that loads the tokenizer again."""

    def config_keys(self) -> dict[str, object]:
        """Return the keys of the `tokenizer_config.json` that belongs to `files`."""


def load_tokenizer(path: Path) -> Tokenizer:
    """Load a tokenizer, with what the tokenizer_config.json beside it says of it.

    Args:
        path: its file, or a folder that holds one. The first bytes decide what it is, not its name.

    Raises:
        TokenizerError: there is no such file, it is damaged, or it is of no kind that is known.
    """
    from llama_export.tokenizer.files import read_vocabulary
    from llama_export.tokenizer.tiktoken_tokenizer import TiktokenTokenizer

    return TiktokenTokenizer(read_vocabulary(path))
