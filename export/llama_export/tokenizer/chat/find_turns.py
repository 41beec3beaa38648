"""Take a chat template apart into turns, proved equal to it; or say why there are none.

A template is a program, and may do anything. It is shown messages whose contents are easy to find
again, and a clock whose times are marks. What stands between the contents becomes the turns; these
must then give the very ids of the template on twenty dialogs, each with something that a template
may look at. Where they don't, the reason is a sentence, and an app shows it. The module knows no
model, and reads no template's source.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import takewhile
from typing import NamedTuple

from llama_export.errors import ChatTemplateError, LlamaExportError, PromptError
from llama_export.tokenizer.chat.chat_format import ChatFormat, Dialog
from llama_export.tokenizer.chat.messages import Message
from llama_export.tokenizer.chat.proof_dialogs import proof_dialogs
from llama_export.tokenizer.chat.turns import (
    ASSISTANT,
    SYSTEM,
    USER,
    Date,
    Piece,
    Said,
    Turn,
    Turns,
)
from llama_quantize.printable import clipped, printable

BASE_MODEL = "the model has no chat template: it goes on with a text"
_MOST_REASON = 400
_MOST_SHOWN = 60
# Two that differ in every part, with one digit and with two.
_TIMES = (datetime(2024, 7, 5, 9, 3, 7), datetime(2031, 11, 26, 18, 45, 52))
_SYSTEM, _ASKED, _ANSWERED, _AGAIN = "zq0system", "zq1asked", "zq2answer", "zq3again"
_PADDING = " \n\t"
_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
# A time's format between noncharacters, which no template holds.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
_MARK = re.compile(f"{_OPEN}(.*?){_CLOSE}", re.DOTALL)
# What every platform writes alike, with English names.
_DATE = re.compile(r"(?=.*%)(?:[^%]|%[aAbBdHIjmMpSyY%])+", re.DOTALL)


@dataclass(frozen=True)
class FoundTurns:
    """A model's turns, or why there are none: one of the two is None."""

    turns: Turns | None
    reason: str | None

    def to_json(self) -> dict[str, object]:
        """Return plain data, as a manifest has it."""
        turns = None if self.turns is None else self.turns.to_json()
        return {"turns": turns, "reason": self.reason}


class _NoTurnsError(Exception):
    """A template does what turns cannot say; its text is the reason."""


def find_turns(form: ChatFormat) -> FoundTurns:
    """Find the turns of a model's default template, proved equal to it, or the reason why not."""
    if not form.templates:
        return FoundTurns(None, BASE_MODEL)
    try:
        turns = _taken_apart(form)
        _prove(form, turns)
    except _NoTurnsError as error:
        return FoundTurns(None, clipped(printable(str(error), keep=""), _MOST_REASON))
    return FoundTurns(turns, None)


class _MarkingTime(datetime):
    """A time that writes its format in place of itself."""

    def strftime(self, format: str) -> str:
        """Return the format between marks."""
        return f"{_OPEN}{format}{_CLOSE}"


class _Parts(NamedTuple):
    """Texts of a template, with times as marks, as `Turns` has them."""

    opened: str
    no_system: str
    system_suffix: str
    user_prefix: str
    user_suffix: str
    assistant_prefix: str
    assistant_suffix: str
    answer: str


def _taken_apart(form: ChatFormat) -> Turns:
    asked: list[Said] = [(USER, _ASKED), (ASSISTANT, _ANSWERED), (USER, _AGAIN)]
    told: list[Said] = [(SYSTEM, _SYSTEM), *asked]
    before, then, later, last = _between(form, asked)
    opened, after, *with_system = _between(form, told)
    user_suffix, ending = _ends(form, asked[:1]), _ends(form, asked[:2])
    if not then.startswith(user_suffix) or not last.startswith(user_suffix):
        user_suffix = _common_start(then, last)
    user_prefix = later.removeprefix(ending)
    if not later.startswith(ending) or not before.endswith(user_prefix):
        # What differs at the very end is never written before an answer is asked for.
        user_prefix = _common_start(before[::-1], later[::-1])[::-1]
        ending = later.removesuffix(user_prefix)
    if not after.endswith(user_prefix):
        message = "the template writes the system message inside the first user's turn"
        raise _NoTurnsError(message)
    if with_system != [then, later, last]:
        message = "the template writes later turns otherwise after a system message"
        raise _NoTurnsError(message)
    parts = _Parts(
        opened=opened,
        no_system=before.removesuffix(user_prefix),
        system_suffix=after.removesuffix(user_prefix),
        user_prefix=user_prefix,
        user_suffix=user_suffix,
        assistant_prefix=then.removeprefix(user_suffix),
        assistant_suffix=ending,
        answer=last.removeprefix(user_suffix),
    )
    return _turns(form, parts, trim=_is_trimmed(form, told))


def _turns(form: ChatFormat, parts: _Parts, *, trim: bool) -> Turns:
    begin, opened, no_system = _begin(form, parts)
    system = Turn(_pieces(form, opened), _pieces(form, parts.system_suffix))
    user = Turn(_pieces(form, parts.user_prefix), _pieces(form, parts.user_suffix))
    assistant = Turn(_pieces(form, parts.assistant_prefix), _pieces(form, parts.assistant_suffix))
    return Turns(
        begin=_pieces(form, begin),
        no_system=_pieces(form, no_system),
        system=system,
        user=user,
        assistant=assistant,
        answer=_pieces(form, parts.answer),
        trim=trim,
    )


def _begin(form: ChatFormat, parts: _Parts) -> tuple[str, str, str]:
    """Take the token that begins a text off the two ways to begin a dialog, where both have it."""
    special, first = form.tokenizer.special_tokens, form.tokenizer.bos_token_id
    name = next((name for name, token_id in special.items() if token_id == first), "")
    both = name and parts.opened.startswith(name) and parts.no_system.startswith(name)
    # Where each turn begins with it too, it is the turn's.
    if not both or parts.user_prefix.startswith(name):
        return "", parts.opened, parts.no_system
    return name, parts.opened.removeprefix(name), parts.no_system.removeprefix(name)


def _between(form: ChatFormat, messages: Sequence[Said]) -> list[str]:
    """Return what a template writes before, between and behind the contents."""
    return _split(_render(form, messages), [content for _, content in messages])


def _split(text: str, contents: Sequence[str]) -> list[str]:
    missing = [each for each in contents if text.count(each) != 1]
    if missing:
        message = (
            "the template writes a message more than once"
            if missing[0] in text
            else "the template leaves a message out, or changes its letters"
        )
        raise _NoTurnsError(message)
    places = [text.index(each) for each in contents]
    if places != sorted(places):
        message = (
            "the template writes the system message inside a later turn"
            if contents[0] == _SYSTEM and places[1:] == sorted(places[1:])
            else "the template writes the messages in another order"
        )
        raise _NoTurnsError(message)
    parts = []
    for content in contents:
        part, _, text = text.partition(content)
        parts.append(part)
    return [*parts, text]


def _ends(form: ChatFormat, messages: Sequence[Said]) -> str:
    """Return what a template writes behind the last of some messages, and asks for no answer."""
    text = _render(form, messages, asks=False)
    return _split(text, [content for _, content in messages])[-1]


def _is_trimmed(form: ChatFormat, messages: Sequence[Said]) -> bool:
    """Whether a template takes the white space around contents away: around all, or around none."""
    text = _render(form, [(role, f"{_PADDING}{said}{_PADDING}") for role, said in messages])
    padded = [f"{_PADDING}{said}{_PADDING}" in text for _, said in messages]
    if any(padded) and not all(padded):
        kept, cut = padded.index(True), padded.index(False)
        message = (
            f"the template takes blanks around the messages of the {messages[cut][0]} away, and "
            f"leaves those of the {messages[kept][0]}"
        )
        raise _NoTurnsError(message)
    return not any(padded)


def _render(
    form: ChatFormat,
    messages: Sequence[Said],
    *,
    asks: bool = True,
    now: datetime | None = None,
    what: str = "",
) -> str:
    given = [Message(role, content) for role, content in messages]
    dialog = Dialog(given, add_generation_prompt=asks, now=now or _MarkingTime(2024, 7, 5))
    try:
        return form.render(dialog)
    except (PromptError, ChatTemplateError) as error:
        if _is_written(form, replace(dialog, tools=[_TOOL])):
            message = "the template writes dialogs with tools alone"
            raise _NoTurnsError(message) from None
        kind = "a system message" if messages[0][0] == SYSTEM else "no system message"
        message = f"the template does not write a dialog with {what or kind}: {error.message}"
        raise _NoTurnsError(message) from None


def _is_written(form: ChatFormat, dialog: Dialog) -> bool:
    try:
        form.render(dialog)
    except (PromptError, ChatTemplateError):
        return False
    return True


def _pieces(form: ChatFormat, text: str) -> tuple[Piece, ...]:
    """Cut a template's own text into ids of special tokens, texts and dates."""
    special = form.tokenizer.special_tokens
    names = sorted(filter(None, special), key=len, reverse=True)
    names_or_marks = re.compile("|".join([_MARK.pattern, *map(re.escape, names)]), re.DOTALL)
    found: list[Piece] = []
    end = 0
    for match in names_or_marks.finditer(text):
        found.append(text[end : match.start()])
        found.append(special[match[0]] if match[0] in special else _date(match[1]))
        end = match.end()
    return tuple(piece for piece in (*found, text[end:]) if piece != "")


def _date(format_: str) -> Date:
    if not _DATE.fullmatch(format_):
        message = f"the template writes the time as {_shown(format_)}, which not every phone can"
        raise _NoTurnsError(message)
    return Date(format_)


def _prove(form: ChatFormat, turns: Turns) -> None:
    """Compare the ids of the turns with the template's on every dialog, at two times."""
    for name, messages in proof_dialogs(form.tokenizer.special_tokens).items():
        for now in _TIMES:
            given = [Message(role, content) for role, content in messages]
            text = _render(form, messages, now=now, what=name)
            try:
                expected = form.encode(Dialog(given, now=now))
                found = turns.encode(form.tokenizer, messages, now)
            except LlamaExportError as error:
                message = f"a dialog with {name} cannot be encoded: {error.message}"
                raise _NoTurnsError(message) from None
            if expected != found:
                raise _NoTurnsError(_why(form, turns, messages, text, name, now))


def _why(
    form: ChatFormat,
    turns: Turns,
    messages: Sequence[Said],
    text: str,
    name: str,
    now: datetime,
) -> str:
    """Find whose fault it is that a dialog's ids differ: the template's, or the tokenizer's."""
    names = {token_id: name for name, token_id in form.tokenizer.special_tokens.items()}
    written = [
        now.strftime(piece.format)
        if isinstance(piece, Date)
        else piece
        if isinstance(piece, str)
        else names[piece]
        for piece in turns.pieces(messages)
    ]
    if "".join(written) == text:
        return (
            "the tokenizer encodes a text behind a special token otherwise than alone, as seen in "
            f"a dialog with {name}"
        )
    return "what the template writes depends on what a dialog holds, as seen in one with " + name


def _common_start(one: str, other: str) -> str:
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(letter for letter, _ in pairs)


def _shown(text: str) -> str:
    return clipped(repr(text), _MOST_SHOWN)
