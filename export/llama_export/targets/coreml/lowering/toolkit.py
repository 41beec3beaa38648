"""Import coremltools without its noise.

It warns about every library that it was not tested with, and Core ML writes to the process's own
stderr; both are kept from the user's screen. It knows nothing of packages.
"""

from __future__ import annotations

import warnings
from typing import Any

from llama_export.errors import BackendUnavailableError
from llama_export.system.installed import installed_version
from llama_export.system.quiet import silenced

HINT = "pip install 'coremltools>=9,<10', of the extra 'coreml'"


def coremltools_version() -> str:
    """Return the version of coremltools without importing it; empty when it is not installed."""
    return installed_version("coremltools")


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
