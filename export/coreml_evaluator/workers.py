"""Threads that share the blocks of a product.

Each takes whole blocks, in which torch uses one thread. torch's own threads would meet after every
small operation, and on a busy machine a single one that is not scheduled would hold up all the
others: this was measured to be sixty times slower. This module knows threads; it does not know what
they compute.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from coreml_evaluator.weights import Scratch


class Workers:
    """Threads, and the scratch memory of each.

    Args:
        pool: pool of threads; None to compute in the calling thread.
    """

    def __init__(self, pool: ThreadPoolExecutor | None = None) -> None:
        self._pool = pool
        self._local = threading.local()

    @property
    def scratch(self) -> Scratch:
        """The scratch memory of the calling thread."""
        if not hasattr(self._local, "scratch"):
            self._local.scratch = Scratch()
        scratch: Scratch = self._local.scratch
        return scratch

    def share(self, run: Callable[[int, int], None], blocks: Iterable[tuple[int, int]]) -> None:
        """Call a function with each block, in any order."""
        listed = list(blocks)
        if self._pool is None or len(listed) == 1:
            for first, last in listed:
                run(first, last)
        else:
            list(self._pool.map(lambda block: run(*block), listed))  # which raises what was raised


@contextlib.contextmanager
def open_workers(threads: int | None) -> Iterator[Workers]:
    """Open workers for the time of a `with`, in which torch itself uses one thread.

    Args:
        threads: number of threads; None for torch's own number.
    """
    before = torch.get_num_threads()
    count = before if threads is None else threads
    torch.set_num_threads(1)
    try:
        if count == 1:
            yield Workers()
        else:
            with ThreadPoolExecutor(count, thread_name_prefix="coreml-evaluator") as pool:
                yield Workers(pool)
    finally:
        torch.set_num_threads(before)
