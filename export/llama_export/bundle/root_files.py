"""The files at the root of an output, and which of them are ours.

Beside the bundles lie copies of their small files and a model card, so that the whole output is a
repository of the hub. `repository.json` has the hash of each as it was written: what has another
content by now is somebody else's, and stays. `publish` puts the new ones in place, together with
the bundles. The module does not know what is in them.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from llama_export.bundle.bundle import file_fault, hash_file
from llama_export.bundle.json_object import JsonObject
from llama_export.bundle.manifest import FileEntry, path_fault
from llama_export.bundle.swap import Change, inode
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
    record = read_record(output)
    theirs = [name for name in contents if _is_theirs(output, name, contents[name], record)]
    if record is None and inode(output / RECORD_NAME) is not None:
        theirs.append(RECORD_NAME)
    if foreign := [name for name in theirs if not PERSONAL.fullmatch(name)]:
        named = ", ".join(shown_name(str(output / name)) for name in foreign[:_NAMED])
        return (
            f"{named}: not written by llama-export, or changed since, so no files for the hub are "
            f"put beside the bundles: export to another folder to have them",
        )
    written: dict[str, dict[str, object]] = {}
    for name, content in contents.items():
        if name not in theirs:
            (work / name).write_bytes(content)
            written[name] = asdict(hash_file(work / name))
    text = json.dumps(
        {"format_version": _FORMAT_VERSION, "files": written}, indent=2, sort_keys=True
    )
    (work / RECORD_NAME).write_bytes(text.encode() + b"\n")
    return tuple(
        f"{shown_name(str(output / name))} stays as it is: llama-export did not write it, or it "
        "was changed since; remove it, and the next export writes one"
        for name in theirs
    )


def root_changes(output: Path, work: Path) -> list[Change]:
    """Return what `lay_out` wrote as changes of the output; what is no longer made goes.

    Raises:
        OSError: a file cannot be looked at.
    """
    new = read_record(work)
    if new is None:
        return []
    old = read_record(output) or {}
    changes = [
        Change(name, inode(work / name), inode(output / name), is_file=True)
        for name in (*new, RECORD_NAME)
    ]
    return changes + [
        Change(name, None, inode(output / name), is_file=True)
        for name in old
        if name not in new and is_ours(output, name, old)
    ]


def _is_theirs(
    output: Path, name: str, content: bytes, record: Mapping[str, FileEntry] | None
) -> bool:
    """Whether something stands at a file's place that may not be replaced."""
    place = output / name
    try:
        mode = place.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(mode):
        return True
    holds_it = place.stat().st_size == len(content) and place.read_bytes() == content
    return not (holds_it or is_ours(output, name, record))
