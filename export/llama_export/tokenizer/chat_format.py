"""Llama 3.2's chat format as token ids: headers, system prompt, tools and stop ids.

Special tokens are put in by id, so text that looks like one stays text: nobody can end a turn or
open another one from inside a message. `chat_template.jinja` is the same format for other
programs, which do not all make that promise. This module knows no model and generates nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_export.errors import PromptError
from llama_export.tokenizer.special_tokens import (
    END_HEADER,
    END_OF_MESSAGE,
    END_OF_TEXT,
    END_OF_TURN,
    START_HEADER,
)
from llama_export.tokenizer.tokenizer import Tokenizer

# The role's name in the header; "tool" is Hugging Face's name for it.
_HEADERS = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "ipython",
    "ipython": "ipython",
}

# Meta's own wording and spacing: there is no blank after "value}.".
_TOOL_INSTRUCTIONS = (
    "Given the following functions, please respond with a JSON for a function call "
    "with its proper arguments that best answers the given prompt.\n\n"
    'Respond in the format {"name": function name, "parameters": '
    "dictionary of argument name and its value}.Do not use variables.\n\n"
)


@dataclass(frozen=True)
class ToolCall:
    """A call of a function that the assistant asks for.

    Args:
        name: name of the function.
        arguments: its arguments by name.
    """

    name: str
    arguments: Mapping[str, object]


@dataclass(frozen=True)
class Message:
    """One message of a dialog.

    Args:
        role: "system", "user", "assistant", or "tool" (also "ipython") for a tool's result.
        content: the text, without regard to blanks around it; a result may also be a mapping.
        tool_calls: calls by the assistant; Llama 3.2 makes one at a time.

    Raises:
        PromptError: the role is unknown, or the parts do not go together.
    """

    role: str
    content: str | Mapping[str, object] = ""
    tool_calls: tuple[ToolCall, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a message that the format has no place for."""
        message = ""
        if self.role not in _HEADERS:
            message = f"unknown role {self.role!r}: expected {', '.join(_HEADERS)}"
        elif self.tool_calls and self.role != "assistant":
            message = f"a message of the {self.role} has tool calls; only the assistant's can"
        elif self.tool_calls and self.content:
            message = "a message is either text or a tool call, this one is both"
        elif len(self.tool_calls) > 1:
            message = f"Llama 3.2 makes one tool call at a time, found {len(self.tool_calls)}"
        elif not isinstance(self.content, str) and _HEADERS[self.role] != "ipython":
            message = f"the content of a {self.role} message must be text"
        if message:
            raise PromptError(message)


def llama3_template() -> str:
    """Return the same format as a template, for programs that render one."""
    return Path(__file__).with_name("chat_template.jinja").read_text(encoding="utf-8")


def encode_message(tokenizer: Tokenizer, message: Message) -> list[int]:
    """Encode one message: header, blank line, content, end of turn.

    Raises:
        TokenizerError: the text holds a lone surrogate.
    """
    return _turn(tokenizer, _HEADERS[message.role], _body(message))


def encode_dialog(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, object]] = (),
    date: str | None = None,
) -> list[int]:
    """Encode a dialog from the beginning of the text to the header of the assistant's answer.

    Args:
        tokenizer: tokenizer of the model.
        messages: the messages, at least one; a system message comes first.
        tools: JSON schemas of the functions that may be called, which are described in the first
            user message, as Llama 3.2 was trained.
        date: today's date, such as "26 Jul 2024". None leaves out Meta's two lines of dates, and
            with them the system block where there is no system message.

    Raises:
        PromptError: there is no message, or their order is one that the format does not have.
        TokenizerError: the text holds a lone surrogate.
    """
    if not messages:
        message = "the dialog has no messages"
        raise PromptError(message, "begin with a user message")
    system, turns = "", list(messages)
    if turns[0].role == "system":
        system = _body(turns.pop(0))
    system = _preamble(has_tools=bool(tools), date=date) + system
    ids = list(tokenizer.prefix_ids)
    if system:
        ids += _turn(tokenizer, "system", system)
    if tools:
        if not turns or turns[0].role != "user":
            message = "tools are described in the first user message, but none comes first"
            raise PromptError(message, "let a user message follow the system message")
        schemas = [json.dumps(tool, ensure_ascii=False, indent=4) + "\n\n" for tool in tools]
        question = _TOOL_INSTRUCTIONS + "".join(schemas) + _body(turns.pop(0))
        ids += _turn(tokenizer, "user", question)
    for turn in turns:
        ids += encode_message(tokenizer, turn)
    return ids + answer_beginning(tokenizer)


def answer_beginning(tokenizer: Tokenizer) -> list[int]:
    """Return the tokens before an answer: the assistant's header and a blank line."""
    return [*_header(tokenizer, "assistant"), *tokenizer.encode("\n\n")]


def encode_answer(tokenizer: Tokenizer, token_ids: Sequence[int]) -> list[int]:
    """Make a turn of an answer as it was written, however its text would be encoded.

    Args:
        tokenizer: tokenizer of the model.
        token_ids: the tokens that the model wrote, without the stop token, perhaps cut short.
    """
    end = tokenizer.special_tokens[END_OF_TURN]
    return [*answer_beginning(tokenizer), *token_ids, end]


def stop_token_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the ids that end an answer: the tokenizer's own, and Llama 3's where it has them.

    Llama 3 ends a text, a message (a tool is called) and a turn.
    """
    special, own = tokenizer.special_tokens, tokenizer.eos_token_id
    names = (END_OF_TEXT, END_OF_MESSAGE, END_OF_TURN)
    ids = [special[name] for name in names if name in special]
    return tuple(dict.fromkeys(ids if own is None else [*ids, own]))


def _preamble(*, has_tools: bool, date: str | None) -> str:
    lines = "Environment: ipython\n" if has_tools else ""
    if date:
        lines += f"Cutting Knowledge Date: December 2023\nToday Date: {date}\n"
    return lines + "\n" if lines else ""


def _body(message: Message) -> str:
    if message.tool_calls:
        call = message.tool_calls[0]
        name = json.dumps(call.name, ensure_ascii=False)
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        return f'{{"name": {name}, "parameters": {arguments}}}'
    # A result is JSON even when it is one string: Meta's template quotes it.
    if not isinstance(message.content, str) or _HEADERS[message.role] == "ipython":
        return json.dumps(message.content, ensure_ascii=False)
    return message.content.strip()


def _header(tokenizer: Tokenizer, role: str) -> list[int]:
    special = tokenizer.special_tokens
    return [special[START_HEADER], *tokenizer.encode(role), special[END_HEADER]]


def _turn(tokenizer: Tokenizer, role: str, body: str) -> list[int]:
    text = tokenizer.encode(f"\n\n{body}")
    return [*_header(tokenizer, role), *text, tokenizer.special_tokens[END_OF_TURN]]
