"""Compare a bundle's files with their hashes before a runtime is given any of them.

A runtime maps a file and trusts it: one wrong bit is other text, or a dead process. Small files are
read each time. A large one is read whole once, and again when the system says that it changed; its
beginning, where a `.pte` has its program, is read each time. It knows files and hashes; it does not
know what is in them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llama_export.bundle.bundle import DAMAGED_HINT, Bundle, content_fault, file_fault
from llama_export.bundle.hash_cache import Hashed, Stamp, recall, remember
from llama_export.errors import BundleError

# The program of an 8B model's `.pte` is a tenth of that, and reading it takes 10 ms.
HEAD_BYTES = 16 * 2**20
SMALL_BYTES = 2**20
# From here on reading takes long enough to be shown: a tenth of a second and more.
SHOWN_BYTES = 200_000_000
# Within it a second change may leave a file's times as they were.
_SETTLED_NS = 2_000_000_000
_STEP = "Comparing the files with their hashes"


class Steps(Protocol):
    """Where the steps of a command are shown."""

    def step(self, label: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """Show a step; the callable takes how much of it is done, and of how much."""


@dataclass(frozen=True)
class Unchanged:
    """Files whose bytes were what the manifest says, and what the system said of them then."""

    bundle: Bundle
    stamps: Mapping[str, Stamp]

    def require_still(self) -> None:
        """Refuse files that changed since, while a runtime was loading them.

        Raises:
            BundleError: files changed (all are named).
        """
        faults = [
            f"{name} changed while it was loaded"
            for name, stamp in self.stamps.items()
            if _stamp_or_none(self.bundle.path(name)) != stamp
        ]
        _refuse(self.bundle, faults)


def require_unchanged(bundle: Bundle, steps: Steps | None = None) -> Unchanged:
    """Compare every listed file with its hash, as far as that was not done before.

    Args:
        bundle: opened bundle.
        steps: where the reading of large files is shown; None: nowhere.

    Raises:
        BundleError: files are changed, truncated, missing or unreadable (all are named).
    """
    folder = bundle.folder.absolute()
    known = recall(folder)
    begun_ns = time.time_ns()
    stamps: dict[str, Stamp] = {}
    faults: list[str] = []
    unread: list[str] = []
    for name, entry in sorted(bundle.manifest.files.items()):
        # Bundle.open looked too, and something else may have happened since.
        if fault := file_fault(bundle.folder, name, entry):
            faults.append(f"{name} {fault}")
            continue
        stamp = _stamp_or_none(bundle.path(name))
        if stamp is None:
            faults.append(f"{name} is missing")
            continue
        stamps[name] = stamp
        if not _is_known(bundle.path(name), known.get(name), stamp, entry.sha256):
            unread.append(name)
    found = _read(bundle, unread, steps)
    faults += [f"{name} {fault}" for name, fault in found.items() if fault]
    seen = Unchanged(bundle, stamps)
    _refuse(bundle, faults)
    seen.require_still()
    fresh = {
        name: Hashed(stamps[name], bundle.manifest.files[name].sha256, _head(bundle.path(name)))
        for name in unread
        if stamps[name].size_bytes > SMALL_BYTES and _is_settled(stamps[name], begun_ns)
    }
    if fresh:
        kept = {name: each for name, each in known.items() if name in stamps}
        remember(folder, {**kept, **fresh})
    return seen


def _is_known(path: Path, before: Hashed | None, stamp: Stamp, sha256: str) -> bool:
    """Return whether a file need not be read whole: it was, and all that is cheap is the same."""
    return (
        before is not None
        and stamp.size_bytes > SMALL_BYTES
        and before.stamp == stamp
        and before.sha256 == sha256
        and _head(path) == before.head_sha256
    )


def _read(bundle: Bundle, names: list[str], steps: Steps | None) -> dict[str, str]:
    """Read files whole; return what is wrong with each, "" where nothing is."""
    files = bundle.manifest.files
    total = sum(files[name].size_bytes for name in names)
    shown = steps.step(_STEP) if steps is not None and total >= SHOWN_BYTES else nullcontext(_hide)
    done = 0
    with shown as advance:

        def count(size_bytes: int) -> None:
            nonlocal done
            done += size_bytes
            advance(done, total)

        return {name: content_fault(bundle.path(name), files[name], count) for name in names}


def _hide(done: int, total: int) -> None:
    """Show nothing."""


def _head(path: Path) -> str:
    """Hash a file's beginning; "" where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.sha256(file.read(HEAD_BYTES)).hexdigest()
    except OSError:
        return ""


def _is_settled(stamp: Stamp, begun_ns: int) -> bool:
    """Return whether a change since would show, as clocks of file systems tick coarsely."""
    return max(stamp.modified_ns, stamp.changed_ns) < begun_ns - _SETTLED_NS


def _stamp_or_none(path: Path) -> Stamp | None:
    try:
        return Stamp.of(path)
    except OSError:
        return None


def _refuse(bundle: Bundle, faults: list[str]) -> None:
    if faults:
        message = f"{bundle.folder}: " + "; ".join(faults)
        raise BundleError(message, DAMAGED_HINT)
