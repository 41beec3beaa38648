"""Huge pages: which blocks are worth it, and that big blocks really get them where Linux may."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llama_export.system import huge_pages
from llama_export.system.huge_pages import Mapping, parse_mappings, use_huge_pages

MB = 2**20
SMAPS = """\
55d0-55d1 rw-p 00000000 00:00 0                          [heap]
Rss:                 100 kB
7f0000000000-7f0010000000 rw-p 00000000 00:00 0
Size:             262144 kB
Rss:              262000 kB
AnonHugePages:      2048 kB
VmFlags: rd wr mr mw me ac sd
7f0010000000-7f0020000000 r--p 00000000 fe:00 12 /models/a b/model.onnx_data
Rss:              262144 kB
"""


def test_smaps_is_read():
    heap, block, file = parse_mappings(SMAPS.splitlines(keepends=True))
    assert (heap.private, block.private, file.private) == (False, True, False)
    assert block == Mapping(0x7F0000000000, 0x7F0010000000, 262000 * 1024, 2 * MB, private=True)
    assert heap.used_bytes == 100 * 1024


@pytest.mark.parametrize(
    ("changes", "worth_it"),
    [
        ({}, True),
        ({"private": False}, False),
        ({"used_bytes": 20 * MB}, False),  # mostly empty: a huge page would fill it
        ({"huge_bytes": 60 * MB}, False),  # has them already
        ({"stop": 3 * MB, "used_bytes": 3 * MB}, False),  # too small
    ],
)
def test_only_big_full_private_blocks_are_worth_it(changes, worth_it):
    fields = {"start": 0, "stop": 64 * MB, "used_bytes": 64 * MB, "huge_bytes": 0, "private": True}
    assert Mapping(**(fields | changes)).is_worth_it() is worth_it


def test_nothing_is_asked_where_they_are_switched_off(tmp_path, monkeypatch):
    setting = tmp_path / "enabled"
    setting.write_text("always madvise [never]\n")
    monkeypatch.setattr(huge_pages, "_SETTING", setting)
    assert use_huge_pages() is None


def test_nothing_happens_where_the_system_does_not_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(huge_pages, "_SETTING", tmp_path / "absent")
    assert use_huge_pages() is None


def _kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in os.uname().release.split(".")[:2])


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_a_big_block_gets_them_and_keeps_its_bytes():
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.exists() or "[never]" in setting.read_text() or _kernel() < (6, 1):
        pytest.skip("needs huge pages and Linux 6.1")
    program = """
import ctypes, mmap
from llama_export.system.huge_pages import parse_mappings, use_huge_pages
block = mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
block.madvise(mmap.MADV_NOHUGEPAGE)
block[:] = bytes(range(256)) * (32 << 12)
block.madvise(mmap.MADV_NORMAL)
start = ctypes.addressof(ctypes.c_char.from_buffer(block))
def huge():
    found = parse_mappings(open('/proc/self/smaps').readlines())
    return sum(m.huge_bytes for m in found if m.start <= start < m.stop)
before = huge()
thread = use_huge_pages()
thread.join()
assert block[:] == bytes(range(256)) * (32 << 12), "the bytes changed"
print(before, huge())
"""
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    before, after = (int(value) for value in done.stdout.split())
    assert before == 0
    assert after >= 28 * MB
    assert mmap.PAGESIZE < 2 * MB
