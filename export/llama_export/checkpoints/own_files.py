"""Which small files of a checkpoint may be copied into a bundle: its own, and no device.

A bundle is published. A link out of the checkpoint, such as a cloned repository can hold, would
put a file of this machine into it, so it is refused; only the hub's cache keeps its files outside
of a commit's folder. Weights are read as weights alone, so a link to them may lead anywhere. The
module knows no file by name and reads none.
"""

from __future__ import annotations

from pathlib import Path

from llama_export.errors import CheckpointError
from llama_quantize.printable import shown_name

# Some installers make a package of links into a cache of theirs; the demo is in the package.
_PACKAGE = Path(__file__).parents[1]


def own_file(path: Path) -> Path | None:
    """Return where a file of a checkpoint's folder lies, when it may be copied into a bundle.

    Args:
        path: path of the file inside the folder; the folder itself may be a link.

    Returns:
        The file that a link stands for, or the path itself; None: there is nothing, or a folder.

    Raises:
        CheckpointError: it is a link that leads out of the folder or to nothing, or a device or
            pipe.
    """
    try:
        if not path.is_symlink() and not path.exists():
            return None
        place = path.resolve(strict=True)
        folder = path.parent.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise _refused(path, f"a link that leads nowhere ({_reason(error)})") from None
    if place.is_dir():
        return None
    if not place.is_file():
        raise _refused(path, "a device or a pipe, not a file")
    if _is_foreign(path, place, folder):
        raise _refused(path, f"a link out of the checkpoint, to {shown_name(str(place), 200)}")
    return place


def _is_foreign(path: Path, place: Path, folder: Path) -> bool:
    if not path.is_symlink() or path.is_relative_to(_PACKAGE):
        return False
    return not any(place.is_relative_to(each) for each in _own_places(folder))


def _own_places(folder: Path) -> list[Path]:
    """List the folder, and where the hub's cache keeps its files: `../../blobs`."""
    places = [folder]
    if folder.parent.name == "snapshots":
        places.append(folder.parent.parent / "blobs")
    return places


def _reason(error: OSError | RuntimeError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or "it leads to itself"


def _refused(path: Path, what: str) -> CheckpointError:
    message = f"{path.parent}: {shown_name(path.name)} is {what}; it would be copied into bundles"
    return CheckpointError(message, "put a copy of the file in its place, or remove it")
