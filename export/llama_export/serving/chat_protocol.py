"""`/v1/chat/completions`: its parameters, its answer and its stream.

It knows names and shapes; it does not know HTTP, and writes nothing itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from llama_export.errors import PromptError
from llama_export.generation.defaults import ANSWER_TOKENS
from llama_export.generation.grammar import requested_grammar
from llama_export.generation.text_stream import Completion
from llama_export.generation.tools import Reply
from llama_export.generation.validation import as_messages
from llama_export.serving.catalogue import Served
from llama_export.serving.fields import Fields
from llama_export.serving.guides import TokenChance
from llama_export.serving.job import Event, Job, Piece, TextEnd
from llama_export.serving.refusals import ApiError, refuse_as, refuse_unsupported, refuse_wrong
from llama_export.serving.settings import MOST_MESSAGES
from llama_export.serving.text_request import (
    HARMLESS,
    MOST_SEED,
    SAMPLING,
    TextRequest,
    read_choices,
    read_drawing,
    read_form,
    read_stop,
    read_top_logprobs,
    refuse_unread,
)
from llama_export.serving.tool_protocol import (
    call_delta,
    read_tools,
    reply_message,
    with_plain_calls,
)
from llama_export.serving.transport import EVENTS, sse
from llama_export.serving.wording import (
    Heading,
    Usage,
    chat_logprobs,
    finish_reason,
    stream_end,
    stream_fault,
)
from llama_export.tokenizer.chat.call_reader import CallReader, Delta, TextDelta
from llama_export.tokenizer.chat.chat_format import ChatFormat, Dialog
from llama_export.tokenizer.chat.messages import Message

CALLED = "tool_calls"
"""OpenAI's word for a text that ended in calls."""
_KNOWN = (
    HARMLESS
    | SAMPLING
    | {"model", "messages", "stream", "stream_options", "n", "stop", "logprobs", "top_logprobs"}
    | {"max_tokens", "max_completion_tokens", "response_format", "chat_template_kwargs"}
    | {"frequency_penalty", "presence_penalty", "logit_bias"}
    | {"tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "modalities"}
)


def read_chat(fields: Fields, chat_format: ChatFormat) -> TextRequest:
    """Read the parameters of a chat's completion.

    Args:
        fields: the request.
        chat_format: how the model's dialogs are written.

    Raises:
        ApiError: one of them is wrong, or not supported.
    """
    fields.only(_KNOWN)
    refuse_unread(fields)
    if fields.raw.get("modalities", ["text"]) != ["text"]:
        refuse_unsupported("modalities", 'an answer is text; leave it out, or give ["text"]')
    top = read_top_logprobs(fields, "top_logprobs")
    wants_logprobs = fields.flag("logprobs", False)
    if top and not wants_logprobs:
        message = "top_logprobs needs logprobs: true"
        raise ApiError(400, message, param="top_logprobs", code="invalid_value")
    arguments = fields.child("chat_template_kwargs").raw
    tools, call = read_tools(fields, chat_format)
    given = fields.child("response_format").raw or None
    form = call or read_form("response_format", given, requested_grammar)
    definitions = () if tools is None else tools.definitions
    return TextRequest(
        prompts=(Dialog(read_messages(fields), tools=definitions, arguments=arguments),),
        max_tokens=read_most_tokens(fields),
        usual_tokens=ANSWER_TOKENS,
        drawing=read_drawing(fields),
        stop=read_stop(fields),
        choices=read_choices(fields),
        top_logprobs=top if wants_logprobs else None,
        form=form,
        tools=tools,
    )


def read_messages(fields: Fields) -> list[Message]:
    """Read the messages of a dialog.

    Raises:
        ApiError: there are none, or one is something else.
    """
    found = fields.items("messages", MOST_MESSAGES)
    if not found:
        message = "messages: expected a list of at least one message"
        raise ApiError(400, message, param="messages", code="missing_parameter")
    try:
        messages = [with_plain_calls(each) for each in as_messages(found)]
    except PromptError as error:
        refuse_as("messages", error)
    for at, each in enumerate(messages):
        require_text_parts(f"messages[{at}].content", each.content)
    return messages


def require_text_parts(name: str, content: object) -> None:
    """Refuse a message with parts that are no text, such as pictures.

    Raises:
        ApiError: there is such a part.
    """
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, Sequence):
        refuse_wrong(name, "a text, or a list of parts", content)
    for part in content:
        if not isinstance(part, dict):
            refuse_wrong(name, "a text, or a list of parts", content)
        kind = part.get("type")
        if kind not in ("text", "input_text", "output_text"):
            refuse_unsupported(f"{name}: a part of type {kind!r:.40}", "give text alone")
        if not isinstance(part.get("text"), str):
            refuse_wrong(f"{name}: text", "a text", part.get("text"))


def read_most_tokens(fields: Fields) -> int | None:
    """Read the largest number of new tokens, by either name."""
    newer = fields.whole("max_completion_tokens", 1, MOST_SEED)
    older = fields.whole("max_tokens", 1, MOST_SEED)
    return newer or older


def wants_usage(fields: Fields) -> bool:
    """Read whether a stream ends with the numbers of tokens.

    Raises:
        ApiError: the option is something else.
    """
    options = fields.child("stream_options")
    options.only(("include_usage", "include_obfuscation"))
    return options.flag("include_usage", False)


class ChatWriter:
    """The answer to a chat's completion.

    Args:
        served: the bundle that answers.
        asked: what was asked for.
        has_usage: whether a stream ends with the numbers of tokens.
    """

    media_type = EVENTS

    def __init__(self, served: Served, asked: TextRequest, *, has_usage: bool) -> None:
        self._heading = Heading("chatcmpl-", served)
        self._tokenizer = served.session.tokenizer
        self._asked, self._has_usage = asked, has_usage
        self._begun: set[int] = set()
        self._readers: dict[int, CallReader] = {}

    def whole(self, job: Job) -> dict[str, object]:
        """Return the body of a response."""
        choices = [
            {
                "index": end.index,
                "message": reply_message(reply),
                "logprobs": self._logprobs(job.chances_of(end.index)),
                "finish_reason": CALLED if reply.calls else finish_reason(end),
            }
            for end in job.ends
            for reply in (self._reply(end),)
        ]
        usage = Usage.of(job).to_json()
        return {**self._heading.to_json("chat.completion"), "choices": choices, "usage": usage}

    def begin(self) -> bytes:
        """Return nothing: the role comes with each text."""
        return b""

    def event(self, event: Event) -> bytes:
        """Return a chunk for a piece, and for an end."""
        chunks = b""
        if event.index not in self._begun:
            self._begun.add(event.index)
            chunks += self._chunk(event.index, {"role": "assistant", "content": ""})
        is_piece = isinstance(event, Piece)
        text, chances = event.text if is_piece else "", event.chances
        reader = self._reader(event.index)
        if reader is None:
            deltas: list[dict[str, object]] = [{"content": text}] if is_piece else []
        else:
            found = reader.push(text) if is_piece else reader.finish()
            deltas = [_delta(each) for each in found]
        for delta in deltas:
            chunks += self._chunk(event.index, delta, chances)
            chances = ()
        if isinstance(event, Piece):
            # What is held back may be a call; how likely it was is known all the same.
            return chunks + (self._chunk(event.index, {}, chances) if chances else b"")
        called = reader is not None and reader.calls
        reason = CALLED if called else finish_reason(event)
        return chunks + self._chunk(event.index, {}, chances, reason)

    def end(self, job: Job) -> bytes:
        """Return the numbers of tokens, where they are asked for, and the mark of the end."""
        usage = Usage.of(job) if self._has_usage else None
        return stream_end(self._heading.to_json("chat.completion.chunk"), usage)

    def fail(self, error: ApiError) -> bytes:
        """Return the error as an event."""
        return stream_fault(error)

    def _reply(self, end: TextEnd) -> Reply:
        if (tools := self._asked.tools) is None:
            return Reply(end.text)
        return tools.read(Completion(end.text, (), end.stats))

    def _reader(self, index: int) -> CallReader | None:
        """Return what reads the calls of a text; None: there are no tools."""
        if (tools := self._asked.tools) is None:
            return None
        if index not in self._readers:
            self._readers[index] = tools.reader(f"call_{secrets.token_hex(6)}_")
        return self._readers[index]

    def _chunk(
        self,
        index: int,
        delta: Mapping[str, object],
        chances: Sequence[TokenChance] = (),
        reason: str | None = None,
    ) -> bytes:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": self._logprobs(chances) if chances else None,
            "finish_reason": reason,
        }
        usage: dict[str, object] = {"usage": None} if self._has_usage else {}
        heading = self._heading.to_json("chat.completion.chunk")
        return sse({**heading, "choices": [choice], **usage})

    def _logprobs(self, chances: Sequence[TokenChance]) -> dict[str, object] | None:
        if self._asked.top_logprobs is None:
            return None
        return chat_logprobs(self._tokenizer, chances)


def _delta(delta: Delta) -> dict[str, object]:
    if isinstance(delta, TextDelta):
        return {"content": delta.text}
    return {"tool_calls": [call_delta(delta)]}
