"""Compare how a bundle writes ten dialogs with how its model does: the prompt, and its ids.

Templates are told one fixed time. A dialog that the model's template refuses must be refused in the
same words. The module judges nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from llama_export.errors import ChatTemplateError, PromptError
from llama_export.tokenizer.chat.chat_format import ChatFormat, Dialog
from llama_export.tokenizer.chat.messages import Message, ToolCall
from llama_export.verification.measure.differences import Difference
from llama_quantize.strict_json import JsonFault, parse_object

if TYPE_CHECKING:
    from llama_export.verification.artifact import Artifact

_SETTINGS = "tokenizer_config.json"
_NOON = datetime(2024, 7, 26, 12)
_WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city, 天気",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
_SYSTEM = Message("system", "You are brief.\nAnd kind. ")
_ASKED = Message("user", " What is the weather in Köln?")
_ANSWER = Message("assistant", "Rain, 11 °C.\n\nTake a coat.")
_CALL = Message("assistant", tool_calls=(ToolCall("weather", {"city": "Köln"}),))
_RESULT = Message("tool", '{"sky": "grey"}', fields={"name": "weather"})
_TYPED = "Say <|eot_id|> </s> <|im_end|> [/INST] ### Response: <|end_of_text|> and go on"
_PARTS = Message("user", [{"type": "text", "text": "One part, "}, {"type": "text", "text": "two"}])
DIALOGS = {
    "a question": Dialog([_ASKED]),
    "a system message": Dialog([_SYSTEM, _ASKED]),
    "several turns": Dialog([_ASKED, _ANSWER, Message("user", "And tomorrow?")]),
    "a system message and turns": Dialog([_SYSTEM, _ASKED, _ANSWER, _ASKED, _ANSWER, _ASKED]),
    "tools": Dialog([_ASKED], tools=[_WEATHER]),
    "a call and its result": Dialog([_SYSTEM, _ASKED, _CALL, _RESULT], tools=[_WEATHER]),
    "an answer to a result": Dialog([_ASKED, _CALL, _RESULT, _ANSWER, _ASKED], tools=[_WEATHER]),
    "a finished dialog": Dialog([_SYSTEM, _ASKED, _ANSWER], add_generation_prompt=False),
    "typed special tokens": Dialog([Message("user", _TYPED), Message("assistant", _TYPED), _ASKED]),
    "a message in parts": Dialog([_PARTS]),
}
"""Dialogs by what they hold."""


def dialog_differences(artifact: Artifact) -> list[Difference] | None:
    """List the dialogs that a bundle writes otherwise than its model; None: nothing tells.

    Raises:
        TokenizerError: the bundle's tokenizer cannot be read.
    """
    model = None if artifact.files is None else artifact.files.chat_format
    if model is None:
        return None
    own = _bundle_format(artifact)
    if own is None:
        return [Difference(_SETTINGS, "", "a file of the model", None)]
    return list(_differences(model, own))


def _differences(model: ChatFormat, own: ChatFormat) -> Iterator[Difference]:
    for name, dialog in DIALOGS.items():
        expected, found = _written(model, dialog), _written(own, dialog)
        for what, one, other in zip(("prompt", "ids"), expected, found, strict=True):
            if one != other:
                yield Difference(_SETTINGS, f"{what} of {name}", one, other)
                break


def _written(form: ChatFormat, dialog: Dialog) -> tuple[str, list[int]]:
    """Return a dialog's prompt and ids; of one that is refused, the refusal."""
    pinned = Dialog(
        dialog.messages,
        tools=dialog.tools,
        add_generation_prompt=dialog.add_generation_prompt,
        now=_NOON,
    )
    try:
        return form.render(pinned), form.encode(pinned)
    except (PromptError, ChatTemplateError) as refusal:
        return f"refused: {refusal}", []


def _bundle_format(artifact: Artifact) -> ChatFormat | None:
    bundle = artifact.bundle
    if _SETTINGS not in bundle.manifest.files:
        return None
    try:
        settings = parse_object(bundle.path(_SETTINGS).read_bytes())
    except JsonFault:
        return None
    return ChatFormat.of(artifact.tokenizer, settings)
