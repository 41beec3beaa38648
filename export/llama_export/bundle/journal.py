"""The journal of a publication: what shall stand where, so that whoever comes next can finish it.

All folders of a publication are complete and on the disk before the journal is written, and what
they replace is removed after it is gone. So a journal without a living owner is a publication that
was struck between its renames; it can only be finished. It lies in the hidden work folder.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from llama_export.bundle.json_object import JsonObject
from llama_export.bundle.output_lock import may_be_alive
from llama_export.bundle.ownership import carry_over, extra_files
from llama_export.bundle.swap import Change, carry_out, inode, leave, sync
from llama_export.errors import NOTICE, OutputError
from llama_quantize.strict_json import JsonFault, read_object

JOURNAL_NAME = "journal.json"
WORK_PREFIX = ".llama-export-"

_FORMAT_VERSION = 1
_WORK = re.compile(re.escape(WORK_PREFIX) + r"([0-9]+)")
# Inside the output, and never one of the hidden names.
_PLACE = re.compile(r"(?!\.)[^/\\:\x00-\x1f\x7f\ud800-\udfff]{1,255}")
# Whether the file of a name at the root of the output is a person's: of (output, work, name).
IsPersons = Callable[[Path, Path, str], bool]
_log = logging.getLogger(__name__)


def work_folders(output: Path) -> list[tuple[Path, int]]:
    """Return the work folders of exports into a folder, with the id of each one's process."""
    try:
        found = sorted(output.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    matches = [(path, _WORK.fullmatch(path.name)) for path in found]
    return [(path, int(match[1])) for path, match in matches if match and not path.is_symlink()]


def has_journal(work: Path) -> bool:
    """Return whether a publication was begun there and not finished."""
    return (work / JOURNAL_NAME).exists()


def put_in_place(output: Path, work: Path, changes: Sequence[Change]) -> None:
    """Carry out all changes, or none.

    Args:
        output: folder with the places.
        work: hidden folder in it with the new folders, all of them on the disk.
        changes: what shall stand where.

    Raises:
        OSError: a rename is impossible, and everything is as it was.
        OutputError: it could not be undone either; the next export finishes it.
    """
    try:
        _write(work, changes)
        for change in changes:
            carry_out(change, output, work)
    except BaseException as error:
        _undo(output, work, changes, error)
        raise
    # It is published: no error may say that it is not.
    with suppress(OSError):
        sync(output)
    with suppress(OSError):
        try:
            _remove(work)
        except OSError:
            _remove(work)  # with it the replaced folders would stay too


def finish(output: Path, work: Path, is_persons: IsPersons) -> None:
    """Carry out what a journal says and an interrupted export did not come to.

    Args:
        output: folder with the places.
        work: work folder of that export, whose process is gone.
        is_persons: what tells a file that may not be replaced; editors may keep its inode.

    Raises:
        OutputError: the journal is damaged, or its folders were changed since.
        OSError: the system refuses.
    """
    done: list[str] = []
    left: list[str] = []
    for change in _read(work):
        place = output / change.name
        is_old = change.old is not None and inode(place) == change.old
        if is_old and place.is_dir():
            _keep_newcomers(place, work / change.name)
        if is_old and change.is_file and is_persons(output, work, change.name):
            leave(change, output, work)
            left.append(str(place))
        elif carry_out(change, output, work):
            done.append(str(place))
        else:
            left.append(str(place))
    sync(output)
    _remove(work)
    _log.log(NOTICE, "an export that was interrupted here is finished: %s", ", ".join(done))
    if left:
        _log.log(NOTICE, "changed since, so it stays as it is: %s", ", ".join(left))


def unfinished(folder: Path) -> str:
    """Return what an interrupted export means for one of its folders; "" when there was none.

    Args:
        folder: a bundle, or quantised weights; it may be missing.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - "." has no name, and links stay
    output = folder.parent
    with suppress(OSError):  # a folder above that may not be looked into
        for work, pid in work_folders(output):
            places = [] if may_be_alive(pid) else _places(work)
            if folder.name in places:
                return (
                    f"an export to {output} was interrupted while it put {', '.join(places)} in "
                    f"place, so they may be of two exports; any export with --output {output} "
                    f"finishes it"
                )
        for aside in [] if folder.exists() else sorted(output.iterdir()):
            if aside.name.startswith(f".{folder.name}.old-"):
                return (
                    f"an export was interrupted there and left it as {aside}: rename that to "
                    f"{folder}, or export again with --output {output}, which puts it back"
                )
    return ""


def _places(work: Path) -> list[str]:
    """Return the names in a work folder's journal; none when it has none, or a damaged one."""
    if not has_journal(work):
        return []
    with suppress(OutputError):
        return [change.name for change in _read(work)]
    return []


def warn_if_unfinished(folder: Path) -> None:
    """Log what `unfinished` says of a folder that is there and is about to be read."""
    if text := unfinished(folder):
        _log.log(NOTICE, text)


def _keep_newcomers(old: Path, new: Path) -> None:
    """Carry over what was put into the old folder since the export was interrupted."""
    newcomers = tuple(name for name in extra_files(old) if not os.path.lexists(new / name))
    if newcomers:
        new.mkdir(exist_ok=True)
        carry_over(old, new, newcomers)


def _undo(output: Path, work: Path, changes: Sequence[Change], error: BaseException) -> None:
    try:
        for change in reversed(changes):
            with suppress(OutputError):  # somebody's own folder took the place: it stays
                carry_out(change.reversed(), output, work)
        _remove(work)
    except OSError as second:
        message = f"{output} is half written: {error}, and then: {second}"
        hint = f"export again with --output {output}: that finishes it first"
        raise OutputError(message, hint) from error


def _write(work: Path, changes: Sequence[Change]) -> None:
    entries = [
        {"name": each.name, "new": each.new, "old": each.old, "file": each.is_file}
        for each in changes
    ]
    text = json.dumps({"format_version": _FORMAT_VERSION, "changes": entries})
    draft = work / f"{JOURNAL_NAME}.draft"
    draft.write_text(text, encoding="utf-8")
    sync(draft)
    draft.rename(work / JOURNAL_NAME)
    sync(work)
    sync(work.parent)


def _remove(work: Path) -> None:
    (work / JOURNAL_NAME).unlink(missing_ok=True)
    with suppress(OSError):
        sync(work)


def _read(work: Path) -> list[Change]:
    path = work / JOURNAL_NAME
    faults: list[str] = []
    try:
        raw = read_object(path, most_bytes=2**16)
    except (JsonFault, OSError) as error:
        raise _damaged(path, str(error)) from error
    if JsonObject(raw, "", faults).integer("format_version") != _FORMAT_VERSION:
        faults.append("it is of another version")
    entries = raw.get("changes")
    changes = []
    for entry in entries if isinstance(entries, list) else [None]:
        owner = JsonObject(entry if isinstance(entry, dict) else {}, "changes.", faults)
        name = owner.text("name", _PLACE, "a name in the output")
        new, old = (None if owner.is_null(key) else owner.integer(key) for key in ("new", "old"))
        is_file = "file" in owner.raw and owner.boolean("file")  # older versions moved folders only
        changes.append(Change(name, new, old, is_file=is_file))
    if faults:
        raise _damaged(path, "; ".join(faults))
    return changes


def _damaged(path: Path, reason: str) -> OutputError:
    message = f"{path}, the journal of an interrupted export, is damaged: {reason}"
    return OutputError(message, f"take from {path.parent} what you want to keep, and remove it")
