"""Checks of what a Python caller passes: prompts, messages, whole numbers.

It knows types and shapes alone: no tokenizer, no session, and no limit of a model.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import SupportsIndex

from llama_export.errors import PromptError, UsageError
from llama_export.tokenizer.chat.messages import Message, ToolCall

_MESSAGE_HINT = 'give {"role": "user", "content": "..."}, or a llama_export.Message'


def require_whole(name: str, value: object, most: int | None = None, what: str = "") -> None:
    """Refuse anything but a whole number from 1 to `most`.

    Args:
        name: name of the argument.
        value: value of the argument.
        most: largest value allowed; None: no limit.
        what: things of which there are `most`, for the message.

    Raises:
        UsageError: the value is something else.
    """
    whole = _whole(value)
    if whole is None or whole < 1 or (most is not None and whole > most):
        wanted = "at least 1" if most is None else f"1 to {most}, the {what}"
        message = f"{name}: expected {wanted}; found {value!r:.80}"
        raise UsageError(message, "" if whole is not None else "give a whole number")


def as_text(name: str, value: object) -> str:
    """Return a value that must be a text.

    Args:
        name: name of the value, for the message.
        value: the value.

    Raises:
        PromptError: the value is something else.
    """
    if not isinstance(value, str):
        message = f"{name}: expected a text, found {value!r:.80}"
        raise PromptError(message, 'give the text alone; "" for none')
    return value


def as_prompt(prompt: object) -> str | list[int]:
    """Return a prompt as a text, or as a list of token ids.

    Args:
        prompt: a text, or a sequence or an array `[S]` of whole numbers.

    Raises:
        PromptError: the prompt is neither, or empty.
    """
    is_sequence = isinstance(prompt, Sequence) or hasattr(prompt, "__array__")
    if not is_sequence or isinstance(prompt, bytes | bytearray | memoryview):
        message = f"the prompt: expected a text or a list of token ids, found {prompt!r:.80}"
        raise PromptError(message, "a dialog goes to `chat`")
    given = prompt if isinstance(prompt, str) else [_token_id(each) for each in _each(prompt)]
    if not given:
        message = "the prompt is empty"
        raise PromptError(message, "give a text of at least one character")
    return given


def as_messages(messages: object) -> list[Message]:
    """Return the messages of a dialog.

    Args:
        messages: sequence of `Message`s, or of mappings as `as_message` takes them.

    Raises:
        PromptError: the dialog, or one of its messages, is something else.
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        message = f"the dialog: expected a list of messages, found {messages!r:.80}"
        raise PromptError(message, f"in a list, {_MESSAGE_HINT}")
    return [as_message(each) for each in messages]


def as_message(value: object) -> Message:
    """Return one message.

    Args:
        value: a `Message`, or a mapping with a role, a content or tool calls, and perhaps keys that
            the model's template reads, such as `name`.

    Raises:
        PromptError: the value is neither.
    """
    if isinstance(value, Message):
        return value
    if not isinstance(value, Mapping) or "role" not in value:
        message = f"a message: expected its role and its content, found {value!r:.80}"
        raise PromptError(message, _MESSAGE_HINT)
    # A key without a value is as good as none, in transformers too.
    given = {str(key): each for key, each in value.items() if each is not None}
    calls = given.pop("tool_calls", ())
    if isinstance(calls, str | Mapping) or not isinstance(calls, Iterable):
        message = f"tool_calls: expected a list of calls, found {calls!r:.80}"
        raise PromptError(message, _MESSAGE_HINT)
    role, content = given.pop("role", ""), given.pop("content", None)
    return Message(role, content, tuple(map(_as_call, calls)), given)


def _as_call(value: object) -> ToolCall:
    """Return a call as chat templates have it, or one without the frame around the function."""
    if isinstance(value, ToolCall):
        return value
    function = value.get("function", value) if isinstance(value, Mapping) else None
    match function:
        case {"name": str(name), "arguments": str() | Mapping() as arguments}:
            found = value.get("id", "") if isinstance(value, Mapping) else ""
            return ToolCall(name, arguments, str(found))
    message = (
        f"a message's tool call: expected a function's name and arguments, found {value!r:.80}"
    )
    raise PromptError(message, 'give {"function": {"name": "...", "arguments": {}}}')


def as_user_text(value: object) -> str:
    """Return the text of a user's message.

    Args:
        value: the text alone, or the message.

    Raises:
        PromptError: the value is neither, or somebody else's message.
    """
    if isinstance(value, str):
        return value
    found = as_message(value)
    if found.role != "user":
        message = f"a conversation is sent the user's messages, found one of the {found.role}"
        raise PromptError(message, "give the text alone; `system` is set on the conversation")
    return found.text


def _each(prompt: object) -> Iterable[object]:
    try:
        return list(prompt) if isinstance(prompt, Iterable) else [prompt]
    except TypeError:  # an array without a dimension
        return [prompt]


def _token_id(value: object) -> int:
    whole = _whole(value)
    if whole is None:
        message = f"a token id: expected a whole number, found {value!r:.80}"
        raise PromptError(message, "give ids as `encode` gives them")
    return whole


def _whole(value: object) -> int | None:
    """Return a whole number of any library as an int; None for anything else, `True` included."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value) if isinstance(value, SupportsIndex) else None
    except TypeError:  # an array has the method, and may still be no number
        return None
