"""Messages whose contents are easy to find again, and what a template writes of them.

A template is shown them, with a clock whose times are marks. The module knows no turns; why a
template cannot be shown them is a sentence for users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from llama_export.errors import ChatTemplateError, PromptError
from llama_export.tokenizer.chat.chat_format import ChatFormat, Dialog
from llama_export.tokenizer.chat.messages import Message
from llama_export.tokenizer.chat.turns import ASSISTANT, SYSTEM, USER, Said

# A time's format between noncharacters, which no template holds.
OPEN_MARK, CLOSE_MARK = "\ufdd0", "\ufdd1"
TOLD, FIRST_ASKED, ANSWERED, LAST_ASKED = "zq0system", "zq1asked", "zq2answer", "zq3again"
ASKED: tuple[Said, ...] = ((USER, FIRST_ASKED), (ASSISTANT, ANSWERED), (USER, LAST_ASKED))
"""Three messages, none of them the system's."""
_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


class NoTurnsError(Exception):
    """A template does what turns cannot say; its text is the reason."""


class _MarkingTime(datetime):
    """A time that writes its format in place of itself."""

    def strftime(self, format: str) -> str:
        """Return the format between marks."""
        return f"{OPEN_MARK}{format}{CLOSE_MARK}"


def rendered(
    form: ChatFormat,
    messages: Sequence[Said],
    *,
    asks: bool = True,
    now: datetime | None = None,
    what: str = "",
) -> str:
    """Return what a template writes.

    Args:
        form: form with the template.
        messages: the dialog.
        asks: whether an answer is asked for.
        now: time that is written; None: its format between marks.
        what: what the dialog has, for the reason; "": a system message, or none.

    Raises:
        NoTurnsError: the template does not write the dialog.
    """
    try:
        return _written(form, messages, asks=asks, now=now)
    except (PromptError, ChatTemplateError) as error:
        if _is_written_with_tools(form, _dialog(messages, asks=asks, now=now)):
            message = "the template writes dialogs with tools alone"
            raise NoTurnsError(message) from None
        kind = "a system message" if messages[0][0] == SYSTEM else "no system message"
        message = f"the template does not write a dialog with {what or kind}: {error.message}"
        raise NoTurnsError(message) from None


def rendered_with_system(form: ChatFormat, messages: Sequence[Said]) -> str | None:
    """Return what a template writes of messages with a system message; None: it refuses that.

    Raises:
        NoTurnsError: the template fails on it.
    """
    told: list[Said] = [(SYSTEM, TOLD), *messages]
    try:
        return _written(form, told)
    except PromptError:
        return None
    except ChatTemplateError:
        return rendered(form, told)  # which names the fault


def split(text: str, contents: Sequence[str]) -> list[str]:
    """Return what stands in a text before, between and behind contents.

    Raises:
        NoTurnsError: they do not stand there once each, in this order.
    """
    missing = [each for each in contents if text.count(each) != 1]
    if missing:
        message = (
            "the template writes a message more than once"
            if missing[0] in text
            else "the template leaves a message out, or changes its letters"
        )
        raise NoTurnsError(message)
    places = [text.index(each) for each in contents]
    if places != sorted(places):
        message = (
            "the template writes the system message inside a later turn, which it changes"
            if contents[0] == TOLD and places[1:] == sorted(places[1:])
            else "the template writes the messages in another order"
        )
        raise NoTurnsError(message)
    parts = []
    for content in contents:
        part, _, text = text.partition(content)
        parts.append(part)
    return [*parts, text]


def _written(
    form: ChatFormat,
    messages: Sequence[Said],
    *,
    asks: bool = True,
    now: datetime | None = None,
) -> str:
    return form.render(_dialog(messages, asks=asks, now=now))


def _dialog(messages: Sequence[Said], *, asks: bool, now: datetime | None) -> Dialog:
    given = [Message(role, content) for role, content in messages]
    return Dialog(given, add_generation_prompt=asks, now=now or _MarkingTime(2024, 7, 5))


def _is_written_with_tools(form: ChatFormat, dialog: Dialog) -> bool:
    """Whether the template writes a dialog where there is a tool."""
    try:
        form.render(replace(dialog, tools=[_TOOL]))
    except (PromptError, ChatTemplateError):
        return False
    return True
