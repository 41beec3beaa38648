"""`/v1/responses`: the part of it that stock clients use, for text.

Nothing is kept, so a response cannot be gone on from by its id. It knows names and shapes; it does
not know HTTP, and writes nothing itself.
"""

from __future__ import annotations

from typing import Any

from llama_export.generation.defaults import ANSWER_TOKENS
from llama_export.generation.grammar import requested_grammar
from llama_export.serving.catalogue import Served
from llama_export.serving.chat_protocol import require_text_parts
from llama_export.serving.fields import Fields
from llama_export.serving.job import Event, Job, Piece, TextEnd
from llama_export.serving.refusals import ApiError, refuse_unsupported, refuse_wrong
from llama_export.serving.settings import MOST_MESSAGES
from llama_export.serving.text_request import (
    HARMLESS,
    MOST_SEED,
    SAMPLING,
    TextRequest,
    read_drawing,
    read_form,
    read_stop,
    refuse_tools,
    refuse_unread,
)
from llama_export.serving.transport import EVENTS, sse
from llama_export.serving.wording import Heading, Usage, new_id
from llama_export.tokenizer.chat.chat_format import Dialog
from llama_export.tokenizer.chat.messages import Message

_KNOWN = (
    HARMLESS
    | SAMPLING
    | {"model", "input", "instructions", "stream", "stream_options", "max_output_tokens", "stop"}
    | {"text", "tools", "tool_choice", "previous_response_id", "conversation", "prompt"}
    | {"background", "include", "reasoning", "truncation", "top_logprobs"}
)
_ROLES = ("user", "assistant", "system", "developer")


def read_response(fields: Fields) -> TextRequest:
    """Read the parameters of a response.

    Raises:
        ApiError: one of them is wrong, or not supported.
    """
    fields.only(_KNOWN)
    refuse_unread(fields)
    refuse_tools(fields)
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
    text = fields.child("text")
    text.only(("format", "verbosity"))
    return TextRequest(
        prompts=(Dialog(_read_messages(fields)),),
        max_tokens=fields.whole("max_output_tokens", 1, MOST_SEED) or ANSWER_TOKENS,
        drawing=read_drawing(fields),
        stop=read_stop(fields),
        form=read_form("text.format", text.child("format").raw or None, requested_grammar),
    )


def _read_messages(fields: Fields) -> list[Message]:
    messages = []
    if fields.has("instructions"):
        messages.append(Message("system", fields.text("instructions")))
    given = fields.raw.get("input")
    if isinstance(given, str) and given:
        return [*messages, Message("user", given)]
    if not isinstance(given, list) or not 0 < len(given) <= MOST_MESSAGES:
        refuse_wrong("input", "a text, or a list of messages", given)
    return [*messages, *(_read_item(at, each) for at, each in enumerate(given))]


def _read_item(at: int, value: Any) -> Message:  # noqa: ANN401 - what came out of JSON
    if not isinstance(value, dict):
        refuse_wrong(f"input[{at}]", "a message", value)
    item = Fields(value, f"input[{at}].")
    kind = item.text("type", "message")
    if kind != "message":
        refuse_unsupported(f"input[{at}] of type {kind!r:.40}", "give messages alone")
    item.only(("type", "role", "content", "id", "status", "phase"))
    role = item.text("role")
    if role not in _ROLES:
        refuse_wrong(f"input[{at}].role", " or ".join(_ROLES), role)
    content = item.raw.get("content")
    if content is None:
        refuse_wrong(f"input[{at}].content", "a text, or a list of parts", content)
    require_text_parts(f"input[{at}].content", content)
    text = content if isinstance(content, str) else "".join(part["text"] for part in content)
    return Message("system" if role == "developer" else role, text)


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
        self._item_id = new_id("msg_")
        self._asked, self._fields = asked, fields
        self._format = fields.child("text").child("format").raw or {"type": "text"}
        self._count = 0

    def whole(self, job: Job) -> dict[str, object]:
        """Return the response."""
        end = job.ends[0]
        status = "incomplete" if end.is_cut else "completed"
        return self._response(status, end, Usage.of(job.ends, 1))

    def begin(self) -> bytes:
        """Return the events before the first word."""
        created = self._response("in_progress")
        item = self._item("in_progress", [])
        return b"".join(
            (
                self._event("response.created", response=created),
                self._event("response.in_progress", response=created),
                self._event("response.output_item.added", output_index=0, item=item),
                self._event("response.content_part.added", **self._place(), part=_part("")),
            )
        )

    def event(self, event: Event) -> bytes:
        """Return a delta for a piece, and for an end what is done."""
        if isinstance(event, Piece):
            kind, place = "response.output_text.delta", self._place()
            return self._event(kind, **place, delta=event.text, logprobs=[])
        part, text = _part(event.text), event.text
        item = self._item(_status(event), [part])
        return b"".join(
            (
                self._event("response.output_text.done", **self._place(), text=text, logprobs=[]),
                self._event("response.content_part.done", **self._place(), part=part),
                self._event("response.output_item.done", output_index=0, item=item),
            )
        )

    def end(self, job: Job) -> bytes:
        """Return the whole response."""
        found = self.whole(job)
        return self._event(f"response.{found['status']}", response=found)

    def fail(self, error: ApiError) -> bytes:
        """Return the error as an event."""
        found = {"code": error.code or error.kind, "message": error.message, "param": error.param}
        return self._event("error", **found)

    def _event(self, kind: str, **rest: object) -> bytes:
        content = {"type": kind, "sequence_number": self._count, **rest}
        self._count += 1
        return sse(content, kind)

    def _place(self) -> dict[str, object]:
        return {"item_id": self._item_id, "output_index": 0, "content_index": 0}

    def _item(self, status: str, content: list[dict[str, object]]) -> dict[str, object]:
        return {
            "type": "message",
            "id": self._item_id,
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def _response(
        self, status: str, end: TextEnd | None = None, usage: Usage | None = None
    ) -> dict[str, object]:
        heading = self._heading
        output = [] if end is None else [self._item(_status(end), [_part(end.text)])]
        drawing = self._asked.drawing
        return {
            "id": heading.id,
            "object": "response",
            "created_at": heading.created,
            "status": status,
            "model": heading.served.id,
            "output": output,
            "usage": None if usage is None else _usage(usage),
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if end and end.is_cut else None,
            "instructions": self._fields.raw.get("instructions"),
            "max_output_tokens": self._asked.max_tokens,
            "metadata": self._fields.child("metadata").raw,
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "temperature": drawing.get("temperature"),
            "text": {"format": self._format},
            "tool_choice": "none",
            "tools": [],
            "top_p": drawing.get("top_p"),
            "truncation": "disabled",
            "store": False,
        }


def _status(end: TextEnd) -> str:
    return "incomplete" if end.is_cut else "completed"


def _part(text: str) -> dict[str, object]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(usage: Usage) -> dict[str, object]:
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached},
        "output_tokens": usage.written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt + usage.written,
    }
