"""Mutations of a GGUF file that know its header: keys, types, counts, arrays and tensor infos.

Spans are found by reading the header as it should be; a mutation keeps nothing true but the count
that stands before what it takes out or doubles.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from fuzzing.edits import Edit
from fuzzing.mutate_bytes import ESCAPES, EXTREMES

_COUNTS_AT = 8
_TENSOR_COUNT, _KEY_COUNT, _VERSION = "tensor count", "key count", "version"
_SIZES: Mapping[int, int] = {
    **{0: 1, 1: 1, 7: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 10: 8, 11: 8, 12: 8},
}
_STRING, _ARRAY = 8, 9
_TEXTS = (
    *(b"", b"x", b"llama", b"mistral", b"gpt2", b"general.alignment", b"split.count", b"\xff\xfe"),
    *(b"output.weight", b"blk.0.attn_q.weight", b"blk.99.ffn_up.weight", b"rope_freqs.weight"),
    *(
        b"../../x",
        b"{% for i in range(99999999) %}{% endfor %}",
        b"{{ ''.__class__ }}",
        b"a" * 5000,
    ),
)
# NaN, infinities and zero as float16 and bfloat16.
_PAIRS = (b"\x00\x7e", b"\x00\x7c", b"\xff\xff", b"\x00\x00", b"\x00\xfc", b"\xc0\x7f")
_FLOATS = (0.0, -1.0, 1e-45, 1e38, float("inf"), float("nan"), 3.5)


@dataclass(frozen=True)
class Piece:
    """A run of bytes of the header that means something.

    Args:
        kind: `text` with its length before it, `number`, `float`, `type`, or an item as a whole:
            `key` or `tensor`.
        start: offset of the first byte.
        end: offset after the last one.
    """

    kind: str
    start: int
    end: int


@lru_cache(maxsize=8)
def find_pieces(content: bytes) -> tuple[Piece, ...]:
    """Return the pieces of a file's header; none where it is no GGUF."""
    if content[:4] != b"GGUF" or len(content) < 24:
        return ()
    fixed = [Piece("number", at, at + size) for at, size in ((4, 4), (8, 8), (16, 8))]
    return (*fixed, *_read(content))


def change_piece(content: bytes, rng: Random) -> list[Edit]:
    """Write another number, type or text in the place of one, each kind as often as the others."""
    pieces = [piece for piece in find_pieces(content) if piece.kind not in ("key", "tensor")]
    kind = rng.choice(sorted({piece.kind for piece in pieces}))
    piece = rng.choice([piece for piece in pieces if piece.kind == kind])
    old = content[piece.start : piece.end]
    return [Edit(piece.start, len(old), _another(piece.kind, old, rng))]


def change_length(content: bytes, rng: Random) -> list[Edit]:
    """Write another length before a text, and leave the text."""
    piece = rng.choice([piece for piece in find_pieces(content) if piece.kind == "text"])
    length = piece.end - piece.start - 8
    new = rng.choice((length + 1, max(0, length - 1), *EXTREMES))
    return [Edit(piece.start, 8, struct.pack("<Q", new))]


def drop_item(content: bytes, rng: Random) -> list[Edit]:
    """Take a key or a tensor out and count one less."""
    item = _item(content, rng)
    return [Edit(item.start, item.end - item.start, b""), _counted(content, item, -1)]


def double_item(content: bytes, rng: Random) -> list[Edit]:
    """Write a key or a tensor once more and count one more."""
    item = _item(content, rng)
    return [Edit(item.end, 0, content[item.start : item.end]), _counted(content, item, 1)]


def swap_items(content: bytes, rng: Random) -> list[Edit]:
    """Put the bytes of one key or tensor in the place of another."""
    item = _item(content, rng)
    other = rng.choice([each for each in find_pieces(content) if each.kind == item.kind])
    return [Edit(item.start, item.end - item.start, content[other.start : other.end])]


def write_constants(content: bytes, rng: Random) -> list[Edit]:
    """Write what is no number, or no right scale, over some of the weights' bytes."""
    start = max(piece.end for piece in find_pieces(content))
    at = start + rng.randrange(max(1, len(content) - start - 4096)) // 2 * 2
    what = rng.choice(_PAIRS)
    count = rng.choice((1, 2, 64, 2048))
    return [Edit(at, 2 * count, what * count)]


GGUF_AWARE = (
    change_piece,
    change_piece,
    change_piece,
    change_length,
    drop_item,
    double_item,
    swap_items,
    write_constants,
)


def _item(content: bytes, rng: Random) -> Piece:
    kind = rng.choice(("key", "tensor"))
    return rng.choice([piece for piece in find_pieces(content) if piece.kind == kind])


def _counted(content: bytes, item: Piece, more: int) -> Edit:
    at = _COUNTS_AT + (8 if item.kind == "key" else 0)
    count = struct.unpack_from("<Q", content, at)[0]
    return Edit(at, 8, struct.pack("<Q", count + more))


def _another(kind: str, old: bytes, rng: Random) -> bytes:
    if kind == "text":
        text = rng.choice(rng.choice((_TEXTS, ESCAPES)))
        return struct.pack("<Q", len(text)) + text
    if kind == "float" and rng.random() < 0.7:
        return struct.pack("<f", rng.choice(_FLOATS)) if len(old) == 4 else old
    if kind == "type":
        return struct.pack("<I", rng.choice((*range(14), 30, 255, 2**31)))
    value = int.from_bytes(old, "little")
    near = (value + 1, value - 1, value * 2, value // 2, value + 32)
    new = rng.choice((*near, rng.choice(EXTREMES)))
    return (new % (1 << 8 * len(old))).to_bytes(len(old), "little")


def _read(content: bytes) -> Iterator[Piece]:
    tensors, keys = struct.unpack_from("<QQ", content, _COUNTS_AT)
    at = 24
    for _ in range(keys):
        start = at
        at = yield from _text(content, at)
        kind = struct.unpack_from("<I", content, at)[0]
        yield Piece("type", at, at + 4)
        at = yield from _value(content, at + 4, kind)
        yield Piece("key", start, at)
    for _ in range(tensors):
        start = at
        at = yield from _text(content, at)
        levels = struct.unpack_from("<I", content, at)[0]
        yield Piece("number", at, at + 4)
        for place in range(at + 4, at + 4 + 8 * levels, 8):
            yield Piece("number", place, place + 8)
        at += 4 + 8 * levels
        yield Piece("type", at, at + 4)
        yield Piece("number", at + 4, at + 12)
        at += 12
        yield Piece("tensor", start, at)


def _text(content: bytes, at: int) -> Generator[Piece, None, int]:
    end = at + 8 + int.from_bytes(content[at : at + 8], "little")
    yield Piece("text", at, end)
    return end


def _value(content: bytes, at: int, kind: int) -> Generator[Piece, None, int]:
    if kind == _STRING:
        return (yield from _text(content, at))
    if kind == _ARRAY:
        of, count = struct.unpack_from("<IQ", content, at)
        yield Piece("type", at, at + 4)
        yield Piece("number", at + 4, at + 12)
        at += 12
        for _ in range(count):
            at = yield from _value(content, at, of)
        return at
    yield Piece("float" if kind in (6, 12) else "number", at, at + _SIZES[kind])
    return at + _SIZES[kind]
