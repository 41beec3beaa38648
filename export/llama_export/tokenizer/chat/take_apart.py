"""Take a chat template apart into turns, by what it writes of a few messages.

What stands between the contents becomes the turns. That is a guess, which `find_turns` proves. The
module knows no model, and reads no template's source.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

from llama_export.tokenizer.chat.chat_format import ChatFormat
from llama_export.tokenizer.chat.probes import (
    ANSWERED,
    ASKED,
    CLOSE_MARK,
    FIRST_ASKED,
    LAST_ASKED,
    OPEN_MARK,
    TOLD,
    NoTurnsError,
    rendered,
    rendered_with_system,
    split,
)
from llama_export.tokenizer.chat.turns import (
    ASSISTANT,
    FIRST,
    LAST,
    SYSTEM,
    Date,
    Inside,
    Piece,
    Said,
    Turn,
    Turns,
)
from llama_quantize.printable import clipped

_MOST_SHOWN = 60
_PADDING = " \n\t"
_THOUGHT, _THOUGHTS_END = "zq4thought", "</think>"
_MARK = re.compile(f"{OPEN_MARK}(.*?){CLOSE_MARK}", re.DOTALL)
# What every platform writes alike, with English names.
_DATE = re.compile(r"(?=.*%)(?:[^%]|%[aAbBdHIjmMpSyY%])+", re.DOTALL)


class _Parts(NamedTuple):
    """Texts of a template, with times as marks, as `Turns` has them."""

    no_system: str
    user_prefix: str
    user_suffix: str
    assistant_prefix: str
    assistant_suffix: str
    answer: str


class _Own(NamedTuple):
    """A system message's own turn: all that stands before it, and what ends it."""

    opened: str
    suffix: str


def taken_apart(form: ChatFormat) -> Turns:
    """Return what a form's turns must be, if it has any.

    Raises:
        NoTurnsError: the template does what turns cannot say.
    """
    text = rendered(form, ASKED)
    before, then, later, last = split(text, [content for _, content in ASKED])
    user_suffix, ending = _ends(form, ASKED[:1]), _ends(form, ASKED[:2])
    if not then.startswith(user_suffix) or not last.startswith(user_suffix):
        user_suffix = _common_start(then, last)
    user_prefix = later.removeprefix(ending)
    if not later.startswith(ending) or not before.endswith(user_prefix):
        # What differs at the very end is never written before an answer is asked for.
        user_prefix = _common_start(before[::-1], later[::-1])[::-1]
        ending = later.removesuffix(user_prefix)
    parts = _Parts(
        no_system=before.removesuffix(user_prefix),
        user_prefix=user_prefix,
        user_suffix=user_suffix,
        assistant_prefix=then.removeprefix(user_suffix),
        assistant_suffix=ending,
        answer=last.removeprefix(user_suffix),
    )
    return _turns(form, parts, _place_of_system(form, text, user_prefix))


def _turns(form: ChatFormat, parts: _Parts, place: _Own | Inside | None) -> Turns:
    begin, no_system, system = parts.no_system, "", None
    if isinstance(place, _Own):
        begin, opened, no_system = _begin(form, parts, place.opened)
        system = Turn(_pieces(form, opened), _pieces(form, place.suffix))
    return Turns(
        begin=_pieces(form, begin),
        no_system=_pieces(form, no_system),
        system=place if isinstance(place, Inside) else system,
        user=Turn(_pieces(form, parts.user_prefix), _pieces(form, parts.user_suffix)),
        assistant=Turn(
            _pieces(form, parts.assistant_prefix), _pieces(form, parts.assistant_suffix)
        ),
        answer=_pieces(form, parts.answer),
        trim=_trimmed_roles(form, has_system=place is not None),
        thoughts_end=_thoughts_end(form),
    )


def _begin(form: ChatFormat, parts: _Parts, opened: str) -> tuple[str, str, str]:
    """Take the token that begins a text off the two ways to begin a dialog, where both have it."""
    special, first = form.tokenizer.special_tokens, form.tokenizer.bos_token_id
    name = next((name for name, token_id in special.items() if token_id == first), "")
    both = name and opened.startswith(name) and parts.no_system.startswith(name)
    # Where each turn begins with it too, it is the turn's.
    if not both or parts.user_prefix.startswith(name):
        return "", opened, parts.no_system
    return name, opened.removeprefix(name), parts.no_system.removeprefix(name)


def _place_of_system(form: ChatFormat, text: str, user_prefix: str) -> _Own | Inside | None:
    """Find where a system message stands; None: the template refuses it, or leaves it out."""
    told = rendered_with_system(form, ASKED)
    if told is None or told == text:
        return None
    inside = _inside(form, text, told)
    contents = [content for _, content in ASKED]
    try:
        opened, after, *others = split(told, [TOLD, *contents])
    except NoTurnsError:
        if inside is None:
            raise
        return inside
    has_turn = after.endswith(user_prefix)
    if has_turn and others == split(text, contents)[1:]:
        return _Own(opened, after.removesuffix(user_prefix))
    if inside is not None:
        return inside
    message = (
        "the template writes later turns otherwise after a system message"
        if has_turn
        else "the template writes the system message inside the first user's turn, which it changes"
    )
    raise NoTurnsError(message)


def _inside(form: ChatFormat, text: str, told: str) -> Inside | None:
    """Find a system message right before what a user says, where the rest is as without it."""
    for user, content in ((FIRST, FIRST_ASKED), (LAST, LAST_ASKED)):
        start, end = text[: text.index(content)], text[text.index(content) :]
        between = told.removeprefix(start).removesuffix(end)
        if f"{start}{between}{end}" != told or between.count(TOLD) != 1:
            continue
        before, _, after = between.partition(TOLD)
        if any(not isinstance(each, str) for each in _pieces(form, between)):
            message = "the template writes tokens or times inside a user's message"
            raise NoTurnsError(message)
        return Inside(user, before, after)
    return None


def _ends(form: ChatFormat, messages: Sequence[Said]) -> str:
    """Return what a template writes behind the last of some messages, and asks for no answer."""
    text = rendered(form, messages, asks=False)
    return split(text, [content for _, content in messages])[-1]


def _trimmed_roles(form: ChatFormat, *, has_system: bool) -> tuple[str, ...]:
    """Return the roles from whose contents a template takes the white space around them."""
    messages: list[Said] = [*([(SYSTEM, TOLD)] if has_system else []), *ASKED]
    padded = [(role, f"{_PADDING}{said}{_PADDING}") for role, said in messages]
    text = rendered(form, padded, what="blanks around the messages")
    kept = {role for role, said in padded if said in text}
    return tuple(each for each in dict(messages) if each not in kept)


def _thoughts_end(form: ChatFormat) -> str | None:
    """Return the text up to which a template leaves an earlier answer out; None: it does not."""
    answer = f"{_THOUGHT}{_THOUGHTS_END}{ANSWERED}"
    messages = [(role, answer if role == ASSISTANT else said) for role, said in ASKED]
    text = rendered(form, messages, what="thoughts in an answer")
    return _THOUGHTS_END if _THOUGHT not in text and ANSWERED in text else None


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
        shown = clipped(repr(format_), _MOST_SHOWN)
        message = f"the template writes the time as {shown}, which not every phone can"
        raise NoTurnsError(message)
    return Date(format_)


def _common_start(one: str, other: str) -> str:
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(letter for letter, _ in pairs)
