"""Move a process's large blocks of memory into huge pages, in the background.

A decoded token reads every weight once. In pages of 4 kB that takes 250,000 address translations a
gigabyte, and a tenth of the decode speed. Linux gives huge pages to a process that asks, and the
runtimes do not ask. This module knows mappings of memory; it does not know what lies in them.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_HUGE_PAGE_BYTES = 2 * 2**20
_SMALLEST_BYTES = 2 * _HUGE_PAGE_BYTES
_USED_SHARE = 0.9  # a huge page takes its whole size: blocks that are mostly empty stay as they are
# From linux/mman.h; MADV_COLLAPSE came with Linux 6.1, and older kernels refuse it.
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25
_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_MAPPINGS = Path("/proc/self/smaps")


@dataclass(frozen=True)
class Mapping:
    """A range of addresses.

    Args:
        start: first address.
        stop: address after the last one.
        used_bytes: bytes of the range that are in memory.
        huge_bytes: bytes of those that are already in huge pages.
        private: true if the range is anonymous and writable, and not the heap, a stack or a file.
    """

    start: int
    stop: int
    used_bytes: int
    huge_bytes: int
    private: bool

    def is_worth_it(self) -> bool:
        """Return whether huge pages would help and cost no memory."""
        size_bytes = self.stop - self.start
        return (
            self.private
            and size_bytes >= _SMALLEST_BYTES
            and self.used_bytes >= _USED_SHARE * size_bytes
            and self.huge_bytes < self.used_bytes / 2
        )


def use_huge_pages() -> threading.Thread | None:
    """Ask for huge pages for every large block that is in memory now.

    Returns:
        The thread that does it, which no caller needs to wait for; None if there is no such block,
        or if the system has no huge pages or its owner has switched them off.
    """
    if not sys.platform.startswith("linux") or not _is_allowed():
        return None
    blocks = [mapping for mapping in parse_mappings(_read(_MAPPINGS)) if mapping.is_worth_it()]
    if not blocks:
        return None
    thread = threading.Thread(target=_collapse, args=(blocks,), name="huge pages", daemon=True)
    thread.start()
    return thread


def parse_mappings(smaps: Iterable[str]) -> Iterator[Mapping]:
    """Parse the lines of /proc/PID/smaps."""
    head: list[str] = []
    sizes: dict[str, int] = {}
    for line in smaps:
        fields = line.split()
        if fields and not fields[0].endswith(":"):
            if head:
                yield _mapping(head, sizes)
            head, sizes = fields, {}
        elif line.endswith("kB\n"):
            sizes[fields[0]] = 1024 * int(fields[1])
    if head:
        yield _mapping(head, sizes)


def _mapping(head: list[str], sizes: dict[str, int]) -> Mapping:
    start, stop = (int(address, 16) for address in head[0].split("-"))
    private = head[1].startswith("rw-p") and len(head) == 5
    return Mapping(start, stop, sizes.get("Rss:", 0), sizes.get("AnonHugePages:", 0), private)


def _read(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    except OSError:
        return []  # a locked-down container; everything works without, a little slower


def _is_allowed() -> bool:
    setting = "".join(_read(_SETTING))
    return "[always]" in setting or "[madvise]" in setting


def _collapse(blocks: Iterable[Mapping]) -> None:
    """Advise the kernel; it may refuse any of it, and nothing is lost then."""
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
    for block in blocks:
        first = -(-block.start // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
        last = block.stop // _HUGE_PAGE_BYTES * _HUGE_PAGE_BYTES
        if last > first:
            madvise(first, last - first, _MADV_HUGEPAGE)
            madvise(first, last - first, _MADV_COLLAPSE)
