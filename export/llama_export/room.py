"""Whether an export fits on this machine: free disk where it writes, and memory.

A disk that is too small is refused before any work, since the export could not end well. Memory is
an estimate and the system may swap: a shortage is only said. It estimates nothing itself.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llama_export.errors import NOTICE, OutputError
from llama_export.estimate import ExportEstimate, memory_bytes

_log = logging.getLogger(__name__)


class Host(Protocol):
    """The readings that are needed of a machine; `machine.Machine` gives them."""

    def memory_bytes(self) -> int:
        """Return all the memory there is."""

    def available_bytes(self) -> int:
        """Return the memory that could be had now."""

    def free_disk_bytes(self, place: Path) -> int:
        """Return the free space where a path is or would be."""


@dataclass(frozen=True)
class Room:
    """What there is for an export.

    Args:
        disk_fault: why the disk is too small; empty when it is not.
        memory_fault: why the memory may not do; empty when it does.
        memory_hint: what to do about that.
        memory_is_hopeless: the whole machine has less than the export needs.
    """

    output: Path
    free_disk_bytes: int
    memory_bytes: int
    available_bytes: int
    disk_fault: str
    memory_fault: str
    memory_hint: str
    memory_is_hopeless: bool

    def require(self) -> None:
        """Refuse a disk that is too small; say that the memory may not do.

        Raises:
            OutputError: the disk is too small.
        """
        if self.disk_fault:
            hint = "free some space, or choose a folder on another disk with --output"
            raise OutputError(self.disk_fault, hint)
        if self.memory_fault:
            text = "%s; it may become slow, or the system may end it: %s"
            _log.log(NOTICE, text, self.memory_fault, self.memory_hint)

    def to_json(self) -> dict[str, object]:
        """Return plain data."""
        return {
            "output": str(self.output),
            "free_disk_bytes": self.free_disk_bytes,
            "memory_bytes": self.memory_bytes,
            "available_bytes": self.available_bytes,
            "problems": [fault for fault in (self.disk_fault, self.memory_fault) if fault],
            "fits": not self.disk_fault and not self.memory_is_hopeless,
        }


def look_for_room(estimate: ExportEstimate, output: Path, host: Host) -> Room:
    """Compare an export with the machine."""
    free, total, available = (
        host.free_disk_bytes(output),
        host.memory_bytes(),
        host.available_bytes(),
    )
    disk_fault, memory_fault = "", ""
    if estimate.disk_bytes > free:
        disk_fault = (
            f"the export of {estimate.model} needs {_gb(estimate.disk_bytes)} at {output}, "
            f"and {_gb(free)} are free"
        )
    if estimate.memory_bytes > available:
        memory_fault = (
            f"the export of {estimate.model} needs about {_gb(estimate.memory_bytes)} of memory, "
            f"and of {_gb(total)} {_gb(available)} are available"
        )
    return Room(
        output=output,
        free_disk_bytes=free,
        memory_bytes=total,
        available_bytes=available,
        disk_fault=disk_fault,
        memory_fault=memory_fault,
        memory_hint=_memory_hint(estimate),
        memory_is_hopeless=estimate.memory_bytes > total,
    )


def _memory_hint(estimate: ExportEstimate) -> str:
    if not estimate.verify:
        return "close other programs"
    without_bytes = memory_bytes(estimate.num_parameters, verify=False)
    return f"close other programs; without the check, --no-verify, {_gb(without_bytes)} will do"


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e7 else f"{size_bytes / 1e6:.1f} MB"
