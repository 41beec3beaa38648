"""Import coremltools, and call it, without its noise.

It warns about every library that it was not tested with, and Core ML writes to the process's own
stderr; both are kept from the user's screen. It knows nothing of packages.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from llama_export.errors import BackendUnavailableError

HINT = "pip install 'coremltools>=9,<10', of the extra 'coreml'"


def coremltools_version() -> str:
    """Return the installed version, without importing it; empty when there is none."""
    try:
        return metadata.version("coremltools")
    except metadata.PackageNotFoundError:
        return ""


def import_coremltools(*, verbose: bool = False) -> Any:  # noqa: ANN401 - it has no types
    """Return the module `coremltools`.

    Raises:
        BackendUnavailableError: it is not installed, or cannot be imported.
    """
    try:
        with silenced(verbose=verbose), warnings.catch_warnings():
            if not verbose:
                warnings.simplefilter("ignore")
            import coremltools
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        found = coremltools_version() or "which is not installed"
        message = f"coremltools, {found}, cannot be imported: {error}"
        raise BackendUnavailableError(message, HINT) from error
    return coremltools


@contextlib.contextmanager
def silenced(*, verbose: bool = False) -> Iterator[None]:
    """Keep what libraries write to the process's stderr from the screen, meanwhile."""
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
