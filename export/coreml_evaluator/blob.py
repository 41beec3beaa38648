"""`weight.bin`: the tensors of a package, in MIL blob storage format 2, memory-mapped.

A blob is found by its offset: 64 bytes hold the dtype, size and place of its data. This module
knows bytes and element types; it does not know shapes, or what a tensor is for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import torch

from coreml_evaluator.types import BITS
from llama_export.errors import BundleError, EvaluationError

_HEADER = struct.Struct("<II")  # number of blobs, version
_METADATA = struct.Struct("<IIQQQ")  # sentinel, dtype, size, offset of the data, bits of padding
_METADATA_SIZE_BYTES = 64
_VERSION = 2
_SENTINEL = 0xDEADBEEF
_DTYPES = {
    1: "fp16",
    2: "fp32",
    3: "uint8",
    4: "int8",
    5: "bf16",
    6: "int16",
    7: "uint16",
    8: "int4",
    9: "uint1",
    10: "uint2",
    11: "uint4",
    12: "uint3",
    13: "uint6",
    14: "int32",
    15: "uint32",
}
_ELEMENTS = {
    "fp16": torch.float16,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "int8": torch.int8,
    "int16": torch.int16,
    "uint16": torch.uint16,
    "int32": torch.int32,
    "uint32": torch.uint32,
}
_DAMAGED = "the file is damaged, or is not the one that the model was saved with"


@dataclass(frozen=True)
class BlobFile:
    """A mapped `weight.bin`.

    Args:
        path: the file, for messages.
        content: the mapped bytes, uint8 `[size_bytes]`; never written.
    """

    path: Path
    content: torch.Tensor

    @classmethod
    def open(cls, path: Path) -> BlobFile:
        """Map a file.

        Raises:
            BundleError: the file is missing, too short, or of another version.
        """
        try:
            size_bytes = path.stat().st_size if path.is_file() else None
        except OSError:
            size_bytes = None
        if size_bytes is None:
            message = f"{path}: the package has no such file"
            raise BundleError(message, _DAMAGED)
        if size_bytes < _METADATA_SIZE_BYTES:
            message = f"{path}: expected at least {_METADATA_SIZE_BYTES} bytes, found {size_bytes}"
            raise BundleError(
                message,
                _DAMAGED,
            )
        # A private mapping: torch has no read-only tensors, and a write would not reach the file.
        content = torch.from_file(str(path), shared=False, size=size_bytes, dtype=torch.uint8)
        _, version = _HEADER.unpack(bytes(content[: _HEADER.size].tolist()))
        if version != _VERSION:
            message = f"{path}: expected blob storage of version {_VERSION}, found {version}"
            raise BundleError(message, _DAMAGED)
        return cls(path, content)

    def read(self, offset: int, dtype: str, elements: int) -> torch.Tensor:
        """Return a blob's elements as a flat view of the mapping.

        Elements of less than a byte stay packed, as uint8.

        Args:
            offset: position of the blob's metadata, in bytes.
            dtype: MIL name of the dtype that the program declares.
            elements: number of elements that the program declares.

        Raises:
            BundleError: there is no such blob, or it is not what the program declares.
            EvaluationError: blobs of this dtype cannot be read.
        """
        where = f"{self.path}, offset {offset}"
        if dtype not in _DTYPES.values():
            message = f"{where}: tensors of {dtype} are not read from blob storage"
            raise EvaluationError(message)
        found, size_bytes, start = self._metadata(offset, where)
        if found != dtype:
            message = f"{where}: expected {dtype}, found {found}"
            raise BundleError(message, _DAMAGED)
        expected_bytes = -(-elements * BITS[dtype] // 8)
        if size_bytes != expected_bytes:
            message = (
                f"{where}: expected {expected_bytes} bytes for {elements} elements of {dtype}, "
                f"found {size_bytes}"
            )
            raise BundleError(
                message,
                _DAMAGED,
            )
        if start + size_bytes > len(self.content):
            message = (
                f"{where}: the data end at byte {start + size_bytes}, the file at "
                f"{len(self.content)}"
            )
            raise BundleError(
                message,
                _DAMAGED,
            )
        data = self.content[start : start + size_bytes]
        element = _ELEMENTS.get(dtype)
        if element is None:
            return data
        if start % element.itemsize:
            data = data.clone()
        return data.view(element)

    def _metadata(self, offset: int, where: str) -> tuple[str, int, int]:
        """Return the dtype, the size in bytes and the offset of a blob's data."""
        if offset + _METADATA_SIZE_BYTES > len(self.content):
            message = f"{where}: outside of the file, which has {len(self.content)} bytes"
            raise BundleError(message, _DAMAGED)
        raw = bytes(self.content[offset : offset + _METADATA.size].tolist())
        sentinel, number, size_bytes, start, _ = _METADATA.unpack(raw)
        if sentinel != _SENTINEL:
            message = f"{where}: expected the mark {_SENTINEL:#x}, found {sentinel:#x}"
            raise BundleError(message, _DAMAGED)
        return _DTYPES.get(number, f"the unknown dtype {number}"), size_bytes, start
