"""Run a command and measure its time and its peak memory, anonymous and whole.

Linux only: it samples /proc/PID/status. Anonymous memory is what the machine must have; the pages
of mapped files (`file`) are the system's cache, and are given up when memory is needed elsewhere.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

INTERVAL_S = 0.01


@dataclass(frozen=True)
class Measurement:
    """Time and memory of a command that succeeded."""

    elapsed_s: float
    peak_anonymous_bytes: int
    peak_resident_bytes: int


def measure(command: Sequence[str], log: Path) -> Measurement:
    """Run a command to its end.

    Raises:
        RuntimeError: the command failed; the message has the end of the log.
    """
    begun = time.perf_counter()
    anonymous, resident = 0, 0
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        while process.poll() is None:
            now = memory_of(process.pid)
            anonymous, resident = max(anonymous, now[0]), max(resident, now[1])
            time.sleep(INTERVAL_S)
    elapsed_s = time.perf_counter() - begun
    if process.returncode != 0:
        message = f"{command} failed: {log.read_text(errors='replace')[-2000:]}"
        raise RuntimeError(message)
    return Measurement(elapsed_s, anonymous, resident)


def memory_of(pid: int) -> tuple[int, int]:
    """Return a process's anonymous and whole resident memory, or zeros if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    sizes = {line.split(":")[0]: line.split()[1] for line in lines if line.endswith("kB")}
    return int(sizes.get("RssAnon", 0)) * 1024, int(sizes.get("VmRSS", 0)) * 1024
