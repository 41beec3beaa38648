"""What figures depend on besides the model and the text: command, versions, processor, date.

The date is the one that SOURCE_DATE_EPOCH gives, or there is none: the same command makes the same
bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llama_export.verification.identity import processor_name, running_versions, source_date

_PACKAGES = ("torch", "numpy", "onnxruntime", "executorch", "coremltools")


@dataclass(frozen=True)
class Identity:
    """What figures depend on.

    Args:
        command: command line that asked for them, without tokens of the hub.
        versions: versions of what computed them, by package name.
        processor: name of the processor and its cores, and what torch uses of it.
        threads: threads of torch.
        date: time of `SOURCE_DATE_EPOCH` in UTC; None: it is not set.
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


def identity_of(command: str) -> Identity:
    """Return what this process depends on.

    Args:
        command: command line that asked for the figures, without tokens of the hub.

    Raises:
        UsageError: SOURCE_DATE_EPOCH is no number of seconds.
    """
    import torch

    return Identity(
        command=command,
        versions=running_versions(_PACKAGES),
        processor=f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}",
        threads=torch.get_num_threads(),
        date=source_date(),
    )
