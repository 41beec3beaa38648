"""Tell that the system gave no more memory, in whichever words a library says it.

Python has an exception for it, the system a number, and the runtimes have texts. A library that
ends the process instead cannot be caught. The module knows no model and no command line.
"""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from llama_export.errors import OutOfMemoryError
from llama_export.system.byte_sizes import format_bytes

# Of torch, onnxruntime, ExecuTorch, protobuf, the loader of shared libraries, and Python itself.
_TEXTS = re.compile(
    r"std::bad_alloc|bad allocation|can't allocate memory|cannot allocate memory(?! in static)"
    r"|not enough memory|failed to allocate memory|out of memory|MemoryAllocationFailed"
    r"|can't start new thread|os error 12|failed to map segment|unable to allocate",
    re.IGNORECASE,
)
_LIBRARIES = ("onnxruntime", "safetensors", "google")
_ENOUGH_CAUSES = 20
# Address space that the first import of numpy takes on x86-64 Linux, OpenBLAS's buffers included.
_NUMPY_BYTES = 80_000_000


def shortage(error: BaseException) -> OutOfMemoryError | None:
    """Return the error of a run that ended for want of memory; None: it ended for another reason.

    Args:
        error: exception that ended it; what led to it counts too, whatever it was turned into.
    """
    if isinstance(error, OutOfMemoryError):
        return error
    if not any(is_shortage(each) for each in _led_to(error)):
        return None
    message = f"the system gave no more memory{_available()}"
    return OutOfMemoryError(
        message,
        "close other programs, or raise the limit of the process (ulimit -v, or the container's); "
        "for an export, --dry-run says how much it needs",
    )


@contextmanager
def shortage_named(needed_bytes: int | None = None) -> Iterator[None]:
    """Turn whatever a run ends with for want of memory into an error that says so.

    Args:
        needed_bytes: estimate of what the run takes; None: it is not known.

    Raises:
        OutOfMemoryError: the system gave no more memory.
    """
    try:
        yield
    except Exception as error:  # want of memory has many classes; others go on
        short = shortage(error)
        if short is None:
            raise
        need = f"; it takes about {format_bytes(needed_bytes)}" if needed_bytes else ""
        raise OutOfMemoryError(short.message + need, short.hint) from error


def require_address_space() -> None:
    """Refuse a limit under which numpy could not be imported: OpenBLAS would end with exit code 1.

    Raises:
        MemoryError: the limit leaves too little.
    """
    if _own_limit_bytes() is None or "numpy" in sys.modules:
        return
    import mmap

    try:
        mmap.mmap(-1, _NUMPY_BYTES).close()
    except OSError as error:
        raise MemoryError from error


def _led_to(error: BaseException) -> Iterator[BaseException]:
    """Walk from an exception to what it was raised from, or while handling."""
    found: BaseException | None = error
    for _ in range(_ENOUGH_CAUSES):
        if found is None:
            return
        yield found
        found = found.__cause__ or found.__context__


def is_shortage(error: BaseException) -> bool:
    """Whether an exception itself says that there is no more memory."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    # Other classes quote files: only what a library raises of itself is read.
    kinds = (RuntimeError, ImportError, SystemError)
    named = isinstance(error, kinds) or type(error).__module__.startswith(_LIBRARIES)
    return named and _TEXTS.search(str(error)) is not None


def _available() -> str:
    """Word how much there was to have: the limit of the process, or what the machine has left."""
    try:
        if limit := _own_limit_bytes():
            return f": the process may have {format_bytes(limit)}"
        from llama_export.system.machine import Machine

        return f": {format_bytes(Machine().available_bytes())} are left"
    except Exception:  # noqa: BLE001 - there may be none left to ask with
        return ""


def _own_limit_bytes() -> int | None:
    """Return the limit of the address space, as `ulimit -v` sets it; None: there is none."""
    if sys.platform == "win32":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit
