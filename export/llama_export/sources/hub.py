"""Which repository of which hub is meant, and what the hub's refusals mean to a user.

It sends nothing. huggingface_hub is imported inside the functions: it costs half a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.errors import GatedModelError, HubError

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError


@dataclass(frozen=True)
class Repository:
    """A repository at a revision, on a hub, with its place in the cache.

    Args:
        hub_id: `organisation/name`.
        revision: branch, tag or commit.
        token: token that was given; None: the environment's or the login's.
        endpoint: address of the hub.
        cache: folder that keeps downloads.
    """

    hub_id: str
    revision: str
    token: str | None
    endpoint: str
    cache: Path

    @property
    def storage(self) -> Path:
        """The repository's folder in the cache, as huggingface_hub names it."""
        return self.cache / f"models--{self.hub_id.replace('/', '--')}"


def refusal_of(repository: Repository, error: HfHubHTTPError) -> HubError:
    """Return the error that a user can act on."""
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


def not_a_hub(repository: Repository, fault: str) -> HubError:
    """Return the error for an address that does not answer as a hub does.

    Args:
        repository: what was asked for.
        fault: what is wrong, to be read after the address.
    """
    message = f"{repository.endpoint} {fault}; it does not answer as a hub does"
    return HubError(message, "check HF_ENDPOINT, the proxy and the firewall")
