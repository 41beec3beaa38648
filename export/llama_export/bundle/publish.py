"""Put a finished folder in its place in one step, or leave everything as it was.

The work happens in a hidden folder beside the target; a rename makes it the target. A lock file
beside it keeps two exports apart, and proves that the owner of a leftover is dead: the system
drops a lock with its process. The names beside `target` are

    .target.lock           held while a publish runs
    .target.partial-PID    being written, or on its way out
    .target.old-PID        the old target, between the two renames that replace it

A process killed between those renames leaves no target; the next publish puts the old one back
before anything else. The module does not know what is in the folder.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llama_export.bundle.manifest import MANIFEST_NAME
from llama_export.errors import OutputError
from llama_quantize.checkpoint.files import RECORD_FILE

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

# A folder that holds one of these was written by us, so `force` may replace it.
OUR_FILES = (MANIFEST_NAME, RECORD_FILE)

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
_HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)
_HINTS = {
    errno.ENOSPC: "free some space, or choose another folder with --output",
    errno.EDQUOT: "your quota is used up: free some space, or choose another folder",
    errno.EFBIG: "the file system or `ulimit -f` limits a file's size: choose another folder",
    errno.EROFS: "it is mounted read-only: choose another folder with --output",
    errno.EACCES: "choose a folder that you may write to with --output",
    errno.EPERM: "choose a folder that you may write to with --output",
    errno.ENOTDIR: "a part of that path is a file: choose another folder with --output",
    errno.EEXIST: "a part of that path is a file: choose another folder with --output",
    errno.ENAMETOOLONG: "choose a shorter name with --output",
}


@contextmanager
def publish(target: Path, *, force: bool) -> Iterator[Path]:
    """Open a fresh folder to write to, and make it `target` when the block ends well.

    When the block ends with an exception, Ctrl-C included, the folder is removed and an old
    target stays untouched. An `OSError` of the block that means a full or forbidden output
    becomes an `OutputError`; any other exception passes through.

    Args:
        target: folder to make; missing parents are made too.
        force: whether to replace an existing folder that is empty or ours (`OUR_FILES`).

    Yields:
        An empty folder beside `target`, on the same file system.

    Raises:
        OutputError: the target exists (which is found before any work) or cannot be written,
            another export is writing it, or the disk is full.
    """
    target = Path.cwd() / target  # the block may change directory
    _require_name(target)
    if not force:
        refuse_existing(target, force=force)
    # Whether an existing folder is ours can only be told under the lock: a rival may replace it.
    with _workspace(target) as partial:
        refuse_existing(target, force=force)  # one may just have been put back
        yield partial
        with _as_output_error(target):
            _sync_tree(partial)
            refuse_existing(target, force=force)
            _replace(target, partial)
        with suppress(OSError):  # it is published: no error may say that it is not
            _sync(target.parent)


@contextmanager
def scratch(target: Path) -> Iterator[Path]:
    """Open a fresh folder to write to, and remove it when the block ends; `target` stays untouched.

    Args:
        target: folder whose place, lock and leftovers are used, as by `publish`.

    Yields:
        An empty folder beside `target`.

    Raises:
        OutputError: another export is writing there, the folder cannot be written, or the disk
            is full.
    """
    with _workspace(Path.cwd() / target) as partial:
        yield partial


@contextmanager
def _workspace(target: Path) -> Iterator[Path]:
    """Make the hidden folder beside the target, under its lock, and remove what is left of it."""
    with _made_parents(target), _lock(target) as proven:
        partial = _beside(target, f"partial-{os.getpid()}")
        try:
            with _as_output_error(target):
                _clear_leftovers(target, owners_are_dead=proven)
                partial.mkdir()
            try:
                yield partial
            except OSError as error:
                if _is_output_fault(error, partial):
                    raise _output_error(error, target) from error
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def refuse_existing(target: Path, *, force: bool) -> None:
    """Refuse a target that `publish` would refuse, before any work.

    Args:
        target: folder to be made.
        force: whether a folder that is empty or ours may be replaced.

    Raises:
        OutputError: the target exists and may not be replaced.
    """
    _require_name(target)
    # A rival may rename the target at any moment, so each question is asked once, of one folder.
    with _as_output_error(target), suppress(FileNotFoundError):
        mode = target.lstat().st_mode
        if not stat.S_ISDIR(mode):
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "a file"
            message = f"{target} is {kind}; expected a folder or nothing"
            raise OutputError(message, "remove it, or choose another folder with --output")
        if not force:
            message = f"{target} already exists"
            hint = "pass --force to replace it, or choose another folder with --output"
            raise OutputError(message, hint)
        names = {path.name for path in target.iterdir()}
        if names and names.isdisjoint(OUR_FILES):
            message = f"{target} holds no {' or '.join(OUR_FILES)}: llama-export did not write it"
            hint = "--force replaces our own output only: remove it yourself, or choose another"
            raise OutputError(message, hint)


def _require_name(target: Path) -> None:
    if target.name in ("", ".."):
        message = f"{target} cannot be the output: it has no name of its own"
        raise OutputError(message, "name a folder that does not exist yet")


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(f".{target.name}.{suffix}")


def _replace(target: Path, partial: Path) -> None:
    if not target.exists():
        partial.rename(target)
        return
    old = _beside(target, f"old-{os.getpid()}")
    try:
        target.rename(old)
        partial.rename(target)
    finally:
        # Reached after a failed rename and after a Ctrl-C between any two of these lines.
        if old.exists() and partial.exists():
            old.rename(target)
        elif old.exists():
            # The new one is in place: what is left here is for the next publish to remove.
            with suppress(OSError):
                old.rename(partial)


def _clear_leftovers(target: Path, *, owners_are_dead: bool) -> None:
    """Remove what dead processes left half written, and put back what they had moved aside."""
    name = re.compile(re.escape(f".{target.name}.") + r"(partial|old)-([0-9]+)")
    found = [match for path in target.parent.iterdir() if (match := name.fullmatch(path.name))]
    # Under the lock, a living process with that id is another one: ids are used again.
    if not owners_are_dead and any(_may_be_alive(int(match[2])) for match in found):
        raise _busy(target)
    for match in sorted(found, key=lambda match: match[1], reverse=True):
        path = target.with_name(match[0])
        if match[1] == "old" and not target.exists():
            path.rename(target)
            continue
        if match[1] == "old":
            # Half removed it must not be taken for one to put back, so it loses the name first.
            path = path.rename(_beside(target, f"partial-{match[2]}"))
        shutil.rmtree(path, ignore_errors=True)


def _may_be_alive(pid: int) -> bool:
    if pid == os.getpid():
        return False
    if sys.platform == "win32":
        return True  # os.kill(pid, 0) is no question there: it interrupts the process
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def _lock(target: Path) -> Iterator[bool]:
    """Hold the target's lock; yield False where the file system has no locks."""
    path = _beside(target, "lock")
    with _as_output_error(target):
        handle, proven = _take_lock(path, target)
    try:
        yield proven
    finally:
        if sys.platform == "win32":
            os.close(handle)  # an open file cannot be removed there
        with suppress(OSError):
            path.unlink()
        if sys.platform != "win32":
            os.close(handle)


def _take_lock(path: Path, target: Path) -> tuple[int, bool]:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        taken = False
        try:
            proven = _try_lock(handle, target)
            # The last holder may have removed the file between our open and our lock.
            taken = path.exists() and os.path.samestat(os.fstat(handle), path.stat())
            if taken:
                return handle, proven
        finally:
            if not taken:
                os.close(handle)


def _try_lock(handle: int, target: Path) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        if error.errno in _HELD:
            raise _busy(target) from None
        raise
    return True


def _busy(target: Path) -> OutputError:
    message = f"another export is writing {target}"
    return OutputError(message, "wait until it ends, or choose another folder with --output")


@contextmanager
def _made_parents(target: Path) -> Iterator[None]:
    """Make the missing folders above the target; those that stay empty go away again."""
    made: list[Path] = []
    try:
        with _as_output_error(target):
            for parent in reversed([p for p in target.parents if not p.exists()]):
                parent.mkdir(exist_ok=True)
                made.insert(0, parent)
        yield
    finally:
        for parent in made:
            with suppress(OSError):
                parent.rmdir()


@contextmanager
def _as_output_error(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _output_error(error, target) from error


def _output_error(error: OSError, target: Path) -> OutputError:
    hint = _HINTS.get(error.errno or 0, "choose another folder with --output")
    message = f"{target} cannot be written: {error.strerror or error}"
    if isinstance(error.filename, str) and error.filename != str(target):
        message += f" ({error.filename})"
    return OutputError(message, hint)


def _is_output_fault(error: OSError, partial: Path) -> bool:
    """Return whether an error is the output's fault; the input's errors are not ours to name."""
    if error.errno in _FULL:
        return True
    inside = isinstance(error.filename, str) and partial in Path(error.filename).parents
    return error.errno in _FORBIDDEN and inside


def _sync_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            if not (path := Path(root) / name).is_symlink():
                _sync(path)
        _sync(Path(root))


def _sync(path: Path) -> None:
    """Wait until the system has the file, or the folder's list of names, on the disk."""
    if sys.platform == "win32" and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot sync a folder; they order renames themselves.
        if not (path.is_dir() and error.errno in _NO_LOCKS):
            raise
    finally:
        os.close(handle)
