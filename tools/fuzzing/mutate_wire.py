"""Mutations of binary formats with fields: protobuf's wire format, and flatbuffers' tables.

Fields are found without a schema, as what looks like one: in protobuf a run of bytes that can be
read as fields to its end is taken for a message; in a flatbuffer an aligned word that points into
the file is taken for an offset.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from random import Random

from fuzzing.edits import Edit
from fuzzing.mutate_bytes import ESCAPES, EXTREMES, write_number

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_LEVELS = 12
_WORD = 4


@dataclass(frozen=True)
class Field:
    """One field of a message.

    Args:
        wire: its wire type.
        start: offset of its tag.
        value: offset of its value; for bytes, after their length.
        end: offset after it.
        owners: the fields around it, as `(offset of the length, offset of the content)`.
    """

    wire: int
    start: int
    value: int
    end: int
    owners: tuple[tuple[int, int], ...]


@lru_cache(maxsize=16)
def find_fields(content: bytes) -> tuple[Field, ...]:
    """Return the fields of a message and of the messages in it, in their order."""
    found: list[Field] = []
    if _message(content, 0, len(content), (), found) < 0:
        return ()
    return tuple(found)


def change_number(content: bytes, rng: Random) -> list[Edit]:
    """Write another number into a field, with the lengths around it kept true."""
    fields = [field for field in find_fields(content) if field.wire != _BYTES]
    if not fields:
        return write_number(content, rng)
    field = rng.choice(fields)
    if field.wire != _VARINT:
        size = field.end - field.value
        return [
            Edit(
                field.value, size, (rng.choice(EXTREMES) % 2 ** (8 * size)).to_bytes(size, "little")
            )
        ]
    old = _read_varint(content, field.value)[0]
    new = rng.choice((old + 1, max(0, old - 1), old * 2, rng.choice(EXTREMES)))
    return _resized(content, field, _varint(new))


def change_bytes(content: bytes, rng: Random) -> list[Edit]:
    """Write another text, piece of bytes or message into a field, with the lengths kept true."""
    fields = [field for field in find_fields(content) if field.wire == _BYTES]
    if not fields:
        return write_number(content, rng)
    field, other = rng.choice(fields), rng.choice(fields)
    new = rng.choice(
        (
            b"",
            content[other.value : other.end],
            rng.choice(ESCAPES),
            b"many",
            b"-1",
            b"99999999999999999999",
            b"../x",
            b"\xff\xfe",
            content[field.value : field.end] * 2,
        )
    )
    if field.value == field.end and not new:
        new = b"x"
    return _resized(content, field, new)


def change_length(content: bytes, rng: Random) -> list[Edit]:
    """Write another length before a field's bytes, and keep nothing true."""
    fields = [field for field in find_fields(content) if field.wire == _BYTES]
    if not fields:
        return write_number(content, rng)
    field = rng.choice(fields)
    size = len(_varint(field.end - field.value))
    new = rng.choice((field.end - field.value + rng.choice((-1, 1, 7)), rng.choice(EXTREMES)))
    return [Edit(field.value - size, size, _varint(max(0, new)))]


def drop_field(content: bytes, rng: Random) -> list[Edit]:
    """Take a field out, with the lengths around it kept true."""
    fields = find_fields(content)
    if not fields:
        return write_number(content, rng)
    field = rng.choice(fields)
    return [
        Edit(field.start, field.end - field.start, b""),
        *_lengths(content, field, field.start - field.end),
    ]


def double_field(content: bytes, rng: Random) -> list[Edit]:
    """Write a field once more behind itself, with the lengths around it kept true."""
    fields = find_fields(content)
    if not fields:
        return write_number(content, rng)
    field = rng.choice(fields)
    again = content[field.start : field.end]
    return [Edit(field.end, 0, again), *_lengths(content, field, len(again))]


def change_tag(content: bytes, rng: Random) -> list[Edit]:
    """Give a field another number or wire type."""
    fields = find_fields(content)
    if not fields:
        return write_number(content, rng)
    field = rng.choice(fields)
    return [Edit(field.start, 1, bytes([content[field.start] ^ 1 << rng.randrange(7)]))]


def point_elsewhere(content: bytes, rng: Random) -> list[Edit]:
    """Write another offset, size or count over an aligned word that looks like one."""
    for _ in range(64):
        at = rng.randrange(max(1, len(content) // _WORD)) * _WORD
        value = int.from_bytes(content[at : at + _WORD], "little")
        if 0 < value < len(content):
            break
    new = rng.choice((value + 4, value - 4, value + 1, 0, 2**31 - 1, 2**32 - 4, len(content) - at))
    new = rng.choice((new, rng.randrange(len(content) // 4 + 1) * 4))
    return [Edit(at, _WORD, (new % 2**32).to_bytes(_WORD, "little"))]


def _message(
    content: bytes, at: int, end: int, owners: tuple[tuple[int, int], ...], found: list[Field]
) -> int:
    """Add the fields of a run of bytes, and return its end; -1 where it is no message."""
    while at < end:
        start = at
        tag, at = _read_varint(content, at)
        wire, number = tag & 7, tag >> 3
        if not 0 < number < 20000 or at > end:
            return -1
        value, after = _extent(content, wire, at)
        if after < 0 or after > end:
            return -1
        found.append(Field(wire, start, value, after, owners))
        if wire == _BYTES and after - value > 1 and len(owners) < _MOST_LEVELS:
            inner: list[Field] = []
            if _message(content, value, after, (*owners, (at, value)), inner) == after:
                found += inner
        at = after
    return at


def _extent(content: bytes, wire: int, at: int) -> tuple[int, int]:
    """Return where a field's value begins and ends; `(at, -1)` for a wire type that is none."""
    if wire == _VARINT:
        return at, _read_varint(content, at)[1]
    if wire == _BYTES:
        length, value = _read_varint(content, at)
        return value, value + length
    size = {_FIXED64: 8, _FIXED32: 4}.get(wire)
    return (at, -1) if size is None else (at, at + size)


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            break
        byte = content[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
    return 0, len(content) + 1


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)


def _resized(content: bytes, field: Field, new: bytes) -> list[Edit]:
    """Replace a field's value, its own length and those around it."""
    if field.wire != _BYTES:
        grown = len(new) - (field.end - field.value)
        return [Edit(field.value, field.end - field.value, new), *_lengths(content, field, grown)]
    old = len(_varint(field.end - field.value))
    length = _varint(len(new))
    grown = len(new) + len(length) - old - (field.end - field.value)
    edit = Edit(field.value - old, old + field.end - field.value, length + new)
    return [edit, *_lengths(content, field, grown)]


def _lengths(content: bytes, field: Field, grown: int) -> list[Edit]:
    """Return the edits of the lengths around a field that grew."""
    edits = []
    for at, _ in reversed(field.owners):
        length, after = _read_varint(content, at)
        new = _varint(length + grown)
        edits.append(Edit(at, after - at, new))
        grown += len(new) - (after - at)
    return edits


PROTOBUF_AWARE = (
    change_number,
    change_number,
    change_bytes,
    change_bytes,
    change_length,
    drop_field,
    double_field,
    change_tag,
)
