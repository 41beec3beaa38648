"""A quantised matrix: its codes and scales, and the numbers that they stand for.

It knows nothing of names or files; the tensors may be mapped from one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from llama_quantize.errors import QuantizationError
from llama_quantize.groupwise import BLOCK_WEIGHTS, dequantize_groups, row_blocks
from llama_quantize.packing import unpack_int4
from llama_quantize.scheme import GroupedInt


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """Codes and scales of a weight `[N, K]`.

    Args:
        scheme: storage form.
        shape: rows N and columns K of the weight.
        codes: uint8 `[N, K/2]` (packed, see packing.py) for 4 bits, int8 `[N, K]` for 8.
        scales: bfloat16 `[N, G]`.
        scales_sqnr_db: ratio of the weight as it came to what rounding its scales changed; infinite
            where they were stored as they came.
    """

    scheme: GroupedInt
    shape: tuple[int, int]
    codes: Tensor
    scales: Tensor
    scales_sqnr_db: float = math.inf

    def __post_init__(self) -> None:
        found = [(t.dtype, tuple(t.shape)) for t in (self.codes, self.scales)]
        expected = list(stored_forms(self.scheme, self.shape))
        if found != expected:
            message = f"codes and scales of a weight {self.shape}: {found}; expected {expected}"
            raise QuantizationError(message)

    def unpacked(self, rows: slice | None = None) -> Tensor:
        """Return the codes, or only some `rows` of them, as int8 `[N, K]`, whatever the storage."""
        return self._unpack(self.codes[rows or slice(None)])

    def dequantize(self, dtype: torch.dtype = torch.float32, rows: slice | None = None) -> Tensor:
        """Return the weight, or only some `rows` of it, as floats `[N, K]`."""
        codes = self.codes[rows or slice(None)]
        scales = self.scales[rows or slice(None)]
        values = torch.empty(codes.shape[0], self.shape[1], dtype=dtype)
        for part in row_blocks(len(codes), self.shape[1], BLOCK_WEIGHTS):
            block = self._unpack(codes[part])
            values[part] = dequantize_groups(block, scales[part], dtype)
        return values

    def codes_sha256(self) -> str:
        """Hash the codes row after row, in the one form that every target is read back into.

        That form is `codes` itself: for 4 bits uint8 `[N, K/2]`, `code + 8`, the even element in
        the low nibble; for 8 bits int8 `[N, K]`.
        """
        return _sha256_of_rows(self.codes)

    def scales_sha256(self) -> str:
        """Hash the scales as little-endian bf16 `[N, G]`, row after row."""
        return _sha256_of_rows(self.scales)

    def _unpack(self, codes: Tensor) -> Tensor:
        return unpack_int4(codes) if self.scheme.bits == 4 else codes


def sha256_of(tensors: Iterable[Tensor]) -> str:
    """Hash the elements of some tensors, one after the other, row by row."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _sha256_of_rows(matrix: Tensor) -> str:
    blocks = row_blocks(matrix.shape[0], matrix.shape[1], BLOCK_WEIGHTS)
    return sha256_of(matrix[block] for block in blocks)


Form = tuple[torch.dtype, tuple[int, ...]]
"""Type and shape of a stored tensor."""


def stored_forms(scheme: GroupedInt, shape: tuple[int, ...]) -> tuple[Form, Form]:
    """Return type and shape of the stored codes and scales of a weight `[N, K]`.

    Raises:
        QuantizationError: the weight is no matrix, or its rows do not divide into groups.
    """
    codes, scales = scheme.stored_shapes(shape)
    return (torch.uint8 if scheme.bits == 4 else torch.int8, codes), (torch.bfloat16, scales)
