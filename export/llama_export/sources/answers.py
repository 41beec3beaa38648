"""Ask a hub what a repository holds, and believe nothing of the answer but what was checked.

An answer may be of any shape and any length: it is read up to a limit, and typed field by field.
The module knows no format of checkpoints and downloads no file. huggingface_hub is imported inside
the functions: it costs half a second.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote

from llama_export.bundle.manifest import path_fault
from llama_export.errors import HubError
from llama_export.sources.download import RemoteFile
from llama_export.sources.hub import Repository, not_a_hub
from llama_export.sources.responses import content_of, raise_for_status
from llama_quantize.printable import printable, shown_name
from llama_quantize.strict_json import JsonFault, parse_object

_COMMIT = re.compile(r"[0-9a-f]{40}")
_CHECKSUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TIMEOUT_S = 10.0
_MOST_LISTING_BYTES = 16 * 2**20  # 100,000 files
_MOST_CHARACTERS = 200  # of a name
_MOST_FILES = 1000


@dataclass(frozen=True)
class Listing:
    """What a repository holds at a commit.

    Args:
        commit: 40 hex digits.
        names: paths of its files, with `/`.
    """

    commit: str
    names: tuple[str, ...]


def list_files(repository: Repository) -> Listing:
    """Ask for the commit of the revision and the names of its files.

    Raises:
        HubError: the answer is not a hub's.
        huggingface_hub.errors.HfHubHTTPError: the hub refused.
        httpx2.TransportError: it could not be reached.
    """
    from huggingface_hub import get_session

    revision = quote(repository.revision, safe="")
    url = f"{repository.endpoint}/api/models/{repository.hub_id}/revision/{revision}"
    with (
        understood(repository),
        get_session().stream(
            "GET", url, headers=repository.headers, timeout=_TIMEOUT_S
        ) as response,
    ):
        raise_for_status(response)
        content = content_of(response, _MOST_LISTING_BYTES)
        try:
            answer = parse_object(content, most_bytes=_MOST_LISTING_BYTES)
        except JsonFault as fault:
            raise not_a_hub(repository, f"gave no list of files: {fault}") from None
    commit, siblings = answer.get("sha"), answer.get("siblings")
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise not_a_hub(repository, "gave no commit")
    names = [each.get("rfilename") for each in _objects(siblings)]
    if not isinstance(siblings, list) or len(names) < len(siblings):
        raise not_a_hub(repository, "gave no list of files")
    if not all(isinstance(name, str) for name in names):
        raise not_a_hub(repository, "gave a list of files without their names")
    return Listing(commit, tuple(str(name) for name in names))


def require_names(repository: Repository, names: Collection[str]) -> None:
    """Refuse names of files that a copy on this machine, or in a bundle, could not have.

    Raises:
        HubError: there is such a name, or there are more than one model has.
    """
    if len(names) > _MOST_FILES:
        message = f"{repository.hub_id} lists {len(names)} files of one model"
        raise HubError(message, f"name a model of at most {_MOST_FILES} files")
    for name in names:
        if len(name) > _MOST_CHARACTERS or path_fault(name) or printable(name, keep="") != name:
            shown = shown_name(name)
            message = f"{repository.hub_id} lists a file whose name no copy could have: {shown}"
            raise HubError(message, "name another revision")


def describe_file(repository: Repository, name: str, commit: str, *, most_bytes: int) -> RemoteFile:
    """Ask for a file's size and checksum; here a gated repository refuses.

    Args:
        repository: repository that lists it.
        name: path of the file in it.
        commit: commit that is meant.
        most_bytes: size above which it cannot be what its name says.

    Raises:
        HubError: the answer is not a hub's, or the file cannot be what its name says.
        huggingface_hub.errors.HfHubHTTPError: the hub refused.
        httpx2.TransportError: it could not be reached.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    shown = shown_name(name)
    url = hf_hub_url(repository.hub_id, name, revision=commit, endpoint=repository.endpoint)
    with understood(repository):
        found = get_hf_file_metadata(
            url,
            token=repository.token or False,
            timeout=_TIMEOUT_S,
            endpoint=repository.endpoint,
        )
        size_bytes, etag = found.size, found.etag or ""
    # The checksum becomes a file name, so it may be nothing but hex digits.
    if size_bytes is None or not _CHECKSUM.fullmatch(etag):
        raise not_a_hub(repository, f"gave no size or checksum for {shown}")
    if not 0 <= size_bytes <= most_bytes:
        fault = f"gave a size of {size_bytes} bytes for {shown}, which has at most {most_bytes}"
        raise not_a_hub(repository, fault)
    return RemoteFile(name, url, size_bytes, etag)


@contextmanager
def understood(repository: Repository) -> Iterator[None]:
    """Name an answer that the libraries stumble over; refusals and lost connections pass.

    Raises:
        HubError: an address, a header, a redirect or a body was none.
    """
    from httpx2 import InvalidURL, RequestError, TransportError
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except (HfHubHTTPError, TransportError):
        raise
    # What the libraries make of a header or a body of a shape that they do not expect.
    except (
        RequestError, InvalidURL, ValueError, TypeError, AttributeError, LookupError, RuntimeError
    ) as error:  # fmt: skip
        said = repository.shown(error) or type(error).__name__
        raise not_a_hub(repository, f"could not be used: {said}") from None


def _objects(value: object) -> list[dict[str, object]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
