"""Turn whatever a damaged artifact makes a reader or a runtime raise into one error that names it.

Parsers, arrays and runtimes meet bytes that nobody expected, and say so in a dozen classes. What is
no damage goes through: our own errors, and the want of memory. It knows no format and no runtime.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llama_export.errors import BundleError

_KINDS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
_HINT = "export the bundle again"


@contextmanager
def damage_named(what: Path | str, *kinds: type[Exception]) -> Iterator[None]:
    """Wrap what reads or runs an artifact's bytes, and nothing else.

    Args:
        what: the file, or what else an error shall name.
        kinds: classes of a library's own, beside Python's.

    Raises:
        BundleError: the artifact is damaged, or not laid out as ours are.
    """
    caught: tuple[type[Exception], ...] = (*_KINDS, *kinds)
    try:
        yield
    except caught as error:
        # The text of a KeyError is a key, and nothing that could be understood.
        told = isinstance(error, ValueError | RuntimeError) and str(error)
        reason = told or f"{type(error).__name__}: {error}"
        message = f"{what} is damaged, or not laid out as ours are: {reason}"
        raise BundleError(message, _HINT) from error
