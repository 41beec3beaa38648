"""Parts of a file that have a length or a checksum around them, which an edit keeps true.

Without that, most mutations of a safetensors header or of a saved chat would be refused for their
length or checksum, and what reads the content would never be tried.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

from fuzzing.edits import Edit, apply_all

HEADER, PICKLE = "header", "data.pkl"
_LENGTH_BYTES = 8


def parts(name: str, content: bytes) -> dict[str, bytes]:
    """Return the parts of a file by name; empty for a file that is no container."""
    if name.endswith(".safetensors"):
        length = int.from_bytes(content[:_LENGTH_BYTES], "little")
        return {HEADER: content[_LENGTH_BYTES : _LENGTH_BYTES + length]}
    if name.endswith(".npz"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return {entry: archive.read(entry) for entry in archive.namelist()}
    if name.endswith((".bin", ".pth")):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return {PICKLE: archive.read(_pickle_in(archive))}
    return {}


def edited(name: str, content: bytes, edits: Sequence[Edit]) -> bytes:
    """Make the edits of a file: those inside its parts first, then those of the file itself."""
    inside = {edit.part for edit in edits if edit.part}
    if inside:
        held = parts(name, content)
        for part in inside & held.keys():
            held[part] = apply_all([edit for edit in edits if edit.part == part], held[part])
        content = _repacked(name, content, held)
    return apply_all([edit for edit in edits if not edit.part], content)


def _repacked(name: str, content: bytes, held: dict[str, bytes]) -> bytes:
    if name.endswith(".safetensors"):
        before = int.from_bytes(content[:_LENGTH_BYTES], "little")
        header, rest = held[HEADER], content[_LENGTH_BYTES + before :]
        return len(header).to_bytes(_LENGTH_BYTES, "little") + header + rest
    if name.endswith((".bin", ".pth")):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = {entry: archive.read(entry) for entry in archive.namelist()}
            held = entries | {_pickle_in(archive): held[PICKLE]}
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for entry, part in held.items():
            archive.writestr(zipfile.ZipInfo(entry), part)
    return written.getvalue()


def _pickle_in(archive: zipfile.ZipFile) -> str:
    """Return the path of torch's pickle in an archive, which is in a folder named as the file."""
    return next(entry for entry in archive.namelist() if entry.endswith(f"/{PICKLE}"))
