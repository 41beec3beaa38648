"""Fetch what an export needs of a hub repository, pinned to a commit.

Files go into huggingface_hub's own cache, which other tools share: each is downloaded and checked
under its checksum's name, and the commit's folder is put together only when all of them are
there, so a folder found later is a complete one. It knows which files are needed and nothing of
what is in them. huggingface_hub is imported inside the functions: it costs a command that
downloads nothing half a second.
"""

from __future__ import annotations

import fnmatch
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.errors import NOTICE, GatedModelError, HubError, OutputError
from llama_export.sources.download import RESUME_HINT, RemoteFile, download

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all, over every file of a download."""

_CONFIG = "config.json"
_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_SMALL_FILES = (
    _CONFIG,
    "generation_config.json",
    "tokenizer.model",
    "original/tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "LICENSE*",
    "USE_POLICY*",
)
_REVISION = re.compile(r"[A-Za-z0-9][\w.+-]*(/[A-Za-z0-9][\w.+-]*)*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CHECKSUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TIMEOUT_S = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Repository:
    """A repository at a revision, on a hub, with its place in the cache."""

    hub_id: str
    revision: str
    token: str | None
    endpoint: str
    cache: Path

    @property
    def storage(self) -> Path:
        """The repository's folder in the cache, as huggingface_hub names it."""
        return self.cache / f"models--{self.hub_id.replace('/', '--')}"


def fetch(
    hub_id: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    progress: Progress | None = None,
    config_only: bool = False,
    endpoint: str | None = None,
    cache_dir: Path | None = None,
) -> tuple[Path, str]:
    """Download what an export needs of a repository, or find it in the cache.

    Args:
        hub_id: `organisation/name`.
        revision: branch, tag or commit; None is the default branch.
        token: a hub token; None tries HF_TOKEN and the cached login.
        progress: told of the bytes downloaded.
        config_only: config.json alone; the folder may then hold nothing else.
        endpoint: the hub's address; None is HF_ENDPOINT or the public hub.
        cache_dir: where downloads are kept; None is huggingface_hub's cache.

    Returns:
        The folder and the commit.

    Raises:
        HubError: no network and nothing cached, no such repository, or a broken download.
        GatedModelError: the licence is not accepted, or there is no token.
        OutputError: the download cannot be written.
    """
    from httpx2 import RequestError, TransportError
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if revision is not None and not _REVISION.fullmatch(revision):
        message = f"{revision!r} cannot be the name of a revision"
        raise HubError(message, "name a branch, a tag or a commit")
    repository = _Repository(
        hub_id,
        revision or constants.DEFAULT_REVISION,
        token or None,
        (endpoint or constants.ENDPOINT).rstrip("/"),
        Path(cache_dir or constants.HF_HUB_CACHE).expanduser().resolve(),
    )
    try:
        return _fetch_config(repository) if config_only else _fetch(repository, progress)
    except (TransportError, OfflineModeIsEnabled) as error:
        return _cached(repository, str(error) or type(error).__name__)
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == 429 or status >= 500:
            return _cached(repository, f"it answered {status}")
        raise _refusal(repository, error) from None
    except (RequestError, ValueError) as error:
        # A redirect loop, an answer that is no JSON, an address or a token that cannot be sent.
        raise _no_hub(repository, f"could not be used: {error}") from None


def _fetch(repository: _Repository, progress: Progress | None) -> tuple[Path, str]:
    from filelock import FileLock
    from huggingface_hub import HfApi, get_token, try_to_load_from_cache

    api = HfApi(endpoint=repository.endpoint, token=repository.token)
    info = api.model_info(repository.hub_id, revision=repository.revision, timeout=_TIMEOUT_S)
    commit = info.sha or ""
    if not _COMMIT.fullmatch(commit):
        raise _no_hub(repository, "gave no commit")
    wanted = _wanted(repository, [sibling.rfilename for sibling in info.siblings or ()])
    missing = [
        name
        for name in wanted
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
    return repository.storage / "snapshots" / commit, commit


def _fetch_config(repository: _Repository) -> tuple[Path, str]:
    """Leave the branch's name where it is: the copy that it points to may be complete."""
    from huggingface_hub import HfApi, hf_hub_download

    api = HfApi(endpoint=repository.endpoint, token=repository.token)
    info = api.model_info(repository.hub_id, revision=repository.revision, timeout=_TIMEOUT_S)
    _wanted(repository, [sibling.rfilename for sibling in info.siblings or ()])
    path = hf_hub_download(
        repository.hub_id,
        _CONFIG,
        revision=info.sha,
        cache_dir=repository.cache,
        token=repository.token,
        endpoint=repository.endpoint,
    )
    return Path(path).parent, info.sha or ""


def _wanted(repository: _Repository, names: Iterable[str]) -> list[str]:
    """Choose the files of an export, the configuration last: a folder that has it has all."""
    present = set(names)
    if _SINGLE in present:
        weights = [_SINGLE]
    else:
        weights = sorted(name for name in present if _SHARD.fullmatch(name) or name == _INDEX)
    if _CONFIG not in present or not weights:
        what = "config.json" if weights else ".safetensors weights"
        message = f"{repository.hub_id} at {repository.revision} has no {what}"
        raise HubError(message, "name a repository in the transformers layout")
    # `*` stands for any character, the slash too: a pattern must not reach into a subfolder.
    small = sorted(
        name
        for name in present - {_CONFIG}
        if any(
            name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name, pattern)
            for pattern in _SMALL_FILES
        )
    )
    return [*small, *weights, _CONFIG]


def _describe(repository: _Repository, name: str, commit: str) -> RemoteFile:
    """Ask for a file's size and checksum; here a gated repository refuses."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(repository.hub_id, name, revision=commit, endpoint=repository.endpoint)
    found = get_hf_file_metadata(
        url, token=repository.token, timeout=_TIMEOUT_S, endpoint=repository.endpoint
    )
    # The checksum becomes a file name, so it may be nothing but hex digits.
    if found.size is None or not _CHECKSUM.fullmatch(found.etag or ""):
        raise _no_hub(repository, f"gave no size or checksum for {name}")
    return RemoteFile(name, url, found.size, found.etag or "")


def _check_space(repository: _Repository, files: Iterable[RemoteFile]) -> None:
    needed = sum(file.size_bytes for file in files)
    _make_folder(repository.storage / "blobs")
    free = shutil.disk_usage(repository.storage).free
    if needed > free:
        message = (
            f"{repository.hub_id} needs {needed / 1e9:.2f} GB at {repository.storage}, "
            f"and {free / 1e9:.2f} GB are free"
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


def _link(repository: _Repository, names: Iterable[str], commit: str) -> None:
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
    if repository.revision != commit:
        ref = repository.storage / "refs" / repository.revision
        _make_folder(ref.parent)
        ref.write_text(commit, encoding="utf-8")


def _cached(repository: _Repository, reason: str) -> tuple[Path, str]:
    """Find the last complete copy of the revision."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(
        repository.hub_id, _CONFIG, cache_dir=repository.cache, revision=repository.revision
    )
    if isinstance(config, str) and _is_complete(Path(config).parent):
        folder = Path(config).parent
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


def _is_complete(folder: Path) -> bool:
    """Tell whether the weights are there; another tool may have fetched only part of them."""
    if (folder / _SINGLE).is_file():
        return True
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        return all((folder / name).is_file() for name in set(index["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _refusal(repository: _Repository, error: HfHubHTTPError) -> HubError:
    from huggingface_hub import get_token
    from huggingface_hub.errors import (
        GatedRepoError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub_id, status = repository.hub_id, error.response.status_code
    set_token = (
        f"create a token at {repository.endpoint}/settings/tokens and give it with "
        "HF_TOKEN=..., --token or `hf auth login`"
    )
    if isinstance(error, GatedRepoError):
        page = f"open {repository.endpoint}/{hub_id} and accept the licence"
        if repository.token or get_token():
            message = f"the account of this token has not been given access to {hub_id}"
            hint = f"{page}; approval can take a while, and the token must be allowed to read it"
        else:
            message = f"{hub_id} is given only to accounts that accepted its licence"
            hint = f"{page}; then {set_token}"
        return GatedModelError(message, hint)
    if isinstance(error, RepositoryNotFoundError):
        message = f"{repository.endpoint} has no model {hub_id}, or it is private"
        return HubError(message, f"check the spelling; for a private model {set_token}")
    if isinstance(error, RevisionNotFoundError):
        message = f"{hub_id} has no revision {repository.revision}"
        return HubError(message, f"see {repository.endpoint}/{hub_id}/commits/main")
    if isinstance(error, RemoteEntryNotFoundError):
        message = f"{hub_id} lists a file that is not there: {error.response.url}"
        return HubError(message, "name another revision")
    if status in (401, 403):
        message = f"{repository.endpoint} refused the token: {error.server_message or status}"
        return GatedModelError(message, set_token)
    message = f"{repository.endpoint} answered {status} for {error.response.url}"
    return HubError(message, "try again later")


def _no_hub(repository: _Repository, fault: str) -> HubError:
    message = f"{repository.endpoint} {fault}; it does not answer as a hub does"
    return HubError(message, "check HF_ENDPOINT, the proxy and the firewall")
