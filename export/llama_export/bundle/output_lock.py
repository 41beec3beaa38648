"""The lock of an output folder: it keeps exports apart, and proves that a leftover has no owner.

The system drops a lock with its process. Where a file system has no locks, process ids decide. How
each system locks an open file is filelock's; which file it must be, and that none is left behind,
is decided here: filelock's own `FileLock` leaves its file where it is. The module does not know
what is written under the lock.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llama_export.bundle.output_faults import as_output_error
from llama_export.errors import OutputError

LOCK_NAME = ".llama-export.lock"

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
# In a shared folder a link of that name would have us make a file wherever it points to.
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@contextmanager
def output_lock(output: Path) -> Iterator[bool]:
    """Hold the lock of an existing output folder.

    Args:
        output: folder that is written to.

    Yields:
        Whether the lock proves that no other export is at work; False where the file system has no
        locks.

    Raises:
        OutputError: another export holds it, or its file cannot be made or is a link.
    """
    path = output / LOCK_NAME
    if path.is_symlink():
        message = f"{path} is a symbolic link; expected a file or nothing"
        raise OutputError(message, "remove it, or choose another folder with --output")
    handle = None
    try:
        with as_output_error(output):
            handle, proven = _take(path, output)
        yield proven
    finally:
        if handle is not None:
            if sys.platform == "win32":
                os.close(handle)  # an open file cannot be removed there
            with suppress(OSError):
                path.unlink()
            if sys.platform != "win32":
                os.close(handle)


def busy(output: Path) -> OutputError:
    """Return the refusal of a folder that another export writes to."""
    message = f"another export is writing to {output}"
    return OutputError(message, "wait until it ends, or choose another folder with --output")


def may_be_alive(pid: int) -> bool:
    """Return whether another process with this id may be running; our own id is nobody else's."""
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


def _take(path: Path, output: Path) -> tuple[int, bool]:
    while True:
        handle = os.open(path, _FLAGS, 0o666)
        taken = False
        try:
            proven = _try_lock(handle, output)
            # The last holder may have removed the file between our open and our lock.
            taken = _is_at(path, handle)
            if taken:
                return handle, proven
        finally:
            if not taken:
                _drop(path, handle, output)


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def _drop(path: Path, handle: int, output: Path) -> None:
    """Close a file that was opened for its lock; it goes unless another export holds it."""
    with suppress(OSError, OutputError):
        if _try_lock(handle, output) and _is_at(path, handle):
            path.unlink()
    os.close(handle)


def _try_lock(handle: int, output: Path) -> bool:
    """Lock an open file; return whether its file system has locks at all.

    Raises:
        OutputError: another export holds it.
    """
    from filelock import lock_descriptor  # its import takes a tenth of a second

    try:
        taken = lock_descriptor(handle, blocking=False)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    if not taken:
        raise busy(output)
    return True
