"""Wheels and source distributions, built by hatchling as an installer would build them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

PLUGIN = Path("integrations") / "optimum"


def build(target: str, tree: Path, output: Path) -> Path:
    """Build the `wheel` or the `sdist` of a tree into an empty folder, and return the file."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(output)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = output.iterdir()
    return built


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def split_metadata(names: set[str]) -> tuple[set[str], set[str]]:
    """Return a wheel's files of packages, and those of its `.dist-info`."""
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    return names - metadata, metadata


def unpack(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run_alone(folder: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    """Run lines of Python that see the standard library and one folder, and nothing else."""
    code = "; ".join(("import sys", f"sys.path.insert(0, {str(folder)!r})", *lines))
    command = [sys.executable, "-I", "-S", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)
