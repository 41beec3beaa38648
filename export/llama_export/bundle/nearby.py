"""The bundles that a path may mean which is none: what is in it, around it, or of nearly its name.

It looks for manifests, and opens none.
"""

from __future__ import annotations

from pathlib import Path

from llama_export.bundle.manifest import MANIFEST_NAME

_MOST_GUESSES = 3
# What an export keeps beside its bundles.
_WEIGHTS = "weights"


def nearby_bundles(folder: Path) -> tuple[Path, ...]:
    """Return the bundles that a path may mean, which is none itself; empty: there is no guess.

    Args:
        folder: a folder, a file, or a path of nothing.
    """
    if folder.is_dir():
        if (folder.parent / MANIFEST_NAME).is_file():  # a folder of somebody's inside a bundle
            return (folder.parent,)
        return _at(folder) or (_few(_at(folder.parent)) if folder.name == _WEIGHTS else ())
    if folder.exists():
        return ()
    if not folder.parent.is_dir():
        # The folder around it may be misspelt, and not it.
        return next(
            (found for near in _near(folder.parent) if (found := _at(near / folder.name))), ()
        )
    named = next((found for near in _near(folder) if (found := _at(near))), ())
    return named or _few(_at(folder.parent))


def _few(found: tuple[Path, ...]) -> tuple[Path, ...]:
    return found if len(found) <= _MOST_GUESSES else ()


def _at(folder: Path) -> tuple[Path, ...]:
    """Return the bundle at a path, or those in it."""
    if (folder / MANIFEST_NAME).is_file():
        return (folder,)
    return tuple(sorted(path.parent for path in folder.glob(f"*/{MANIFEST_NAME}")))


def _near(folder: Path) -> list[Path]:
    """Return the folders beside a path whose names are nearly the same, the nearest first."""
    import difflib

    try:
        names = [path.name for path in folder.parent.iterdir() if path.is_dir()]
    except OSError:  # not there, or not to be read
        return []
    return [folder.parent / name for name in difflib.get_close_matches(folder.name, names)]
