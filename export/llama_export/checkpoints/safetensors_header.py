"""Read and distrust the header of a safetensors file: names, dtypes, shapes and byte ranges.

It refuses whatever could make a reader allocate, read or map the wrong bytes. Whether the ranges
fit their shapes and cover the data, safetensors itself checks. Of what it lets pass, a header
larger than any Llama's, a name that is given twice and a shape of many dimensions are refused
here; and here a file that is cut off, or another one altogether, is named as that. The module
knows nothing of models and reads no data; a file's own faults are all it can name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from llama_export.errors import CheckpointError
from llama_quantize.printable import shown_name
from llama_quantize.strict_json import JsonFault, parse_object

# The format allows 100 MB. A header is about 130 bytes a tensor: of a Llama of 1000 layers, which
# is the largest that is read, 1.2 MB.
MAX_HEADER_BYTES = 8 * 2**20
_MAX_RANK = 8
_SHOWN_BYTES = 24
_MOST_CHARACTERS = 300
# The key that is about no tensor.
_METADATA = "__metadata__"


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

    @property
    def size_bytes(self) -> int:
        """Bytes that it takes."""
        return self.end - self.start


def data_offset(file: BinaryIO) -> int:
    """Return where the data of an open file begins; its header was checked before."""
    file.seek(0)
    return 8 + int.from_bytes(file.read(8), "little")


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Read and check a file's header.

    Returns:
        The tensors by name; byte ranges are relative to the end of the header.

    Raises:
        CheckpointError: the file cannot be read, is truncated, or its header is not to be trusted.
    """
    raw, data_bytes = _read_raw(path)
    raw.pop(_METADATA, None)
    entries = {name: _entry(name, value, path.name) for name, value in raw.items()}
    end = max((entry.end for entry in entries.values()), default=0)
    if end != data_bytes:
        fault = "is truncated" if end > data_bytes else "has bytes after its last tensor"
        message = f"{path.name} {fault}: the tensors take {end} bytes, found {data_bytes}"
        raise CheckpointError(message)
    _let_library_check(path, entries)
    return entries


def read_metadata(path: Path) -> dict[str, str]:
    """Return the strings in a file's header that are about no tensor.

    Raises:
        CheckpointError: as `read_header`, or they are no strings.
    """
    raw, _ = _read_raw(path)
    found = raw.get(_METADATA, {})
    if isinstance(found, dict) and all(isinstance(each, str) for each in found.values()):
        return found
    message = f"{path.name}: the header's {_METADATA} must hold strings by their names"
    raise CheckpointError(message)


def _read_raw(path: Path) -> tuple[dict[str, Any], int]:
    """Read a header's JSON, and the number of bytes after it."""
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            raw = _read_json(file, path.name, size_bytes)
            return raw, size_bytes - file.tell()
    except OSError as error:
        message = f"{path.name} cannot be read: {error.strerror or error}"
        raise CheckpointError(message) from None


def _read_json(file: BinaryIO, where: str, size_bytes: int) -> dict[str, Any]:
    prefix = file.read(8)
    header_bytes = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or header_bytes < 2:
        message = f"{where} is no safetensors file: it is {size_bytes} bytes with no header"
        raise CheckpointError(message)
    if header_bytes > size_bytes - 8:
        if text := _text(prefix + file.read(_SHOWN_BYTES)):
            message = f"{where} is no safetensors file, but a text that begins with {text}"
            raise CheckpointError(message)
        message = (
            f"{where} is truncated or no safetensors file: it claims a header of {header_bytes} "
            f"bytes, and the file is {size_bytes} bytes"
        )
        raise CheckpointError(message)
    if header_bytes > MAX_HEADER_BYTES:
        message = (
            f"{where} claims a header of {header_bytes} bytes; that of a Llama takes at most "
            f"{MAX_HEADER_BYTES}"
        )
        raise CheckpointError(message)
    try:
        return parse_object(file.read(header_bytes))
    except JsonFault as fault:
        message = f"{where}: the header is not valid JSON: {fault}"
        raise CheckpointError(message) from None


def _text(head: bytes) -> str:
    """Return the beginning of a file that is text, as a web page of an error is; else nothing."""
    is_text = head.isascii() and all(byte >= 32 or byte in b"\t\n\r" for byte in head)
    return shown_name(repr(head.decode("ascii"))) if is_text else ""


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
        f"{where}: the header's entry of {shown_name(name)} must hold a dtype, a shape and two "
        f"data_offsets, found {shown_name(repr(raw))}"
    )
    raise CheckpointError(message)


def _are_sizes(value: object) -> TypeGuard[list[int]]:
    """Whether it is a short list of whole numbers; short, because their product is taken."""
    return (
        isinstance(value, list)
        and len(value) <= _MAX_RANK
        and all(type(item) is int and item >= 0 for item in value)
    )


def _let_library_check(path: Path, entries: Mapping[str, TensorEntry]) -> None:
    """Refuse what safetensors refuses: overlaps, gaps, sizes that no shape has, unknown dtypes."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        said = str(error)
        # Its message has the type, and not the tensor.
        for name, entry in entries.items():
            if f"unknown variant `{entry.dtype}`" in said:
                place = f"{path.name}: {shown_name(name)}"
                message = f"{place} is of type {shown_name(entry.dtype)}, which is unknown"
                hint = "convert it to a type that safetensors knows, such as BF16"
                raise CheckpointError(message, hint) from None
        message = f"{path.name} is damaged: {shown_name(said, _MOST_CHARACTERS)}"
        raise CheckpointError(message, "download the file again") from None
