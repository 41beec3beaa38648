"""What may be chosen about a server, and the limits that are not chosen.

It knows numbers and names; it opens no bundle and no socket.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from llama_export.errors import UsageError

HOST = "127.0.0.1"
PORT = 8080
PARALLEL = 4
QUEUE = 64
TIMEOUT_S = 600
CACHE_MB = 512
BODY_MB = 4
MAX_TOKENS = 4096
# Of one request: answers to one prompt, prompts of one completion, and texts that end an answer.
MOST_TOOLS = 128
MOST_CHOICES = 16
MOST_PROMPTS = 64
MOST_STOPS = 16
MOST_TOP_LOGPROBS = 20
MOST_MESSAGES = 4096


@dataclass(frozen=True)
class ServerSettings:
    """How a server answers, and whom.

    Args:
        host: address that it listens on.
        api_key: key that every request must name; "": none.
        origins: origins of pages in a browser that may ask, such as "http://localhost:3000"; "*"
            is every one.
        parallel: number of answers that are written at once, for each bundle.
        queue: number of requests that may wait, for each bundle.
        timeout_s: longest time of a request, in seconds, its waiting included.
        cache_mb: memory that the KV caches of earlier conversations may take, for each bundle.
        body_mb: largest body of a request.
        max_tokens: largest number of new tokens that a request may ask for.

    Raises:
        UsageError: a number is out of its range, or strangers could ask without a key.
    """

    host: str = HOST
    api_key: str = ""
    origins: tuple[str, ...] = ()
    parallel: int = PARALLEL
    queue: int = QUEUE
    timeout_s: float = TIMEOUT_S
    cache_mb: int = CACHE_MB
    body_mb: int = BODY_MB
    max_tokens: int = MAX_TOKENS

    def __post_init__(self) -> None:
        """Refuse a server that anybody in the network could use."""
        if not self.is_local and not self.api_key:
            message = f"--host {self.host} can be reached by others, and there is no key"
            hint = "give --api-key, or set LLAMA_EXPORT_API_KEY; 127.0.0.1 needs none"
            raise UsageError(message, hint)
        if self.api_key and not (self.api_key.isascii() and self.api_key.isprintable()):
            message = "--api-key: expected letters, digits and signs of ASCII"
            raise UsageError(message, "a header of HTTP cannot hold others")
        faults = [
            f"{name} >= {least}, found {value}"
            for name, value, least in (
                ("parallel", self.parallel, 1),
                ("queue", self.queue, 0),
                ("timeout", self.timeout_s, 0.001),
                ("cache-memory", self.cache_mb, 0),
                ("body-limit", self.body_mb, 1),
                ("max-tokens", self.max_tokens, 1),
            )
            if not value >= least
        ]
        if faults:
            raise UsageError("expected " + "; expected ".join(faults))

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine can reach the server."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Return whether a host's name or address is that of the machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may be anybody's
        return False
