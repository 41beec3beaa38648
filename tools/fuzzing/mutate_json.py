"""Mutations of JSON: values of other types and sizes, keys gone or given twice, what is no JSON."""

from __future__ import annotations

from random import Random

from fuzzing.edits import Edit
from fuzzing.json_spans import Span, find_spans

_NUMBERS = (
    *("0", "1", "-1", "2", "255", "256", "257", "2147483647", "2147483648", "4294967296"),
    *("9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775809"),
    *("1e999", "-1e999", "NaN", "Infinity", "-Infinity", "1e-320", "1e38", "1e39", "1e308"),
    *("0.5", "-0.0", "5.0", "1.5e3", "1" * 41, "1" + "0" * 400, "9" * 5000, "0x10", "01", "+1"),
)
_STRINGS = (
    '""',
    '"x"',
    '"\\u0000"',
    '"\\u001b]0;pwned\\u0007"',
    '"\\u202eevil"',
    '"\\ud800"',
    '"[/]"',
    '"[bold]x[/bold]"',
    '"../../../etc/passwd"',
    '"/etc/passwd"',
    '"a\\nb"',
    '"%s%n{0}"',
    '"C:\\\\x"',
    '"\xc3\xa9"',
    '"\xff"',
    '"null"',
    '"float32"',
    '"0"',
)
_OTHERS = ("null", "true", "false", "[]", "{}", "[0]", '{"a":1}', "[[[]]]", "[null]", '["a"]')
_LONG = 3_000_000
_DEEP = 200_000
# A value that is large itself is seldom: it makes a case slow, and says one thing only.
_RARELY = 0.01


def replace_value(content: bytes, rng: Random) -> list[Edit]:
    """Put another value in the place of one."""
    span = rng.choice(find_spans(content))
    return [Edit(span.start, span.end - span.start, _another(content, span, rng))]


def replace_number(content: bytes, rng: Random) -> list[Edit]:
    """Put another number in the place of a number, true, false or null."""
    plain = [span for span in find_spans(content) if span.kind == "plain"]
    if not plain:
        return replace_value(content, rng)
    span = rng.choice(plain)
    return [Edit(span.start, span.end - span.start, _near(content[span.start : span.end], rng))]


def delete_member(content: bytes, rng: Random) -> list[Edit]:
    """Take a member of an object or an array out, with its comma."""
    spans = [span for span in find_spans(content) if span.owner >= 0]
    if not spans:
        return replace_value(content, rng)
    start, end = _whole(rng.choice(spans))
    rest = content[end:]
    ahead = len(rest) - len(rest.lstrip())
    if rest[ahead : ahead + 1] == b",":
        return [Edit(start, end + ahead + 1 - start, b"")]
    before = content[:start].rstrip()
    start = len(before) - 1 if before.endswith(b",") else start
    return [Edit(start, end - start, b"")]


def give_twice(content: bytes, rng: Random) -> list[Edit]:
    """Write a key once more, with its value or another one."""
    keyed = [span for span in find_spans(content) if span.key_start >= 0]
    if not keyed:
        return replace_value(content, rng)
    span = rng.choice(keyed)
    key = content[span.key_start : span.start]
    value = content[span.start : span.end] if rng.random() < 0.5 else _another(content, span, rng)
    return [Edit(span.end, 0, b"," + key + value)]


def rename_key(content: bytes, rng: Random) -> list[Edit]:
    """Write another key in the place of one."""
    keyed = [span for span in find_spans(content) if span.key_start >= 0]
    if not keyed:
        return replace_value(content, rng)
    span, other = rng.choice(keyed), rng.choice(keyed)
    new = content[other.key_start : other.start]
    if rng.random() < 0.6:
        new = rng.choice(_STRINGS).encode("latin-1") + b":"
    return [Edit(span.key_start, span.start - span.key_start, new)]


def add_key(content: bytes, rng: Random) -> list[Edit]:
    """Add an unknown member to an object."""
    objects = [span for span in find_spans(content) if span.kind == "object"]
    if not objects:
        return replace_value(content, rng)
    span = rng.choice(objects)
    key = _long_string(rng) if rng.random() < _RARELY else rng.choice(_STRINGS).encode("latin-1")
    empty = not content[span.start + 1 : span.end - 1].strip()
    member = key + b":" + _another(content, span, rng)
    return [Edit(span.start + 1, 0, member + (b"" if empty else b","))]


def swap_values(content: bytes, rng: Random) -> list[Edit]:
    """Exchange two values, of which neither holds the other."""
    spans = find_spans(content)
    one, other = sorted((rng.choice(spans), rng.choice(spans)), key=lambda span: span.start)
    if one.end > other.start:
        return replace_value(content, rng)
    first, second = content[one.start : one.end], content[other.start : other.end]
    return [Edit(one.start, len(first), second), Edit(other.start, len(second), first)]


def nest(content: bytes, rng: Random) -> list[Edit]:
    """Put brackets around a value, a few or far too many."""
    span = rng.choice(find_spans(content))
    levels = _DEEP if rng.random() < 0.1 else rng.choice((1, 2, 60, 70, 900, 1100))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    return [
        Edit(span.start, 0, opening, times=levels),
        Edit(span.end, 0, closing, times=levels),
    ]


def break_syntax(content: bytes, rng: Random) -> list[Edit]:
    """Put a byte where none belongs, a mark of an encoding above all."""
    mark = rng.choice((b",", b"}", b"]", b'"', b"\\", b"/**/", b"\xef\xbb\xbf", b"\xff\xfe", b"\0"))
    return [Edit(rng.choice((0, len(content), rng.randrange(len(content)))), 0, mark)]


def _whole(span: Span) -> tuple[int, int]:
    return (span.start if span.key_start < 0 else span.key_start), span.end


def _another(content: bytes, span: Span, rng: Random) -> bytes:
    chance = rng.random()
    if chance < _RARELY:
        return _long_string(rng)
    if chance < 0.2:
        other = rng.choice(find_spans(content))
        return content[other.start : other.end]
    if chance < 0.4 and span.kind == "plain":
        return _near(content[span.start : span.end], rng)
    return rng.choice(rng.choice((_NUMBERS, _STRINGS, _OTHERS))).encode("latin-1")


def _near(value: bytes, rng: Random) -> bytes:
    """Return a number near another one, or an extreme one."""
    try:
        number = int(value)
    except ValueError:
        return rng.choice(_NUMBERS).encode()
    near = (number + 1, number - 1, number * 2, number // 2, -number, number + 2**32)
    return str(rng.choice(near)).encode() if rng.random() < 0.5 else rng.choice(_NUMBERS).encode()


def _long_string(rng: Random) -> bytes:
    return b'"' + rng.choice((b"A", b"\\u001b", b"\\\\")) * (_LONG // 6) + b'"'


JSON_AWARE = (
    replace_value,
    replace_value,
    replace_number,
    replace_number,
    delete_member,
    give_twice,
    rename_key,
    add_key,
    swap_values,
    nest,
    break_syntax,
)
