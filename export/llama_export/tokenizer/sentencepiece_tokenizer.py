"""Text to ids and back by a SentencePiece `tokenizer.model`, on the library `sentencepiece`.

The file is kept as it came, and text is encoded by the library alone. Tokens that were added beside
the file are found here. A `tokenizer.json` for clients that read no other file is made in
`sentencepiece_json`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from llama_export.errors import TokenizerError
from llama_export.tokenizer.files import JSON_FILE, MODEL_FILE
from llama_export.tokenizer.sentencepiece_json import proved_json
from llama_export.tokenizer.sentencepiece_model import (
    BYTE,
    CONTROL,
    UNKNOWN,
    WITHOUT_DUMMY_PREFIX,
    SentencePieceModel,
)
from llama_export.tokenizer.settings import AddedToken, TokenSettings
from llama_export.tokenizer.streams import PieceStreamDecoder
from llama_export.tokenizer.text import byte_of_piece, outside, require_characters, with_blanks
from llama_quantize.printable import shown_name

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

_UNKNOWN_TEXT = " \u2047 "
_NO_JSON = (
    "no tokenizer.json gives the same ids as this SentencePiece model, so transformers, "
    "transformers.js, onnxruntime-genai and Swift cannot read the bundle's tokenizer; ExecuTorch's "
    "runner and llama-export read tokenizer.model"
)
_GENAI = (
    "this SentencePiece model removes blanks, which onnxruntime-genai does not do: give it token "
    "ids, or text without two blanks in a row"
)


class SentencePieceTokenizer:
    """Encodes text with one SentencePiece model.

    Args:
        data: content of the file.
        model: the same, parsed.
        settings: what is said of its tokens beside it.
        where: name of the file, for messages.
        json: a tokenizer.json that gives the same ids; None: one is made.
        notes: what a user must know of it.

    Raises:
        TokenizerError: the library cannot read the file.
    """

    def __init__(
        self,
        data: bytes,
        model: SentencePieceModel,
        settings: TokenSettings,
        where: str,
        *,
        json: bytes | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self._data, self._model, self._settings = data, model, settings
        self._where, self._given_json, self._own_notes = where, json, notes
        self._engine = _engine(data, where)

    @classmethod
    def from_bytes(
        cls, data: bytes, settings: Mapping[str, object] | None = None, where: str = MODEL_FILE
    ) -> SentencePieceTokenizer:
        """Load a tokenizer.

        Args:
            data: content of the `tokenizer.model`.
            settings: keys of the tokenizer_config.json that belongs to it.
            where: name of the file, for messages.

        Raises:
            TokenizerError: the file is damaged.
        """
        model = SentencePieceModel.parse(data, where)
        return cls(data, model, TokenSettings.of(settings or {}, where), where)

    def __repr__(self) -> str:
        return f"<SentencePieceTokenizer of {self.vocab_size} tokens>"

    @cached_property
    def added(self) -> Mapping[int, AddedToken]:
        """Tokens that the file lacks, by id."""
        beyond = [
            each for each in self._settings.added if self._model.piece_at(each.token_id) is None
        ]
        control = self._settings.control_names()
        found = {
            each.token_id: AddedToken(
                each.name,
                each.token_id,
                {**each.flags, "special": each.is_special or each.name in control},
            )
            for each in beyond
        }
        known = {each.text for each in self._model.pieces} | {each.name for each in beyond}
        # Those that are named alone get the next ids, as transformers gives them.
        start = max(len(self._model.pieces) - 1, *found, 0) + 1
        new = enumerate((name for name in control if name not in known), start)
        return found | {each: AddedToken(name, each, {"special": True}) for each, name in new}

    @cached_property
    def vocab_size(self) -> int:
        """The largest id and one."""
        return max(len(self._model.pieces) - 1, *self.added, 0) + 1

    @cached_property
    def special_tokens(self) -> Mapping[str, int]:
        """Ids of the control tokens by name."""
        own = {
            piece.text: token_id
            for token_id, piece in enumerate(self._model.pieces)
            if piece.kind in (CONTROL, UNKNOWN)
        }
        return own | {each.name: each.token_id for each in self.added.values() if each.is_special}

    @cached_property
    def _ids(self) -> Mapping[str, int]:
        own = {piece.text: token_id for token_id, piece in enumerate(self._model.pieces)}
        return own | {each.name: each.token_id for each in self.added.values()}

    @cached_property
    def bos_token_id(self) -> int | None:
        """Id of the token that begins a text: as the settings say, else as the file does."""
        return self._use("bos_token", self._model.bos_id)

    @cached_property
    def eos_token_id(self) -> int | None:
        """Id of the token that ends what the model writes: as the settings say, else the file."""
        return self._use("eos_token", self._model.eos_id)

    def _use(self, use: str, own: int) -> int | None:
        if use in self._settings.named:
            return self._settings.resolve(use, self._ids)
        return own if self._model.piece_at(own) is not None else None

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """The first token, unless the settings say that it is not put before a text."""
        bos = self.bos_token_id
        return () if bos is None or self._settings.add_bos_token is False else (bos,)

    def token_name(self, token_id: int) -> str | None:
        """Return the name of a control or added token; None: the id is another one's."""
        if token_id in self.added:
            return self.added[token_id].name
        piece = self._model.piece_at(token_id)
        return piece.text if piece is not None and piece.kind in (CONTROL, UNKNOWN) else None

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """Encode text. No control token is found in it, and none is added.

        Args:
            text: the text.
            continues: whether something comes before, as `encode_rendered` has it.

        Raises:
            TokenizerError: the text holds a lone surrogate, which is no character.
        """
        return self._encoded(text, self._names_in_text, continues=continues)

    def encode_rendered(self, text: str) -> list[int]:
        """Encode what a template wrote: the names of control tokens become their ids.

        Text after one begins like a text of its own, unless the settings say `"legacy": false`.

        Raises:
            TokenizerError: as `encode`.
        """
        return self._encoded(text, self._names_in_templates)

    @cached_property
    def _names_in_text(self) -> re.Pattern[str] | None:
        return _pattern([each for each in self.added.values() if not each.is_special])

    @cached_property
    def _names_in_templates(self) -> re.Pattern[str] | None:
        own = [
            AddedToken(name, token_id, {"special": True})
            for name, token_id in self.special_tokens.items()
            if token_id not in self.added
        ]
        return _pattern([*own, *self.added.values()])

    def _encoded(
        self, text: str, names: re.Pattern[str] | None, *, continues: bool = False
    ) -> list[int]:
        require_characters(text)
        ids: list[int] = []
        at = 0
        for match in names.finditer(text) if names else ():
            ids += self._own(text[at : match.start()], first=at == 0 and not continues)
            # Blanks around it belong to some added tokens.
            ids.append(self._ids[match[0] if match[0] in self._ids else match[0].strip()])
            at = match.end()
        return ids + self._own(text[at:], first=at == 0 and not continues)

    def _own(self, text: str, *, first: bool) -> list[int]:
        """Encode text between added tokens."""
        if not text:
            return []
        engine = self._engine if first or self._settings.legacy else self._continuing
        found: list[int] = engine.encode(text)
        return found

    @cached_property
    def _continuing(self) -> SentencePieceProcessor:
        return _engine(self._data + WITHOUT_DUMMY_PREFIX, MODEL_FILE)

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids to text; bytes that are not UTF-8 become U+FFFD, control tokens their names.

        Raises:
            TokenizerError: an id is outside the vocabulary.
        """
        stream = self.stream_decoder()
        return "".join([stream.push(token_id) for token_id in ids]) + stream.flush()

    def stream_decoder(self, *, continues: bool = False) -> PieceStreamDecoder:
        """Return what decodes ids one at a time.

        Args:
            continues: whether other text comes before, so that a blank at the beginning is one.
        """
        blanks: int | None = 0
        if not continues and self._model.removes_blanks:
            blanks = None
        elif not continues and self._model.adds_dummy_prefix:
            blanks = 1
        return PieceStreamDecoder(self._piece_of, drops_blanks=blanks, keeps_bytes=True)

    def _piece_of(self, token_id: int) -> str | bytes:
        if token_id in self.added:
            return self.added[token_id].name
        piece = self._model.piece_at(token_id)
        if piece is None:
            if not 0 <= token_id < self.vocab_size:
                raise outside(token_id, self.vocab_size)
            return ""
        if piece.kind == CONTROL:
            return piece.text
        if piece.kind == UNKNOWN:
            return _UNKNOWN_TEXT
        byte = byte_of_piece(piece.text) if piece.kind == BYTE else None
        return with_blanks(piece.text) if byte is None else byte

    @cached_property
    def _json(self) -> bytes | None:
        if self._given_json is not None:
            return self._given_json
        return proved_json(self._model, tuple(self.added.values()), self.prefix_ids, self.encode)

    def files(self) -> Mapping[str, bytes]:
        """Return the file as it came, and a tokenizer.json where one was proved to be the same."""
        made = {} if self._json is None else {JSON_FILE: self._json}
        return {**made, MODEL_FILE: self._data}

    @property
    def file(self) -> str:
        """Name of the file that the library reads."""
        return MODEL_FILE

    def tokens(self) -> set[str]:
        """Return all tokens as the file spells them."""
        return set(self._ids)

    def with_json(self, data: bytes) -> SentencePieceTokenizer:
        """Return the same with a tokenizer.json that came with it, and gives the same ids."""
        return SentencePieceTokenizer(
            self._data, self._model, self._settings, self._where, json=data
        )

    def with_note(self, note: str) -> SentencePieceTokenizer:
        """Return the same with one more note."""
        notes = (*self._own_notes, note)
        return SentencePieceTokenizer(
            self._data, self._model, self._settings, self._where, notes=notes
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Name the clients that cannot read the files, or read them wrong."""
        if self._json is None:
            return (*self._own_notes, _NO_JSON)
        return (*self._own_notes, _GENAI) if self._model.removes_blanks else self._own_notes

    def config_keys(self) -> dict[str, object]:
        """Return the keys of the `tokenizer_config.json` that belongs to both files."""
        names = {
            use: None if token_id is None else self._name(token_id)
            for use, token_id in (
                ("bos_token", self.bos_token_id),
                ("eos_token", self.eos_token_id),
            )
        }
        return {
            # transformers would build another tokenizer than the file's under Llama's own class.
            "tokenizer_class": "PreTrainedTokenizerFast",
            **names,
            "add_bos_token": bool(self.prefix_ids),
            "clean_up_tokenization_spaces": False,
            "legacy": self._settings.legacy,
            "model_input_names": ["input_ids", "attention_mask"],
            **{key: value for key, value in self._settings.keys().items() if key not in names},
        }

    def _name(self, token_id: int) -> str:
        piece = self._model.piece_at(token_id)
        return self.added[token_id].name if piece is None else piece.text


def _engine(data: bytes, where: str) -> SentencePieceProcessor:
    from sentencepiece import SentencePieceProcessor

    try:
        return SentencePieceProcessor(model_proto=data)
    except (RuntimeError, OSError, ValueError) as error:
        found = shown_name(str(error), 200)
        message = f"{where} is no model that the library `sentencepiece` reads: {found}"
        raise TokenizerError(message, "download the file again") from None


def _pattern(tokens: Collection[AddedToken]) -> re.Pattern[str] | None:
    """Make a pattern of tokens, the longest first where several begin at one place."""
    parts = [
        (r"\s*" if token.flags.get("lstrip") else "")
        + re.escape(token.name)
        + (r"\s*" if token.flags.get("rstrip") else "")
        for token in sorted(tokens, key=lambda token: -len(token.name))
    ]
    return re.compile("|".join(parts)) if parts else None
