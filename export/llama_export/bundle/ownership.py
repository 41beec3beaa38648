"""Which files of a folder llama-export wrote, and what becomes of the others.

A folder is ours when its manifest.json is a bundle's, or its quantization.json that of quantised
weights; both are parsed, since their names prove nothing. Ours are then the files that it lists.
The module moves no folder: `publish` does.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from llama_export.bundle.manifest import MANIFEST_NAME, Manifest
from llama_export.bundle.output_faults import as_output_error
from llama_export.errors import BundleError, OutputError
from llama_quantize.checkpoint.files import CALIBRATION_FILE, RECORD_FILE, WEIGHTS_FILE
from llama_quantize.checkpoint.record import Record
from llama_quantize.errors import QuantizationError
from llama_quantize.printable import shown_name
from llama_quantize.strict_json import JsonFault, read_object

_NAMED = 5
_REMOVE = "remove the folder yourself, or choose another with --output"
# Of a key in the metadata of weights: the hash of a file that the export wrote beside them.
HASH_OF = "sha256 of "
# What stands beside weights whose record, of an older version, lists no other files.
_WEIGHTS_SIDE = re.compile(
    r"(generation_)?config\.json|tokenizer(_config)?\.json|tokenizer\.model"
    r"|NOTICE|(?i:LICEN[SC]E|USE_POLICY)([._-].*)?"
)


def refuse_existing(target: Path, *, force: bool, keep_extra: bool = False) -> None:
    """Refuse a folder that may not be replaced.

    Args:
        target: folder to be made.
        force: whether a folder that is empty or ours may be replaced.
        keep_extra: whether files that are not ours are carried over, and so no reason.

    Raises:
        OutputError: the target exists and may not be replaced.
    """
    require_name(target)
    # A rival may rename the target at any moment, so each question is asked once, of one folder.
    with as_output_error(target), suppress(FileNotFoundError):
        mode = target.lstat().st_mode
        if not stat.S_ISDIR(mode):
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "a file"
            message = f"{target} is {kind}; expected a folder or nothing"
            raise OutputError(message, "remove it, or choose another folder with --output")
        if not force:
            message = f"{target} already exists"
            hint = "pass --force to replace it, or choose another folder with --output"
            raise OutputError(message, hint)
        if (extra := extra_files(target)) and not keep_extra:
            raise _not_ours_alone(target, extra)


def require_name(target: Path) -> None:
    """Refuse a path that does not end in a name.

    Raises:
        OutputError: it is a root, or ends in "..".
    """
    if target.name in ("", ".."):
        message = f"{target} cannot be the output: it has no name of its own"
        raise OutputError(message, "name a folder that does not exist yet")


def holds_our_weights(folder: Path) -> bool:
    """Return whether a folder holds quantised weights that can be read."""
    try:
        Record.read(folder)
    except QuantizationError:
        return False
    return True


def extra_files(folder: Path) -> tuple[str, ...]:
    """Return the files and links of a folder that llama-export did not write, by their paths.

    Args:
        folder: an existing folder; one without a file has none.

    Raises:
        OutputError: the folder as a whole is not ours, or its list of files is damaged.
        OSError: a part of it cannot be looked into.
    """
    if next(_files_below(folder), None) is None:
        return ()
    if (folder / MANIFEST_NAME).is_file():
        listed = {MANIFEST_NAME, *_read_manifest(folder).files}
        extra = (name for name, plain in _files_below(folder) if not (plain and name in listed))
    elif (folder / RECORD_FILE).is_file():
        record = _read_record(folder)
        beside = _files_beside(record)
        own = {WEIGHTS_FILE, RECORD_FILE}
        if record.calibration is not None:
            own.add(CALIBRATION_FILE)
        extra = (
            name
            for name, plain in _files_below(folder)
            if not plain or not (name in own or beside(name))
        )
    else:
        message = (
            f"{folder} holds no {MANIFEST_NAME} or {RECORD_FILE}: llama-export did not write it"
        )
        raise OutputError(message, f"--force replaces our own output only: {_REMOVE}")
    return tuple(sorted(extra))


def carry_over(old: Path, new: Path, extra: tuple[str, ...]) -> None:
    """Put files of the old folder into the new one too; the old one keeps them.

    Args:
        old: folder that is replaced.
        new: folder that replaces it, on the same file system.
        extra: paths of the files inside `old`.

    Raises:
        OutputError: the new folder has something of that name, or it is a device or the like.
        OSError: the new folder cannot be written.
    """
    clashes = [name for name in extra if _clashes(new, name)]
    if clashes:
        message = f"{old}: the new folder has a file of that name too: {_names(clashes)}"
        raise OutputError(message, "move them to another place, then export again")
    for name in extra:
        source, goal = old / name, new / name
        goal.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            goal.symlink_to(source.readlink())
            continue
        try:
            # Takes no room, and whoever has the file open goes on writing to the same one.
            os.link(source, goal)
        except OSError:
            if not source.is_file():
                message = f"{source} is no plain file, and cannot be kept"
                raise OutputError(message, "move it to another place, then export again") from None
            shutil.copy2(source, goal)


def _clashes(new: Path, name: str) -> bool:
    goal = new / name
    inner = [parent for parent in goal.parents if new in parent.parents]
    return os.path.lexists(goal) or any(
        parent.is_symlink() or (parent.exists() and not parent.is_dir()) for parent in inner
    )


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST_NAME
    try:
        return Manifest.read(path)
    except BundleError as error:
        try:
            keys = read_object(path).keys()
        except JsonFault:
            keys = {}.keys()
        if keys and not {"format_version", "artifact", "files"} & keys:
            message = f"{path} is no bundle's manifest: llama-export did not write {folder}"
            raise OutputError(message, f"--force replaces our own output only: {_REMOVE}") from None
        raise _damaged(folder, error.message) from error


def _read_record(folder: Path) -> Record:
    try:
        return Record.read(folder)
    except QuantizationError as error:
        raise _damaged(folder, error.message) from error


def _damaged(folder: Path, reason: str) -> OutputError:
    message = f"{folder} is not replaced: it is damaged, or not ours: {reason}"
    return OutputError(message, f"--force replaces what says that it is ours: {_REMOVE}")


def _not_ours_alone(target: Path, extra: tuple[str, ...]) -> OutputError:
    files = "a file" if len(extra) == 1 else f"{len(extra)} files"
    message = f"{target} holds {files} that llama-export did not write: {_names(extra)}"
    hint = "move them to another place, or pass --keep-extra, which carries them over"
    return OutputError(message, hint)


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(shown_name(name) for name in names[:_NAMED])
    return shown + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _files_beside(record: Record) -> Callable[[str], bool]:
    """Return what tells, by its name, a file that an export wrote beside weights."""
    listed = {key.removeprefix(HASH_OF) for key in record.metadata if key.startswith(HASH_OF)}
    if listed:
        return listed.__contains__
    return lambda name: _WEIGHTS_SIDE.fullmatch(name) is not None


def _files_below(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield whatever is no folder, by its path, and whether it is a plain file."""
    for root, folders, names in os.walk(folder, onerror=_raise):
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        for path in (Path(root) / name for name in [*names, *links]):
            plain = stat.S_ISREG(path.lstat().st_mode)
            yield path.relative_to(folder).as_posix(), plain


def _raise(error: OSError) -> None:
    raise error
