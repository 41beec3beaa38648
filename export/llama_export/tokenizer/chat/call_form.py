"""In which form a model writes a call of a tool, read from its own chat template.

A template is shown a call whose names are easy to find again, and what it writes around them is
the form. The module reads no reply and knows no session.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from llama_export.errors import ChatTemplateError, PromptError
from llama_export.tokenizer.chat.chat_format import ChatFormat, Dialog
from llama_export.tokenizer.chat.messages import Message, ToolCall

_CALLED, _PARAMETER, _VALUE, _TOLD = "zq_function", "zq_parameter", "zq5value", "zq7question"
_TOOL = {
    "type": "function",
    "function": {
        "name": _CALLED,
        "description": "The weather",
        "parameters": {
            "type": "object",
            "properties": {_PARAMETER: {"type": "string", "description": "A city"}},
            "required": [_PARAMETER],
        },
    },
}
_PYTHONIC_CALL = re.compile(rf"\[\s*{_CALLED}\(\s*{_PARAMETER}\s*=")
_JSON_CALL = re.compile(rf'"name":\s*"{_CALLED}",\s*"(parameters|arguments)":')
# In what tells the model how to call, where a template does not write calls itself.
_PYTHONIC_TOLD = re.compile(r"\[\s*func\w*\(\s*\w+\s*=")
_JSON_TOLD = re.compile(r'\{"name":\s*[^,{}]{1,60},\s*"(parameters|arguments)":')


class Kind(Enum):
    """How a call is written."""

    JSON = "json"
    """`{"name": ..., "parameters": {...}}` as the whole answer: Llama 3.1 and 3.2."""
    PYTHONIC = "pythonic"
    """`[weather(city="Köln"), clock()]` as the whole answer: Llama 3.2 and 4."""
    TAGGED = "tagged"
    """`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`: Hermes, Qwen, SmolLM2."""
    MARKED = "marked"
    """`[TOOL_CALLS] [{"name": ..., "arguments": {...}}]`: Mistral."""


@dataclass(frozen=True)
class CallForm:
    """How one model writes a call.

    Args:
        kind: how a call is written.
        arguments_key: what JSON calls the arguments, "parameters" or "arguments".
    """

    kind: Kind
    arguments_key: str = "arguments"


# What stands right before a call's JSON, with nothing but a blank or a bracket between.
_MARKS = {"<tool_call>": Kind.TAGGED, "[TOOL_CALLS]": Kind.MARKED}
LLAMA_JSON = CallForm(Kind.JSON, "parameters")
PYTHONIC = CallForm(Kind.PYTHONIC)
HERMES = CallForm(Kind.TAGGED)
MISTRAL = CallForm(Kind.MARKED)


def find_call_form(form: ChatFormat) -> CallForm | None:
    """Return how a model writes its calls; None: its template has no place for tools.

    Args:
        form: how the model's dialogs are written.

    Raises:
        PromptError: the template describes tools, and in no form that is known here.
    """
    asked = Message("user", _TOLD)
    told = _written(form, Dialog([asked], tools=[_TOOL]))
    if _CALLED not in told:
        return None
    call = Message("assistant", tool_calls=(ToolCall(_CALLED, {_PARAMETER: _VALUE}),))
    dialog = Dialog([asked, call], tools=[_TOOL], add_generation_prompt=False)
    written = _written(form, dialog).rpartition(_TOLD)[2]
    found = _form_in(written, _PYTHONIC_CALL, _JSON_CALL) if _VALUE in written else None
    found = found or _form_in(told, _PYTHONIC_TOLD, _JSON_TOLD)
    if found is None:
        message = "the model's chat template writes calls of tools in a form that is not known"
        raise PromptError(
            message, "known are Llama's JSON and pythonic forms, <tool_call> and [TOOL_CALLS]"
        )
    return found


def _form_in(text: str, pythonic: re.Pattern[str], json_call: re.Pattern[str]) -> CallForm | None:
    """Return the form of a call in a text; None: there is none."""
    if pythonic.search(text):
        return PYTHONIC
    found = json_call.search(text)
    if found is None:
        return None
    before = text[: found.start()].rstrip("[{ \n\t")
    kinds = (kind for mark, kind in _MARKS.items() if before.endswith(mark))
    return CallForm(next(kinds, Kind.JSON), found[1])


def _written(form: ChatFormat, dialog: Dialog) -> str:
    """Return what a template writes; "" where it refuses the dialog, or fails on it."""
    try:
        return form.render(dialog) if form.is_for_chat else ""
    except (PromptError, ChatTemplateError):
        return ""
