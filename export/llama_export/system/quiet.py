"""Keep off the screen what libraries write to the process's stderr.

It knows file descriptors; it does not know the libraries.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def silenced(*, verbose: bool = False) -> Iterator[None]:
    """Discard what is written to the process's stderr for the time of a `with`.

    Args:
        verbose: true to let it through.
    """
    if verbose:
        yield
        return
    if sys.stderr is not None:
        sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # a process without a stderr has nothing to keep clean
        yield
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(nothing)
        os.close(kept)
