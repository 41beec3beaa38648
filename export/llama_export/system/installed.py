"""Which version of a package is installed, without importing it."""

from __future__ import annotations

from importlib import metadata


def installed_version(distribution: str) -> str:
    """Return an installed package's version; empty when there is none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
