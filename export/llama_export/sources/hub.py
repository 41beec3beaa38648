"""Which repository of which hub is meant, with which token, and what the hub's refusals mean.

It sends nothing. What a hub says reaches a user through `Repository.shown` alone: without the
token, in one short line. huggingface_hub is imported inside the functions: it costs half a second.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.checkpoints.checkpoint import Fault
from llama_export.errors import GatedModelError, HubError
from llama_export.sources.download import RESUME_HINT
from llama_quantize.printable import shown_name

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

_TOKEN = re.compile(r"[\x21-\x7e]{1,2000}")
_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
# A name and a password before the host, and the signature that a store's address carries.
_SECRETS = re.compile(r"(?<=//)[^/@\s]*@|\?\S*")
_MOST_CHARACTERS = 300


@dataclass(frozen=True)
class Repository:
    """A repository at a revision, on a hub, with its place in the cache.

    Args:
        hub_id: `organisation/name`.
        revision: branch, tag or commit.
        token: token that is sent; None: none is.
        endpoint: address of the hub.
        cache: folder that keeps downloads.
    """

    hub_id: str
    revision: str
    token: str | None = field(repr=False)
    endpoint: str
    cache: Path

    @property
    def storage(self) -> Path:
        """The repository's folder in the cache, as huggingface_hub names it."""
        return self.cache / f"models--{self.hub_id.replace('/', '--')}"

    @property
    def headers(self) -> dict[str, str]:
        """Headers of each request."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @property
    def address(self) -> str:
        """The hub's address as it may be shown."""
        return self.shown(self.endpoint)

    def shown(self, text: object) -> str:
        """Render what a hub, or a library about it, said: no token, no signature, one line."""
        said = str(text)
        if self.token:
            said = said.replace(self.token, "<token>")
        return shown_name(_SECRETS.sub("", said), _MOST_CHARACTERS)


def token_to_send(given: str | None) -> str | None:
    """Return the token that was given, or the environment's or the login's; None: there is none.

    Raises:
        HubError: it cannot be a token: it holds a blank, a line break or a letter beyond ASCII. The
            message does not show it.
    """
    from huggingface_hub import constants, get_token

    if given and given.strip():
        return _checked(given, "the token that was given")
    if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return None
    # huggingface_hub takes the line breaks out and sends the rest.
    for name in _TOKEN_VARIABLES:
        if os.environ.get(name, "").strip():
            _checked(os.environ[name], name)
    where = f"the saved login ({constants.HF_TOKEN_PATH})"
    try:
        token = get_token()
    except (OSError, ValueError):  # ValueError: the file is no text; its content is not shown
        message = f"{where} cannot be read"
        raise HubError(message, "run `hf auth login` again, or give --token") from None
    return None if token is None else _checked(token, where)


def _checked(token: str, where: str) -> str:
    token = token.strip()
    if not _TOKEN.fullmatch(token):
        message = f"{where} is no token: it holds a blank, a line break or a letter beyond ASCII"
        raise HubError(message, "copy it again: a token is one word that begins with hf_")
    return token


def refusal_of(repository: Repository, error: HfHubHTTPError) -> HubError:
    """Return the error that a user can act on."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub_id, address = repository.hub_id, repository.address
    status = error.response.status_code
    set_token = (
        f"create a token at {address}/settings/tokens and give it with "
        "HF_TOKEN=..., --token or `hf auth login`"
    )
    if isinstance(error, GatedRepoError):
        page = f"open {address}/{hub_id} and accept the licence"
        if repository.token:
            message = f"the account of this token has not been given access to {hub_id}"
            hint = f"{page}; approval can take a while, and the token must be allowed to read it"
        else:
            message = f"{hub_id} is given only to accounts that accepted its licence"
            hint = f"{page}; then {set_token}"
        return GatedModelError(message, hint)
    if isinstance(error, RepositoryNotFoundError):
        message = f"{address} has no model {hub_id}, or it is private"
        return HubError(message, f"check the spelling; for a private model {set_token}")
    if isinstance(error, RevisionNotFoundError):
        message = f"{hub_id} has no revision {repository.revision}"
        return HubError(message, f"see {address}/{hub_id}/commits/main")
    if isinstance(error, RemoteEntryNotFoundError):
        message = f"{hub_id} lists a file that is not there: {repository.shown(error.response.url)}"
        return HubError(message, "name another revision")
    if status in (401, 403):
        said = repository.shown(error.server_message or status)
        return GatedModelError(f"{address} refused the token: {said}", set_token)
    message = f"{address} answered {status} for {repository.shown(error.response.url)}"
    return HubError(message, "try again later")


def not_a_hub(repository: Repository, fault: str) -> HubError:
    """Return the error for an address that does not answer as a hub does.

    Args:
        repository: what was asked for.
        fault: what is wrong, to be read after the address.
    """
    message = f"{repository.address} {fault}; it does not answer as a hub does"
    return HubError(message, "check HF_ENDPOINT, the proxy and the firewall")


def nothing_cached(repository: Repository, reason: str, fault: Fault | None = None) -> HubError:
    """Return the error for a hub that cannot be reached, where no copy is whole.

    Args:
        repository: what was asked for.
        reason: why it cannot be reached.
        fault: what the files are that are there; None: they are too few.
    """
    partial = any(repository.storage.glob("blobs/*.incomplete"))
    message = (
        f"{repository.address} cannot be reached ({reason}), and there is no complete copy of "
        f"{repository.hub_id} at {repository.revision} in {repository.cache}"
    )
    message += "" if fault is None else f": what is there {fault.text}"
    hint = "check the network, the proxy and HF_HUB_OFFLINE; or use --model demo, which needs none"
    return HubError(message, f"{hint}. {RESUME_HINT}" if partial else hint)
