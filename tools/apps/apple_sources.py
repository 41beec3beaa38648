"""Swift sources as a compiler for one of Apple's systems reads their conditions.

Swift on Linux takes neither `#if os(iOS)` nor `#if os(macOS)`, and no flag makes it another system.
So copies are compiled in which both are written out. What else a condition asks is left for the
compiler to answer.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

SYSTEMS = ("iOS", "macOS")


def resolve_conditions(source: str, system: str) -> str:
    """Return a source with `true` or `false` for its conditions on the system; lines stay lines.

    Args:
        source: text of a Swift file.
        system: one of `SYSTEMS`.

    Raises:
        ValueError: if a condition asks for another system.
    """

    def decide(line: re.Match[str]) -> str:
        return re.sub(r"\bos\((\w+)\)", answer, line[0])

    def answer(asked: re.Match[str]) -> str:
        if asked[1] not in SYSTEMS:
            message = f"{asked[0]}: expected one of {', '.join(SYSTEMS)}"
            raise ValueError(message)
        return "true" if asked[1] == system else "false"

    return re.sub(r"^[ \t]*#(?:else)?if\b.*$", decide, source, flags=re.MULTILINE)


def copy_sources(folder: Path, target: Path, system: str) -> list[Path]:
    """Copy the Swift sources of a folder for one system, and return the copies in order.

    Args:
        folder: folder with the sources.
        target: folder for the copies; what was there is deleted.
        system: one of `SYSTEMS`.

    Raises:
        ValueError: if a source asks for another system.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    copies = []
    for source in sorted(folder.glob("*.swift")):
        copies.append(target / source.name)
        copies[-1].write_text(resolve_conditions(source.read_text("utf-8"), system), "utf-8")
    return copies
