"""Remember which large files had the right hash, so that a bundle is not read whole at every load.

One small JSON file a bundle's folder, below the user's cache folder. What is remembered counts only
while everything that the system says of the file is the same, the time of its last change of any
kind included, which no program can set. A memory that is missing, damaged, somebody else's or that
cannot be written costs time and nothing else. It knows stamps and hashes; it does not know what a
bundle is.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from llama_export.bundle.json_object import LARGEST_SIZE, JsonObject
from llama_quantize.strict_json import JsonFault, read_object

# The cache folder's own variable, before the system's rules.
VARIABLE = "LLAMA_EXPORT_CACHE"

_FORMAT_VERSION = 1
_NAME = "llama-export"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_BYTES = 2**20
_MOST_FOLDERS = 200


@dataclass(frozen=True)
class Stamp:
    """What the system says of a file without reading it; times are nanoseconds since 1970."""

    size_bytes: int
    modified_ns: int
    changed_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Look at a file.

        Raises:
            OSError: it cannot be looked at.
        """
        found = path.lstat()
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)


@dataclass(frozen=True)
class Hashed:
    """A file that once had the hash it should have.

    Args:
        stamp: what the system said of it then.
        sha256: hash of the whole file.
        head_sha256: hash of its beginning.
    """

    stamp: Stamp
    sha256: str
    head_sha256: str


def recall(folder: Path) -> Mapping[str, Hashed]:
    """Return what is remembered of a folder's files, by their names; nothing in case of doubt."""
    place = _place(folder)
    if place is None:
        return {}
    try:
        found = place.lstat()
        if not stat.S_ISREG(found.st_mode) or not _is_ours(found):
            return {}
        raw = read_object(place, most_bytes=_MOST_BYTES)
    except (OSError, JsonFault):
        return {}
    faults: list[str] = []
    top = JsonObject(raw, "", faults)
    if top.integer("format_version") != _FORMAT_VERSION or raw.get("folder") != str(folder):
        return {}
    files = top.child("files")
    hashed = {name: _hashed(files.child(name)) for name in files.raw}
    return {} if faults else hashed


def remember(folder: Path, files: Mapping[str, Hashed]) -> None:
    """Keep what is known of a folder's files in place of what was; do nothing where that fails."""
    place = _place(folder)
    if place is None:
        return
    record = {
        "format_version": _FORMAT_VERSION,
        "folder": str(folder),
        "files": {
            name: {
                **asdict(each.stamp),
                "sha256": each.sha256,
                "head_sha256": each.head_sha256,
            }
            for name, each in files.items()
        },
    }
    with suppress(OSError):
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(place, json.dumps(record, sort_keys=True).encode())
        _forget_oldest(place.parent)


def cache_folder() -> Path | None:
    """Return the folder for what can be computed again; None where the system has none."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    try:
        home = Path.home()
    except RuntimeError:
        return None
    system = platform.system()
    if system == "Darwin":
        return home / "Library" / "Caches" / _NAME
    if system == "Windows":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else home / "AppData" / "Local") / _NAME / "Cache"
    # The standard has a path that is not absolute ignored.
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (shared if shared.is_absolute() else home / ".cache") / _NAME


def _place(folder: Path) -> Path | None:
    cache = cache_folder()
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()
    return None if cache is None else cache / "hashes" / f"{name[:40]}.json"


def _is_ours(found: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or found.st_uid == os.geteuid()


def _hashed(raw: JsonObject) -> Hashed:
    whole, head = (raw.text(key, _SHA256, "64 hex digits") for key in ("sha256", "head_sha256"))
    # Inodes and devices of some systems need 64 bits, and times before 1970 are below 0.
    numbers = {
        key: raw.integer(key, -LARGEST_SIZE, 2 * LARGEST_SIZE + 1)
        for key in Stamp.__dataclass_fields__
    }
    return Hashed(Stamp(**numbers), whole, head)


def _replace(place: Path, content: bytes) -> None:
    """Write a file beside its place, and put it there at once."""
    handle, partial = tempfile.mkstemp(dir=place.parent, prefix=".partial-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(partial).replace(place)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _forget_oldest(folder: Path) -> None:
    """Keep the memory of the folders that were read last."""
    known = sorted(folder.iterdir(), key=lambda path: path.lstat().st_mtime_ns, reverse=True)
    for path in known[_MOST_FOLDERS:]:
        path.unlink(missing_ok=True)
