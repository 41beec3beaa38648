"""Send files to a repository of the hub, as one commit.

huggingface_hub does the work. Large files are stored before the commit names them, and what the hub
has already is not sent again: so an upload that broke goes on when it is repeated, and a repository
never shows half of one. The module does not know what the files are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.errors import GatedModelError, HubError
from llama_export.sources.hub import Repository, token_to_send

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

Progress = Callable[[int, int], None]

MAIN = "main"
MESSAGE = "Upload by llama-export"
_AGAIN = "try again: what has arrived is not sent a second time"
# A file below this is part of the commit itself, or of its last request.
_LARGE_BYTES = 4 * 2**20
_NAMED = 3


@dataclass(frozen=True)
class OutgoingFile:
    """A file on its way.

    Args:
        name: path in the repository.
        content: bytes of it, or the file that holds them.
        size_bytes: length.
        sha256: hash in hex; None: it is not known, and computed where needed.
    """

    name: str
    content: bytes | Path
    size_bytes: int
    sha256: str | None = None


@dataclass(frozen=True)
class Destination:
    """Where files go, and how.

    Args:
        hub_id: `OWNER/NAME`.
        branch: branch of the repository; one that is missing is made.
        private: whether nobody else may see it; None: as the owner's account has it.
        as_request: whether a pull request is opened in place of a commit to the branch.
        message: first line of the commit.
        replace: whether files of the same names may be replaced that no push of ours put there.
        token: token that was given; None: HF_TOKEN, or the saved login.
        endpoint: address of the hub; None: huggingface_hub's.
    """

    hub_id: str
    branch: str = MAIN
    private: bool | None = None
    as_request: bool = False
    message: str = MESSAGE
    replace: bool = False
    token: str | None = None
    endpoint: str | None = None


@dataclass(frozen=True)
class BaseCard:
    """What the page of a model on the hub says of it."""

    licence: str | None = None
    languages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sent:
    """What became of an upload: the commit's address, and the pull request's if there is one."""

    commit_url: str
    request_url: str | None = None


class Upload:
    """A connection to one repository.

    Args:
        destination: where files go.

    Raises:
        GatedModelError: there is no token.
        HubError: the token cannot be one.
    """

    def __init__(self, destination: Destination) -> None:
        from huggingface_hub import HfApi, constants

        self.destination = destination
        token = token_to_send(destination.token)
        endpoint = (destination.endpoint or constants.ENDPOINT).rstrip("/")
        cache = Path(constants.HF_HUB_CACHE)
        self._repository = Repository(
            destination.hub_id, destination.branch, token, endpoint, cache
        )
        self._api: HfApi = HfApi(endpoint=endpoint, token=token or False)

    @property
    def address(self) -> str:
        """Page of the repository."""
        return f"{self._repository.address}/{self.destination.hub_id}"

    def require_account(self) -> str:
        """Return the name of the account that sends, before anything is made or sent.

        Raises:
            GatedModelError: there is no token, or the hub refuses it.
            HubError: the hub cannot be reached.
        """
        if self._repository.token is None:
            message = f"a push to {self._repository.address} needs a token, and there is none"
            raise GatedModelError(message, self._set_token())
        with self._refusals():
            return str(self._api.whoami().get("name", ""))

    def base_card(self, hub_id: str) -> BaseCard:
        """Return what the page of another model says; nothing where it cannot be asked."""
        from httpx2 import HTTPError
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        with suppress(HfHubHTTPError, HTTPError, OfflineModeIsEnabled, ValueError):
            card = self._api.model_info(hub_id).card_data
            if card is not None:
                licence, said = card.get("license"), card.get("language")
                languages = said if isinstance(said, list) else [said]
                return BaseCard(
                    licence if isinstance(licence, str) else None,
                    tuple(each for each in languages if isinstance(each, str)),
                )
        return BaseCard()

    def send(self, files: Sequence[OutgoingFile], mark: str, progress: Progress) -> Sent:
        """Make the repository where it is missing, and commit the files; nothing is removed.

        Args:
            files: files to send.
            mark: one of them, by which a repository is known as one that was sent before.
            progress: called with the bytes that are stored, and those of all files.

        Raises:
            GatedModelError: the token may not write there.
            HubError: the hub cannot be reached, refuses, or breaks off; the repository is
                public, and a private one was asked for; or it has files of somebody else by the
                same names.
        """
        place = self.destination
        with self._refusals():
            self._make()
            # Of the commit that was looked at, so that nobody's files can come in between.
            parent = self._api.repo_info(place.hub_id, revision=place.branch).sha
            self._require_ours({each.name for each in files}, mark)
            operations = self._stored(files, progress)
            commit = self._api.create_commit(
                place.hub_id,
                operations,
                commit_message=place.message,
                revision=place.branch,
                create_pr=place.as_request,
                parent_commit=parent,
            )
        total = sum(each.size_bytes for each in files)
        progress(total, total)
        return Sent(str(commit.commit_url), commit.pr_url)

    def _make(self) -> None:
        place = self.destination
        self._api.create_repo(place.hub_id, private=place.private, exist_ok=True)
        if place.private and not self._api.repo_info(place.hub_id).private:
            message = f"{self.address} exists and is public, and a private one was asked for"
            hint = "make it private in its settings, leave --private out, or choose another name"
            raise HubError(message, hint)
        if place.branch != MAIN:
            self._api.create_branch(place.hub_id, branch=place.branch, exist_ok=True)

    def _require_ours(self, names: Set[str], mark: str) -> None:
        """Refuse to replace what no push of ours put into the repository."""
        place = self.destination
        if place.replace or place.as_request:
            return
        there = set(self._api.list_repo_files(place.hub_id, revision=place.branch))
        if mark in there or not (theirs := sorted(there & names)):
            return
        shown = ", ".join(theirs[:_NAMED]) + (", ..." if len(theirs) > _NAMED else "")
        message = f"{self.address} has files that llama-export did not push: {shown}"
        hint = "choose another name; or push with --replace, or with --create-pr to propose it"
        raise HubError(message, hint)

    def _stored(
        self, files: Sequence[OutgoingFile], progress: Progress
    ) -> list[CommitOperationAdd]:
        """Store the large files one after the other, so that each is there when a later fails."""
        from huggingface_hub import CommitOperationAdd

        place, done = self.destination, 0
        operations: list[CommitOperationAdd] = []
        total = sum(each.size_bytes for each in files)
        for each in files:
            operation = CommitOperationAdd(each.name, each.content)
            if each.sha256 is not None:
                operation.upload_info.sha256 = bytes.fromhex(each.sha256)
            if each.size_bytes >= _LARGE_BYTES:
                self._api.preupload_lfs_files(
                    place.hub_id,
                    [operation],
                    revision=place.branch,
                    create_pr=place.as_request,
                    free_memory=False,
                )
            done += each.size_bytes
            progress(min(done, total - 1), total)
            operations.append(operation)
        return operations

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Turn what the hub or the network says into an error that a user can act on."""
        from httpx2 import HTTPError
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        try:
            with warnings.catch_warnings():
                # huggingface_hub's own way of sending a file, of which nobody can do anything.
                warnings.filterwarnings("ignore", "Use 'content=", DeprecationWarning)
                yield
        except HfHubHTTPError as error:
            raise self._refusal(error) from None
        except OfflineModeIsEnabled:
            message = f"{self._repository.address} is not asked: HF_HUB_OFFLINE is set"
            raise HubError(message, "unset it to push") from None
        except HTTPError as error:
            raise self._broken(error) from None
        except RuntimeError as error:
            # huggingface_hub names the file and hides the reason behind it.
            cause = error.__cause__
            if isinstance(cause, HfHubHTTPError):
                raise self._refusal(cause) from None
            if not isinstance(cause, HTTPError | OSError):
                raise
            raise self._broken(cause) from None
        except ValueError as error:
            # Of a name that the hub would not take, or of an answer that is none of its own.
            said = self._repository.shown(error)
            message = f"the upload to {self._repository.address} failed: {said}"
            raise HubError(
                message, "the message is huggingface_hub's own; a proxy may stand between"
            ) from error

    def _refusal(self, error: HfHubHTTPError) -> HubError:
        shown, status = self._repository.shown, error.response.status_code
        said = shown(error.server_message or f"status {status}")
        where = f"{self._repository.address} refused to write {self.destination.hub_id}"
        if status == 401:
            message = f"{self._repository.address} refused the token: {said}"
            return GatedModelError(message, self._set_token())
        if status == 403:
            return GatedModelError(f"{where}: {said}", self._set_token())
        if status == 404:
            return HubError(f"{where}: {said}", "check the owner's name and the branch")
        if status in (409, 412):
            return HubError(f"{where}: {said}", f"somebody else wrote there meanwhile; {_AGAIN}")
        if status == 429 or status >= 500:
            message = f"{self._repository.address} answered {status}: {said}"
            return HubError(message, f"wait a little and {_AGAIN}")
        return HubError(f"{where}: {said}", "the message is the hub's own")

    def _broken(self, error: BaseException) -> HubError:
        said = self._repository.shown(error) or type(error).__name__
        message = f"the upload to {self._repository.address} broke off ({said})"
        return HubError(message, f"check the network and the proxy, and {_AGAIN}")

    def _set_token(self) -> str:
        return (
            f"create one that may write at {self._repository.address}/settings/tokens, and give it "
            "with HF_TOKEN=..., --token or `hf auth login`"
        )
