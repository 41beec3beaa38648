"""The SentencePiece model of a GGUF file, written as the tokenizer.model that it was made from.

llama.cpp copies pieces, scores and types, and the types have SentencePiece's numbers. The format is
a protobuf message of few fields, written here; it knows nothing of how text is encoded.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from llama_export.checkpoints.gguf.metadata import Metadata
from llama_export.checkpoints.gguf.vocabulary import (
    BYTE,
    CONTROL,
    TOKENS_KEY,
    UNKNOWN,
    UNUSED,
    token_id,
    token_types,
)
from llama_export.errors import TokenizerError
from llama_export.tokenizer.text import BLANK_LETTER

_SCORES_KEY = "tokenizer.ggml.scores"
_PREFIX_KEY = "tokenizer.ggml.add_space_prefix"
_BLANKS_KEY = "tokenizer.ggml.remove_extra_whitespaces"
_CHARSMAP_KEY = "tokenizer.ggml.precompiled_charsmap"
_BPE = 2
# The blank of OpenLLaMA's first tokenizer, which has no longer run of them.
_OPENLLAMA_1_BLANK = 31822
_CONVERT = "convert the model again with today's llama.cpp"
# Field numbers of sentencepiece_model.proto.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE, _VOCAB_SIZE, _BYTE_FALLBACK = 3, 4, 35
_IDS = {"unknown": (40, 45), "bos": (41, 46), "eos": (42, 47), "padding": (43, 48)}
_NAME, _DUMMY_PREFIX, _REMOVE_BLANKS, _ESCAPE_BLANKS = 1, 3, 4, 5


def tokenizer_model(metadata: Metadata) -> bytes:
    """Write the tokenizer.model.

    Raises:
        TokenizerError: its parts are missing or do not fit together, or it changes text in a way
            that is not known.
        ConfigError, CheckpointError: a key has another kind of value, or the file is damaged.
    """
    tokens, scores = metadata.texts(TOKENS_KEY) or [], metadata.numbers(_SCORES_KEY)
    if scores is None or len(scores) != len(tokens):
        found = "none" if scores is None else str(len(scores))
        message = f"{metadata.path}: {len(tokens)} pieces need as many scores, found {found}"
        raise TokenizerError(message, _CONVERT)
    odd = next((at for at, score in enumerate(scores) if not math.isfinite(score)), None)
    if odd is not None:
        message = f"{metadata.path}: {_SCORES_KEY} has {scores[odd]} for piece {odd}"
        raise TokenizerError(message, _CONVERT)
    if metadata.length(_CHARSMAP_KEY):
        message = f"{metadata.path}: {_CHARSMAP_KEY} is not read, and no Llama has it"
        raise TokenizerError(message, "export the model that it was converted from")
    types = _types(metadata, tokens)
    pieces = b"".join(
        _message(
            _PIECES,
            _text(_PIECE, token) + _tag(_SCORE, 5) + struct.pack("<f", score) + _whole(_TYPE, kind),
        )
        for token, score, kind in zip(tokens, scores, types, strict=True)
    )
    trainer = _message(_TRAINER, _trainer(metadata, tokens, types))
    return pieces + trainer + _message(_NORMALIZER, _normalizer(metadata, tokens))


def _types(metadata: Metadata, tokens: Sequence[str]) -> list[int]:
    """Return what each piece is; old converters took the first three for others, and gaps too."""
    types = token_types(metadata, len(tokens))
    unknown = token_id(metadata, "unknown")
    if unknown is None or unknown >= len(tokens):
        unknown = types.index(UNKNOWN) if UNKNOWN in types else 0
    found = [UNUSED if kind == UNKNOWN else kind for kind in types]
    found[unknown] = UNKNOWN
    for name in ("bos", "eos"):
        number = token_id(metadata, name)
        if number is not None and number < len(tokens) and number != unknown:
            found[number] = CONTROL
    return found


def _trainer(metadata: Metadata, tokens: Sequence[str], types: Sequence[int]) -> bytes:
    content = _whole(_MODEL_TYPE, _BPE) + _whole(_VOCAB_SIZE, len(tokens))
    content += _whole(_BYTE_FALLBACK, int(BYTE in types))
    for name, (id_field, piece_field) in _IDS.items():
        number = token_id(metadata, name)
        kind = UNKNOWN if name == "unknown" else CONTROL
        if number is None or number >= len(tokens) or types[number] != kind:
            content += _whole(id_field, -1) if name != "unknown" else b""
        else:
            content += _whole(id_field, number) + _text(piece_field, tokens[number])
    return content


def _normalizer(metadata: Metadata, tokens: Sequence[str]) -> bytes:
    first_openllama = (
        len(tokens) > _OPENLLAMA_1_BLANK
        and tokens[_OPENLLAMA_1_BLANK] == BLANK_LETTER
        and 2 * BLANK_LETTER not in tokens
    )
    # llama.cpp's converter drops this flag, and that tokenizer is the one that has it.
    removes = metadata.flag(_BLANKS_KEY, default=first_openllama)
    prefix = metadata.flag(_PREFIX_KEY, default=True)
    return (
        _text(_NAME, "identity")
        + _whole(_DUMMY_PREFIX, int(prefix))
        + _whole(_REMOVE_BLANKS, int(removes))
        + _whole(_ESCAPE_BLANKS, 1)
    )


def _tag(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _varint(value: int) -> bytes:
    value &= 2**64 - 1  # a negative number is written as ten bytes
    content = bytearray()
    while value > 0x7F:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    content.append(value)
    return bytes(content)


def _whole(field: int, value: int) -> bytes:
    return _tag(field, 0) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode("utf-8"))


def _message(field: int, content: bytes) -> bytes:
    return _tag(field, 2) + _varint(len(content)) + content
