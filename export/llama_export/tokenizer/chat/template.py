"""A chat template: somebody else's Jinja, which writes a dialog as one text.

It is rendered as transformers does it, within limits and in a sandbox: a template that asks for
more is refused by name. The module knows values of JSON; it knows no message, token or file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from llama_export.errors import ChatTemplateError, LlamaExportError, PromptError
from llama_export.tokenizer.chat.budget import (
    MOST_CHARACTERS,
    ForbiddenError,
    OverBudgetError,
    budgeted,
)

if TYPE_CHECKING:
    from jinja2 import Template

    from llama_export.tokenizer.chat.sandbox import ChatEnvironment

# The longest that is known, of a model with many tools, is 30 kB.
_MOST_SOURCE = 2**18
_ANOTHER = "take the template of the model's own repository, or remove it"
_OTHER_DIALOG = "give the messages in the order and with the roles that the model was trained on"


class ChatTemplate:
    """One template, compiled when it is first used.

    Args:
        source: text of the template.
        name: where it comes from, for messages.
    """

    def __init__(self, source: str, name: str = "the chat template") -> None:
        self.source = source
        self.name = name

    def __repr__(self) -> str:
        return f"<ChatTemplate of {len(self.source)} characters>"

    @cached_property
    def _compiled(self) -> tuple[ChatEnvironment, Template]:
        from jinja2 import Template
        from jinja2.exceptions import TemplateError

        from llama_export.tokenizer.chat.sandbox import ChatEnvironment

        if len(self.source) > _MOST_SOURCE:
            message = f"{self.name} has {len(self.source)} characters, more than {_MOST_SOURCE}"
            raise ChatTemplateError(message, _ANOTHER)
        environment = ChatEnvironment()
        try:
            with budgeted():
                code = environment.compile(environment.parse_metered(self.source))
            compiled = Template.from_code(environment, code, environment.make_globals(None))
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            where = f", line {line}" if line else ""
            message = f"{self.name}{where}: {error.message}"
            raise ChatTemplateError(message, _ANOTHER) from error
        except (SyntaxError, RecursionError, ValueError, MemoryError, OverBudgetError) as error:
            message = f"{self.name} cannot be compiled: {_reason(error)}"
            raise ChatTemplateError(message, _ANOTHER) from error
        return environment, compiled

    def require_sound(self) -> None:
        """Compile the template, which is not done before it is needed.

        Raises:
            ChatTemplateError: it is no Jinja, too long, or uses what no chat needs.
        """
        _ = self._compiled

    def render(self, variables: Mapping[str, object], *, now: datetime | None = None) -> str:
        """Render the template.

        Args:
            variables: what it may read: messages, tools, the names of special tokens and others,
                of JSON's types.
            now: time that it is told; None: the true one.

        Raises:
            PromptError: it refuses the dialog, or cannot write it.
            ChatTemplateError: it is no Jinja, does more than any chat needs, or tries what is
                not allowed.
        """
        environment, compiled = self._compiled
        environment.clock.fixed = now
        pieces, length = [], 0
        try:
            with budgeted():
                for piece in compiled.generate(**variables):
                    pieces.append(piece)
                    length += len(piece)
                    if length > MOST_CHARACTERS:
                        raise OverBudgetError("it makes too long a text")  # noqa: EM101
        except Exception as error:  # a template raises what it likes; it is re-raised as ours
            raise self._named(error) from error
        return "".join(pieces)

    def _named(self, error: Exception) -> LlamaExportError:
        """Return the error of ours for whatever a template raised."""
        from jinja2.exceptions import SecurityError

        from llama_export.tokenizer.chat.sandbox import RefusedDialogError

        if isinstance(error, RefusedDialogError):
            message = f"{self.name} refuses this dialog: {error.message}"
            return PromptError(message, _OTHER_DIALOG)
        if isinstance(error, OverBudgetError | RecursionError | MemoryError | OverflowError):
            message = f"{self.name} was stopped: {_reason(error)}"
            return ChatTemplateError(message, _ANOTHER)
        if isinstance(error, ForbiddenError | SecurityError):
            message = f"{self.name} was stopped: it tries what is not allowed: {_reason(error)}"
            return ChatTemplateError(message, _ANOTHER)
        # Most often a key that a message lacks, or content of another type than the template's.
        message = f"{self.name} cannot write this dialog: {_reason(error)}"
        return PromptError(message, _OTHER_DIALOG)


def plain_data(value: object, what: str) -> object:
    """Return a copy of a value that holds nothing but JSON's types, so that nothing can be called.

    Args:
        value: value that a template is to read.
        what: what it is, for the message.

    Raises:
        PromptError: it is something else, or holds itself.
    """
    try:
        return _plain(value, 0)
    except (TypeError, ValueError) as error:
        message = f"{what}: expected values of JSON, found {error}"
        raise PromptError(message, "give texts, numbers, lists and mappings") from None


_MOST_DEPTH = 32


def _plain(value: object, depth: int) -> object:
    if depth > _MOST_DEPTH:
        message = f"lists nested more than {_MOST_DEPTH} deep"
        raise ValueError(message)
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {_key(key): _plain(each, depth + 1) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [_plain(each, depth + 1) for each in value]
    message = f"{type(value).__name__} {value!r:.80}"
    raise TypeError(message)


def _key(key: object) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    return json.dumps(key)


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "it calls itself without end"
    if isinstance(error, MemoryError):
        return "it takes more memory than there is"
    return str(error) or type(error).__name__
