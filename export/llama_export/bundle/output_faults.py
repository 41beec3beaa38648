"""What the system says against an output folder, as an `OutputError` with a way out.

It knows error numbers, and nothing of what is written.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llama_export.errors import OutputError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
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
def as_output_error(target: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into an `OutputError` about a folder.

    Args:
        target: folder that was to be written.

    Raises:
        OutputError: the block raised an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise output_error(error, target) from error


def output_error(error: OSError, target: Path) -> OutputError:
    """Word an error of the system as a fault of the output.

    Args:
        error: error of the system.
        target: folder that was to be written.
    """
    hint = _HINTS.get(error.errno or 0, "choose another folder with --output")
    message = f"{target} cannot be written: {error.strerror or error}"
    if isinstance(error.filename, str) and error.filename != str(target):
        message += f" ({error.filename})"
    return OutputError(message, hint)


def is_output_fault(error: OSError, work: Path) -> bool:
    """Return whether an error is the output's fault; the input's errors are not ours to name.

    Args:
        error: error of the system.
        work: folder that the output is written to.
    """
    if error.errno in _FULL:
        return True
    inside = isinstance(error.filename, str) and work in Path(error.filename).parents
    return error.errno in _FORBIDDEN and inside
