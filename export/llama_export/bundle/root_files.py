"""The files at the root of an output, and which of them are ours.

Beside the bundles lie copies of their small files and a model card, so that the whole output is a
repository of the hub. `repository.json` has the hash of each as it was written: what has another
content by now is somebody else's, and stays. `publish` puts the new ones in place, together with
the bundles. The module does not know what is in them.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from llama_export.bundle.bundle import file_fault, hash_file
from llama_export.bundle.json_object import JsonObject
from llama_export.bundle.manifest import FileEntry, path_fault
from llama_export.bundle.swap import Change, inode, sync
from llama_export.errors import NOTICE
from llama_quantize.printable import shown_name
from llama_quantize.strict_json import JsonFault, read_object

CARD_NAME = "README.md"
RECORD_NAME = "repository.json"
# A person may add these to what we write; anything else of theirs means that the root is theirs.
PERSONAL = re.compile(r"README\.md|(LICEN[SC]E|USE_POLICY|NOTICE)([._-].*)?", re.IGNORECASE)

_FORMAT_VERSION = 1
_MOST_BYTES = 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAMED = 3
_log = logging.getLogger(__name__)


def read_record(folder: Path) -> Mapping[str, FileEntry] | None:
    """Return the files that an export wrote to a root, by name; None: there is no sound record.

    Raises:
        OSError: the record is there and cannot be read.
    """
    faults: list[str] = []
    try:
        raw = read_object(folder / RECORD_NAME, most_bytes=_MOST_BYTES)
    except (JsonFault, FileNotFoundError, IsADirectoryError):
        return None
    top = JsonObject(raw, "", faults)
    if top.integer("format_version") != _FORMAT_VERSION:
        return None
    files = top.child("files")
    found: dict[str, FileEntry] = {}
    for name in files.raw:
        if path_fault(name) or "/" in name:
            return None
        entry = files.child(name)
        sha256 = entry.text("sha256", _SHA256, "64 hex digits")
        found[name] = FileEntry(sha256, entry.integer("size_bytes"))
    return None if faults else found


def is_ours(folder: Path, name: str, record: Mapping[str, FileEntry] | None) -> bool:
    """Return whether a file at a root is as an export wrote it.

    Raises:
        OSError: it cannot be read, so nobody knows.
    """
    entry = (record or {}).get(name)
    if entry is None or file_fault(folder, name, entry):
        return False
    return hash_file(folder / name) == entry


def is_persons(output: Path, work: Path, name: str) -> bool:
    """Return whether a file is nobody's but a person's, while files of `work` are put in place.

    Args:
        output: output with the file.
        work: hidden folder in it. The record of the files that are replaced is in one of the two,
            and that of the new files in the other.
        name: name of a file that stands in the output.

    Raises:
        OSError: it cannot be read, so nobody knows.
    """
    if name == RECORD_NAME:
        return read_record(output) is None
    return not any(is_ours(output, name, read_record(folder)) for folder in (output, work))


def lay_out(output: Path, work: Path, contents: Mapping[str, bytes]) -> tuple[str, ...]:
    """Write to the hidden folder what `publish` shall put at the output's root.

    Args:
        output: output with the root.
        work: hidden folder in it.
        contents: content of each file by its name.

    Returns:
        Notes on what is somebody else's, and therefore stays.

    Raises:
        OSError: the output cannot be read, or the hidden folder cannot be written.
    """
    wanted: dict[str, FileEntry] = {}
    for name, content in contents.items():
        (work / name).write_bytes(content)
        wanted[name] = hash_file(work / name)
    chosen, notes = _choose(output, wanted, read_record(output))
    _write_record(work, chosen)
    return notes


def root_changes(output: Path, work: Path) -> list[Change]:
    """Return what `lay_out` wrote as changes of the output; what is no longer made goes.

    What became somebody else's since is left out, and logged: bundles take long to write.

    Raises:
        OSError: a file cannot be looked at, or the record cannot be written anew.
    """
    wanted = read_record(work)
    if wanted is None:
        return []
    old = read_record(output)
    new, notes = _choose(output, wanted, old)
    for note in notes:
        _log.log(NOTICE, note)
    if new != wanted:
        _write_record(work, new)
        sync(work / RECORD_NAME)
    if old is None and not new:
        return []
    gone = [name for name in old or {} if name not in new and is_ours(output, name, old)]
    if new:
        new_names, gone_names = [*new, RECORD_NAME], gone
    else:
        (work / RECORD_NAME).unlink()  # the old one takes its place
        new_names, gone_names = [], [RECORD_NAME, *gone]
    return [
        *(
            Change(name, inode(work / name), inode(output / name), is_file=True)
            for name in new_names
        ),
        *(Change(name, None, inode(output / name), is_file=True) for name in gone_names),
    ]


def _choose(
    output: Path, wanted: Mapping[str, FileEntry], old: Mapping[str, FileEntry] | None
) -> tuple[dict[str, FileEntry], tuple[str, ...]]:
    """Return which files may stand at a root once more, and notes on what is somebody else's."""
    theirs = [name for name in wanted if _is_theirs(output, name, wanted, old)]
    if old is None and inode(output / RECORD_NAME) is not None:
        theirs.append(RECORD_NAME)
    foreign = [name for name in theirs if not PERSONAL.fullmatch(name)]
    if not foreign:
        chosen = {name: entry for name, entry in wanted.items() if name not in theirs}
        return chosen, tuple(
            f"{shown_name(str(output / name))} stays as it is: llama-export did not write it, or "
            "it was changed since; remove it, and the next export writes one"
            for name in theirs
        )
    # Ours stay among them only where this export would write the same.
    ours = [name for name in old or {} if is_ours(output, name, old)]
    chosen = {name: wanted[name] for name in ours if is_ours(output, name, wanted)}
    named = ", ".join(shown_name(str(output / name)) for name in foreign[:_NAMED])
    gone = ", ".join(name for name in sorted(ours) if name not in chosen)
    return chosen, (
        f"{named}: not written by llama-export, or changed since, so no files for the hub are "
        f"put beside the bundles{gone and f', and those of an earlier export go ({gone})'}: "
        f"export to another folder to have them",
    )


def record_of(files: Mapping[str, FileEntry]) -> bytes:
    """Return the content of `repository.json` for files at a root, by name."""
    written = {name: asdict(entry) for name, entry in files.items()}
    text = json.dumps(
        {"format_version": _FORMAT_VERSION, "files": written}, indent=2, sort_keys=True
    )
    return text.encode() + b"\n"


def _write_record(work: Path, files: Mapping[str, FileEntry]) -> None:
    (work / RECORD_NAME).write_bytes(record_of(files))


def _is_theirs(
    output: Path,
    name: str,
    wanted: Mapping[str, FileEntry],
    old: Mapping[str, FileEntry] | None,
) -> bool:
    """Whether something stands at a file's place that may not be replaced."""
    if inode(output / name) is None:
        return False
    return not (is_ours(output, name, wanted) or is_ours(output, name, old))
