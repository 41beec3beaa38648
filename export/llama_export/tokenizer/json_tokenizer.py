"""Text to ids and back by a `tokenizer.json`, on the library that it was made for, `tokenizers`.

The file is kept as it came. Text is only ever text: a control token that somebody types is encoded
like any other word. Added tokens that are no control tokens are found in text, as the library does.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from llama_export.errors import TokenizerError
from llama_export.tokenizer.files import JSON_FILE
from llama_export.tokenizer.json_document import (
    decodes_bytes,
    dropped_blanks,
    names_of_added,
    parse_document,
    splits_by_blank_letter,
    token_bytes,
    without_first_blank,
    without_merges_of,
)
from llama_export.tokenizer.settings import TokenSettings
from llama_export.tokenizer.streams import (
    ByteStreamDecoder,
    PieceStreamDecoder,
    WholeStreamDecoder,
)
from llama_export.tokenizer.text import byte_of_piece, outside, require_characters, with_blanks
from llama_export.tokenizer.vocabulary import GET_ANOTHER
from llama_quantize.printable import shown_name

if TYPE_CHECKING:
    import tokenizers

_T = TypeVar("_T")


class JsonTokenizer:
    """Encodes text with one `tokenizer.json`.

    Args:
        data: content of the file.
        engine: the library's tokenizer of it.
        document: the file, parsed.
        settings: what is said of its tokens beside it.
    """

    def __init__(
        self,
        data: bytes,
        engine: tokenizers.Tokenizer,
        document: Mapping[str, Any],
        settings: TokenSettings,
    ) -> None:
        self._data, self._engine = data, engine
        self._document, self._settings = document, settings
        self._ids: Mapping[str, int] = engine.get_vocab(with_added_tokens=True)
        self._lock = threading.Lock()

    @classmethod
    def from_bytes(
        cls, data: bytes, settings: Mapping[str, object] | None = None, where: str = JSON_FILE
    ) -> JsonTokenizer:
        """Load a tokenizer.

        Args:
            data: content of the `tokenizer.json`.
            settings: keys of the tokenizer_config.json that belongs to it.
            where: name of the file, for messages.

        Raises:
            TokenizerError: the file is damaged, or no tokenizer that the library reads.
        """
        document = parse_document(data, where)
        found = TokenSettings.of(settings or {}, where)
        return cls(data, _engine(data, document, found, where), document, found)

    def __repr__(self) -> str:
        return f"<JsonTokenizer of {self.vocab_size} tokens>"

    @cached_property
    def vocab_size(self) -> int:
        """The largest id and one."""
        return max(self._ids.values(), default=-1) + 1

    @cached_property
    def _added(self) -> Mapping[int, tuple[str, bool]]:
        """Name of each added token, and whether it is a control token, by its id."""
        added = self._engine.get_added_tokens_decoder()
        return {each: (token.content, bool(token.special)) for each, token in added.items()}

    @cached_property
    def special_tokens(self) -> Mapping[str, int]:
        """Ids of the control tokens by name."""
        return {name: each for each, (name, special) in sorted(self._added.items()) if special}

    @cached_property
    def bos_token_id(self) -> int | None:
        """Id of the token that begins a text."""
        found = self._settings.resolve("bos_token", self._ids)
        alone = len(self.prefix_ids) == 1 and "bos_token" not in self._settings.named
        return self.prefix_ids[0] if found is None and alone else found

    @cached_property
    def eos_token_id(self) -> int | None:
        """Id of the token that ends what the model writes."""
        return self._settings.resolve("eos_token", self._ids)

    @cached_property
    def prefix_ids(self) -> tuple[int, ...]:
        """What the file's post-processor puts before a text."""
        encoding = self._guard(lambda: self._engine.encode("a", add_special_tokens=True))
        sequences = encoding.sequence_ids
        own = sequences.index(0) if 0 in sequences else 0
        return tuple(encoding.ids[:own])

    def token_name(self, token_id: int) -> str | None:
        """Return the name of an added token; None: the id is another one's."""
        name, _ = self._added.get(token_id, (None, False))
        return name

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """Encode text. No control token is found in it, and none is added.

        Args:
            text: the text.
            continues: whether something comes before, as `encode_rendered` has it.

        Raises:
            TokenizerError: the text holds a lone surrogate, or the file's patterns fail on it.
        """
        engine = self._continuing if continues else self._engine
        return self._encoded(engine, text, as_text=True)

    @cached_property
    def _continuing(self) -> tokenizers.Tokenizer:
        changed = without_first_blank(self._document)
        if changed is None:
            return self._engine
        return _engine(json.dumps(changed).encode(), changed, self._settings, JSON_FILE)

    def encode_rendered(self, text: str) -> list[int]:
        """Encode what a template wrote: the names of control tokens become their ids.

        Raises:
            TokenizerError: as `encode`.
        """
        return self._encoded(self._engine, text, as_text=False)

    def _encoded(self, engine: tokenizers.Tokenizer, text: str, *, as_text: bool) -> list[int]:
        require_characters(text)
        with self._lock:
            engine.encode_special_tokens = as_text
            found = self._guard(lambda: engine.encode(text, add_special_tokens=False).ids)
        return list(found)

    def _guard(self, call: Callable[[], _T]) -> _T:
        return _guarded(call, "the tokenizer cannot encode the text", _OTHER_TEXT)

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids to text; bytes that are not UTF-8 become U+FFFD, added tokens their names.

        Raises:
            TokenizerError: an id is outside the vocabulary.
        """
        stream = self.stream_decoder()
        return "".join([stream.push(token_id) for token_id in ids]) + stream.flush()

    def stream_decoder(
        self, *, continues: bool = False
    ) -> ByteStreamDecoder | PieceStreamDecoder | WholeStreamDecoder:
        """Return what decodes ids one at a time.

        Args:
            continues: whether other text comes before, so that a blank at the beginning is one.
        """
        if decodes_bytes(self._document):
            return ByteStreamDecoder(lambda ids: b"".join(map(self._bytes_of, ids)))
        blanks = dropped_blanks(self._document)
        if blanks is not None:
            return PieceStreamDecoder(self._piece_of, drops_blanks=0 if continues else blanks)
        return WholeStreamDecoder(self._decoded)

    @cached_property
    def _tokens(self) -> Mapping[int, str]:
        return {token_id: token for token, token_id in self._ids.items()}

    def _token(self, token_id: int) -> str:
        """Return a token as the file spells it; an id in a gap means nothing."""
        if not 0 <= token_id < self.vocab_size:
            raise outside(token_id, self.vocab_size)
        return self._tokens.get(token_id, "")

    def _bytes_of(self, token_id: int) -> bytes:
        return token_bytes(self._token(token_id))

    def _piece_of(self, token_id: int) -> str | bytes:
        token = self._token(token_id)
        byte = byte_of_piece(token)
        return with_blanks(token) if byte is None else byte

    def _decoded(self, ids: Sequence[int]) -> str:
        known = [token_id for token_id in ids if self._token(token_id)]
        call = lambda: self._engine.decode(known, skip_special_tokens=False)  # noqa: E731
        return _guarded(call, "the tokenizer cannot decode the ids", GET_ANOTHER)

    def files(self) -> Mapping[str, bytes]:
        """Return the file as it came."""
        return {JSON_FILE: self._data}

    @property
    def file(self) -> str:
        """Name of the file."""
        return JSON_FILE

    def tokens(self) -> set[str]:
        """Return all tokens as the file spells them."""
        return set(self._ids)

    @property
    def notes(self) -> tuple[str, ...]:
        """Name ids that the library takes otherwise, and a client that reads no such file."""
        added = self._document.get("added_tokens") or []
        moved = [each for each in added if self._ids.get(each["content"]) != each["id"]]
        unread = (_METASPACE,) if splits_by_blank_letter(self._document) else ()
        if not moved:
            return unread
        first = moved[0]
        return (
            *unread,
            f"{JSON_FILE} gives {len(moved)} added tokens ids that leave a gap, and the library "
            f"`tokenizers` closes it: {shown_name(repr(first['content']), 60)} is "
            f"{self._ids.get(first['content'])}, not {first['id']}",
        )

    def config_keys(self) -> dict[str, object]:
        """Return the keys of the `tokenizer_config.json` that belongs to the file."""
        names = {
            use: self._tokens.get(-1 if token_id is None else token_id)
            for use, token_id in (
                ("bos_token", self.bos_token_id),
                ("eos_token", self.eos_token_id),
            )
        }
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **names,
            # The file says it too; transformers.js's text generation looks only here.
            "add_bos_token": bool(self.prefix_ids),
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
            **{key: value for key, value in self._settings.keys().items() if key not in names},
        }


_METASPACE = (
    "ExecuTorch's runner does not read a tokenizer.json with the pre-tokenizer Metaspace: put the "
    "model's SentencePiece tokenizer.model beside it, and export again"
)
_OTHER_TEXT = "use another text; if every text fails, use another tokenizer.json"


def _engine(
    data: bytes, document: dict[str, Any], settings: TokenSettings, where: str
) -> tokenizers.Tokenizer:
    """Load the library's tokenizer, and make control tokens of those that are used as such.

    transformers does the same with the tokens that tokenizer_config.json names.
    """
    import tokenizers

    names = set(settings.control_names())
    names |= {token.name for token in settings.added if token.is_special}
    names |= {name for name, is_control in names_of_added(document).items() if is_control}
    changed = without_merges_of(document, names)
    text = data.decode("utf-8") if changed is None else json.dumps(changed)
    fault = f"{where} is no tokenizer that the library `tokenizers` reads"
    engine = _guarded(lambda: tokenizers.Tokenizer.from_str(text), fault, GET_ANOTHER)
    engine.no_truncation()
    engine.no_padding()
    known = engine.get_added_tokens_decoder()
    for token in settings.added:
        own = tokenizers.AddedToken(token.name, **token.flags)
        if known.get(token.token_id) != own:
            engine.add_tokens([own])
    engine.add_special_tokens(
        [tokenizers.AddedToken(name, normalized=False) for name in settings.control_names()]
    )
    return engine


def _guarded(call: Callable[[], _T], fault: str, hint: str) -> _T:
    """Call the library, whose faults are not all exceptions to Python.

    Raises:
        TokenizerError: it failed; damage and patterns that do not end show themselves so.
    """
    try:
        return call()
    except BaseException as error:
        # A panic of the library is no Exception, and its class cannot be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        message = f"{fault}: {shown_name(str(error), 200)}"
        raise TokenizerError(message, hint) from None
