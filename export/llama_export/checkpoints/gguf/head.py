"""The head of a GGUF file that lies elsewhere: what a model says of itself, without its weights.

A head is the file's header, followed by the divisors of the rotary embedding, which may lie
anywhere in the file, and by the file's size. It is made from parts of the file, and read like the
file. It knows no server.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from llama_export.checkpoints.gguf.header import GgufHeader, parse_begin, read_header
from llama_export.errors import CheckpointError
from llama_export.system.byte_sizes import format_bytes

HEAD_SUFFIX = ".head"
"""What follows the name of a file in the name of its head."""
ROPE_TENSOR = "rope_freqs.weight"
"""The divisors of the rotary embedding, the one tensor that the config is read from."""

_FIRST_BYTES = 2**20
# A vocabulary of 128256 tokens and its merges take 8 MB.
_MOST_BYTES = 2**26
_MOST_ROPE_BYTES = 2**16
_SIZE = struct.Struct("<Q")
_DAMAGED = "name another file, or have it converted again"


class FileElsewhere(Protocol):
    """A file of which parts can be read."""

    @property
    def size_bytes(self) -> int:
        """Size of the file."""

    def read(self, start: int, size_bytes: int) -> bytes:
        """Read exactly so many bytes from a place on."""


def make_head(name: Path, file: FileElsewhere) -> bytes:
    """Read no more of a file than its head takes, twice at most.

    Args:
        name: name for messages.
        file: the file.

    Raises:
        CheckpointError: it is no GGUF file, its header is not to be trusted, or is longer than any.
    """
    begin = file.read(0, min(_FIRST_BYTES, file.size_bytes))
    while isinstance(header := parse_begin(name, begin, file.size_bytes), int):
        if header > _MOST_BYTES:
            message = f"{name}: its header takes {format_bytes(header)}, which none has"
            raise CheckpointError(message, _DAMAGED)
        wanted = min(max(header, 2 * len(begin)), _MOST_BYTES, file.size_bytes)
        begin += file.read(len(begin), wanted - len(begin))
    rope = header.tensors.get(ROPE_TENSOR)
    kept = b""
    if rope is not None:
        if rope.size_bytes > _MOST_ROPE_BYTES:
            message = f"{name}: {ROPE_TENSOR} takes {format_bytes(rope.size_bytes)}"
            raise CheckpointError(message, _DAMAGED)
        kept = begin[rope.start : rope.start + rope.size_bytes]
        if len(kept) < rope.size_bytes:
            kept = file.read(rope.start, rope.size_bytes)
    return begin[: header.end].ljust(header.end, b"\0") + kept + _SIZE.pack(file.size_bytes)


def is_head(path: Path) -> bool:
    """Whether a path is that of a head."""
    return path.name.endswith(HEAD_SUFFIX)


def read_head(path: Path) -> GgufHeader:
    """Read what `make_head` made, as `read_header` reads a file.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _SIZE.size))
            (size_bytes,) = _SIZE.unpack(file.read())
    except (OSError, struct.error) as error:
        message = f"{path} cannot be read: {error}"
        raise CheckpointError(message, "delete it: it is fetched again") from None
    header = read_header(path, size_bytes)
    if (rope := header.tensors.get(ROPE_TENSOR)) is None:
        return header
    kept = {**header.tensors, ROPE_TENSOR: replace(rope, start=header.end)}
    return replace(header, tensors=kept)
