"""Threads that each run whole blocks of work, with torch's own splitting switched off meanwhile.

One operation on a cache-sized chunk takes some ten microseconds, about what it costs to hand it to
a second thread and wait. Threads that own their blocks never wait. It knows nothing of the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def worker_pool(most: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """Provide as many threads as torch may use; after an error the queued work is dropped.

    Args:
        most: largest number of threads, among which torch's are shared out; None: no limit.
    """
    threads = torch.get_num_threads()
    workers = threads if most is None else min(threads, most)
    pool = ThreadPoolExecutor(workers)
    # A new thread takes this number when it first runs an operation.
    torch.set_num_threads(threads // workers)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads)
