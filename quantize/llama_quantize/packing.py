"""Pack 4-bit codes two to a byte, and unpack them.

A nibble is `code + 8`; the even element of a row is the low nibble. This is exactly the byte order
of ONNX `MatMulNBits`, so that target stores these bytes as they are. It knows nothing of scales or
of what the codes mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llama_quantize.errors import QuantizationError
from llama_quantize.groupwise import CHUNK_WEIGHTS, row_blocks

_OFFSET = 8


def pack_int4(codes: Tensor) -> Tensor:
    """Pack int8 codes -8..7 `[N, K]` into uint8 `[N, K/2]`.

    Raises:
        QuantizationError: not an int8 matrix, an odd K, or a code outside -8..7.
    """
    if codes.dtype != torch.int8 or codes.ndim != 2 or codes.shape[1] % 2:
        found = f"{codes.dtype} {list(codes.shape)}"
        message = f"cannot pack {found}: expected an int8 matrix with rows of even length"
        raise QuantizationError(message)
    rows, columns = codes.shape
    packed = torch.empty(rows, columns // 2, dtype=torch.uint8)
    for part in row_blocks(rows, columns, CHUNK_WEIGHTS):
        nibbles = codes[part].contiguous() + _OFFSET
        if nibbles.numel() and bool((nibbles & ~0xF).any()):
            message = f"codes in rows {part.start} to {part.stop - 1}: expected -8 to 7"
            raise QuantizationError(message)
        # Two neighbours as one little-endian number: low | high << 8. The copy keeps its low byte.
        pairs = nibbles.view(torch.int16)
        packed[part].copy_((pairs >> 4).bitwise_or_(pairs))
    return packed


def unpack_int4(packed: Tensor) -> Tensor:
    """Unpack uint8 `[N, K/2]` into int8 codes -8..7 `[N, K]`.

    Raises:
        QuantizationError: not a uint8 matrix.
    """
    if packed.dtype != torch.uint8 or packed.ndim != 2:
        message = f"cannot unpack {packed.dtype} {list(packed.shape)}: expected a uint8 matrix"
        raise QuantizationError(message)
    rows, half = packed.shape
    codes = torch.empty(rows, half * 2, dtype=torch.int8)
    for part in row_blocks(rows, half, CHUNK_WEIGHTS):
        both = packed[part].contiguous().to(torch.int16)
        pairs = (both & 0x0F).bitwise_or_((both & 0xF0).bitwise_left_shift_(4))
        torch.sub(pairs.view(torch.int8), _OFFSET, out=codes[part])
    return codes
