"""What a report is of: the weights and their source, the programs, the machine and the command.

A figure can be believed, and measured again, when all of these stand beside it. It reads a bundle's
manifest, the installed packages and the machine; it measures nothing.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from llama_export.errors import UsageError
from llama_export.system.machine import Machine
from llama_export.version import __version__

if TYPE_CHECKING:
    from llama_export.bundle.manifest import Manifest

_DATE = "SOURCE_DATE_EPOCH"
_OWN = "llama-export"


@dataclass(frozen=True)
class Identity:
    """What was measured, with what, and where.

    Args:
        recipe: name of the weights' recipe.
        group_size: weights that share a scale; None where the tensors differ, or have no groups.
        bits_per_weight: mean over all weights, scales included.
        methods: how the linears' codes were chosen; empty where that is not known.
        calibration: method, tokens and ids_sha256 of what they were calibrated on; empty where
            they were not.
        source: hub repository, or the local model's name.
        commit: commit of the repository; None for a local model.
        versions: of llama-export, Python, PyTorch and the target's toolkits, as they ran.
        exported_with: the same, as they made the bundle.
        system: operating system and architecture.
        processor: name of the processor, and its logical cores.
        date: time of `SOURCE_DATE_EPOCH` in UTC; None where that is not set, so that the same
            measurement gives the same report.
        command: command line; empty for a call from Python.
    """

    recipe: str
    group_size: int | None
    bits_per_weight: float
    methods: tuple[str, ...]
    calibration: Mapping[str, str | int]
    source: str
    commit: str | None
    versions: Mapping[str, str]
    exported_with: Mapping[str, str]
    system: str
    processor: str
    date: str | None
    command: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values, always in the same order."""
        return {
            "recipe": self.recipe,
            "group_size": self.group_size,
            "bits_per_weight": self.bits_per_weight,
            "methods": list(self.methods),
            "calibration": dict(self.calibration) or None,
            "source": self.source,
            "commit": self.commit,
            "versions": dict(self.versions),
            "exported_with": dict(self.exported_with),
            "system": self.system,
            "processor": self.processor,
            "date": self.date,
            "command": self.command or None,
        }


def identify(manifest: Manifest, *, methods: Collection[str] = (), command: str = "") -> Identity:
    """Gather what a measurement of a bundle on this machine is identified by.

    Args:
        manifest: manifest of the bundle.
        methods: methods of the linears, as the quantised weights name them.
        command: command line, without tokens of the hub.

    Raises:
        UsageError: `SOURCE_DATE_EPOCH` is no number of seconds.
    """
    quantization = manifest.quantization
    return Identity(
        recipe=str(quantization["recipe"]),
        group_size=quantization["group_size"],
        bits_per_weight=float(quantization["bits_per_weight"]),
        methods=tuple(sorted(set(methods))),
        calibration=quantization.get("calibration") or {},
        source=manifest.model.hub_id or manifest.model.name,
        commit=manifest.model.revision,
        versions=running_versions(manifest.created_with),
        exported_with=dict(manifest.created_with),
        system=f"{platform.platform(terse=True)}, {platform.machine()}",
        processor=processor_name(),
        date=source_date(),
        command=command,
    )


def running_versions(packages: Collection[str]) -> dict[str, str]:
    """Return the versions of llama-export, Python and those of some packages that are installed."""
    found = {_OWN: __version__, "python": platform.python_version()}
    for package in sorted(set(packages) - set(found)):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # it is not needed to run the artifact
    return found


def processor_name() -> str:
    """Return the processor's name and its number of logical cores."""
    machine = Machine()
    return f"{machine.processor()}, {machine.cores()} logical cores"


def source_date() -> str | None:
    """Return the time of `SOURCE_DATE_EPOCH` in UTC; None: it is not set.

    Raises:
        UsageError: it is no number of seconds.
    """
    seconds = os.environ.get(_DATE, "")
    if not seconds:
        return None
    try:
        return datetime.fromtimestamp(int(seconds), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        message = f"{_DATE}: expected seconds since 1970, found {seconds!r}"
        raise UsageError(message, f"for example {_DATE}=$(git log -1 --format=%ct)") from None
