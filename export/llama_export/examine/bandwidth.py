"""How fast this machine reads memory: the ceiling of decode, which reads every weight once a token.

Threads fold slices of one buffer, larger than any cache, into a number. It knows nothing of
models and of runtimes.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BUFFER_BYTES = 512 * 2**20
SMALLEST_BUFFER_BYTES = 64 * 2**20
PASSES = 7


@dataclass(frozen=True)
class Bandwidth:
    """Speed of reading, in bytes per second, over some passes.

    Args:
        best: speed of the fastest pass, which is what the memory can do.
        median: speed of the median pass.
        worst: speed of the slowest pass.
        buffer_bytes: size of the buffer.
        threads: number of threads that read it.
    """

    best: float
    median: float
    worst: float
    buffer_bytes: int
    threads: int

    def to_json(self) -> dict[str, object]:
        """Return plain data, in bytes per second."""
        return {
            "best_bytes_per_s": round(self.best),
            "median_bytes_per_s": round(self.median),
            "worst_bytes_per_s": round(self.worst),
            "buffer_bytes": self.buffer_bytes,
            "threads": self.threads,
        }


def buffer_bytes_for(available_bytes: int) -> int:
    """Choose a buffer's size: large, and at most a quarter of the memory that is free."""
    return max(SMALLEST_BUFFER_BYTES, min(BUFFER_BYTES, available_bytes // 4))


def read_bandwidth(
    threads: int, buffer_bytes: int, clock: Callable[[], float], passes: int = PASSES
) -> Bandwidth:
    """Read a buffer several times, each thread a slice of its own.

    Args:
        threads: number of threads, the same as the runtime's.
        buffer_bytes: size of the buffer, several times that of the caches.
        clock: function that returns seconds.
        passes: number of passes that count; one more comes first.
    """
    # Written first: pages that nobody wrote are all one page of zeros, which stays in the cache.
    words = np.ones(buffer_bytes // 8, dtype=np.uint64)
    slices = np.array_split(words, threads)
    rates = []
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(_fold, slices))
        for _ in range(passes):
            begun = clock()
            list(pool.map(_fold, slices))
            rates.append(words.nbytes / max(clock() - begun, 1e-9))
    return Bandwidth(max(rates), statistics.median(rates), min(rates), words.nbytes, threads)


def _fold(words: NDArray[np.uint64]) -> int:
    """Look at every word; numpy lets other threads run meanwhile."""
    return int(np.bitwise_or.reduce(words))
