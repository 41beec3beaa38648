"""What figures depend on besides the model and the text: command, versions, processor, date.

The date is the one that SOURCE_DATE_EPOCH gives, or there is none: the same command makes the same
bytes. A hub token is left out of the command.
"""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from llama_export.errors import UsageError
from llama_export.system.installed import installed_version
from llama_export.version import __version__

_PACKAGES = ("torch", "numpy", "onnxruntime", "executorch", "coremltools")
_EPOCH = "SOURCE_DATE_EPOCH"
_SECRET = "--token"
_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Identity:
    """What figures depend on.

    Args:
        command: command line that asked for them.
        versions: versions of what computed them, by package name.
        processor: name of the processor, and what torch uses of it.
        threads: threads of torch.
        date: date by SOURCE_DATE_EPOCH; None: it is not set.
    """

    command: str
    versions: Mapping[str, str]
    processor: str
    threads: int
    date: str | None

    def to_json(self) -> dict[str, object]:
        """Return plain data."""
        return {
            "command": self.command,
            "versions": dict(self.versions),
            "processor": self.processor,
            "threads": self.threads,
            "date": self.date,
        }


def identity_of(words: Sequence[str]) -> Identity:
    """Return what this process depends on.

    Args:
        words: words of the command line behind the program's name.

    Raises:
        UsageError: SOURCE_DATE_EPOCH is no number of seconds.
    """
    import torch

    found = {name: installed_version(name) for name in _PACKAGES}
    return Identity(
        command=shlex.join(["llama-export", *_without_secrets(words)]),
        versions={
            "llama-export": __version__,
            "python": platform.python_version(),
            **{name: version for name, version in found.items() if version},
        },
        processor=f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}",
        threads=torch.get_num_threads(),
        date=source_date(),
    )


def source_date() -> str | None:
    """Return the date that SOURCE_DATE_EPOCH gives, in UTC; None: it is not set.

    Raises:
        UsageError: it is no number of seconds.
    """
    text = os.environ.get(_EPOCH)
    if not text:
        return None
    try:
        return datetime.fromtimestamp(int(text), timezone.utc).date().isoformat()
    except (ValueError, OverflowError, OSError):
        message = f"{_EPOCH}: expected a number of seconds since 1970, found {text!r}"
        raise UsageError(message, "unset it, or use: date +%s") from None


def _without_secrets(words: Sequence[str]) -> list[str]:
    shown: list[str] = []
    for word in words:
        if shown and shown[-1] == _SECRET:
            shown.append("...")
        else:
            shown.append(f"{_SECRET}=..." if word.startswith(f"{_SECRET}=") else word)
    return shown


def _processor() -> str:
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
