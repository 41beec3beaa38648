"""Tools in OpenAI's protocols and ollama's: what a request offers, and calls in what is answered.

It knows the shapes. How a model writes a call, and how it is made to, is not known here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from llama_export.errors import PromptError, UsageError
from llama_export.generation.grammar import Grammar
from llama_export.generation.tools import REQUIRED, Reply, Tools
from llama_export.serving.fields import Fields
from llama_export.serving.refusals import refuse_as, refuse_unsupported, refuse_wrong
from llama_export.serving.settings import MOST_TOOLS
from llama_export.serving.text_request import Form
from llama_export.tokenizer.chat.call_reader import CallDelta
from llama_export.tokenizer.chat.chat_format import ChatFormat
from llama_export.tokenizer.chat.messages import Message
from llama_quantize.strict_json import JsonFault, parse_object

_CHOICES = '"none", "auto", "required", or a function by {"type": "function", %s}'


def read_tools(
    fields: Fields, chat_format: ChatFormat, *, is_flat: bool = False
) -> tuple[Tools | None, Form | None]:
    """Read the tools that a model may call, and which of them it must.

    Args:
        fields: the request.
        chat_format: how the model's dialogs are written.
        is_flat: whether a function stands beside its type, as `/v1/responses` has it.

    Returns:
        The tools, None where there are none or none may be called; and the form of an answer that
        calls one, None where it need not.

    Raises:
        ApiError: they are something else, or the model's template has no place for them.
    """
    offered = fields.items("tools", MOST_TOOLS)
    if is_flat:
        offered = [_framed(at, each) for at, each in enumerate(offered)]
    choice = _read_choice(fields, is_flat=is_flat)
    most_calls = None if fields.flag("parallel_tool_calls", True) else 1
    if not offered:
        if choice not in ("auto", "none"):
            refuse_wrong("tool_choice", "tools to choose from", choice)
        return None, None
    try:
        tools = Tools(chat_format, offered, most_calls=most_calls)
    except PromptError as error:
        refuse_as("tools", error)
    if choice == "none":
        return None, None
    if choice == "auto":
        return tools, None
    if choice != REQUIRED and choice not in tools.names:
        refuse_wrong("tool_choice", f"one of {', '.join(tools.names):.200}", choice)
    try:
        return tools, Form(Grammar.rules(tools.grammar(choice)), "tools")
    except UsageError as error:  # the schemas are too long together
        refuse_as("tools", error)


def _framed(at: int, value: object) -> dict[str, object]:
    """Return a definition as chat templates have it, with a frame around the function."""
    if not isinstance(value, dict):
        refuse_wrong(f"tools[{at}]", "a function's definition", value)
    kind = value.get("type")
    if kind != "function":
        refuse_unsupported(f"tools[{at}] of type {kind!r:.40}", "offer functions alone")
    # Of `strict` a template knows nothing: a call that is forced fits its schema anyway.
    function = {key: each for key, each in value.items() if key not in ("type", "strict")}
    return {"type": "function", "function": function}


def _read_choice(fields: Fields, *, is_flat: bool) -> str:
    given = fields.raw.get("tool_choice")
    match given:
        case None:
            choice = "auto"
        case "none" | "auto" | "required":
            choice = str(given)
        case {"type": "function", "function": {"name": str(name)}} if not is_flat:
            choice = name
        case {"type": "function", "name": str(name)} if is_flat:
            choice = name
        case _:
            named = '"name": "..."' if is_flat else '"function": {...}'
            refuse_wrong("tool_choice", _CHOICES % named, given)
    return choice


def with_plain_calls(message: Message) -> Message:
    """Return a message whose calls have their arguments as an object, as chat templates want them.

    OpenAI's clients give the JSON of one, which a template would write as a text in quotes. What is
    no JSON object stays as the model wrote it.
    """
    calls = tuple(replace(call, arguments=_plain(call.arguments)) for call in message.tool_calls)
    return replace(message, tool_calls=calls) if calls else message


def _plain(arguments: Mapping[str, object] | str) -> Mapping[str, object] | str:
    if not isinstance(arguments, str):
        return arguments
    try:
        return parse_object(arguments)
    except JsonFault:
        return arguments


def reply_message(reply: Reply) -> dict[str, object]:
    """Return a whole reply as a message."""
    message: dict[str, object] = {"role": "assistant", "content": reply.text, "refusal": None}
    if reply.calls:
        message["content"] = reply.text or None
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.name,
                    "arguments": json.dumps(call.arguments, ensure_ascii=False),
                },
            }
            for call in reply.calls
        ]
    return message


def call_delta(delta: CallDelta) -> dict[str, object]:
    """Return more of a call as a stream has it."""
    function = {"name": delta.name} if delta.name else {}
    named: dict[str, object] = {"id": delta.id, "type": "function"} if delta.id else {}
    return {"index": delta.index, **named, "function": {**function, "arguments": delta.arguments}}
