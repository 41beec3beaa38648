"""Read and distrust the header of a GGUF file: metadata by key, and each tensor's type and place.

Arrays, such as 128256 tokens, are passed over and read when somebody asks for them. It refuses
whatever could make a reader allocate, read or map the wrong bytes. It knows nothing of models, and
of a type of tensors no more than its size.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from llama_export.checkpoints.gguf.stored import (
    ARRAY,
    BOOLEAN,
    LETTERS,
    NUMBERS,
    STRING,
    StoredArray,
    StoredTensor,
    Value,
)
from llama_export.checkpoints.gguf.types import TYPES
from llama_export.errors import CheckpointError
from llama_quantize.printable import shown_name

MAGIC = b"GGUF"
ALIGNMENT_KEY = "general.alignment"
_VERSIONS = (2, 3)  # of one layout
_DEFAULT_ALIGNMENT, _MOST_ALIGNMENT = 32, 2**20
_MOST_KEYS, _MOST_TENSORS = 2**16, 2**17
_MOST_NAME_BYTES = 2**10  # ggml has 63
_MOST_TEXT_BYTES = 2**24
_MOST_RANK = 4
_TRUNCATED = "download or convert it again: it is shorter than its header says"
_DAMAGED = "download or convert the file again"

_T = TypeVar("_T")


@dataclass(frozen=True)
class GgufHeader:
    """What a file says of itself before its data.

    Args:
        path: the file.
        metadata: values by key.
        tensors: tensors by name, in the order of the file.
        end: byte after the header, where the data begins.
    """

    path: Path
    metadata: Mapping[str, Value]
    tensors: Mapping[str, StoredTensor]
    end: int


def is_gguf(path: Path) -> bool:
    """Whether a file begins as every GGUF file does."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read_header(path: Path, size_bytes: int | None = None) -> GgufHeader:
    """Read and check a file's header.

    Args:
        path: file, or a copy of its first bytes.
        size_bytes: size of the file where `path` is such a copy; None: it is the file.

    Raises:
        CheckpointError: the file cannot be read, is truncated or of a version that is not read, or
            its header is not to be trusted.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(8)
            _require_version(path, begin)
            # Mapped, because nobody knows yet where the header ends.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _read(_Cursor(path, content, size_bytes or len(content)))
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}"
        raise CheckpointError(message) from None


def parse_begin(path: Path, begin: bytes, size_bytes: int) -> GgufHeader | int:
    """Read and check the header of a file of which the first bytes are there.

    Args:
        path: name for messages.
        begin: first bytes of the file.
        size_bytes: size of the file.

    Returns:
        The header; or how many bytes it takes at least, where that is more than are there.

    Raises:
        CheckpointError: as `read_header`.
    """
    _require_version(path, begin[:8])
    cursor = _Cursor(path, begin, size_bytes)
    try:
        return _read(cursor)
    except CheckpointError:
        if cursor.needed:
            return cursor.needed
        raise


def _require_version(path: Path, begin: bytes) -> None:
    if begin[:4] != MAGIC or len(begin) < 8:
        message = f"{path} is no GGUF file: it begins with {shown_name(repr(begin))}"
        hint = "a file that begins with `version ht` is a git-lfs pointer: run git lfs pull"
        raise CheckpointError(message, hint)
    little, big = (int.from_bytes(begin[4:], order) for order in ("little", "big"))
    if little in _VERSIONS:
        return
    if big in (1, *_VERSIONS):
        message = f"{path} is a big-endian GGUF file, and only little-endian ones are read"
        hint = "take the little-endian file, or convert it with gguf's gguf_convert_endian"
        raise CheckpointError(message, hint)
    message = f"{path} is GGUF of version {little}; versions 2 and 3 are read"
    old = "convert the original model again with today's llama.cpp"
    hint = old if little < min(_VERSIONS) else "upgrade llama-export, and try again"
    raise CheckpointError(message, hint)


class _Cursor:
    """A place in a file's bytes, moved on by reading."""

    def __init__(self, path: Path, content: mmap.mmap | bytes, size_bytes: int) -> None:
        self.path, self.content, self.size_bytes = path, content, size_bytes
        self.place, self.end = 8, len(content)
        self.needed = 0  # bytes that would have been read next, where they are not there yet

    def skip(self, size_bytes: int, what: str) -> int:
        """Move over some bytes, and return where they begin."""
        start = self.place
        if size_bytes > self.end - start:
            if start + size_bytes <= self.size_bytes:
                self.needed = start + size_bytes
            message = (
                f"{self.path} is truncated: {what} needs {size_bytes} bytes at {start}, and the "
                f"file is {self.size_bytes} bytes"
            )
            raise CheckpointError(message, _TRUNCATED)
        self.place = start + size_bytes
        return start

    def number(self, letter: str, what: str) -> int | float:
        size_bytes = struct.calcsize(f"<{letter}")
        found: int | float = struct.unpack_from(
            f"<{letter}", self.content, self.skip(size_bytes, what)
        )[0]
        return found

    def whole(self, letter: str, what: str, most: int) -> int:
        found = int(self.number(letter, what))
        if found > most:
            message = f"{self.path}: {what} is {found}, at most {most} can be right"
            raise CheckpointError(message, _DAMAGED)
        return found

    def text(self, what: str, most: int) -> str:
        size_bytes = self.whole("Q", f"the length of {what}", most)
        start = self.skip(size_bytes, what)
        try:
            return self.content[start : start + size_bytes].decode("utf-8")
        except UnicodeDecodeError:
            found = shown_name(repr(self.content[start : start + size_bytes]))
            message = f"{self.path}: {what} is not UTF-8: {found}"
            raise CheckpointError(message, _DAMAGED) from None


def _read(cursor: _Cursor) -> GgufHeader:
    tensors = cursor.whole("Q", "the number of tensors", _MOST_TENSORS)
    keys = cursor.whole("Q", "the number of keys", _MOST_KEYS)
    metadata = _unique(cursor.path, "the key", _metadata(cursor, keys))
    infos = _unique(cursor.path, "the tensor", (_tensor_info(cursor) for _ in range(tensors)))
    alignment = _alignment(cursor.path, metadata)
    data = _aligned(cursor.place, alignment)
    placed = {name: place(data) for name, place in infos.items()}
    _check_ranges(cursor, placed, data, alignment)
    return GgufHeader(cursor.path, metadata, placed, data)


def _unique(path: Path, what: str, pairs: Iterator[tuple[str, _T]]) -> dict[str, _T]:
    found: dict[str, _T] = {}
    for name, value in pairs:
        if name in found:
            message = f"{path}: {what} {shown_name(name)} is given twice"
            raise CheckpointError(message, _DAMAGED)
        found[name] = value
    return found


def _metadata(cursor: _Cursor, keys: int) -> Iterator[tuple[str, Value]]:
    for _ in range(keys):
        key = cursor.text("a key of the metadata", _MOST_NAME_BYTES)
        yield key, _value(cursor, cursor.whole("I", "a type", 2**32), shown_name(key))


def _value(cursor: _Cursor, kind: int, key: str) -> Value:
    if kind == STRING:
        return cursor.text(key, _MOST_TEXT_BYTES)
    if kind == ARRAY:
        return _array(cursor, key)
    if kind == BOOLEAN:
        return bool(cursor.number("B", key))
    if kind in NUMBERS:
        return cursor.number(NUMBERS[kind], key)
    message = f"{cursor.path}: {key} has the unknown type {kind}"
    raise CheckpointError(message, _DAMAGED)


def _array(cursor: _Cursor, key: str) -> StoredArray:
    kind = cursor.whole("I", "a type", 2**32)
    count = int(cursor.number("Q", f"the length of {key}"))
    start = cursor.place
    if kind in LETTERS:
        cursor.skip(count * struct.calcsize(f"<{LETTERS[kind]}"), key)
    elif kind == STRING:
        _skip_texts(cursor, count, key)
    else:
        message = f"{cursor.path}: {key} is an array of the unknown type {kind}"
        raise CheckpointError(message, _DAMAGED)
    return StoredArray(cursor.path, kind, count, start, cursor.place)


def _skip_texts(cursor: _Cursor, count: int, key: str) -> None:
    """Move over strings; written flat, because a vocabulary and its merges have 400000 of them."""
    start = cursor.place
    cursor.skip(8 * count, key)  # what the lengths alone take
    content, place, end = cursor.content, start, cursor.end
    from_bytes = int.from_bytes
    for _ in range(count):
        place += 8 + from_bytes(content[place : place + 8], "little")
        if place > end:
            break
    cursor.place = start
    cursor.skip(place - start, key)


def _tensor_info(cursor: _Cursor) -> tuple[str, Callable[[int], StoredTensor]]:
    """Read name, shape, type and offset; the data's first byte is known when all are read."""
    name = cursor.text("the name of a tensor", _MOST_NAME_BYTES)
    what = shown_name(name)
    rank = cursor.whole("I", f"the rank of {what}", _MOST_RANK)
    sizes = [cursor.whole("Q", f"a dimension of {what}", 2**40) for _ in range(rank)]
    number = cursor.whole("I", f"the type of {what}", 2**32)
    offset = int(cursor.number("Q", f"the offset of {what}"))
    form = TYPES.get(number)
    if form is None:
        message = f"{cursor.path}: {what} has the type {number}, which is unknown"
        hint = "the file may be newer than this version of llama-export, or damaged"
        raise CheckpointError(message, hint)
    columns = sizes[0] if sizes else 1
    if columns % form.block:
        message = (
            f"{cursor.path}: the rows of {what} are {columns} long, no multiple of {form.block}, "
            f"which {form.name} needs"
        )
        raise CheckpointError(message, _DAMAGED)
    size_bytes = math.prod(sizes) // form.block * form.block_bytes
    shape = tuple(reversed(sizes))
    path = cursor.path
    return name, lambda data: StoredTensor(path, form, shape, data + offset, size_bytes)


def _alignment(path: Path, metadata: Mapping[str, Value]) -> int:
    found = metadata.get(ALIGNMENT_KEY, _DEFAULT_ALIGNMENT)
    # A power of two, as ggml asks for.
    if isinstance(found, int) and 0 < found <= _MOST_ALIGNMENT and not found & (found - 1):
        return int(found)
    message = f"{path}: {ALIGNMENT_KEY} is {shown_name(repr(found))}, which is no alignment"
    raise CheckpointError(message, _DAMAGED)


def _aligned(place: int, alignment: int) -> int:
    return -(-place // alignment) * alignment


def _check_ranges(
    cursor: _Cursor, tensors: Mapping[str, StoredTensor], data: int, alignment: int
) -> None:
    """Require the tensors to follow each other, aligned, and all of them to be in the file."""
    end, before = data, "the header"
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].start):
        what = shown_name(name)
        if tensor.start != end:
            fault = "overlaps" if tensor.start < end else "leaves a gap after"
            message = (
                f"{cursor.path}: {what} {fault} {before}: it starts at byte {tensor.start}, "
                f"expected {end}"
            )
            raise CheckpointError(message, _DAMAGED)
        if tensor.start + tensor.size_bytes > cursor.size_bytes:
            message = (
                f"{cursor.path} is truncated: {what} ends at byte "
                f"{tensor.start + tensor.size_bytes}, and the file is {cursor.size_bytes} bytes"
            )
            raise CheckpointError(message, _TRUNCATED)
        end, before = _aligned(tensor.start + tensor.size_bytes, alignment), what
