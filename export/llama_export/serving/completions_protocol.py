"""`/v1/completions`: its parameters, its answer and its stream.

It knows names and shapes; it does not know HTTP, and writes nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_export.serving.catalogue import Served
from llama_export.serving.fields import Fields
from llama_export.serving.guides import TokenChance
from llama_export.serving.job import Event, Job, Piece
from llama_export.serving.refusals import ApiError, refuse_unsupported, refuse_wrong
from llama_export.serving.settings import MOST_PROMPTS
from llama_export.serving.text_request import (
    HARMLESS,
    MOST_SEED,
    SAMPLING,
    Prompt,
    TextRequest,
    read_choices,
    read_drawing,
    read_stop,
    read_top_logprobs,
    refuse_unread,
)
from llama_export.serving.transport import EVENTS, sse
from llama_export.serving.wording import (
    Heading,
    Usage,
    finish_reason,
    stream_end,
    stream_fault,
    text_logprobs,
)

# What OpenAI has it be where nothing is said.
_DEFAULT_TOKENS = 16
_KIND = "text_completion"
_KNOWN = (
    HARMLESS
    | SAMPLING
    | {"model", "prompt", "stream", "stream_options", "n", "stop", "logprobs", "max_tokens"}
    | {"frequency_penalty", "presence_penalty", "logit_bias", "best_of", "echo", "suffix"}
)


def read_completion(fields: Fields) -> TextRequest:
    """Read the parameters of a completion.

    Raises:
        ApiError: one of them is wrong, or not supported.
    """
    fields.only(_KNOWN)
    refuse_unread(fields)
    choices = read_choices(fields)
    if fields.whole("best_of", 1, MOST_SEED) not in (None, choices):
        refuse_unsupported("best_of", "leave it out, or give the number of n")
    if fields.flag("echo", False):
        refuse_unsupported("echo", "put the prompt in front yourself")
    if fields.has("suffix") and fields.text("suffix"):
        refuse_unsupported("suffix", "models go on from the end of a text")
    return TextRequest(
        prompts=_read_prompts(fields),
        max_tokens=fields.whole("max_tokens", 1, MOST_SEED),
        usual_tokens=_DEFAULT_TOKENS,
        drawing=read_drawing(fields),
        stop=read_stop(fields),
        choices=choices,
        top_logprobs=read_top_logprobs(fields, "logprobs") if fields.has("logprobs") else None,
    )


def _read_prompts(fields: Fields) -> tuple[Prompt, ...]:
    """Read a text, texts, token ids, or lists of token ids."""
    value = fields.raw.get("prompt")
    if value is None:
        message = "prompt is missing: expected a text"
        raise ApiError(400, message, param="prompt", code="missing_parameter")
    given = value if isinstance(value, list) and not _is_ids(value) else [value]
    if not given or len(given) > MOST_PROMPTS:
        refuse_wrong("prompt", f"a text, or a list of 1 to {MOST_PROMPTS}", value)
    return tuple(_read_prompt(each) for each in given)


def _read_prompt(value: Any) -> Prompt:  # noqa: ANN401 - what came out of JSON
    if not _is_ids(value) and not (isinstance(value, str) and value):
        refuse_wrong("prompt", "a text of at least one character, or a list of token ids", value)
    return value if isinstance(value, str) else tuple(value)


def _is_ids(value: object) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(each, int) and not isinstance(each, bool) for each in value)


class CompletionWriter:
    """The answer to a completion.

    Args:
        served: the bundle that answers.
        asked: what was asked for.
        has_usage: whether a stream ends with the numbers of tokens.
    """

    media_type = EVENTS

    def __init__(self, served: Served, asked: TextRequest, *, has_usage: bool) -> None:
        self._heading = Heading("cmpl-", served)
        self._tokenizer = served.session.tokenizer
        self._asked, self._has_usage = asked, has_usage
        self._offsets: dict[int, int] = {}

    def whole(self, job: Job) -> dict[str, object]:
        """Return the body of a response."""
        choices = [
            self._choice(end.index, end.text, job.chances_of(end.index), finish_reason(end))
            for end in job.ends
        ]
        usage = Usage.of(job).to_json()
        return {**self._heading.to_json(_KIND), "choices": choices, "usage": usage}

    def begin(self) -> bytes:
        """Return nothing."""
        return b""

    def event(self, event: Event) -> bytes:
        """Return a chunk for a piece, and for an end."""
        is_piece = isinstance(event, Piece)
        text = event.text if is_piece else ""
        reason = None if isinstance(event, Piece) else finish_reason(event)
        choice = self._choice(event.index, text, event.chances, reason)
        usage: dict[str, object] = {"usage": None} if self._has_usage else {}
        return sse({**self._heading.to_json(_KIND), "choices": [choice], **usage})

    def end(self, job: Job) -> bytes:
        """Return the numbers of tokens, where they are asked for, and the mark of the end."""
        usage = Usage.of(job) if self._has_usage else None
        return stream_end(self._heading.to_json(_KIND), usage)

    def fail(self, error: ApiError) -> bytes:
        """Return the error as an event."""
        return stream_fault(error)

    def _choice(
        self, index: int, text: str, chances: Sequence[TokenChance], reason: str | None
    ) -> dict[str, object]:
        logprobs = None
        if self._asked.top_logprobs is not None:
            before = self._offsets.get(index, 0)
            logprobs, self._offsets[index] = text_logprobs(self._tokenizer, chances, before)
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
