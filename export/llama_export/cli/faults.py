"""A fault of ours: what is written down of it, where, and what is left out.

The log is for a report, so it says what was typed and where the program was, and holds no token.
It lies in the user's state folder, readable by the user alone, and only the newest few are kept.
"""

from __future__ import annotations

import os
import platform
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

from llama_export.cli.tokens import without_tokens
from llama_export.version import __version__
from llama_quantize.printable import clipped, printable

_KEPT_LOGS = 10
_MOST_CHARACTERS = 200_000


def logs_folder() -> Path:
    """Return the folder of the logs.

    Raises:
        RuntimeError: the user has no home folder.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    # A relative one is to be ignored, says the standard of these folders.
    base = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    return base / "llama-export"


def write_log(error: BaseException) -> Path:
    """Write an exception down with all that led to it.

    Returns:
        Path of the log.

    Raises:
        OSError: it cannot be written.
        RuntimeError: the user has no home folder.
    """
    folder = logs_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    path = folder / f"fault-{stamp}-{time.time_ns() % 10**9:09}-{os.getpid()}.log"
    # A link that waits under this name is not followed, and nothing is overwritten.
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(number, "w", encoding="utf-8") as file:
        file.write(_log(error))
    _remove_old(folder)
    return path


def shown_traceback(error: BaseException) -> str:
    """Return an exception with all that led to it, without tokens and fit to be shown."""
    lines = "".join(traceback.format_exception(error))
    return without_tokens(printable(clipped(lines, _MOST_CHARACTERS)))


def _log(error: BaseException) -> str:
    words = without_tokens(printable(clipped(repr(sys.argv[1:]), 4000), keep=""))
    return (
        f"llama-export {__version__}, Python {platform.python_version()}, {platform.platform()}\n"
        f"typed: {words}\n\n{shown_traceback(error)}"
    )


def _remove_old(folder: Path) -> None:
    logs = sorted(folder.glob("fault-*.log"), key=lambda path: path.name)
    for path in logs[:-_KEPT_LOGS]:
        with suppress(OSError):  # another process may have removed it
            path.unlink()
