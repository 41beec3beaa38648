"""A SentencePiece `tokenizer.model` as data: its pieces, and how text is prepared for them.

It is read as far as Llamas need it, by a parser of a few lines, before the library sees the file.
https://github.com/google/sentencepiece/blob/v0.2.1/src/sentencepiece_model.proto
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from llama_export.errors import TokenizerError
from llama_export.tokenizer.vocabulary import MOST_TOKENS

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Types of pieces."""
UNIGRAM, BPE = 1, 2
"""Types of models."""
_MOST_PIECE_BYTES = 2**12
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_VARINT_BYTES = 10
_Value = int | bytes
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
# A later field of the same number counts, and of a message only what it has.
WITHOUT_DUMMY_PREFIX = bytes([_NORMALIZER << 3 | _BYTES, 2, 3 << 3, 0])
"""What is appended to a file for text that is no text of its own: no blank is put before it."""
_HINT = "download the file again; with Git, run `git lfs pull`"


@dataclass(frozen=True)
class Piece:
    """A piece of text with an id, which is its place.

    Args:
        text: the piece; a blank is written U+2581.
        score: how early it is put together; the highest is first.
        kind: one of the types above.
    """

    text: str
    score: float
    kind: int


@dataclass(frozen=True)
class SentencePieceModel:
    """What a `tokenizer.model` says.

    Args:
        pieces: the pieces by id.
        model_type: `BPE`, `UNIGRAM` or another.
        byte_fallback: whether what has no piece becomes bytes.
        bos_id: id of the token that begins a text; negative: there is none.
        eos_id: id of the token that ends one; negative: there is none.
        charsmap: compiled rules that replace characters; empty: there are none.
        adds_dummy_prefix: whether a blank is put before a text.
        removes_blanks: whether blanks at the ends, and all but one in a row, are removed.
        escapes_blanks: whether a blank becomes U+2581.
        blank_as_suffix: whether the blank of a word comes after it.
    """

    pieces: tuple[Piece, ...] = field(repr=False)
    model_type: int
    byte_fallback: bool
    bos_id: int
    eos_id: int
    charsmap: bytes = field(repr=False)
    adds_dummy_prefix: bool
    removes_blanks: bool
    escapes_blanks: bool
    blank_as_suffix: bool

    @classmethod
    def parse(cls, data: bytes, where: str) -> SentencePieceModel:
        """Parse the bytes of a file.

        Args:
            data: bytes of the file.
            where: name of the file, for messages.

        Raises:
            TokenizerError: the file is damaged.
        """
        try:
            pieces: list[Piece] = []
            trainer: dict[int, _Value] = {}
            normalizer: dict[int, _Value] = {}
            for number, value in _fields(data):
                if number == _PIECES:
                    pieces.append(_piece(value))
                elif number in (_TRAINER, _NORMALIZER):
                    message = trainer if number == _TRAINER else normalizer
                    message |= dict(_fields(_bytes(value)))
            return cls._of(tuple(pieces), trainer, normalizer)
        except (ValueError, IndexError, struct.error) as error:
            message_text = f"{where} is no SentencePiece model, or a damaged one: {error}"
            raise TokenizerError(message_text, _HINT) from None

    @classmethod
    def _of(
        cls, pieces: tuple[Piece, ...], trainer: dict[int, _Value], normalizer: dict[int, _Value]
    ) -> SentencePieceModel:
        if not 0 < len(pieces) <= MOST_TOKENS:
            message = f"it has {len(pieces)} pieces, expected 1 to {MOST_TOKENS}"
            raise ValueError(message)
        return cls(
            pieces=pieces,
            model_type=_number(trainer.get(3, UNIGRAM)),
            byte_fallback=bool(_number(trainer.get(35, 0))),
            bos_id=_signed(_number(trainer.get(41, 1))),
            eos_id=_signed(_number(trainer.get(42, 2))),
            charsmap=_bytes(normalizer.get(2, b"")),
            adds_dummy_prefix=bool(_number(normalizer.get(3, 1))),
            removes_blanks=bool(_number(normalizer.get(4, 1))),
            escapes_blanks=bool(_number(normalizer.get(5, 1))),
            blank_as_suffix=bool(_number(trainer.get(24, 0))),
        )

    def piece_at(self, token_id: int) -> Piece | None:
        """Return the piece of an id; None: it has none."""
        return self.pieces[token_id] if 0 <= token_id < len(self.pieces) else None


def _piece(value: _Value) -> Piece:
    fields = dict(_fields(_bytes(value)))
    text = _bytes(fields.get(1, b""))
    if len(text) > _MOST_PIECE_BYTES:
        message = f"a piece has {len(text)} bytes"
        raise ValueError(message)
    (score,) = struct.unpack("<f", _bytes(fields.get(2, b"\0\0\0\0")))
    kind = _number(fields.get(3, NORMAL))
    if not math.isfinite(score) or not NORMAL <= kind <= BYTE:
        message = f"a piece has the score {score} and the type {kind}"
        raise ValueError(message)
    return Piece(text.decode("utf-8"), score, kind)


def _fields(data: bytes) -> Iterator[tuple[int, _Value]]:
    """Walk over the fields of a message: numbers, and values as numbers or bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            message = f"a field of an unknown kind, {wire}, at {at}"
            raise ValueError(message)
        if size > len(data) - at:
            message = f"it ends in the middle of a field of {size} bytes"
            raise ValueError(message)
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for count in range(_MOST_VARINT_BYTES):
        if at + count >= len(data):
            message = "it ends in the middle of a number"
            raise ValueError(message)
        byte = data[at + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, at + count + 1
    message = f"a number that does not end at {at}"
    raise ValueError(message)


def _number(value: _Value) -> int:
    if not isinstance(value, int):
        message = "a field holds bytes where a number belongs"
        raise ValueError(message)
    return value


def _bytes(value: _Value) -> bytes:
    if not isinstance(value, bytes):
        message = "a field holds a number where bytes belong"
        raise ValueError(message)
    return value


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
