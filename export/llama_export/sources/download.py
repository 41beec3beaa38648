"""Download one file over HTTP so that it can be trusted: resumed, complete, and of the right hash.

Of a part of a file that is read alone only the length can be checked. The module knows ranges,
retries and checksums. It knows nothing of repositories, models or licences; an answer that is not
about the transfer itself goes to the caller as huggingface_hub's own error.

huggingface_hub's own download, over HTTP or Xet, is not taken for it: it keeps nothing of a file
that broke off, compares its length and not its hash, warns of a full disk and goes on, and lets
the branch's name mean a commit before its files are there. `tests/sources/test_downloader.py`
holds it to that, so that a version that does better is noticed. Its requests, sessions, metadata,
errors and the layout of its cache are used throughout.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llama_export.errors import HubError, OutputError
from llama_export.sources.responses import raise_for_status
from llama_quantize.checkpoint.files import Digest, hash_into

RESUME_HINT = "what came so far is kept: run the same command again, and it goes on from there"

# A transfer is given up after this many attempts in a row that brought nothing new.
_ATTEMPTS = 5
_FIRST_WAIT_S = 1.0
_TIMEOUT_S = 30.0
_TRY_AGAIN = (408, 429, 500, 502, 503, 504)
_SHA256_DIGITS = 64


class Hash(Digest, Protocol):
    """A hash that can be compared with a checksum."""

    def hexdigest(self) -> str:
        """Return the digest in lower-case hex."""


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch.

    Args:
        name: name for messages.
        url: address; redirects are followed, and the token stays behind.
        size_bytes: size of the file.
        checksum: lower-case hex, either its sha256 or (40 digits) its git blob id.
    """

    name: str
    url: str
    size_bytes: int
    checksum: str


def download(
    file: RemoteFile, target: Path, headers: Mapping[str, str], report: Callable[[int], None]
) -> None:
    """Fetch a file to `target`, which appears only when all of it is there and its hash is right.

    Args:
        file: file to fetch.
        target: path that it gets; an unfinished download waits beside it as `*.incomplete`.
        headers: headers of each request.
        report: called with the bytes that are there so far.

    Raises:
        HubError: the transfer broke off for good, or what came is not the file.
        OutputError: the disk is full or cannot be written.
        huggingface_hub.errors.HfHubHTTPError: the server refused.
    """
    partial = target.with_name(f"{target.name}.llama-export.incomplete")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        _transfer(file, partial, headers, report)
        _check(file, partial)
        partial.replace(target)
    except OSError as error:
        # huggingface_hub's HTTP errors are OSErrors too, without an errno.
        if error.errno is None:
            raise
        raise _not_written(partial, error) from None


def _transfer(
    file: RemoteFile, partial: Path, headers: Mapping[str, str], report: Callable[[int], None]
) -> None:
    from httpx2 import TransportError

    if partial.stat().st_size > file.size_bytes:
        partial.write_bytes(b"")
    best = have = partial.stat().st_size
    failures = 0
    while have != file.size_bytes:
        try:
            reason = _append(file, partial, have, headers, report)
        except TransportError as error:
            reason = str(error) or type(error).__name__
        have = partial.stat().st_size
        # More than ever before, not only more than last time: a server that ignores ranges starts
        # again at 0 each time, and must not keep this loop going for ever.
        failures = 0 if have > best else failures + 1
        best = max(best, have)
        if failures == _ATTEMPTS:
            message = (
                f"the download of {file.name} broke off at byte {have} of {file.size_bytes}: "
                f"{reason}"
            )
            raise HubError(message, RESUME_HINT)
        if have != file.size_bytes:
            time.sleep(_FIRST_WAIT_S * 2**failures)


def _append(
    file: RemoteFile,
    partial: Path,
    have: int,
    headers: Mapping[str, str],
    report: Callable[[int], None],
) -> str:
    """Make one request, keep what it brings, and return why that may not be everything."""
    from huggingface_hub import get_session

    request = {**headers, "Accept-Encoding": "identity"}
    if have:
        request["Range"] = f"bytes={have}-"
    with get_session().stream("GET", file.url, headers=request, timeout=_TIMEOUT_S) as response:
        status = response.status_code
        if status in _TRY_AGAIN:
            return f"the server answered {status}"
        # Without a range in the answer, and with a wrong one, what is there cannot be continued.
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if status == 416 or (status == 206 and not resumed):
            partial.write_bytes(b"")
            return "the server would not continue where it stopped"
        raise_for_status(response)
        done = have if status == 206 else 0
        with partial.open("ab" if status == 206 else "wb") as out:
            for block in response.iter_raw():
                done += len(block)
                if done > file.size_bytes:
                    break
                out.write(block)
                report(done)
    if done > file.size_bytes:
        partial.unlink()
        message = f"the server sent more than the {file.size_bytes} bytes of {file.name}"
        raise HubError(message, "run the same command again later")
    return "the connection closed early"


def read_part(file: RemoteFile, start: int, size_bytes: int, headers: Mapping[str, str]) -> bytes:
    """Read a part of a file into memory; it may be anything, because the checksum is of the whole.

    Of a server that ignores ranges, the file is read up to the end of the part and no further.

    Args:
        file: file on the server.
        start: first byte of the part.
        size_bytes: number of its bytes.
        headers: headers of each request.

    Raises:
        HubError: the server does not send the part.
        huggingface_hub.errors.HfHubHTTPError: the server refused.
    """
    from httpx2 import TransportError

    reason = ""
    for failures in range(_ATTEMPTS):
        if failures:
            time.sleep(_FIRST_WAIT_S * 2**failures)
        try:
            found, reason = _part(file, start, size_bytes, headers)
        except TransportError as error:
            found, reason = b"", str(error) or type(error).__name__
        if len(found) == size_bytes:
            return found
    message = (
        f"the bytes {start} to {start + size_bytes} of the {file.size_bytes} of {file.name} could "
        f"not be read: {reason}"
    )
    raise HubError(message, "run the same command again later")


def _part(
    file: RemoteFile, start: int, size_bytes: int, headers: Mapping[str, str]
) -> tuple[bytes, str]:
    """Make one request, and return what it brings and why that may not be everything."""
    from huggingface_hub import get_session

    wanted = f"bytes={start}-{start + size_bytes - 1}"
    request = {**headers, "Accept-Encoding": "identity", "Range": wanted}
    with get_session().stream("GET", file.url, headers=request, timeout=_TIMEOUT_S) as response:
        status = response.status_code
        if status in _TRY_AGAIN:
            return b"", f"the server answered {status}"
        raise_for_status(response)
        is_part = status == 206
        if is_part and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            return b"", "the server sent another part"
        before, found = 0 if is_part else start, bytearray()
        for block in response.iter_raw():
            found += block[before:]
            before = max(0, before - len(block))
            if len(found) >= size_bytes:
                break
    return bytes(found[:size_bytes]), "the connection closed early"


def digest_of(checksum: str, size_bytes: int) -> Hash:
    """Return the fresh hash that a checksum is one of: sha256, or git's of a blob.

    Args:
        checksum: checksum in hex, of 64 or 40 digits.
        size_bytes: size of the file, which git hashes too.
    """
    if len(checksum) == _SHA256_DIGITS:
        return hashlib.sha256()
    # How git names a blob. It guards against accidents, which is all that is asked of it.
    return hashlib.sha1(f"blob {size_bytes}\0".encode(), usedforsecurity=False)


def _check(file: RemoteFile, partial: Path) -> None:
    """Compare the hash; a file that fails is removed, because no resumption can mend it."""
    digest = digest_of(file.checksum, file.size_bytes)
    hash_into(digest, partial)
    if digest.hexdigest() != file.checksum:
        partial.unlink()
        message = (
            f"{file.name} was damaged on the way: expected checksum {file.checksum}, "
            f"found {digest.hexdigest()}"
        )
        raise HubError(message, "the damaged file was removed: run the same command again")


def _not_written(path: Path, error: OSError) -> OutputError:
    hint = "free space there, or set HF_HOME to a folder on another disk"
    message = f"the download cannot be written to {path.parent}: {error.strerror}"
    return OutputError(message, hint)


def offset(
    progress: Callable[[int, int], None] | None, before: int, total: int
) -> Callable[[int], None]:
    """Return what reports the bytes of one file of several.

    Args:
        progress: called with the bytes done and the bytes in all; None: nobody.
        before: bytes of the files before it.
        total: bytes in all.
    """

    def report(done: int) -> None:
        if progress is not None:
            progress(before + done, total)

    return report
