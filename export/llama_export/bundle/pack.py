"""Pack a bundle into one zip for a phone: its listed files as they are, each at a page's beginning.

Nothing is compressed, because weights do not get smaller, and a reader may map a file where it lies
in the zip. The manifest comes first, so that whoever reads it as a stream knows every hash before
the file comes. The same bundle gives the same bytes. What the manifest does not list stays out.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

from llama_export.bundle.bundle import DAMAGED_HINT, Bundle, Progress, file_fault
from llama_export.bundle.manifest import MANIFEST_NAME, FileEntry, Manifest
from llama_export.bundle.output_faults import as_output_error
from llama_export.bundle.swap import sync
from llama_export.errors import BundleError, OutputError

PAGE_BYTES = 4096
_CHUNK_BYTES = 2**20
# Of Android's zipalign: the alignment, then zeros.
_ALIGNMENT_FIELD = 0xD935
_FIELD = struct.Struct("<HHH")
_LOCAL_HEADER_BYTES, _ZIP64_FIELD_BYTES = 30, 20
# The first date that a zip can hold; a file's own would make other bytes of the same bundle.
_DATE = (1980, 1, 1, 0, 0, 0)
_UNIX, _READABLE = 3, 0o100644 << 16


def default_place(folder: Path) -> Path:
    """Return where the zip of a bundle goes when nobody says: beside it, under its name."""
    folder = folder.resolve()
    return folder.with_name(f"{folder.name}.zip")


def pack(
    bundle: Bundle, output: Path, *, force: bool = False, progress: Progress | None = None
) -> Path:
    """Write a bundle's zip, completely or not at all; every byte is compared with its hash.

    Args:
        bundle: opened bundle.
        output: path of the zip.
        force: whether a file of that name is replaced.
        progress: function to call with the number of bytes packed since its last call.

    Returns:
        The zip.

    Raises:
        BundleError: a file is changed, missing, or reached through a link.
        OutputError: there is such a file already, it would lie inside the bundle, or it cannot be
            written.
    """
    with as_output_error(output):
        _check_place(bundle, output, force=force)
        partial = output.with_name(f".{os.getpid()}.{output.name}")
        try:
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, strict_timestamps=True) as made:
                _add_manifest(made, bundle)
                for name, entry in sorted(bundle.manifest.files.items()):
                    _add(made, bundle, name, entry, progress)
                for info in made.infolist():
                    info.extra = b""  # in the table at the end nobody needs the padding
            _check_place(bundle, output, force=force)
            sync(partial)
            partial.replace(output)
        finally:
            partial.unlink(missing_ok=True)
    return output


def _check_place(bundle: Bundle, output: Path, *, force: bool) -> None:
    place, folder = output.resolve(), bundle.folder.resolve()
    message, hint = "", "choose another place with --output"
    if folder == place or folder in place.parents:
        message = f"{output} would lie inside the bundle"
    elif place.is_dir():
        message = f"{output} is a folder"
    elif place.exists() and not force:
        message, hint = f"{output} exists", f"{hint}, or replace it with --force"
    elif not place.parent.is_dir():
        message = f"{output}: there is no folder {output.parent}"
    if message:
        raise OutputError(message, hint)


def _add_manifest(made: zipfile.ZipFile, bundle: Bundle) -> None:
    """Add manifest.json, unless it changed since the bundle was opened."""
    try:
        content = (bundle.folder / MANIFEST_NAME).read_bytes()
    except OSError as error:
        raise _damaged(bundle, f"{MANIFEST_NAME} {error.strerror or error}") from error
    if Manifest.from_text(content) != bundle.manifest:
        raise _damaged(bundle, f"{MANIFEST_NAME} changed since it was opened")
    with made.open(_placed(made, MANIFEST_NAME, len(content)), "w") as target:
        target.write(content)


def _add(
    made: zipfile.ZipFile,
    bundle: Bundle,
    name: str,
    entry: FileEntry,
    progress: Progress | None,
) -> None:
    """Copy a file, and compare what was copied with its hash."""
    fault = file_fault(bundle.folder, name, entry)
    if fault:
        raise _damaged(bundle, f"{name} {fault}")
    digest, size_bytes = hashlib.sha256(), 0
    info = _placed(made, name, entry.size_bytes)
    with made.open(info, "w") as target:
        for chunk in _chunks(bundle, name, entry.size_bytes):
            digest.update(chunk)
            size_bytes += len(chunk)
            target.write(chunk)
            if progress is not None:
                progress(len(chunk))
    if (digest.hexdigest(), size_bytes) != (entry.sha256, entry.size_bytes):
        found = digest.hexdigest()[:12]
        raise _damaged(
            bundle, f"{name} is changed: expected sha256 {entry.sha256[:12]}..., found {found}..."
        )


def _chunks(bundle: Bundle, name: str, size_bytes: int) -> Iterator[bytes]:
    """Yield a file in pieces, and no more than is listed should it grow meanwhile."""
    done = 0
    try:
        with bundle.path(name).open("rb") as source:
            while done <= size_bytes and (chunk := source.read(_CHUNK_BYTES)):
                done += len(chunk)
                yield chunk
    except OSError as error:
        raise _damaged(bundle, f"{name} cannot be read ({error.strerror or error})") from error


def _placed(made: zipfile.ZipFile, name: str, size_bytes: int) -> zipfile.ZipInfo:
    """Describe the next file of a zip, so that its bytes begin at a page's beginning."""
    info = zipfile.ZipInfo(name, _DATE)
    info.create_system, info.external_attr = _UNIX, _READABLE
    info.file_size = size_bytes
    header = _LOCAL_HEADER_BYTES + len(name.encode("utf-8"))
    if size_bytes * 1.05 > zipfile.ZIP64_LIMIT:  # as `ZipFile.open` decides
        header += _ZIP64_FIELD_BYTES
    begin = made.start_dir + header + _FIELD.size
    padding = -begin % PAGE_BYTES
    field = _FIELD.pack(_ALIGNMENT_FIELD, 2 + padding, PAGE_BYTES)
    info.extra = field + bytes(padding)
    return info


def _damaged(bundle: Bundle, fault: str) -> BundleError:
    return BundleError(f"{bundle.folder}: {fault}", DAMAGED_HINT)
