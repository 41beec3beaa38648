"""Errors as a client is told them: a status of HTTP, and a body in OpenAI's or ollama's shape.

It knows the errors of the package and the shapes; it does not know requests.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import NoReturn

from llama_export.errors import (
    ChatTemplateError,
    LlamaExportError,
    PromptError,
    TokenizerError,
    UsageError,
)

INVALID = "invalid_request_error"
# Whose fault it is, where it is the client's.
_OF_THE_CLIENT = (PromptError, UsageError, ChatTemplateError, TokenizerError)
# Below this path, ollama's shape.
OLLAMA_ROOT = "/api/"


class ApiError(Exception):
    """What a client is told instead of an answer.

    Args:
        status: status of HTTP, from 400 on.
        message: what is wrong, and what to do.
        param: name of the parameter that is wrong; None: none is.
        code: word for programs; None: none.
        headers: headers of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def kind(self) -> str:
        """OpenAI's word for errors of this status."""
        known = {
            401: "authentication_error",
            403: "permission_error",
            429: "rate_limit_error",
        }
        return "server_error" if self.status >= 500 else known.get(self.status, INVALID)

    def to_json(self) -> dict[str, object]:
        """Return it in OpenAI's shape."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}

    def body_for(self, path: str) -> dict[str, object]:
        """Return it in the shape that the clients of a path expect."""
        return {"error": self.message} if path.startswith(OLLAMA_ROOT) else self.to_json()


def shown(value: object) -> str:
    """Return the beginning of a value for a message; a body of megabytes is not written out."""
    return f"{reprlib.repr(value):.80}"


def refuse_wrong(param: str, expected: str, found: object) -> NoReturn:
    """Refuse a parameter that has a wrong value.

    Raises:
        ApiError: always.
    """
    message = f"{param}: expected {expected}, found {shown(found)}"
    raise ApiError(400, message, param=param, code="invalid_value")


def refuse_unsupported(param: str, reason: str) -> NoReturn:
    """Refuse a parameter that would change the answer, and that nothing here reads.

    Args:
        param: name of the parameter.
        reason: what to do.

    Raises:
        ApiError: always.
    """
    message = f"{param} is not supported here: {reason}"
    raise ApiError(400, message, param=param, code="unsupported_parameter")


def refuse_as(param: str, error: LlamaExportError) -> NoReturn:
    """Refuse a parameter that the package itself refuses.

    Raises:
        ApiError: always, with what the package says.
    """
    message = f"{param}: {error.message}" + (f"; {error.hint}" if error.hint else "")
    raise ApiError(400, message, param=param, code="invalid_value") from error


def as_api_error(error: Exception) -> ApiError:
    """Return what a client is told of an error; of a fault of ours, nothing but that it is one."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, LlamaExportError):
        status = 400 if isinstance(error, _OF_THE_CLIENT) else 500
        return ApiError(status, f"{error.message}; {error.hint}" if error.hint else error.message)
    return ApiError(500, "this is a fault of the server; its log has a line on it")
