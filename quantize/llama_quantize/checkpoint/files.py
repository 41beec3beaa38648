"""The files of a quantised checkpoint, by name, and how a file is hashed.

It knows nothing of what is in them, and imports no torch: whether a folder holds such a checkpoint
can be asked at no cost.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

WEIGHTS_FILE = "weights.safetensors"
RECORD_FILE = "quantization.json"
CALIBRATION_FILE = "calibration.safetensors"
HINT = "quantise the model again into a new folder"
_PIECE_BYTES = 4 << 20


class Digest(Protocol):
    """What hashlib's hashes have in common."""

    def update(self, data: memoryview, /) -> None:
        """Take more bytes."""


def is_quantized(folder: Path) -> bool:
    """Whether a folder holds a checkpoint that `quantize_to` wrote, by its record's name."""
    # os.path, because Path raises where a folder may not be entered.
    return os.path.isfile(folder / RECORD_FILE)  # noqa: PTH113


def file_sha256(path: Path) -> str:
    """Hash a file in pieces of bounded memory."""
    digest = hashlib.sha256()
    hash_into(digest, path)
    return digest.hexdigest()


def hash_into(
    digest: Digest, path: Path, progress: Callable[[int], None] = lambda size_bytes: None
) -> int:
    """Feed a file to a hash in pieces of bounded memory.

    Args:
        digest: hash that takes the bytes.
        path: file to read.
        progress: called with the bytes read since its last call.

    Returns:
        The number of bytes.

    Raises:
        OSError: the file cannot be read.
    """
    buffer = bytearray(_PIECE_BYTES)
    view = memoryview(buffer)
    size_bytes = 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(view[:count])
            size_bytes += count
            progress(count)
    return size_bytes
