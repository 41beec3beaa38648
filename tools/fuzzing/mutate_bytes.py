"""Mutations that know nothing of a format: bits, runs, lengths, and pieces moved about."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from fuzzing.edits import Edit

# What numbers of files are compared with, and so where mistakes are.
EXTREMES: tuple[int, ...] = (
    *(0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53),
    *(2**63 - 1, 2**63, 2**64 - 1),
)
ESCAPES = (b"\x1b]0;pwned\x07", b"\x1b[2J", b"\x9b31m", "\u202egnp".encode(), "\u2028".encode())
_RUNS = (1, 2, 4, 8, 16, 64, 256)


def flip_bit(content: bytes, rng: Random) -> list[Edit]:
    """Flip one bit."""
    at = rng.randrange(len(content))
    return [Edit(at, 1, bytes([content[at] ^ 1 << rng.randrange(8)]))]


def flip_bits(content: bytes, rng: Random) -> list[Edit]:
    """Flip a few bits in different bytes."""
    places = {rng.randrange(len(content)) for _ in range(rng.randint(2, 8))}
    return [Edit(at, 1, bytes([content[at] ^ 1 << rng.randrange(8)])) for at in sorted(places)]


def overwrite(content: bytes, rng: Random) -> list[Edit]:
    """Write over a run: random bytes, one byte again and again, or a piece from elsewhere."""
    size = min(rng.choice(_RUNS), len(content))
    at = rng.randrange(len(content) - size + 1)
    elsewhere = rng.randrange(len(content) - size + 1)
    how = rng.choice(
        (rng.randbytes(size), bytes(size), b"\xff" * size, content[elsewhere : elsewhere + size])
    )
    return [Edit(at, size, how)]


def write_number(content: bytes, rng: Random) -> list[Edit]:
    """Write an extreme number at an aligned place, in one of the usual widths and both orders."""
    width = rng.choice((1, 2, 4, 8))
    at = rng.randrange(max(1, len(content) // width)) * width
    value = rng.choice(EXTREMES) % 2 ** (8 * width)
    return [Edit(at, width, value.to_bytes(width, rng.choice(("little", "little", "big"))))]


def write_near(content: bytes, rng: Random) -> list[Edit]:
    """Move an aligned 32-bit number by a little, as an offset or a count that is off."""
    at = rng.randrange(max(1, len(content) // 4)) * 4
    value = int.from_bytes(content[at : at + 4], "little") + rng.choice((-64, -4, -1, 1, 2, 4, 64))
    return [Edit(at, 4, (value % 2**32).to_bytes(4, "little"))]


def insert(content: bytes, rng: Random) -> list[Edit]:
    """Put bytes in between."""
    at = rng.randrange(len(content) + 1)
    what = rng.choice((rng.randbytes(rng.choice(_RUNS)), b"\0", b"\n", rng.choice(ESCAPES)))
    return [Edit(at, 0, what)]


def delete(content: bytes, rng: Random) -> list[Edit]:
    """Take a run out."""
    size = min(rng.choice(_RUNS), len(content))
    return [Edit(rng.randrange(len(content) - size + 1), size, b"")]


def truncate(content: bytes, rng: Random) -> list[Edit]:
    """Cut the end off."""
    at = rng.choice((0, rng.randrange(len(content)), len(content) - 1))
    return [Edit(at, len(content) - at, b"")]


def swap_runs(content: bytes, rng: Random) -> list[Edit]:
    """Exchange two runs of one length."""
    size = min(rng.choice(_RUNS), len(content) // 2)
    if not size:
        return truncate(content, rng)
    first = rng.randrange(len(content) - 2 * size + 1)
    second = rng.randrange(first + size, len(content) - size + 1)
    one, other = content[first : first + size], content[second : second + size]
    return [Edit(first, size, other), Edit(second, size, one)]


def repeat(content: bytes, rng: Random) -> list[Edit]:
    """Write a run once more behind itself."""
    size = min(rng.choice(_RUNS), len(content))
    at = rng.randrange(len(content) - size + 1)
    return [Edit(at + size, 0, content[at : at + size])]


Mutator = Callable[[bytes, Random], list[Edit]]
SAME_LENGTH: tuple[Mutator, ...] = (flip_bit, flip_bits, overwrite, write_number, write_near)
ANY_LENGTH: tuple[Mutator, ...] = (*SAME_LENGTH, swap_runs, insert, delete, truncate, repeat)
