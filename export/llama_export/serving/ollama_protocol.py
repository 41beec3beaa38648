"""ollama's `/api/chat` and `/api/generate`: their parameters, their answers and their streams.

It knows names and shapes; it does not know HTTP, and writes nothing itself.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone

from llama_export.generation.grammar import ollama_grammar
from llama_export.generation.tools import Tools
from llama_export.serving.catalogue import Served
from llama_export.serving.chat_protocol import read_messages
from llama_export.serving.fields import Fields
from llama_export.serving.job import Event, Job, Piece, TextEnd
from llama_export.serving.refusals import ApiError, refuse_unsupported, refuse_wrong
from llama_export.serving.settings import MOST_MESSAGES, MOST_STOPS
from llama_export.serving.text_request import MOST_SEED, Prompt, TextRequest, read_form
from llama_export.serving.tool_protocol import read_tools
from llama_export.serving.transport import LINES, to_bytes
from llama_export.serving.wording import Usage
from llama_export.tokenizer.chat.call_reader import TextDelta
from llama_export.tokenizer.chat.chat_format import Dialog
from llama_export.tokenizer.chat.messages import Message, ToolCall

_COMMON = {"model", "stream", "format", "options", "keep_alive", "think"}
_CHAT = frozenset(_COMMON | {"messages", "tools"})
_GENERATE = frozenset(
    _COMMON | {"prompt", "suffix", "images", "system", "template", "raw", "context"}
)
_DRAWING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "repeat_penalty": "repetition_penalty",
}
# What changes speed and memory alone.
_HARMLESS = frozenset(
    {"num_thread", "num_batch", "num_gpu", "main_gpu", "numa", "use_mmap", "use_mlock", "low_vram"}
)
# What changes nothing where it has this value.
_NEUTRAL = {
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "mirostat": 0,
    "tfs_z": 1,
    "typical_p": 1,
    "repeat_last_n": -1,
    "penalize_newline": True,
}
_NS = 1_000_000_000


def read_ollama_chat(fields: Fields, served: Served) -> TextRequest:
    """Read the parameters of a chat.

    Raises:
        ApiError: one of them is wrong, or not supported.
    """
    fields.only(_CHAT)
    tools, _ = read_tools(fields, served.session.chat_format)
    messages = [
        _renamed(at, each) for at, each in enumerate(fields.items("messages", MOST_MESSAGES))
    ]
    dialog = Dialog(
        read_messages(Fields({"messages": messages})),
        tools=() if tools is None else tools.definitions,
    )
    return replace(_request(fields, served, dialog), tools=tools)


def _renamed(at: int, message: object) -> object:
    """Return a message with the keys that chat templates read."""
    if not isinstance(message, dict):
        return message
    if message.get("images"):
        refuse_unsupported(f"messages[{at}].images", "give text alone")
    kept = {key: each for key, each in message.items() if key not in ("tool_name", "images")}
    return {"name": message["tool_name"], **kept} if "tool_name" in message else kept


def read_generate(fields: Fields, served: Served) -> TextRequest | None:
    """Read the parameters of a text; None: it asks for the model to be loaded, which it is.

    Raises:
        ApiError: one of them is wrong, or not supported.
    """
    fields.only(_GENERATE)
    for key in ("suffix", "images", "template", "context"):
        if fields.raw.get(key):
            refuse_unsupported(key, "leave it out")
    text = fields.text("prompt", "")
    if not text:
        return None
    prompt: Prompt = text
    if not fields.flag("raw", False) and served.session.chat_format.is_for_chat:
        system = fields.text("system", "")
        before = [Message("system", system)] if system else []
        prompt = Dialog([*before, Message("user", text)])
    return _request(fields, served, prompt)


def _request(fields: Fields, served: Served, prompt: Prompt) -> TextRequest:
    if fields.raw.get("think"):
        refuse_unsupported("think", "leave it out, or give false")
    options = fields.child("options")
    drawing = _read_options(options, served)
    most = options.whole("num_predict", -2, MOST_SEED)
    return TextRequest(
        prompts=(prompt,),
        max_tokens=None if most is None or most < 1 else most,
        drawing=drawing,
        stop=options.texts("stop", MOST_STOPS),
        form=read_form("format", fields.raw.get("format"), ollama_grammar),
    )


def _read_options(options: Fields, served: Served) -> dict[str, float | int]:
    options.only({*_DRAWING, *_HARMLESS, *_NEUTRAL, "num_predict", "num_ctx", "num_keep", "stop"})
    for key, neutral in _NEUTRAL.items():
        if options.raw.get(key, neutral) != neutral:
            refuse_unsupported(options.name(key), f"leave it out, or give {neutral}")
    most = served.session.max_context
    if options.has("num_ctx") and not options.whole("num_ctx", 1, most):
        refuse_wrong(options.name("num_ctx"), f"at most {most}", options.raw["num_ctx"])
    seed = options.whole("seed", -1, MOST_SEED)
    found: dict[str, float | int | None] = {
        "temperature": options.number("temperature", 0, 100),
        "top_p": options.number("top_p", 1e-9, 1),
        "min_p": options.number("min_p", 0, 1),
        "top_k": options.whole("top_k", 0, 2**24),
        "repetition_penalty": options.number("repeat_penalty", 1e-3, 1e3),
        "seed": None if seed == -1 else seed,
    }
    return {key: value for key, value in found.items() if value is not None}


class OllamaWriter:
    """The answer to a chat or a text, a line of JSON for each piece.

    Args:
        served: the bundle that answers.
        is_chat: whether a text is a message.
        tools: tools that the model may call; None: none.
    """

    media_type = LINES

    def __init__(self, served: Served, *, is_chat: bool, tools: Tools | None = None) -> None:
        self._served, self._is_chat = served, is_chat
        self._reader = None if tools is None else tools.reader(f"call_{secrets.token_hex(6)}_")
        self._told = 0  # calls

    def whole(self, job: Job) -> dict[str, object]:
        """Return the body of a response."""
        text, calls = self._read(job.ends[0].text, is_end=True)
        return {**self._part(text, calls), **_figures(job)}

    def loaded(self) -> dict[str, object]:
        """Return what a request without a prompt is told."""
        return {**self._part(""), "done": True, "done_reason": "load"}

    def begin(self) -> bytes:
        """Return nothing."""
        return b""

    def event(self, event: Event) -> bytes:
        """Return a line for a piece, unless it is held back because it may be a call."""
        is_piece = isinstance(event, Piece)
        text, calls = self._read(event.text if is_piece else "", is_end=not is_piece)
        if not text and not calls:
            return b""
        return to_bytes({**self._part(text, calls), "done": False}) + b"\n"

    def end(self, job: Job) -> bytes:
        """Return a line with the figures."""
        return to_bytes({**self._part(""), **_figures(job)}) + b"\n"

    def fail(self, error: ApiError) -> bytes:
        """Return the error as a line."""
        return to_bytes({"error": error.message}) + b"\n"

    def _read(self, text: str, *, is_end: bool) -> tuple[str, list[ToolCall]]:
        """Return what is text in more of an answer, and the calls that it made whole."""
        if self._reader is None:
            return text, []
        deltas = [*self._reader.push(text), *(self._reader.finish() if is_end else ())]
        calls = self._reader.calls[self._told :]
        self._told += len(calls)
        return "".join(each.text for each in deltas if isinstance(each, TextDelta)), calls

    def _part(self, text: str, calls: Sequence[ToolCall] = ()) -> dict[str, object]:
        heading: dict[str, object] = {"model": self._served.id, "created_at": _now()}
        if not self._is_chat:
            return {**heading, "response": text}
        message: dict[str, object] = {"role": "assistant", "content": text}
        if calls:
            message["tool_calls"] = [
                {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}}
                for call in calls
            ]
        return {**heading, "message": message}


def _figures(job: Job) -> dict[str, object]:
    end: TextEnd = job.ends[0]
    usage = Usage.of(job)
    return {
        "done": True,
        "done_reason": "length" if end.is_cut else "stop",
        "total_duration": int((time.monotonic() - job.begun) * _NS),
        "load_duration": 0,
        "prompt_eval_count": usage.prompt,
        "prompt_eval_duration": int(end.stats.time_to_first_token_s * _NS),
        "eval_count": usage.written,
        "eval_duration": int(end.stats.decode_s * _NS),
    }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()
