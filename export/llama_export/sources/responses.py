"""Read an HTTP answer of anybody: a body up to a limit and for a limited time, a refusal in short.

It knows no hub's paths and no repository. huggingface_hub is imported inside the functions: it
costs half a second.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from llama_quantize.strict_json import JsonFault, parse_object

if TYPE_CHECKING:
    from httpx2 import Response

_MOST_SECONDS = 60.0  # for a body that comes a byte at a time
_MOST_ERROR_BYTES = 2**16


def content_of(response: Response, most_bytes: int) -> bytes:
    """Read a body, up to one byte above a limit.

    Args:
        response: response whose body was not read.
        most_bytes: length above which the rest does not matter.
    """
    content = bytearray()
    end = time.monotonic() + _MOST_SECONDS
    for block in response.iter_bytes():
        content += block
        if len(content) > most_bytes or time.monotonic() > end:
            break
    return bytes(content[: most_bytes + 1])


def raise_for_status(response: Response) -> None:
    """Raise what huggingface_hub makes of a refusal, from its headers and a short text alone.

    Raises:
        huggingface_hub.errors.HfHubHTTPError: the status is one of an error.
    """
    from httpx2 import Response
    from huggingface_hub import hf_raise_for_status

    if response.status_code >= 400:
        # It would read the whole body, and stumble over one of another shape than the hub's.
        text = _error_text(content_of(response, _MOST_ERROR_BYTES))
        response = Response(
            response.status_code,
            headers={key: value for key, value in response.headers.items() if key[:2] == "x-"},
            content=json.dumps({"error": text} if text else {}).encode(),
            request=response.request,
        )
    hf_raise_for_status(response)


def _error_text(content: bytes) -> str:
    try:
        text = parse_object(content).get("error")
    except JsonFault:
        return ""
    return text if isinstance(text, str) else ""
