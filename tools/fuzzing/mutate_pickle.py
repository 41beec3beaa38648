"""Mutations of the pickle in a file of `torch.save`: its operations, globals, texts and numbers."""

from __future__ import annotations

import pickletools
import struct
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from fuzzing.edits import Edit
from fuzzing.mutate_bytes import ESCAPES

_GLOBALS = (
    *(b"os\nsystem\n", b"builtins\neval\n", b"builtins\nexec\n", b"posix\nsystem\n", b"\n\n"),
    *(b"torch\nFloatStorage\n", b"torch\nHalfStorage\n", b"torch\nLongStorage\n", b"torch\nload\n"),
    *(b"torch._utils\n_rebuild_tensor\n", b"torch._utils\n_rebuild_parameter\n", b"torch\nint8\n"),
    *(b"collections\nOrderedDict\n", b"torch\nTensor\n", b"torch._utils\n_rebuild_sparse_tensor\n"),
    *(b"torch.serialization\n_get_layout\n", b"torch\nsparse_coo\n", b"\x1b]0;pwned\x07\nx\n"),
    *(b"torch._utils\n_rebuild_qtensor\n", b"torch._utils\n_rebuild_meta_tensor_no_storage\n"),
)
_TEXTS = (b"", b"x", b"cuda", b"meta", b"cuda:0", b"999", b"storage", b"../0", b"cpu", b"0")
# Numbers of one, two, four and many bytes, and others that stand where a number may.
_NUMBERS = (
    *(b"K\x00", b"K\x01", b"K\xff", b"M\xff\xff", b"J\xff\xff\xff\x7f", b"J\xff\xff\xff\xff"),
    *(b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"\x8a\x09" + bytes(8) + b"\x01", b"N", b"\x88", b")"),
    *(b"G" + struct.pack(">d", float("nan")), b"X\x01\x00\x00\x00x"),
)
_INTEGERS = ("BININT", "BININT1", "BININT2", "LONG1")


@dataclass(frozen=True)
class _Operation:
    name: str
    start: int
    end: int


def change_operation(content: bytes, rng: Random) -> list[Edit]:
    """Write another value, name or global in the place of one, each kind as often as the others."""
    operations = _operations(content)
    name = rng.choice(sorted({each.name for each in operations}))
    each = rng.choice([each for each in operations if each.name == name])
    return [Edit(each.start, each.end - each.start, _another(each, content, rng))]


def drop_operation(content: bytes, rng: Random) -> list[Edit]:
    """Take an operation out."""
    each = rng.choice(_operations(content))
    return [Edit(each.start, each.end - each.start, b"")]


def double_operation(content: bytes, rng: Random) -> list[Edit]:
    """Write an operation, or a run of them, once more behind itself."""
    operations = _operations(content)
    first = rng.randrange(len(operations))
    last = min(len(operations) - 1, first + rng.choice((0, 0, 1, 4, 30)))
    run = content[operations[first].start : operations[last].end]
    return [Edit(operations[last].end, 0, run)]


PICKLE_AWARE = (
    change_operation,
    change_operation,
    change_operation,
    drop_operation,
    double_operation,
)


@lru_cache(maxsize=8)
def _operations(content: bytes) -> tuple[_Operation, ...]:
    found = [(operation.name, at or 0) for operation, _, at in pickletools.genops(content)]
    ends = [at for _, at in found[1:]] + [len(content)]
    return tuple(_Operation(name, at, end) for (name, at), end in zip(found, ends, strict=True))


def _another(each: _Operation, content: bytes, rng: Random) -> bytes:
    if each.name == "GLOBAL":
        return b"c" + rng.choice(_GLOBALS)
    if each.name == "BINUNICODE":
        text = rng.choice(rng.choice((_TEXTS, ESCAPES)))
        return b"X" + struct.pack("<I", len(text)) + text
    if each.name in _INTEGERS and rng.random() < 0.8:
        return rng.choice(_NUMBERS)
    other = rng.choice(_operations(content))
    return content[other.start : other.end]
