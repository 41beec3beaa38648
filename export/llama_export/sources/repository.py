"""Fetch what an export needs of a hub repository, pinned to a commit.

Files go into huggingface_hub's own cache, which other tools share: each is downloaded and checked
under its checksum's name, and the commit's folder is put together only when all of them are
there. The formats of checkpoints know which files are needed, and whether a folder has them all;
this module knows nothing of what is in them. huggingface_hub is imported inside the functions: it
costs a command that downloads nothing half a second.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llama_export.checkpoints.checkpoint import REPOSITORY, Fault, WantedFiles
from llama_export.checkpoints.formats import head_place, is_complete, wanted_files
from llama_export.errors import NOTICE, HubError, OutputError
from llama_export.sources.answers import (
    describe_file,
    list_files,
    require_names,
    understood,
)
from llama_export.sources.blobs import Blobs, Damage, commit_of
from llama_export.sources.download import RemoteFile, download, offset
from llama_export.sources.heads import fetch_heads, missing_bytes
from llama_export.sources.hub import Repository, nothing_cached, refusal_of, token_to_send
from llama_export.sources.indexed import indexed_parts
from llama_export.system.byte_sizes import format_bytes
from llama_quantize.printable import shown_name

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all, over every file of a download."""
PICK = ":"
"""What stands between a repository and the one of its models in GGUF that is meant."""

_REVISION = re.compile(r"[A-Za-z0-9][\w.+-]*(/[A-Za-z0-9][\w.+-]*)*")
# A cache has one folder for each, with `--` between the parts, so no part may hold that.
_PART = r"(?!.*(?:--|\.\.))[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_HUB_ID = re.compile(f"{_PART}/{_PART}")
_MOST_BYTES = {True: 2**28, False: 2**44}  # of a small file, and of one of weights

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetched:
    """What is there of a repository's model.

    Args:
        path: folder of the model, or the file that stands for it; of a file that is not fetched,
            its head, which says all but the weights.
        commit: commit of the repository.
        file: path in the repository of the file that stands for the model; empty: a folder does.
        missing_bytes: size of the weights that are not fetched; None: not known.
    """

    path: Path
    commit: str
    file: str = ""
    missing_bytes: int | None = None


def fetch(
    model: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    progress: Progress | None = None,
    weights: bool = True,
    endpoint: str | None = None,
    cache_dir: Path | None = None,
) -> Fetched:
    """Download what an export needs of a repository, or find it in the cache.

    Args:
        model: `organisation/name`; where one of several models in GGUF is meant, then `:` and its
            tag or path.
        revision: branch, tag or commit; None: the default branch.
        token: token of the hub; None: HF_TOKEN or the cached login.
        progress: called with the bytes done and the bytes in all.
        weights: whether the weights are fetched too; without them the folder holds at least the
            small files: configuration, tokenizer and licence, or what the weights' files say of it.
        endpoint: address of the hub; None: HF_ENDPOINT or the public hub.
        cache_dir: folder that keeps downloads; None: huggingface_hub's cache.

    Raises:
        HubError: no network and nothing cached, no such repository, no checkpoint in it that can be
            exported, or a broken download.
        CheckpointError: a file cannot be what its name says.
        GatedModelError: the licence is not accepted, or there is no token.
        OutputError: the download cannot be written.
    """
    from httpx2 import TransportError
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    hub_id, picks, picked = model.partition(PICK)
    if revision is not None and not _REVISION.fullmatch(revision):
        message = f"{shown_name(repr(revision))} cannot be the name of a revision"
        raise HubError(message, "name a branch, a tag or a commit")
    if not _HUB_ID.fullmatch(hub_id) or (picks and not picked):
        message = f"{shown_name(repr(model))} cannot be the name of a repository"
        raise HubError(message, "write it as organisation/name")
    repository = Repository(
        hub_id,
        revision or constants.DEFAULT_REVISION,
        token_to_send(token),
        (endpoint or constants.ENDPOINT).rstrip("/"),
        Path(cache_dir or constants.HF_HUB_CACHE).expanduser().resolve(),
    )
    try:
        return _fetch(repository, picked, progress, weights=weights)
    except (TransportError, OfflineModeIsEnabled) as error:
        reason = repository.shown(error) or type(error).__name__
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status != 429 and status < 500:
            raise refusal_of(repository, error) from None
        reason = f"it answered {status}"
    return _cached(repository, picked, reason, progress, weights=weights)


def _fetch(
    repository: Repository, picked: str, progress: Progress | None, *, weights: bool
) -> Fetched:
    listing = list_files(repository)
    commit, blobs = listing.commit, Blobs(repository.storage)
    wanted = _wanted(repository, listing.names, picked)
    if wanted.index:  # what it names is known, and there, before gigabytes are fetched
        require_names(repository, [*wanted.small, *wanted.weights])
        files = _bring(repository, wanted, [wanted.index], commit)
        _publish(repository, blobs, files, commit, pinned=False)
        parts = indexed_parts(repository, blobs.snapshot(commit) / wanted.index, listing.names)
        wanted = replace(wanted, weights=parts)
    # What is fetched last tells that all is there.
    names = [name for name in wanted.small if name != wanted.last]
    names += [name for name in wanted.weights if weights and name != wanted.last]
    names += [wanted.last] if weights or wanted.last != wanted.opened else []
    require_names(repository, [*wanted.small, *wanted.weights])
    folder = blobs.snapshot(commit)
    read = [*names, *(wanted.weights if wanted.opened and not weights else ())]
    for damage in _damages(blobs, [folder / name for name in read], progress).values():
        _log.log(NOTICE, "%s was damaged in the cache; it is fetched again", damage.blob)
        _remove(damage.blob)
    files = _bring(repository, wanted, names, commit, progress)
    _publish(repository, blobs, files, commit, pinned=weights)
    if weights or not wanted.opened:
        return Fetched(folder / wanted.opened, commit, wanted.opened)
    return _without_weights(repository, blobs, wanted, commit)


def _bring(
    repository: Repository,
    wanted: WantedFiles,
    names: Iterable[str],
    commit: str,
    progress: Progress | None = None,
) -> list[RemoteFile]:
    """Download the files that a commit's folder lacks, and return them."""
    blobs = Blobs(repository.storage)
    small = {*wanted.small, wanted.index}
    files = [
        describe_file(repository, name, commit, most_bytes=_MOST_BYTES[name in small])
        for name in names
        if not (blobs.snapshot(commit) / name).is_file()
    ]
    _download(repository, blobs, files, progress)
    return files


def _without_weights(
    repository: Repository, blobs: Blobs, wanted: WantedFiles, commit: str
) -> Fetched:
    """Find what the files of the weights say of the model, without fetching them."""
    place = blobs.snapshot(commit) / wanted.opened
    if all((blobs.snapshot(commit) / name).is_file() for name in wanted.weights):
        return Fetched(place, commit, wanted.opened, 0)
    files = [
        describe_file(repository, name, commit, most_bytes=_MOST_BYTES[False])
        for name in wanted.weights
    ]
    try:
        fetch_heads(repository, blobs, files, commit)
    except OSError as error:
        # huggingface_hub's HTTP errors are OSErrors too, without an errno.
        if error.errno is None:
            raise
        raise _not_written(repository.storage, error) from None
    return Fetched(head_place(place), commit, wanted.opened, missing_bytes(blobs, files))


def _download(
    repository: Repository, blobs: Blobs, files: Sequence[RemoteFile], progress: Progress | None
) -> None:
    """Bring the files into the cache, under their checksums."""
    from filelock import FileLock

    if not files:
        return
    _check_space(repository, files)
    total, before = sum(file.size_bytes for file in files), 0
    for file in files:
        target = blobs.blob(file.checksum)
        # The name that huggingface_hub locks too, so that no two tools fetch the same file.
        lock = repository.cache / ".locks" / repository.storage.name / f"{file.checksum}.lock"
        report = offset(progress, before, total)
        _make_folder(lock.parent)
        try:
            with FileLock(lock), understood(repository):
                if damage := blobs.damage(target, lambda size_bytes: None):
                    _remove(damage.blob)
                if not target.exists():
                    download(file, target, repository.headers, report)
                    blobs.note_download(file.checksum)
        except OSError as error:
            # huggingface_hub's HTTP errors are OSErrors too, without an errno.
            if error.errno is None:
                raise
            raise _not_written(lock.parent, error) from None
        before += file.size_bytes
        report(file.size_bytes)


def _publish(
    repository: Repository, blobs: Blobs, files: Sequence[RemoteFile], commit: str, *, pinned: bool
) -> None:
    """Put the commit's folder together, and let the branch's name mean it.

    Without the weights the name stays where it is: the copy there may be complete.
    """
    ref = repository.storage / "refs" / repository.revision
    try:
        for file in files:
            blobs.link(file, commit)
        if pinned and repository.revision != commit and commit_of(ref) != commit:
            ref.parent.mkdir(parents=True, exist_ok=True)
            ref.write_text(commit, encoding="utf-8")
    except OSError as error:
        raise _not_written(repository.storage, error) from None


def _damages(blobs: Blobs, places: Iterable[Path], progress: Progress | None) -> dict[Path, Damage]:
    """Compare the files that are there with their names; the sound ones are noted."""
    there = [place for place in places if place.is_file()]
    total, done = sum(map(blobs.unproved_bytes, there)), 0
    found: dict[Path, Damage] = {}

    def count(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        if progress is not None:
            progress(min(done, total), total)

    for place in there:
        if damage := blobs.damage(place, count):
            found[place] = damage
    return found


def _remove(blob: Path) -> None:
    try:
        blob.unlink(missing_ok=True)
    except OSError as error:
        message = f"{blob} is damaged and cannot be removed: {error.strerror or error}"
        raise OutputError(message, "remove it yourself, and run the same command again") from None


def _wanted(repository: Repository, names: Iterable[str], picked: str) -> WantedFiles:
    """Let the formats choose the files, and refuse a repository that none of them can use."""
    wanted = wanted_files(set(names), picked)
    if isinstance(wanted, Fault):
        message = f"{repository.hub_id} at {repository.revision} {wanted.text}"
        raise HubError(message, wanted.hint.replace(REPOSITORY, repository.hub_id))
    return wanted


def _check_space(repository: Repository, files: Iterable[RemoteFile]) -> None:
    needed = sum(file.size_bytes for file in files)
    _make_folder(repository.storage / "blobs")
    free = shutil.disk_usage(repository.storage).free
    if needed > free:
        message = (
            f"{repository.hub_id} needs {format_bytes(needed)} at {repository.storage}, "
            f"and {format_bytes(free)} are free"
        )
        raise OutputError(message, "free some space, or set HF_HOME to a folder on another disk")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_written(folder, error) from None


def _not_written(folder: Path, error: OSError) -> OutputError:
    message = f"the download cannot be written to {folder}: {error.strerror or error}"
    return OutputError(message, "set HF_HOME to a folder that can be written")


def _cached(
    repository: Repository, picked: str, reason: str, progress: Progress | None, *, weights: bool
) -> Fetched:
    """Find the last complete copy of the revision, and refuse it if it is damaged."""
    blobs = Blobs(repository.storage)
    commit = commit_of(repository.storage / "refs" / repository.revision) or repository.revision
    folder = blobs.snapshot(commit)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    wanted = wanted_files(there, picked)
    if isinstance(wanted, Fault):
        # Another program may keep its files under other names.
        if picked or not is_complete(folder):
            raise nothing_cached(repository, reason, wanted if there else None)
        wanted = WantedFiles((), (), "")
    names = wanted.small + (wanted.weights if weights or wanted.opened else ())
    places = [folder / name for name in names]
    # A link whose file was deleted is no file.
    if not (wanted.opened or is_complete(folder)) or not all(map(Path.is_file, places)):
        raise nothing_cached(repository, reason)
    for place, damage in _damages(blobs, places, progress).items():
        name = place.relative_to(folder).as_posix()
        message = (
            f"{name} of {repository.hub_id} is damaged in the cache: {damage.blob} holds what has "
            f"the checksum {damage.found}"
        )
        raise HubError(message, "delete it, and run the same command with network")
    _log.log(
        NOTICE,
        "%s cannot be reached (%s); using the copy of %s downloaded before, commit %s",
        repository.address,
        reason,
        "/".join(filter(None, (repository.hub_id, wanted.opened))),
        folder.name,
    )
    return Fetched(folder / wanted.opened, folder.name, wanted.opened, 0)
