"""A bundle on disk: a folder of files and the manifest.json that names and hashes each of them.

`seal` makes one out of a folder, `Bundle.open` checks everything that is cheap (manifest, paths,
presence, lengths), and `Bundle.check_hashes` reads every byte. Files that the manifest does not
list are ignored by `open`, because a desktop or a user may leave some, and returned by
`check_hashes`; no path of a manifest can lead to one. The module knows nothing of targets and
tokenizers. How a folder gets to its place is `publish`'s business; `open` names what an interrupted
export left beside it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from llama_export.bundle.journal import unfinished, warn_if_unfinished
from llama_export.bundle.manifest import MANIFEST_NAME, FileEntry, Manifest, path_fault
from llama_export.bundle.nearby import nearby_bundles
from llama_export.errors import BundleError, OutputError
from llama_quantize.checkpoint.files import hash_into

DAMAGED_HINT = "the bundle was changed or is incomplete: copy it again, or export it again"

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Bundle:
    """A folder whose manifest was checked and whose files are there, in their full length.

    Args:
        folder: the folder.
        manifest: its manifest.json.
    """

    folder: Path
    manifest: Manifest

    def __repr__(self) -> str:
        return f"<Bundle {self.folder}: {self.manifest!r}>"

    @classmethod
    def open(cls, folder: Path) -> Bundle:
        """Read and check a bundle, all but the hashes.

        Args:
            folder: the folder; or the artifact or the manifest in it, by which it is found.

        Raises:
            BundleError: there is no such folder, or no manifest in it; the manifest is damaged or
                of a newer format; files are missing, of another length, or reached through a
                symbolic link.
        """
        folder = bundle_folder(folder)
        if not folder.is_dir():
            found = "is a file" if folder.exists() else "does not exist"
            message = f"{folder} {found}; a bundle is a folder that holds {MANIFEST_NAME}"
            hint = unfinished(folder) or _nearby_hint(folder)
            raise BundleError(message, hint)
        warn_if_unfinished(folder)
        manifest = folder / MANIFEST_NAME
        if manifest.is_symlink() or not manifest.is_file():
            message = f"{folder} holds no plain file {MANIFEST_NAME}, so it is not a bundle"
            raise BundleError(message, _nearby_hint(folder))
        bundle = cls(folder, Manifest.read(manifest))
        faults = [
            f"{name} {fault}"
            for name, entry in sorted(bundle.manifest.files.items())
            if (fault := file_fault(folder, name, entry))
        ]
        if faults:
            message = f"{folder}: " + "; ".join(faults)
            raise BundleError(message, DAMAGED_HINT)
        return bundle

    @property
    def size_bytes(self) -> int:
        """Size of the listed files together, without the manifest."""
        return sum(entry.size_bytes for entry in self.manifest.files.values())

    @property
    def artifact(self) -> Path:
        """The file that the runtime loads, or the folder of a Core ML package."""
        return self.path(self.manifest.artifact)

    def path(self, name: str) -> Path:
        """Return the path of a listed file, or of the artifact.

        Args:
            name: path inside the folder, as the manifest has it.

        Raises:
            BundleError: the manifest does not list the file.
        """
        if name not in self.manifest.files and name != self.manifest.artifact:
            message = f"{self.folder} has no file {name!r} in its manifest"
            raise BundleError(message, "`manifest.files` names the files of this bundle")
        return self.folder.joinpath(*name.split("/"))

    def check_hashes(self, progress: Progress | None = None) -> tuple[str, ...]:
        """Read every listed file and compare it with the manifest.

        Args:
            progress: function to call with the number of bytes read since its last call; they
                add up to `size_bytes`.

        Returns:
            Names of the files in the folder that the manifest does not list; they do no harm.

        Raises:
            BundleError: files are changed, truncated, missing or unreadable (all are named).
        """
        faults = []
        for name, entry in sorted(self.manifest.files.items()):
            # Bundle.open looked too, but hours may have passed.
            fault = file_fault(self.folder, name, entry)
            if not fault:
                fault = content_fault(self.path(name), entry, progress)
            faults += [f"{name} {fault}"] if fault else []
        if faults:
            message = f"{self.folder}: " + "; ".join(faults)
            raise BundleError(message, DAMAGED_HINT)
        listed = {MANIFEST_NAME, *self.manifest.files}
        return tuple(name for name, _ in _walk(self.folder) if name not in listed)


def bundle_folder(path: Path) -> Path:
    """Return the folder of the bundle that a path means: the path itself, or the folder around it.

    A `.pte`, a `.mlpackage`, a `model.onnx` or its data, and a manifest.json mean the bundle that
    they belong to. Any other path is returned as it is.
    """
    around = path.parent
    if path.name == MANIFEST_NAME and path.is_file():
        return around
    # A folder that is a bundle by itself is meant by itself, whatever lies around it.
    if not (around / MANIFEST_NAME).is_file() or (path / MANIFEST_NAME).exists():
        return path
    try:
        manifest = Manifest.read(around / MANIFEST_NAME)
    except BundleError:
        return path  # what is wrong with it matters only to who means it
    # A package is a folder, whose files are listed; `model.onnx_data` is a file of its own.
    is_part = path.name == manifest.artifact or path.name == f"{manifest.artifact}_data"
    return around if is_part and path.exists() else path


def hash_file(path: Path, progress: Progress | None = None) -> FileEntry:
    """Hash a file in chunks of bounded memory.

    Args:
        path: path of the file.
        progress: function to call with the number of bytes read since its last call.

    Raises:
        OSError: the file cannot be read; the caller knows whether it is input or output.
    """
    digest = hashlib.sha256()
    size_bytes = hash_into(digest, path, progress or (lambda _: None))
    return FileEntry(digest.hexdigest(), size_bytes)


def seal(folder: Path, draft: Manifest, progress: Progress | None = None) -> Manifest:
    """Hash every file in a folder and write its manifest.json, last of all.

    Args:
        folder: the finished folder; a manifest.json in it is replaced.
        draft: the manifest but for its `files`, which are not looked at.
        progress: function to call with the number of bytes hashed since its last call.

    Returns:
        The manifest, as a reader will get it.

    Raises:
        BundleError: the folder holds a symbolic link or a name that no manifest may hold, or a
            field is not what `Manifest` allows. Nothing is written then.
        OutputError: a file cannot be read, or the manifest cannot be written.
    """
    try:
        files = {name: hash_file(path, progress) for name, path in _files_to_seal(folder)}
        return _write_manifest(folder, replace(draft, files=files))
    except OSError as error:
        raise _unsealed(folder, error) from error


def add_files(bundle: Bundle, contents: Mapping[str, bytes]) -> Manifest:
    """Write more files into a sealed folder, and its manifest anew; the others are not read again.

    Args:
        bundle: bundle in a folder that nobody else uses yet.
        contents: content of each file by its name.

    Returns:
        The manifest, as a reader will get it.

    Raises:
        BundleError: a name is one that no manifest may hold.
        OutputError: a file cannot be written.
    """
    files = dict(bundle.manifest.files)
    try:
        for name, content in contents.items():
            (bundle.folder / name).write_bytes(content)
            files[name] = hash_file(bundle.folder / name)
        return _write_manifest(bundle.folder, replace(bundle.manifest, files=files))
    except OSError as error:
        raise _unsealed(bundle.folder, error) from error


def _write_manifest(folder: Path, draft: Manifest) -> Manifest:
    text = draft.to_text()
    # What would be refused on reading must not be written.
    manifest = Manifest.from_text(text, where=str(folder / MANIFEST_NAME))
    (folder / MANIFEST_NAME).write_bytes(text.encode("utf-8"))
    return manifest


def _unsealed(folder: Path, error: OSError) -> OutputError:
    message = f"{folder} cannot be sealed: {error.strerror or error}"
    return OutputError(message, "free some space, or choose another output folder")


def _files_to_seal(folder: Path) -> list[tuple[str, Path]]:
    found = [item for item in _walk(folder, onerror=_raise) if item[0] != MANIFEST_NAME]
    # A link would be hashed as what it points to, and a pipe would never end.
    faults = [
        f"{name} is not a plain file"
        for name, path in found
        if not stat.S_ISREG(path.lstat().st_mode)
    ]
    faults += [f"{name!a} {reason}" for name, _ in found if (reason := path_fault(name))]
    if faults:
        message = f"{folder} cannot be sealed: " + "; ".join(faults)
        raise BundleError(message, "this is a fault of the export: report it")
    return found


def _raise(error: OSError) -> None:
    raise error


def _walk(folder: Path, onerror: Callable[[OSError], None] | None = None) -> list[tuple[str, Path]]:
    """List every file and link below a folder with its POSIX path, following no link."""
    found = []
    for root, folders, names in os.walk(folder, onerror=onerror):
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        for path in (Path(root) / name for name in [*names, *links]):
            found.append((path.relative_to(folder).as_posix(), path))
    return sorted(found)


def file_fault(folder: Path, name: str, entry: FileEntry) -> str:
    """Return what is wrong with a listed file, short of reading it; "" when nothing is."""
    place = folder
    try:
        for part in PurePosixPath(name).parts:
            place = place / part
            mode = place.lstat().st_mode
            if stat.S_ISLNK(mode):
                return f"is reached through a symbolic link ({place.name})"
        size_bytes = place.lstat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be looked at ({error.strerror or error})"
    if not stat.S_ISREG(mode):
        return "is not a plain file"
    if size_bytes < entry.size_bytes:
        return f"is truncated: expected {entry.size_bytes} bytes, found {size_bytes}"
    if size_bytes > entry.size_bytes:
        return f"is too long: expected {entry.size_bytes} bytes, found {size_bytes}"
    return ""


def content_fault(path: Path, entry: FileEntry, progress: Progress | None) -> str:
    """Return how a file's bytes differ from what is listed; "" when they do not."""
    try:
        found = hash_file(path, progress)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    if found == entry:
        return ""
    return f"is changed: expected sha256 {entry.sha256[:12]}..., found {found.sha256[:12]}..."


def _nearby_hint(folder: Path) -> str:
    if found := nearby_bundles(folder):
        return f"did you mean {' or '.join(map(str, found))}?"
    return (
        "give the folder that the export wrote, such as OUT/onnx; "
        "llama-export --target onnx --model MODEL makes one"
    )
