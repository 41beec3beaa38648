"""Unpack elements of less than a byte.

They follow one another from the lowest bit of the first byte; one may straddle two bytes. This
module knows bits; it does not know what the numbers mean.
"""

from __future__ import annotations

import torch


def unpack(packed: torch.Tensor, bits: int, elements: int, *, signed: bool) -> torch.Tensor:
    """Return elements as uint8, or as int8 if they are signed.

    Args:
        packed: packed bytes, uint8 `[bytes]`.
        bits: bits of one element, 1 to 7.
        elements: number of elements.
        signed: true if the highest bit is a sign (two's complement).
    """
    if bits == 4:
        low, high = nibbles(packed, signed=signed)
        return torch.stack((low, high), dim=-1).flatten()[:elements]
    positions = torch.arange(8, dtype=torch.uint8)
    stream = ((packed.unsqueeze(-1) >> positions) & 1).flatten()[: elements * bits]
    weights = (1 << torch.arange(bits, dtype=torch.int32)).to(torch.uint8)
    codes = (stream.view(elements, bits) * weights).sum(dim=-1, dtype=torch.uint8)
    if not signed:
        return codes
    shift = 8 - bits
    return (codes << shift).view(torch.int8) >> shift


def nibbles(packed: torch.Tensor, *, signed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the elements in the low and in the high halves of bytes, each in the bytes' shape."""
    if not signed:
        return packed & 15, packed >> 4
    octets = packed.view(torch.int8)
    return (octets << 4) >> 4, octets >> 4
