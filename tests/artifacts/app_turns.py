"""What an app does with a manifest's `chat`: written from the format's description, for its tests.

It shares no code with `tokenizer.chat.turns`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

# Of strftime's words, those that a manifest may hold, with English names.
MONTHS = "January February March April May June July August September October November December"
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"


def written_date(format_: str, now: datetime) -> str:
    month, day = MONTHS.split()[now.month - 1], DAYS.split()[now.weekday()]
    words = {
        **{"a": day[:3], "A": day, "b": month[:3], "B": month, "%": "%"},
        **{"Y": str(now.year), "y": f"{now.year % 100:02}", "m": f"{now.month:02}"},
        **{"d": f"{now.day:02}", "j": f"{now.timetuple().tm_yday:03}", "H": f"{now.hour:02}"},
        **{"I": f"{(now.hour - 1) % 12 + 1:02}", "p": "PM" if now.hour > 11 else "AM"},
        **{"M": f"{now.minute:02}", "S": f"{now.second:02}"},
    }
    parts = format_.split("%")
    text, rest = parts[0], parts[1:]
    while rest:
        part = rest.pop(0)
        # Between two signs stands nothing, and they are one.
        text += words[part[0]] + part[1:] if part else "%" + (rest.pop(0) if rest else "")
    return text


def app_pieces(turns: Mapping[str, Any], messages: Sequence[tuple[str, str]]) -> list[Any]:
    (role, brief), *others = messages
    said = lambda role, text: text.strip() if role in turns["trim"] else text  # noqa: E731
    system, place = turns["system"], None
    if role != "system":
        others, pieces = list(messages), [*turns["begin"], *turns["no_system"]]
    elif "user" in system:
        place = {"first": 0, "last": max(range(0, len(others), 2))}[system["user"]]
        pieces = [*turns["begin"], *turns["no_system"]]
    else:
        pieces = [*turns["begin"], *system["prefix"], said(role, brief), *system["suffix"]]
    for number, (role, content) in enumerate(others):
        if role == "assistant" and turns["thoughts_end"]:
            content = content.split(turns["thoughts_end"])[-1]
        if number == place:
            content = system["before"] + said("system", brief) + system["after"] + content
        pieces += [*turns[role]["prefix"], said(role, content), *turns[role]["suffix"]]
    return [*pieces, *turns["answer"]]


def app_parts(
    turns: Mapping[str, Any], messages: Sequence[tuple[str, str]], now: datetime
) -> list[int | str]:
    parts: list[Any] = []
    for piece in app_pieces(turns, messages):
        each = written_date(piece["strftime"], now) if isinstance(piece, dict) else piece
        if isinstance(each, str) and parts and isinstance(parts[-1], str):
            parts[-1] += each
        elif each != "":
            parts.append(each)
    return parts


def app_ids(
    turns: Mapping[str, Any], tokenizer, messages: Sequence[tuple[str, str]], now: datetime
) -> list[int]:
    ids: list[int] = []
    for part in app_parts(turns, messages, now):
        is_text = isinstance(part, str)
        ids += tokenizer.encode(part, continues=bool(ids)) if is_text else [part]
    return ids
