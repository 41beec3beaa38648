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


def app_ids(
    turns: Mapping[str, Any], tokenizer, messages: Sequence[tuple[str, str]], now: datetime
) -> list[int]:
    pieces = list(turns["begin"])
    if messages[0][0] != "system":
        pieces += turns["no_system"]
    for role, content in messages:
        said = content.strip() if turns["trim"] else content
        pieces += [*turns[role]["prefix"], said, *turns[role]["suffix"]]
    ids, text = [], ""
    for piece in [*pieces, *turns["answer"], None]:
        if isinstance(piece, str):
            text += piece
        elif isinstance(piece, dict):
            text += written_date(piece["strftime"], now)
        else:
            ids += tokenizer.encode(text) if text else []
            ids += [] if piece is None else [piece]
            text = ""
    return ids
