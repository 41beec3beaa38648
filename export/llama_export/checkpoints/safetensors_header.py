"""Read and distrust the header of a safetensors file: names, dtypes, shapes and byte ranges.

It refuses whatever could make a reader allocate, read or map the wrong bytes. It knows nothing of
models and maps no data; a file's own faults are all it can name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from llama_export.errors import CheckpointError

# The format's own limit. A real header is about 100 bytes a tensor.
MAX_HEADER_BYTES = 100_000_000
_MAX_RANK = 8

# Bytes per element. float4 and the like are left out: such files are refused by their dtype.
ITEM_BYTES: Mapping[str, int] = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 8),
}


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file.

    Args:
        dtype: type in safetensors' spelling, such as `BF16`.
        shape: sizes of its dimensions.
        start: first byte, counted from the end of the header.
        end: byte after the last.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Read and check a file's header.

    Returns:
        The tensors by name; byte ranges are relative to the end of the header.

    Raises:
        CheckpointError: the file cannot be read, is truncated, or its header is not to be trusted.
    """
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            raw = _read_json(file, path.name, size_bytes)
            data_bytes = size_bytes - file.tell()
    except OSError as error:
        message = f"{path.name} cannot be read: {error.strerror or error}"
        raise CheckpointError(message) from None
    raw.pop("__metadata__", None)
    entries = {name: _entry(name, value, path.name) for name, value in raw.items()}
    _check_ranges(entries, data_bytes, path.name)
    return entries


def _read_json(file: BinaryIO, where: str, size_bytes: int) -> dict[str, Any]:
    prefix = file.read(8)
    header_bytes = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or header_bytes < 2:
        message = f"{where} is no safetensors file: it is {size_bytes} bytes with no header"
        raise CheckpointError(message)
    if header_bytes > min(MAX_HEADER_BYTES, size_bytes - 8):
        message = (
            f"{where} is truncated or no safetensors file: it claims a header of {header_bytes} "
            f"bytes, and the file is {size_bytes} bytes"
        )
        raise CheckpointError(message)
    try:
        raw = json.loads(file.read(header_bytes), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        message = f"{where}: the header is not valid JSON: {error}"
        raise CheckpointError(message) from None
    if not isinstance(raw, dict):
        message = f"{where}: the header must be a JSON object, found {type(raw).__name__}"
        raise CheckpointError(message)
    return raw


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object, refusing a key that comes twice: readers disagree on which one counts."""
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        message = f"the key {twice!r} comes twice"
        raise ValueError(message)
    return result


def _entry(name: str, raw: object, where: str) -> TensorEntry:
    if isinstance(raw, dict):
        dtype, shape, span = raw.get("dtype"), raw.get("shape"), raw.get("data_offsets")
        if (
            isinstance(dtype, str)
            and _are_sizes(shape)
            and _are_sizes(span)
            and len(span) == 2
            and span[0] <= span[1]
        ):
            return TensorEntry(dtype, tuple(shape), span[0], span[1])
    message = (
        f"{where}: the header's entry of {name} must hold a dtype, a shape and two data_offsets, "
        f"found {_shortened(raw)}"
    )
    raise CheckpointError(message)


def _are_sizes(value: object) -> TypeGuard[list[int]]:
    """Whether it is a short list of whole numbers; short, because their product is taken."""
    return (
        isinstance(value, list)
        and len(value) <= _MAX_RANK
        and all(type(item) is int and item >= 0 for item in value)
    )


def _check_ranges(entries: Mapping[str, TensorEntry], data_bytes: int, where: str) -> None:
    """Require the tensors to cover the data exactly: no overlap, no gap, nothing beyond the end."""
    end, before = 0, "the header"
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        item_bytes = ITEM_BYTES.get(entry.dtype)
        expected = None if item_bytes is None else math.prod(entry.shape) * item_bytes
        if expected not in (None, entry.end - entry.start):
            message = (
                f"{where}: {name} is {entry.dtype} {list(entry.shape)}, which takes {expected} "
                f"bytes, but its range holds {entry.end - entry.start}"
            )
            raise CheckpointError(message)
        if entry.start != end:
            fault = "overlaps" if entry.start < end else "leaves a gap after"
            message = (
                f"{where}: {name} {fault} {before}: it starts at byte {entry.start}, expected {end}"
            )
            raise CheckpointError(message)
        end, before = entry.end, name
    if end != data_bytes:
        fault = "is truncated" if end > data_bytes else "has bytes after its last tensor"
        message = f"{where} {fault}: the tensors take {end} bytes, found {data_bytes}"
        raise CheckpointError(message)


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
