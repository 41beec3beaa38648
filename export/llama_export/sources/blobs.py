"""The hub's cache on this machine: which files of a commit it holds, and whether they are sound.

Each file is kept under its checksum (`blobs/`), and a commit's folder (`snapshots/`) links to it,
as huggingface_hub has it. So a damaged file betrays itself by its name. Small files are hashed
each time; a large one once, and what it was then (size, time of change, inode, device) is noted in
the repository's folder. A file that is no link, as on a system without links, has no such name and
cannot be checked. The module fetches nothing.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llama_export.errors import HubError
from llama_export.sources.download import RemoteFile, digest_of
from llama_quantize.checkpoint.files import hash_into

_CHECKSUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NOTES = ".llama-export"
SNAPSHOTS = "snapshots"
"""Name of the folder of the commits' folders."""
_SMALL_BYTES = 2**24


@dataclass(frozen=True)
class Damage:
    """A file of the cache whose content is not what its name says.

    Args:
        blob: the file.
        found: checksum of its content, of the kind that its name is.
    """

    blob: Path
    found: str


@dataclass(frozen=True)
class Blobs:
    """The cache of one repository.

    Args:
        storage: its folder.
    """

    storage: Path

    def snapshot(self, commit: str) -> Path:
        """Return the folder of a commit."""
        return self.storage / SNAPSHOTS / commit

    def blob(self, checksum: str) -> Path:
        """Return the place of a file."""
        return self.storage / "blobs" / checksum

    def unproved_bytes(self, place: Path) -> int:
        """Return how many bytes `damage` would read of a file."""
        blob = self._blob_of(place)
        return 0 if blob is None or self._is_noted(blob) else blob.stat().st_size

    def damage(self, place: Path, progress: Callable[[int], None]) -> Damage | None:
        """Compare a file with its name.

        Args:
            place: file of a commit's folder, or of `blobs`.
            progress: called with the bytes read since its last call.

        Returns:
            The damage; None: it is sound, or has no name to be compared with.

        Raises:
            HubError: it cannot be read.
        """
        blob = self._blob_of(place)
        if blob is None or self._is_noted(blob):
            return None
        try:
            before = _state(blob)  # so that a change meanwhile is not noted as sound
            digest = digest_of(blob.name, blob.stat().st_size)
            hash_into(digest, blob, progress)
        except OSError as error:
            message = f"{blob} cannot be read: {error.strerror or error}"
            raise HubError(
                message, "check the disk, or delete the file to fetch it again"
            ) from None
        if digest.hexdigest() != blob.name:
            return Damage(blob, digest.hexdigest())
        self._note(blob, before)
        return None

    def note_download(self, checksum: str) -> None:
        """Note that a file is sound, which its download found a moment ago."""
        blob = self.blob(checksum)
        self._note(blob, _state(blob))

    def link(self, file: RemoteFile, commit: str) -> None:
        """Put a file that is there under its name in a commit's folder.

        Raises:
            OSError: the folder cannot be written.
        """
        place, blob = self.snapshot(commit) / file.name, self.blob(file.checksum)
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_name(f".{place.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        try:
            fresh.symlink_to(os.path.relpath(blob, place.parent))
        except OSError:  # a system, or a file system, without such links
            try:
                fresh.hardlink_to(blob)
            except OSError:
                shutil.copyfile(blob, fresh)
        fresh.replace(place)

    def _blob_of(self, place: Path) -> Path | None:
        blob = place.resolve()
        inside = blob.parent == (self.storage / "blobs").resolve()
        named = inside and _CHECKSUM.fullmatch(blob.name) is not None
        return blob if named and blob.is_file() else None

    def _note(self, blob: Path, state: str) -> None:
        """Note what a sound file was; where nothing can be written, it is read again."""
        if blob.stat().st_size > _SMALL_BYTES:
            with suppress(OSError):
                (self.storage / _NOTES).mkdir(exist_ok=True)
                (self.storage / _NOTES / blob.name).write_text(state, encoding="ascii")

    def _is_noted(self, blob: Path) -> bool:
        if blob.stat().st_size <= _SMALL_BYTES:
            return False
        try:
            return (self.storage / _NOTES / blob.name).read_text(encoding="ascii") == _state(blob)
        except (OSError, ValueError):
            return False


def _state(blob: Path) -> str:
    found = blob.stat()
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ino} {found.st_dev}\n"


def commit_of(ref: Path) -> str:
    """Return the commit that a branch's name means in the cache; "" if there is none."""
    try:
        commit = ref.read_text(encoding="ascii") if ref.is_file() else ""
    except (OSError, ValueError):
        return ""
    return commit if _COMMIT.fullmatch(commit) else ""
