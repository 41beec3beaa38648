"""The folder of a case: copies of the fixtures, one of them mutated, and the hashes made to fit.

The hashes of a bundle are written here without the product's own code.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from fuzzing.cases import Case, surface_of
from fuzzing.fixtures import REPORT
from fuzzing.surface import UNSEALED, Surface

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Staged:
    """A case that can be run.

    Args:
        folder: folder of the case.
        arguments: command line.
        stdin: file that is read as standard input; None: nothing.
    """

    folder: Path
    arguments: tuple[str, ...]
    stdin: Path | None


def stage(case: Case, base: Path, folder: Path) -> Staged:
    """Write a case into an empty folder."""
    surface = surface_of(case)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in surface.folders:
        source = base / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name)
    (folder / case.path).write_bytes(case.content(base))
    sealed = surface.target and surface.kind != UNSEALED
    if sealed and case.path.startswith(f"{surface.target}/"):
        reseal(folder / surface.target, Path(case.path).relative_to(surface.target).as_posix())
        if REPORT in surface.folders:
            _speak_of(folder / surface.target, folder / REPORT)
    return Staged(folder, _arguments(case, surface, folder), _stdin(case, folder))


def reseal(bundle: Path, changed: str) -> None:
    """Record a changed file's length and hash, as an attacker would."""
    path = bundle / MANIFEST
    if changed == MANIFEST:
        return
    manifest = json.loads(path.read_bytes())
    content = (bundle / changed).read_bytes()
    entry = manifest["files"][changed]
    entry |= {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    path.write_text(json.dumps(manifest, indent=2))


def _speak_of(bundle: Path, report: Path) -> None:
    """Let a phone's report be one of this bundle, whose manifest changed."""
    sha256 = hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()
    written = json.loads(report.read_bytes()) | {"manifest_sha256": sha256}
    report.write_text(json.dumps(written))


def _arguments(case: Case, surface: Surface, folder: Path) -> tuple[str, ...]:
    places = {name: name for name in (*surface.folders, "out")}
    places |= {"saved": "saved.npz", "chat": "saved.npz", "prompt": "prompt.txt"}
    places |= {"bundle": surface.target, "file": case.path, "report": REPORT}
    verb = next(each for each in surface.verbs if each.name == case.verb)
    words = verb.arguments
    if not words:
        words = tuple(json.loads((folder / case.path).read_bytes()))
    for place, name in places.items():
        words = tuple(word.replace(f"{{{place}}}", str(folder / name)) for word in words)
    return words


def _stdin(case: Case, folder: Path) -> Path | None:
    return folder / case.path if case.verb.endswith("-stdin") else None
