"""Write a report's file: an earlier report may be replaced, nothing else may.

It knows paths, and the first line that marks a report; it knows nothing of the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llama_export.errors import OutputError


def check_place(path: Path, first_line: str) -> None:
    """Refuse a path where no report can be written.

    Args:
        path: file to write; a link is followed.
        first_line: first line of an existing file that may be replaced, unless it is empty.

    Raises:
        OutputError: the path is a folder, cannot be written, or is a file of something else.
    """
    with _refusing(path):
        fault, hint = _fault(path.resolve(), first_line)
    if fault:
        raise OutputError(fault, hint)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in place of an earlier one, completely or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with _refusing(path):
        target = path.resolve()
        partial = target.with_name(f".{os.getpid()}.{target.name}")
        try:
            partial.write_bytes(content)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn a refusal by the system, or a loop of links, into an OutputError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        message = f"{path} cannot be written: {getattr(error, 'strerror', None) or error}"
        raise OutputError(message, "choose another place, or make room there") from None


def _fault(path: Path, first_line: str) -> tuple[str, str]:
    folder = path.parent
    if path.is_dir():
        return f"{path} is a folder, not a file", f"for example {path / 'report.html'}"
    if not folder.is_dir():
        return f"there is no folder {folder} to write {path.name} in", "make it first"
    if not os.access(folder, os.W_OK):
        return f"the folder {folder} cannot be written", "choose another one"
    if path.exists() and not _may_be_replaced(path, first_line):
        hint = "name another file, or remove this one"
        return f"{path} exists and is not a report of llama-export", hint
    return "", ""


def _may_be_replaced(path: Path, first_line: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        first = file.readline(len(first_line) + 2)
    return not first or first.rstrip() == first_line.encode()
