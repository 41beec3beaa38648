"""`/v1/responses`: the part of it that stock clients use, for text and calls of functions.

Nothing is kept, so a response cannot be gone on from by its id. It knows names and shapes; it does
not know HTTP, and writes nothing itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from llama_export.generation.defaults import ANSWER_TOKENS
from llama_export.generation.grammar import requested_grammar
from llama_export.serving.catalogue import Served
from llama_export.serving.chat_protocol import require_text_parts, wants_usage
from llama_export.serving.fields import Fields
from llama_export.serving.job import Event, Job, Piece, TextEnd
from llama_export.serving.refusals import ApiError, refuse_unsupported, refuse_wrong
from llama_export.serving.response_items import Event as ItemEvent
from llama_export.serving.response_items import Item, ResponseItems
from llama_export.serving.settings import MOST_MESSAGES
from llama_export.serving.text_request import (
    HARMLESS,
    MOST_SEED,
    SAMPLING,
    TextRequest,
    read_drawing,
    read_form,
    read_stop,
    refuse_unread,
)
from llama_export.serving.tool_protocol import read_tools, with_plain_calls
from llama_export.serving.transport import EVENTS, sse
from llama_export.serving.wording import Heading, Usage
from llama_export.tokenizer.chat.chat_format import ChatFormat, Dialog
from llama_export.tokenizer.chat.messages import ASSISTANT, Message, ToolCall

_KNOWN = (
    HARMLESS
    | SAMPLING
    | {"model", "input", "instructions", "stream", "stream_options", "max_output_tokens", "stop"}
    | {"text", "tools", "tool_choice", "previous_response_id", "conversation", "prompt"}
    | {"background", "include", "reasoning", "truncation", "top_logprobs", "parallel_tool_calls"}
)
_ROLES = ("user", "assistant", "system", "developer")


def read_response(fields: Fields, chat_format: ChatFormat) -> TextRequest:
    """Read the parameters of a response.

    Args:
        fields: the request.
        chat_format: how the model's dialogs are written.

    Raises:
        ApiError: one of them is wrong, or not supported.
    """
    fields.only(_KNOWN)
    refuse_unread(fields)
    _refuse_unsupported(fields)
    fields.child("metadata")
    wants_usage(fields)  # which a response always tells
    text = fields.child("text")
    text.only(("format", "verbosity"))
    tools, call = read_tools(fields, chat_format, is_flat=True)
    given = text.child("format").raw or None
    definitions = () if tools is None else tools.definitions
    return TextRequest(
        prompts=(Dialog(_read_messages(fields), tools=definitions),),
        max_tokens=fields.whole("max_output_tokens", 1, MOST_SEED),
        usual_tokens=ANSWER_TOKENS,
        drawing=read_drawing(fields),
        stop=read_stop(fields),
        form=call or read_form("text.format", given, requested_grammar),
        tools=tools,
    )


def _refuse_unsupported(fields: Fields) -> None:
    for key in ("previous_response_id", "conversation", "prompt"):
        if fields.has(key):
            refuse_unsupported(key, "nothing is kept here; give the whole dialog as input")
    if fields.flag("background", False):
        refuse_unsupported("background", "wait for the answer, or stream it")
    if fields.items("include", 64) or fields.whole("top_logprobs", 0, 20):
        refuse_unsupported("include", "/v1/chat/completions gives logprobs; leave it out")
    if fields.child("reasoning").raw:
        refuse_unsupported("reasoning", "leave it out")
    if fields.text("truncation", "disabled") != "disabled":
        refuse_unsupported("truncation", "shorten the input; leave it out")


def _read_messages(fields: Fields) -> list[Message]:
    messages = []
    if fields.has("instructions"):
        messages.append(Message("system", fields.text("instructions")))
    given = fields.raw.get("input")
    if isinstance(given, str) and given:
        return [*messages, Message("user", given)]
    if not isinstance(given, list) or not 0 < len(given) <= MOST_MESSAGES:
        refuse_wrong("input", "a text, or a list of messages", given)
    return [*messages, *_joined(_read_item(at, each) for at, each in enumerate(given))]


def _joined(messages: Iterable[Message]) -> list[Message]:
    """Return messages in which the calls of one answer stand in one message, with its text."""
    found: list[Message] = []
    for each in messages:
        last = found[-1] if found else None
        if each.tool_calls and last is not None and last.role == ASSISTANT:
            found[-1] = Message(ASSISTANT, last.content, (*last.tool_calls, *each.tool_calls))
        else:
            found.append(each)
    return found


def _read_item(at: int, value: Any) -> Message:  # noqa: ANN401 - what came out of JSON
    if not isinstance(value, dict):
        refuse_wrong(f"input[{at}]", "a message", value)
    item = Fields(value, f"input[{at}].")
    kind = item.text("type", "message")
    read = _READERS.get(kind)
    if read is None:
        reason = "give messages, calls of functions and their outputs"
        refuse_unsupported(f"input[{at}] of type {kind!r:.40}", reason)
    return read(item)


def _read_message(item: Fields) -> Message:
    item.only(("type", "role", "content", "id", "status", "phase"))
    role = item.text("role")
    if role not in _ROLES:
        refuse_wrong(item.name("role"), " or ".join(_ROLES), role)
    return Message("system" if role == "developer" else role, _read_content(item, "content"))


def _read_call(item: Fields) -> Message:
    item.only(("type", "call_id", "name", "arguments", "id", "status"))
    call = ToolCall(item.text("name"), item.text("arguments"), item.text("call_id"))
    return with_plain_calls(Message(ASSISTANT, None, (call,)))


def _read_output(item: Fields) -> Message:
    item.only(("type", "call_id", "output", "id", "status"))
    fields = {"tool_call_id": item.text("call_id")}
    return Message("tool", _read_content(item, "output"), fields=fields)


def _read_content(item: Fields, key: str) -> str:
    """Read a text, or the text of parts."""
    content = item.raw.get(key)
    if content is None:
        refuse_wrong(item.name(key), "a text, or a list of parts", content)
    require_text_parts(item.name(key), content)
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


_READERS = {
    "message": _read_message,
    "function_call": _read_call,
    "function_call_output": _read_output,
}


class ResponseWriter:
    """The response, whole or as a stream of events that are counted.

    Args:
        served: the bundle that answers.
        asked: what was asked for.
        fields: parameters of the request, some of which a response repeats.
    """

    media_type = EVENTS

    def __init__(self, served: Served, asked: TextRequest, fields: Fields) -> None:
        self._heading = Heading("resp_", served)
        self._asked, self._fields = asked, fields
        self._format = fields.child("text").child("format").raw or {"type": "text"}
        tools = asked.tools
        reader = None if tools is None else tools.reader(f"call_{secrets.token_hex(6)}_")
        self._items = ResponseItems(reader)
        self._count = 0

    def whole(self, job: Job) -> dict[str, object]:
        """Return the response."""
        end = job.ends[0]
        self._items_of([*self._items.push(end.text), *self._items.finish(_status(end))])
        return self._finished(job)

    def begin(self) -> bytes:
        """Return the events before the first word."""
        created = self._response("in_progress")
        return b"".join(
            (
                self._event("response.created", response=created),
                self._event("response.in_progress", response=created),
            )
        )

    def event(self, event: Event) -> bytes:
        """Return what a piece or an end adds to the items."""
        if isinstance(event, Piece):
            return self._items_of(self._items.push(event.text))
        return self._items_of(self._items.finish(_status(event)))

    def end(self, job: Job) -> bytes:
        """Return the whole response."""
        found = self._finished(job)
        return self._event(f"response.{found['status']}", response=found)

    def fail(self, error: ApiError) -> bytes:
        """Return the error as an event."""
        found = {"code": error.code or error.kind, "message": error.message, "param": error.param}
        return self._event("error", **found)

    def _event(self, kind: str, **rest: object) -> bytes:
        content = {"type": kind, "sequence_number": self._count, **rest}
        self._count += 1
        return sse(content, kind)

    def _items_of(self, events: Iterable[ItemEvent]) -> bytes:
        return b"".join(self._event(kind, **told) for kind, told in events)

    def _finished(self, job: Job) -> dict[str, object]:
        end = job.ends[0]
        return self._response(_status(end), self._items.done, Usage.of(job))

    def _response(
        self, status: str, output: Sequence[Item] = (), usage: Usage | None = None
    ) -> dict[str, object]:
        heading, drawing = self._heading, self._asked.drawing
        is_cut, has_tools = status == "incomplete", self._asked.tools is not None
        return {
            "id": heading.id,
            "object": "response",
            "created_at": heading.created,
            "status": status,
            "model": heading.served.id,
            "output": list(output),
            "usage": None if usage is None else _usage(usage),
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "instructions": self._fields.raw.get("instructions"),
            "max_output_tokens": self._asked.max_tokens,
            "metadata": self._fields.child("metadata").raw,
            "parallel_tool_calls": has_tools and self._fields.flag("parallel_tool_calls", True),
            "previous_response_id": None,
            "temperature": drawing.get("temperature"),
            "text": {"format": self._format},
            "tool_choice": self._fields.raw.get("tool_choice", "auto" if has_tools else "none"),
            "tools": self._fields.raw.get("tools", []),
            "top_p": drawing.get("top_p"),
            "truncation": "disabled",
            "store": False,
        }


def _status(end: TextEnd) -> str:
    return "incomplete" if end.is_cut else "completed"


def _usage(usage: Usage) -> dict[str, object]:
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached},
        "output_tokens": usage.written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt + usage.written,
    }
