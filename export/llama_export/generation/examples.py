"""Read conversations of which somebody said whether they are unsafe: a line of JSON each.

It knows the file; it asks no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_export.errors import PromptError
from llama_export.generation.validation import as_messages
from llama_export.tokenizer.chat.messages import Message
from llama_quantize.printable import shown_name
from llama_quantize.strict_json import JsonFault, parse_object

_MOST_BYTES, _MOST_LINE_BYTES = 2**28, 2**20
_HINT = 'each line is {"text": "...", "unsafe": true}, or has "messages" in place of "text"'


@dataclass(frozen=True)
class Example:
    """A conversation that was judged.

    Args:
        messages: what was said.
        is_unsafe: whether it is unsafe.
    """

    messages: tuple[Message, ...]
    is_unsafe: bool


def read_examples(path: Path) -> list[Example]:
    """Read a file of examples.

    Raises:
        PromptError: the file cannot be read, is empty, or a line is no example; names the line.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}"
        raise PromptError(message, "name a file of lines of JSON") from None
    if len(data) > _MOST_BYTES:
        message = f"{path} is longer than {_MOST_BYTES} bytes"
        raise PromptError(message, "some hundred examples are enough")
    lines = enumerate(data.splitlines(), start=1)
    examples = [_example(line, f"{path}, line {number}") for number, line in lines if line.strip()]
    if not examples:
        message = f"{path} holds no examples"
        raise PromptError(message, _HINT)
    return examples


def _example(line: bytes, where: str) -> Example:
    try:
        raw = parse_object(line, most_bytes=_MOST_LINE_BYTES)
    except JsonFault as fault:
        message = f"{where} is not valid JSON: {fault}"
        raise PromptError(message, _HINT) from None
    match raw:
        case {"unsafe": bool(is_unsafe), "text": str(text), **rest} if not rest:
            return Example((Message("user", text),), is_unsafe)
        case {"unsafe": bool(is_unsafe), "messages": [*messages], **rest} if messages and not rest:
            return Example(_messages(messages, where), is_unsafe)
    message = f"{where} is no example: found {shown_name(repr(raw), 200)}"
    raise PromptError(message, _HINT)


def _messages(found: list[Mapping[str, object]], where: str) -> tuple[Message, ...]:
    try:
        return tuple(as_messages(found))
    except PromptError as error:
        message = f"{where}: {error.message}"
        raise PromptError(message, error.hint) from None
