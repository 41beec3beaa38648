"""Lay onnxruntime's library out of its wheel, under the names that linkers look for.

    python tools/apps/onnxruntime_library.py FOLDER

FOLDER gets `libonnxruntime.so.1`, and `libonnxruntime.so` that points to it. Debian's own library
is too old for the opset of our graphs.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path


def find_library() -> Path | None:
    """Return the library of the installed wheel, or None where there is no such wheel."""
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return None
    return next((Path(spec.origin).parent / "capi").glob("libonnxruntime.so.*"), None)


def main(arguments: Sequence[str]) -> int:
    """Write into the named folder."""
    if len(arguments) != 1:
        print("usage: python tools/apps/onnxruntime_library.py FOLDER", file=sys.stderr)
        return 2
    library = find_library()
    if library is None:
        print("onnxruntime's library: there is no wheel of it for Linux here", file=sys.stderr)
        return 1
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy2(library, folder / "libonnxruntime.so.1")
    link = folder / "libonnxruntime.so"
    link.unlink(missing_ok=True)
    link.symlink_to("libonnxruntime.so.1")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
