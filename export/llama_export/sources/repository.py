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
from collections.abc import Callable, Iterable
from pathlib import Path

from llama_export.checkpoints.checkpoint import Fault, WantedFiles
from llama_export.checkpoints.formats import find_format, wanted_files
from llama_export.errors import NOTICE, HubError, OutputError
from llama_export.sources.download import RESUME_HINT, RemoteFile, download
from llama_export.sources.hub import Repository, not_a_hub, refusal_of
from llama_export.system.byte_sizes import format_bytes

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all, over every file of a download."""

_REVISION = re.compile(r"[A-Za-z0-9][\w.+-]*(/[A-Za-z0-9][\w.+-]*)*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CHECKSUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TIMEOUT_S = 10.0

_log = logging.getLogger(__name__)


def fetch(
    hub_id: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    progress: Progress | None = None,
    weights: bool = True,
    endpoint: str | None = None,
    cache_dir: Path | None = None,
) -> tuple[Path, str]:
    """Download what an export needs of a repository, or find it in the cache.

    Args:
        hub_id: `organisation/name`.
        revision: branch, tag or commit; None: the default branch.
        token: token of the hub; None: HF_TOKEN or the cached login.
        progress: called with the bytes done and the bytes in all.
        weights: whether the weights are fetched too; without them the folder holds at least the
            small files: configuration, tokenizer and licence.
        endpoint: address of the hub; None: HF_ENDPOINT or the public hub.
        cache_dir: folder that keeps downloads; None: huggingface_hub's cache.

    Returns:
        The folder and the commit.

    Raises:
        HubError: no network and nothing cached, no such repository, no checkpoint in it that can be
            exported, or a broken download.
        GatedModelError: the licence is not accepted, or there is no token.
        OutputError: the download cannot be written.
    """
    from httpx2 import RequestError, TransportError
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if revision is not None and not _REVISION.fullmatch(revision):
        message = f"{revision!r} cannot be the name of a revision"
        raise HubError(message, "name a branch, a tag or a commit")
    repository = Repository(
        hub_id,
        revision or constants.DEFAULT_REVISION,
        token or None,
        (endpoint or constants.ENDPOINT).rstrip("/"),
        Path(cache_dir or constants.HF_HUB_CACHE).expanduser().resolve(),
    )
    try:
        return _fetch(repository, progress, weights=weights)
    except (TransportError, OfflineModeIsEnabled) as error:
        return _cached(repository, str(error) or type(error).__name__)
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == 429 or status >= 500:
            return _cached(repository, f"it answered {status}")
        raise refusal_of(repository, error) from None
    except (RequestError, ValueError) as error:
        # A redirect loop, an answer that is no JSON, an address or a token that cannot be sent.
        raise not_a_hub(repository, f"could not be used: {error}") from None


def _fetch(repository: Repository, progress: Progress | None, *, weights: bool) -> tuple[Path, str]:
    from filelock import FileLock
    from huggingface_hub import HfApi, get_token, try_to_load_from_cache

    api = HfApi(endpoint=repository.endpoint, token=repository.token)
    info = api.model_info(repository.hub_id, revision=repository.revision, timeout=_TIMEOUT_S)
    commit = info.sha or ""
    if not _COMMIT.fullmatch(commit):
        raise not_a_hub(repository, "gave no commit")
    wanted = _wanted(repository, [sibling.rfilename for sibling in info.siblings or ()])
    # What is fetched last tells that all is there.
    names = [name for name in wanted.small if name != wanted.last]
    names += [*(wanted.weights if weights else ()), wanted.last]
    missing = [
        name
        for name in names
        if not isinstance(
            try_to_load_from_cache(
                repository.hub_id, name, cache_dir=repository.cache, revision=commit
            ),
            str,
        )
    ]
    files = [_describe(repository, name, commit) for name in missing]
    _check_space(repository, files)
    bearer = repository.token or get_token()
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    total, before = sum(file.size_bytes for file in files), 0
    for file in files:
        target = repository.storage / "blobs" / file.checksum
        # The name that huggingface_hub locks too, so that no two tools fetch the same file.
        lock = repository.cache / ".locks" / repository.storage.name / f"{file.checksum}.lock"
        report = _offset(progress, before, total)
        _make_folder(lock.parent)
        with FileLock(lock):
            if not target.exists():
                download(file, target, headers, report)
        before += file.size_bytes
        report(file.size_bytes)
    _link(repository, missing, commit)
    # Without the weights the branch's name stays where it is: the copy there may be complete.
    if weights and repository.revision != commit:
        ref = repository.storage / "refs" / repository.revision
        _make_folder(ref.parent)
        ref.write_text(commit, encoding="utf-8")
    return repository.storage / "snapshots" / commit, commit


def _wanted(repository: Repository, names: Iterable[str]) -> WantedFiles:
    """Let the formats choose the files, and refuse a repository that none of them can use."""
    wanted = wanted_files(set(names))
    if isinstance(wanted, Fault):
        message = f"{repository.hub_id} at {repository.revision} {wanted.text}"
        raise HubError(message, wanted.hint)
    return wanted


def _describe(repository: Repository, name: str, commit: str) -> RemoteFile:
    """Ask for a file's size and checksum; here a gated repository refuses."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(repository.hub_id, name, revision=commit, endpoint=repository.endpoint)
    found = get_hf_file_metadata(
        url, token=repository.token, timeout=_TIMEOUT_S, endpoint=repository.endpoint
    )
    # The checksum becomes a file name, so it may be nothing but hex digits.
    if found.size is None or not _CHECKSUM.fullmatch(found.etag or ""):
        raise not_a_hub(repository, f"gave no size or checksum for {name}")
    return RemoteFile(name, url, found.size, found.etag or "")


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
        message = f"the download cannot be written to {folder}: {error.strerror}"
        raise OutputError(message, "set HF_HOME to a folder that can be written") from None


def _offset(progress: Progress | None, before: int, total: int) -> Callable[[int], None]:
    def report(done: int) -> None:
        if progress is not None:
            progress(before + done, total)

    return report


def _link(repository: Repository, names: Iterable[str], commit: str) -> None:
    """Put the commit's folder together from the files that were downloaded."""
    from huggingface_hub import hf_hub_download

    for name in names:
        hf_hub_download(
            repository.hub_id,
            name,
            revision=commit,
            cache_dir=repository.cache,
            token=repository.token,
            endpoint=repository.endpoint,
        )


def _cached(repository: Repository, reason: str) -> tuple[Path, str]:
    """Find the last complete copy of the revision."""
    ref = repository.storage / "refs" / repository.revision
    commit = ref.read_text(encoding="utf-8") if ref.is_file() else repository.revision
    folder = repository.storage / "snapshots" / commit
    if find_format(folder).is_complete(folder):
        _log.log(
            NOTICE,
            "%s cannot be reached (%s); using the copy of %s downloaded before, commit %s",
            repository.endpoint,
            reason,
            repository.hub_id,
            folder.name,
        )
        return folder, folder.name
    partial = any(repository.storage.glob("blobs/*.incomplete"))
    message = (
        f"{repository.endpoint} cannot be reached ({reason}), and there is no complete copy of "
        f"{repository.hub_id} at {repository.revision} in {repository.cache}"
    )
    hint = "check the network, the proxy and HF_HUB_OFFLINE; or use --model demo, which needs none"
    raise HubError(message, f"{hint}. {RESUME_HINT}" if partial else hint)
