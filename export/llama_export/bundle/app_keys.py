"""The two keys of a manifest that are there for apps: `memory`, and `chat` with a model's turns.

`memory` is what a phone compares with its free memory. `chat` is a dialog's form as plain data, so
that an app needs no Jinja; what its pieces mean is `tokenizer.chat.turns`' business. Both are
optional. The module checks their form and reads nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llama_export.bundle.json_object import JsonObject, is_integer

MEMORY, CHAT = "memory", "chat"
_MEMORY_KEYS = ("resident_bytes", "kv_bytes_per_token")
_LISTS, _ROLES = ("begin", "no_system", "answer"), ("system", "user", "assistant")
_OTHERS = ("trim", "thoughts_end")
_SIDES, _INSIDE = ("prefix", "suffix"), ("user", "before", "after")
_MOST_PIECES, _MOST_CHARACTERS = 256, 2**16
_DATE = re.compile(r"(?=.*%)(?:[^%]|%[aAbBdHIjmMpSyY%]){1,200}", re.DOTALL)
# Of one line, and not of blanks alone.
_REASON = re.compile(r"(?=.*\S)[^\x00-\x1f\x7f]{1,500}")


def check_memory(memory: JsonObject) -> Mapping[str, int]:
    """Check the key `memory`, and return it."""
    memory.only(_MEMORY_KEYS)
    return {key: memory.integer(key) for key in _MEMORY_KEYS}


def check_chat(chat: JsonObject, vocab_size: object) -> Mapping[str, Any]:
    """Check the key `chat`, and return it.

    Args:
        chat: the key's object.
        vocab_size: size of the vocabulary, as the manifest has it.
    """
    chat.only(("turns", "reason"))
    if chat.is_null("turns"):
        chat.text("reason", _REASON, "why there are no turns, in a line")
        return chat.raw
    if not chat.is_null("reason"):
        chat.fault("reason", "null where there are turns")
    turns = chat.child("turns")
    turns.only((*_LISTS, *_ROLES, *_OTHERS))
    _check_trim(turns)
    if not turns.is_null("thoughts_end"):
        _check_text(turns, "thoughts_end", fewest=1)
    for key in _LISTS:
        _check_pieces(turns, key, vocab_size)
    for role in _ROLES:
        if role != _ROLES[0] or not turns.is_null(role):
            _check_role(turns.child(role), role, vocab_size)
    return chat.raw


def _check_trim(turns: JsonObject) -> None:
    roles = turns.raw.get("trim")
    if not isinstance(roles, list) or any(roles.count(each) != 1 for each in roles):
        turns.fault("trim", "a list of roles, each once")
    elif not all(each in _ROLES for each in roles):
        turns.fault("trim", f"a list of {', '.join(_ROLES)}")


def _check_role(owner: JsonObject, role: str, vocab_size: object) -> None:
    """Check what is around a message; that of the system may stand inside one of the user's."""
    if role == _ROLES[0] and "user" in owner.raw:
        owner.only(_INSIDE)
        if owner.raw["user"] not in ("first", "last"):
            owner.fault("user", "first or last")
        for key in _INSIDE[1:]:
            _check_text(owner, key, fewest=0)
        return
    owner.only(_SIDES)
    for side in _SIDES:
        _check_pieces(owner, side, vocab_size)


def _check_text(owner: JsonObject, key: str, *, fewest: int) -> None:
    text = owner.raw.get(key)
    if not isinstance(text, str) or len(text) < fewest or (text and not _is_piece(text)):
        owner.fault(key, "a text that can be encoded")


def _check_pieces(owner: JsonObject, key: str, vocab_size: object) -> None:
    pieces = owner.raw.get(key)
    if not isinstance(pieces, list) or len(pieces) > _MOST_PIECES:
        owner.fault(key, f"a list of at most {_MOST_PIECES} pieces")
    elif not all(map(_is_piece, pieces)):
        owner.fault(key, "a list of token ids, texts and dates")
    elif not all(_is_known(piece, vocab_size) for piece in pieces if is_integer(piece)):
        owner.fault(key, f"inside the vocabulary of {vocab_size}")


def _is_known(token_id: int, vocab_size: object) -> bool:
    return not is_integer(vocab_size) or 0 <= token_id < vocab_size


def _is_piece(piece: object) -> bool:
    if isinstance(piece, str):
        surrogates = any(0xD800 <= ord(letter) <= 0xDFFF for letter in piece)
        return 0 < len(piece) <= _MOST_CHARACTERS and not surrogates
    if isinstance(piece, dict):
        format_ = piece.get("strftime")
        return len(piece) == 1 and isinstance(format_, str) and bool(_DATE.fullmatch(format_))
    return is_integer(piece) and piece >= 0
