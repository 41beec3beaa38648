"""Whether this machine has what an export takes: a free name, free disks, and memory.

A name that is taken is refused as the export would refuse it. A disk that is too small, the
output's or the hub cache's, is refused before any work, since the export could not end well.
Memory is an estimate and the system may swap: a shortage is only said. It estimates nothing itself.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llama_export.bundle.publish import Publication
from llama_export.errors import NOTICE, OutputError
from llama_export.exporting.estimate import ExportEstimate, memory_bytes
from llama_export.sources.catalogue import Download
from llama_export.system.byte_sizes import format_bytes

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
class Resources:
    """What there is for an export.

    Args:
        output: folder that the export writes to.
        taken: refusal of an output that exists; None when nothing is in the way.
        download: files that are still to be fetched; None for a local folder.
        free_disk_bytes: free space on the output's disk.
        free_download_bytes: free space at the hub's cache; None for a local folder.
        memory_bytes: memory of the machine.
        available_bytes: memory that could be had now.
        disk_fault: reason why a disk is too small; empty when the disks are large enough.
        disk_hint: what to do about that.
        memory_fault: reason why the memory may not be enough; empty when it is.
        memory_hint: what to do about that.
        memory_is_hopeless: whether the whole machine has less than the export needs.
    """

    output: Path
    taken: OutputError | None
    download: Download | None
    free_disk_bytes: int
    free_download_bytes: int | None
    memory_bytes: int
    available_bytes: int
    disk_fault: str
    disk_hint: str
    memory_fault: str
    memory_hint: str
    memory_is_hopeless: bool

    def require(self) -> None:
        """Refuse a name that is taken and a disk that is too small; log a shortage of memory.

        Raises:
            OutputError: the output exists, or a disk is too small.
        """
        if self.taken is not None:
            raise self.taken
        if self.disk_fault:
            raise OutputError(self.disk_fault, self.disk_hint)
        if self.memory_fault:
            text = "%s; it may become slow, or the system may end it: %s"
            _log.log(NOTICE, text, self.memory_fault, self.memory_hint)

    def to_json(self) -> dict[str, object]:
        """Return plain data."""
        taken = "" if self.taken is None else self.taken.message
        problems = [fault for fault in (taken, self.disk_fault, self.memory_fault) if fault]
        return {
            "output": str(self.output),
            "download_bytes": 0 if self.download is None else self.download.size_bytes,
            "download_folder": None if self.download is None else str(self.download.folder),
            "free_download_bytes": self.free_download_bytes,
            "free_disk_bytes": self.free_disk_bytes,
            "memory_bytes": self.memory_bytes,
            "available_bytes": self.available_bytes,
            "problems": problems,
            "fits": not taken and not self.disk_fault and not self.memory_is_hopeless,
        }


def refusal_of(publication: Publication) -> OutputError | None:
    """Return why the folders cannot be published, or None."""
    try:
        # What an interrupted export left is finished first, and judged then.
        if not publication.awaits_finish():
            publication.refuse()
    except OutputError as refusal:
        return refusal
    return None


def look_for_resources(
    estimate: ExportEstimate,
    output: Path,
    host: Host,
    *,
    download: Download | None = None,
    taken: OutputError | None = None,
) -> Resources:
    """Compare an export with the machine.

    Args:
        estimate: sizes, memory and time of the export.
        output: folder that it writes to.
        host: readings of the machine.
        download: files to be fetched first; they may share the output's disk.
        taken: refusal of what is at the output already.
    """
    total, available = host.memory_bytes(), host.available_bytes()
    free = host.free_disk_bytes(output)
    cache_free = None if download is None else host.free_disk_bytes(download.folder)
    disk_fault, disk_hint = _disk_fault(estimate, output, free, download, cache_free or 0)
    memory_fault = ""
    if estimate.memory_bytes > available:
        memory_fault = (
            f"the export of {estimate.model} needs about {format_bytes(estimate.memory_bytes)} of "
            f"memory, and of {format_bytes(total)} {format_bytes(available)} are available"
        )
    return Resources(
        output=output,
        taken=taken,
        download=download,
        free_disk_bytes=free,
        free_download_bytes=cache_free,
        memory_bytes=total,
        available_bytes=available,
        disk_fault=disk_fault,
        disk_hint=disk_hint,
        memory_fault=memory_fault,
        memory_hint=_memory_hint(estimate),
        memory_is_hopeless=estimate.memory_bytes > total,
    )


def _disk_fault(
    estimate: ExportEstimate, output: Path, free: int, download: Download | None, cache_free: int
) -> tuple[str, str]:
    """Return which disk is too small, and what to do; empty when both are large enough."""
    needed, fetched = estimate.disk_bytes, 0 if download is None else download.size_bytes
    hint = "free some space, or choose a folder on another disk with --output"
    move_cache = "set HF_HOME to a folder on another disk"
    needs = f"the export of {estimate.model} needs {format_bytes(needed)} at {output}"
    if needed > free:
        return f"{needs}, and {format_bytes(free)} are free", hint + _without_scratch(estimate)
    if download is None or not fetched:
        return "", ""
    if _disk_of(output) == _disk_of(download.folder):
        if needed + fetched > free:
            both = f"and its download {format_bytes(fetched)} at {download.folder} on the same disk"
            fault = f"{needs}, {both}; {format_bytes(free)} are free"
            return fault, f"{hint}; or {move_cache}{_without_scratch(estimate)}"
    elif fetched > cache_free:
        needs = (
            f"the download of {estimate.model} needs {format_bytes(fetched)} at {download.folder}"
        )
        return (
            f"{needs}, and {format_bytes(cache_free)} are free",
            f"free some space, or {move_cache}",
        )
    return "", ""


def _without_scratch(estimate: ExportEstimate) -> str:
    """Return how to do without the disk that a calibration works on, if there is one."""
    if estimate.calibration is None:
        return ""
    size_bytes = estimate.disk_bytes - estimate.calibration.scratch_bytes
    return f"; or pass --quality fast, which needs {format_bytes(size_bytes)}"


def _disk_of(place: Path) -> int:
    """Return the file system's number where a path is or would be."""
    place = place.expanduser().absolute()
    while not place.exists():
        place = place.parent
    return place.stat().st_dev


def _memory_hint(estimate: ExportEstimate) -> str:
    targets = [target.target for target in estimate.targets]
    calibration = estimate.calibration
    hint = "close other programs"
    if calibration is not None and calibration.memory_bytes == estimate.memory_bytes:
        least = memory_bytes(targets, estimate.num_parameters, verify=estimate.verify)
        return f"{hint}; with --quality fast, {format_bytes(least)} will do"
    if not estimate.verify:
        return hint
    without = memory_bytes(targets, estimate.num_parameters, verify=False)
    least = max(without, 0 if calibration is None else calibration.memory_bytes)
    return f"{hint}; without the check, --no-verify, {format_bytes(least)} will do"
