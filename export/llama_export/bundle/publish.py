"""Put the folders of one command in their places together, or leave everything as it was.

The work happens in a hidden folder of the output; when all of it is done, a short pass of renames
makes it the output. Only one export at a time works there. The names in the output are

    .llama-export.lock        held while an export runs
    .llama-export-PID/        folders being written, with a journal during the pass, and
                              afterwards, for a moment, what they replaced
    .NAME.old-PID             an old folder between two renames, where the system cannot exchange

A process that is killed during the pass leaves its journal, and the next export there finishes the
pass before anything else; what a process leaves without one is removed. The module does not know
what is in the folders.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from llama_export.bundle.interrupts import IN_PLACE, Interrupts, add_note, one_interrupt
from llama_export.bundle.journal import (
    WORK_PREFIX,
    finish,
    has_journal,
    put_in_place,
    work_folders,
)
from llama_export.bundle.output_faults import as_output_error, is_output_fault, output_error
from llama_export.bundle.output_lock import busy, may_be_alive, output_lock
from llama_export.bundle.ownership import (
    carry_over,
    extra_files,
    holds_our_weights,
    refuse_existing,
    require_name,
)
from llama_export.bundle.root_files import is_persons, root_changes
from llama_export.bundle.swap import Change, inode, sync_tree
from llama_export.errors import NOTICE, OutputError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Publication:
    """What one command puts in place.

    Args:
        output: folder with the places; it is made if it is missing.
        names: names of the folders to make.
        outdated: name of a folder of quantised weights that would no longer fit what is made, and
            goes if it is ours; None: there can be none.
        force: whether existing folders that are empty or ours are replaced.
        keep_extra: whether files in them that are not ours are carried over, or else refused.
    """

    output: Path
    names: tuple[str, ...]
    outdated: str | None = None
    force: bool = False
    keep_extra: bool = False

    def refuse(self) -> None:
        """Refuse what may not be replaced.

        Raises:
            OutputError: a folder exists and may not be replaced.
        """
        for name in self.names:
            refuse_existing(self.output / name, force=self.force, keep_extra=self.keep_extra)
        if self.outdated is None or not holds_our_weights(place := self.output / self.outdated):
            return
        if not self.force:
            message = (
                f"{place} already exists, and would stand beside bundles that were not made of it"
            )
            hint = "pass --force to remove it, or choose another folder with --output"
            raise OutputError(message, hint)
        refuse_existing(place, force=True, keep_extra=self.keep_extra)

    def awaits_finish(self) -> bool:
        """Return whether an interrupted export into the folder has to be finished first.

        Raises:
            OutputError: the folder cannot be looked into.
        """
        with as_output_error(self.output):
            return any(has_journal(work) for work, _ in work_folders(self.output))


@contextmanager
def publish(publication: Publication) -> Iterator[Path]:
    """Open a fresh folder to write to, and put its folders in place when the block ends well.

    When the block ends with an exception, Ctrl-C included, everything stays as it was. An `OSError`
    of the block that means a full or forbidden output becomes an `OutputError`; any other exception
    passes through. An interrupt says in its notes when the new output is in place all the same, and
    what could not be removed.

    Args:
        publication: what is made, and what it may replace.

    Yields:
        A hidden folder in the output that holds an empty folder for each name. What
        `root_files.lay_out` writes there is put at the output's root; whatever else is written to
        it goes away.

    Raises:
        OutputError: a folder may not be replaced (which is found before any work) or cannot be
            written, another export is writing there, or the disk is full.
    """
    # The block may change the directory.
    publication = _absolute(publication)
    output, done = publication.output, False
    for name in publication.names:
        require_name(output / name)
    if not (publication.force or publication.awaits_finish()):
        publication.refuse()
    work = output / f"{WORK_PREFIX}{os.getpid()}"
    try:
        # What stands there can only be told under the lock: a rival may replace it.
        with one_interrupt() as interrupts, _workspace(publication, work, interrupts):
            publication.refuse()
            yield work
            with as_output_error(output):
                sync_tree(work)  # gigabytes; all that comes after it takes no time
                publication.refuse()
                changes = _changes(publication, work)
                sync_tree(work)  # what was carried over
                # Last of all: a person may have written there while the disk was busy.
                changes += root_changes(output, work)
                interrupts.hold()
                put_in_place(output, work, changes)
                done = True
    except BaseException as error:
        if done:
            add_note(error, IN_PLACE)
        if work.exists():
            add_note(error, f"{work} is left; the next export to {output} removes it")
        raise
    if work.exists():
        _log.log(NOTICE, "%s could not be removed; the next export tries again", work)


def _absolute(publication: Publication) -> Publication:
    output = Path.cwd() / publication.output
    return Publication(
        output,
        publication.names,
        publication.outdated,
        force=publication.force,
        keep_extra=publication.keep_extra,
    )


@contextmanager
def _workspace(publication: Publication, work: Path, interrupts: Interrupts) -> Iterator[None]:
    """Make the hidden folder under the output's lock, and remove what is left of it."""
    output = publication.output
    with _made(output), output_lock(output) as proven:
        try:
            with as_output_error(output):
                _clear_leftovers(publication, owners_are_dead=proven)
                work.mkdir()
                for name in publication.names:
                    (work / name).mkdir()
            try:
                yield
            except OSError as error:
                if is_output_fault(error, work):
                    raise output_error(error, output) from error
                raise
        finally:
            interrupts.hold()
            if not has_journal(work):
                _remove(work)


def _changes(publication: Publication, work: Path) -> list[Change]:
    """Carry over what is not ours, and return what shall stand where."""
    output, names = publication.output, list(publication.names)
    if publication.outdated is not None and holds_our_weights(output / publication.outdated):
        names.append(publication.outdated)
    changes = []
    for name in names:
        place, fresh = output / name, work / name
        if place.is_dir() and (extra := extra_files(place)):
            fresh.mkdir(exist_ok=True)
            carry_over(place, fresh, extra)
        changes.append(Change(name, inode(fresh), inode(place)))
    return changes


def _clear_leftovers(publication: Publication, *, owners_are_dead: bool) -> None:
    """Finish or remove what dead processes left, and put back what they had moved aside."""
    output = publication.output
    for work, pid in work_folders(output):
        # Under the lock, a living process with that id is another one: ids are used again.
        if not owners_are_dead and may_be_alive(pid):
            raise busy(output)
        if has_journal(work):
            finish(output, work, is_persons)
        _remove(work)
    for name in publication.names:
        for aside in sorted(output.iterdir()):
            if re.fullmatch(re.escape(f".{name}.old-") + "[0-9]+", aside.name):
                _put_back(aside, output / name)


def _put_back(aside: Path, place: Path) -> None:
    """Restore a folder of ours whose successor never came; one that has a successor goes."""
    try:
        extra = extra_files(aside)
    except OutputError:
        return  # somebody else's, whatever its name
    if inode(place) is None:
        aside.rename(place)
    elif not extra:
        _remove(aside)


def _remove(folder: Path) -> None:
    """Remove a folder as far as possible."""
    for _ in range(2):  # on network disks a file that was open leaves a name, which goes later
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _made(output: Path) -> Iterator[None]:
    """Make the folder and those above it that are missing; what stays empty goes away again."""
    made: list[Path] = []
    try:
        with as_output_error(output):
            for folder in reversed([p for p in (output, *output.parents) if not p.exists()]):
                folder.mkdir(exist_ok=True)
                made.insert(0, folder)
        yield
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
