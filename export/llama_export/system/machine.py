"""Read what this machine has and how busy it is: cores, memory, free disk, processor time.

The operating system answers, through psutil; nothing is judged here. This module knows nothing of
models, bundles or benchmarks.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_CPU_INFO = Path("/proc/cpuinfo")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class CpuTimes:
    """Processor seconds since an arbitrary start.

    Args:
        at_s: time of the reading.
        busy_s: seconds that all of the machine's cores were busy, added up.
        own_s: seconds that this process used, of all cores.
    """

    at_s: float
    busy_s: float
    own_s: float


def others_busy_cores(before: CpuTimes, after: CpuTimes) -> float:
    """Return the number of cores that other processes kept busy between two readings."""
    elapsed_s = after.at_s - before.at_s
    if elapsed_s <= 0:
        return 0.0
    busy_s = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
    return max(0.0, busy_s / elapsed_s)


class Machine:
    """Readings of this machine at the moment of each call."""

    def clock(self) -> float:
        """Return seconds that are meaningful only as differences."""
        return time.perf_counter()

    def cpu_times(self) -> CpuTimes:
        """Return the processor time spent so far; time stolen by a hypervisor counts as busy."""
        times = psutil.cpu_times()
        # On Linux guest time is part of user time already.
        idle = ("idle", "iowait", "guest", "guest_nice")
        busy_s = sum(value for name, value in times._asdict().items() if name not in idle)
        own = psutil.Process().cpu_times()
        return CpuTimes(time.perf_counter(), busy_s, own.user + own.system)

    def wait(self, seconds: float) -> None:
        """Wait for some seconds."""
        time.sleep(seconds)

    def load_average(self) -> float:
        """Return the mean number of processes that ran or wanted to run in the last minute."""
        return float(psutil.getloadavg()[0])

    def resident_bytes(self) -> int:
        """Return the bytes that this process holds in memory, mapped files included."""
        return int(psutil.Process().memory_info().rss)

    def peak_resident_bytes(self) -> int:
        """Return the most bytes that this process has held in memory."""
        if sys.platform == "win32":
            return int(psutil.Process().memory_info().peak_wset)
        import resource

        # macOS counts in bytes, Linux in kilobytes.
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def memory_bytes(self) -> int:
        """Return the machine's memory, or the container's share of it."""
        total = int(psutil.virtual_memory().total)
        return min(total, _cgroup_limit_bytes() or total)

    def available_bytes(self) -> int:
        """Return the memory that is available now without swapping."""
        return min(int(psutil.virtual_memory().available), self.memory_bytes())

    def cores(self) -> int:
        """Return the number of logical processors: physical cores times threads of each."""
        return os.cpu_count() or 1

    def processor(self) -> str:
        """Return the processor's name, or the architecture where the system does not say."""
        return _processor_name() or platform.processor() or platform.machine()

    def physical_cores(self) -> int:
        """Return the number of physical cores, or of logical ones if it is unknown."""
        return psutil.cpu_count(logical=False) or self.cores()

    def free_disk_bytes(self, place: Path) -> int:
        """Return the free space of the disk where a path is or would be."""
        place = place.expanduser().absolute()
        while not place.exists():
            place = place.parent
        return shutil.disk_usage(place).free


def _processor_name() -> str:
    """Ask Linux and macOS, whose `platform.processor` names the architecture alone."""
    try:
        if sys.platform == "darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(
                command, capture_output=True, text=True, check=True
            ).stdout.strip()
        text = _CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except (OSError, subprocess.CalledProcessError):
        return ""
    lines = (line.partition(":") for line in text.splitlines())
    return next((name.strip() for key, _, name in lines if key.strip() == "model name"), "")


def _cgroup_limit_bytes() -> int | None:
    try:
        text = _CGROUP_LIMIT.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return int(text) if text.isdigit() else None
