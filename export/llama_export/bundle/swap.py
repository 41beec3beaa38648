"""Exchange folders in one step where the system can, and bring files to the disk.

A `Change` says what shall stand at a place. Folders are told apart by their inode numbers, so a
change can be carried out again, or undone, by another process that finds it half done. So are
files, but another file in the place of one is a person's, who may save it at any time, and stays.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from llama_export.errors import OutputError

_NO_SYNC = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_RENAME_SWAP = 2


@dataclass(frozen=True)
class Change:
    """What happens to one place of an output.

    Args:
        name: name of the place in the output folder, and of the other folder in the work folder.
        new: inode of the folder that shall stand there; None: nothing shall.
        old: inode of the folder that stood there before; None: nothing did.
        is_file: whether it is a file at the root, and no folder.
    """

    name: str
    new: int | None
    old: int | None
    is_file: bool = False

    def reversed(self) -> Change:
        """Return the change that undoes this one."""
        return Change(self.name, new=self.old, old=self.new, is_file=self.is_file)


def inode(folder: Path) -> int | None:
    """Return the inode of what is at a path, a link itself; None when nothing is."""
    try:
        return folder.lstat().st_ino
    except FileNotFoundError:
        return None


def carry_out(change: Change, output: Path, work: Path) -> bool:
    """Bring a change to its end from any state in which it may have stopped.

    What stood at the place is in the work folder then, under the same name.

    Args:
        change: the change.
        output: folder with the place.
        work: hidden folder in it, which holds the other folder.

    Returns:
        Whether it was; False: another file took the place of a file, and stays.

    Raises:
        OutputError: the folder that shall stand there is gone, or another one took the place.
        OSError: the system refuses a rename.
    """
    place, inside, aside = _paths(change, output, work)
    standing = inode(place)
    if standing not in (None, change.old, change.new):
        if not change.is_file:
            raise _lost(place, work)
        leave(change, output, work)
        return False
    if standing != change.new or standing is None:
        _bring(change, place, inside, aside)
    if change.old is not None and inode(aside) == change.old:
        aside.rename(inside)
    return True


def leave(change: Change, output: Path, work: Path) -> None:
    """Let a file stay where a change would put another, and clear away what was moved aside.

    Raises:
        OSError: the system refuses a rename.
    """
    _, inside, aside = _paths(change, output, work)
    found = inode(aside)
    if found is not None and found in (change.old, change.new):
        aside.replace(inside)  # nobody needs the new one


def exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one step; return False, and do nothing, where that is impossible."""
    sys.audit("os.rename", os.fspath(first), os.fspath(second), -1, -1)
    names = os.fsencode(first), os.fsencode(second)
    try:
        system = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            failed = system.renamex_np(*names, _RENAME_SWAP)
        else:
            failed = system.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
    except (AttributeError, OSError, TypeError):
        return False  # an older system, or Windows
    return bool(failed == 0)


def sync_tree(folder: Path) -> None:
    """Wait until the system has a folder and its files on the disk.

    Files with a second name are left out: they were there before.
    """
    for root, _, names in os.walk(folder, topdown=False):
        for path in (Path(root) / name for name in names):
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
                sync(path)
        sync(Path(root))


def sync(path: Path) -> None:
    """Wait until the system has the file, or the folder's list of names, on the disk."""
    if sys.platform == "win32" and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot sync a folder; they order renames themselves.
        if not (path.is_dir() and error.errno in _NO_SYNC):
            raise
    finally:
        os.close(handle)


def _paths(change: Change, output: Path, work: Path) -> tuple[Path, Path, Path]:
    """Return a change's place, its name in the work folder, and where the old one is set aside."""
    aside = output / f".{change.name}.old-{work.name.rpartition('-')[2]}"
    return output / change.name, work / change.name, aside


def _bring(change: Change, place: Path, inside: Path, aside: Path) -> None:
    if change.new is None:
        if inode(place) is not None:
            place.rename(inside)
    elif inode(inside) == change.new:
        if inode(place) is None:
            inside.rename(place)
        elif not exchange(inside, place):
            place.rename(aside)
            inside.rename(place)
    elif inode(aside) == change.new:
        if inode(place) is not None:
            place.rename(inside)
        aside.rename(place)
    else:
        raise _lost(place, inside.parent)


def _lost(place: Path, work: Path) -> OutputError:
    message = (
        f"{place}: an export was interrupted here, and its folders were changed since, so it can "
        f"be neither finished nor undone"
    )
    hint = f"take from {work} what you want to keep, remove it, and export again with --force"
    return OutputError(message, hint)
