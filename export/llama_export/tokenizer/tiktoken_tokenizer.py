"""Text to token ids and back, as Llama 3 does it, on tiktoken's engine.

Text is only ever text: a special token that somebody types is encoded letter by letter. The chat
format (`chat_format`) puts the special tokens in by id. Files are read in `files`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from llama_export.tokenizer.files import (
    JSON_FILE,
    MODEL_FILE,
    parse_ranks,
    tokenizer_model_bytes,
)
from llama_export.tokenizer.settings import TokenSettings
from llama_export.tokenizer.special_tokens import BEGIN_OF_TEXT, END_OF_TURN
from llama_export.tokenizer.streams import ByteStreamDecoder
from llama_export.tokenizer.text import outside, require_characters
from llama_export.tokenizer.tokenizer_json import tokenizer_json_bytes
from llama_export.tokenizer.vocabulary import Vocabulary

if TYPE_CHECKING:
    import tiktoken

# LLAMA3_SPLIT with the same matches and no backtracking. tiktoken's regex engine keeps a state
# for each character that it may have to give back, and aborts at a million of them. `(?>...)`
# gives nothing back, which changes nothing here: every alternative stands at the top, with nothing
# after it. `\s+(?!\S)` does give one character back, so it is written as: a run of blanks that ends
# the text, or a run without its last blank, in blocks of 256 to keep few states.
_ENGINE_SPLIT = (
    r"(?>(?i:'s|'t|'re|'ve|'m|'ll|'d))|(?>[^\r\n\p{L}\p{N}]?\p{L}+)|(?>\p{N}{1,3})"
    r"|(?> ?[^\s\p{L}\p{N}]+[\r\n]*)|(?>\s*[\r\n]+)"
    r"|(?>\s+)\z|(?=\s\s)(?>(?:\s{256}(?=\s))*(?:\s(?=\s))*)|\s"
)


class TiktokenTokenizer:
    """Encodes text with one vocabulary.

    Args:
        vocabulary: ranks and special tokens, as `parse_ranks` returns them.
        settings: what is said of its tokens beside the file; None: nothing.
    """

    def __init__(self, vocabulary: Vocabulary, settings: TokenSettings | None = None) -> None:
        self.vocabulary = vocabulary
        self._settings = settings or TokenSettings.of({}, "")

    def __repr__(self) -> str:
        return f"<TiktokenTokenizer of {self.vocab_size} tokens>"

    @classmethod
    def from_bytes(
        cls, data: bytes, settings: Mapping[str, object] | None = None, where: str = MODEL_FILE
    ) -> TiktokenTokenizer:
        """Load a tokenizer.

        Args:
            data: content of the `tokenizer.model`.
            settings: keys of the tokenizer_config.json that belongs to it.
            where: name of the file, for messages.

        Raises:
            TokenizerError: the file is damaged, or no vocabulary of a Llama 3.
        """
        return cls(parse_ranks(data, where), TokenSettings.of(settings or {}, where))

    @property
    def vocab_size(self) -> int:
        """Number of ids, including the special tokens."""
        return self.vocabulary.size

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Ids of the special tokens by name."""
        return self.vocabulary.special_tokens

    @property
    def bos_token_id(self) -> int:
        """Id of `<|begin_of_text|>`."""
        return self.special_tokens[BEGIN_OF_TEXT]

    @property
    def eos_token_id(self) -> int:
        """Id of the token that ends what the model writes; `<|eot_id|>` where none is named."""
        named = self._settings.named.get("eos_token")
        return self.special_tokens.get(named or END_OF_TURN, self.special_tokens[END_OF_TURN])

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """`<|begin_of_text|>`, which comes before every text."""
        return (self.bos_token_id,)

    @cached_property
    def _names(self) -> Mapping[int, str]:
        return {token_id: name for name, token_id in self.special_tokens.items()}

    def token_name(self, token_id: int) -> str | None:
        """Return the name of a special token; None: the id is another one's."""
        return self._names.get(token_id)

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """Encode text. Nothing in it is taken for a special token, and none is added.

        Args:
            text: the text.
            continues: whether something comes before, which changes nothing here.

        Raises:
            TokenizerError: the text holds a lone surrogate, which is no character.
        """
        require_characters(text)
        return self._engine.encode_ordinary(text)

    def encode_rendered(self, text: str) -> list[int]:
        """Encode what a template wrote: the names of special tokens become their ids.

        Raises:
            TokenizerError: as `encode`.
        """
        require_characters(text)
        return self._engine.encode(text, allowed_special="all")

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids to text; bytes that are not UTF-8 become U+FFFD, special tokens their names.

        Raises:
            TokenizerError: an id is outside the vocabulary.
        """
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Decode ids to the bytes that they stand for; a special token becomes its name.

        Raises:
            TokenizerError: an id is outside the vocabulary.
        """
        for token_id in ids:
            if not 0 <= token_id < self.vocab_size:
                raise outside(token_id, self.vocab_size)
        return self._engine.decode_bytes(ids)

    def stream_decoder(self, *, continues: bool = False) -> ByteStreamDecoder:
        """Return what decodes ids one at a time; every text is decoded alike."""
        return ByteStreamDecoder(self.decode_bytes)

    def files(self) -> dict[str, bytes]:
        """Render both files that hold the vocabulary, by name."""
        return {
            JSON_FILE: tokenizer_json_bytes(self.vocabulary),
            MODEL_FILE: tokenizer_model_bytes(self.vocabulary),
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """Nothing: every client reads one of the files."""
        return ()

    @property
    def file(self) -> str:
        """Name of the file that loads fastest."""
        return MODEL_FILE

    def config_keys(self) -> dict[str, object]:
        """Return the keys of the `tokenizer_config.json` that belongs to `tokenizer.json`."""
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BEGIN_OF_TEXT,
            "eos_token": self._names[self.eos_token_id],
            # tokenizer.json says it too; transformers.js's text generation looks only here.
            "add_bos_token": True,
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
            **({"pad_token": pad} if (pad := self._settings.named.get("pad_token")) else {}),
        }

    @cached_property
    def _engine(self) -> tiktoken.Encoding:
        # Here and not above, because `llama-export --help` must not load it.
        import tiktoken

        return tiktoken.Encoding(
            "llama3",
            pat_str=_ENGINE_SPLIT,
            mergeable_ranks=dict(self.vocabulary.ranks),
            special_tokens=dict(self.special_tokens),
        )
