"""What a model wrote of calls, parsed: JSON, or Python's literals, and nothing is ever evaluated.

Python's form is rewritten as JSON, token by token, so that both are read within the same limits: no
key twice, no number that is infinite, no depth that no tool needs. The module is given a whole
payload; where one ends in a reply is `call_scanner`'s business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from itertools import pairwise

from llama_export.tokenizer.chat.messages import ToolCall
from llama_quantize.strict_json import JsonFault, parse_json

_ARGUMENTS = ("arguments", "parameters")
_TOKEN = re.compile(
    r"(?P<blank>[ \t\r\n]+)"
    r"|(?P<text>\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')"
    r"|(?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![\w.]))"
    r"|(?P<name>[A-Za-z0-9_][\w.\-]*)"
    r"|(?P<mark>[\[\]{}(),:=])"
)
_CONSTANTS = {"True": "true", "False": "false", "None": "null"}
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3})|(.))", re.DOTALL
)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v"}
_SAME = frozenset("\\\"'")
_LAST_CHARACTER = 0x10FFFF


class PayloadFault(ValueError):
    """Text that is no call; its message says why."""


def parse_calls(
    text: str, names: Collection[str], *, is_marked: bool = False, method: str = ""
) -> list[ToolCall] | None:
    """Return the calls that a whole payload holds; None: it is no call, or not of these tools.

    Args:
        text: a JSON object, a list of them, or calls as Python writes them.
        names: names of the tools that may be called.
        is_marked: whether a mark says that it is a call, so that arguments may be left out.
        method: what stands between a name and its arguments in Python's form.
    """
    try:
        value = parse_json(_as_json(text, method))
        found = value if isinstance(value, list) else [value]
        calls = [_as_call(each, names, is_marked=is_marked) for each in found]
        # Whoever sends them on must be able to write them as UTF-8.
        json.dumps([call.arguments for call in calls], ensure_ascii=False).encode("utf-8")
    except (JsonFault, PayloadFault, UnicodeEncodeError):
        return None
    return calls or None


def _as_json(text: str, method: str) -> str:
    """Return a list of JSON as it is, and calls of Python as a list of JSON."""
    begin = text.lstrip()
    if begin[:1] == "{" or (begin[:1] == "[" and begin[1:].lstrip()[:1] == "{"):
        return text
    rewritten = "".join(_rewritten(text, method))
    return rewritten if begin[:1] == "[" else f"[{rewritten}]"


def _rewritten(text: str, method: str) -> Iterator[str]:
    """Rewrite calls as Python writes them as the tokens of JSON."""
    closers: list[str] = []
    tokens = [*_tokens(text), ("end", "")]
    for (kind, token), (_, following) in pairwise(tokens):
        in_call = closers[-1:] == [")"]
        if kind == "text":
            yield json.dumps(_unescaped(token[1:-1]))
        elif kind == "number":
            yield token
        elif kind == "name" and following in ("(", "=") and in_call == (following == "="):
            yield from _named(token, method, is_call=following == "(")
        elif kind == "name":
            yield _CONSTANTS.get(token, token)  # what is no constant is no JSON
        elif token == "(":
            closers.append(")")
        elif token in "[{":
            closers.append("]" if token == "[" else "}")
            yield token
        elif token in ")]}":
            yield _closed(closers, token)
        elif (token == ":" and in_call) or (token == "=" and not in_call):
            message = f"{token!r} where none belongs"
            raise PayloadFault(message)
        else:
            yield {"=": ":", ",": "" if following in tuple(")]}") else ","}.get(token, token)


def _named(token: str, method: str, *, is_call: bool) -> Iterator[str]:
    """Return the beginning of a call's JSON, or the name of an argument."""
    if not is_call:
        yield json.dumps(token)
        return
    if not token.endswith(method):
        message = f"{token} is called in another way"
        raise PayloadFault(message)
    yield f'{{"name":{json.dumps(token.removesuffix(method))},"arguments":{{'


def _closed(closers: list[str], token: str) -> str:
    if not closers or closers.pop() != token:
        message = f"{token!r} closes nothing"
        raise PayloadFault(message)
    return "}}" if token == ")" else token


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """Cut a text into Python's tokens, without its blanks.

    Raises:
        PayloadFault: it holds what no literal has.
    """
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            message = f"{text[at]!r} is no part of a literal"
            raise PayloadFault(message)
        if found.lastgroup != "blank":
            yield found.lastgroup, found[0]
        at = found.end()


def _unescaped(text: str) -> str:
    """Return what a literal of Python means; an escape that Python does not know stays."""
    return _ESCAPE.sub(_meant, text) if "\\" in text else text


def _meant(match: re.Match[str]) -> str:
    short, four, eight, octal, letter = match.groups()
    if letter is not None:
        return letter if letter in _SAME else _ESCAPED.get(letter, match[0])
    code = int(octal, 8) if octal is not None else int(short or four or eight, 16)
    if code > _LAST_CHARACTER:
        message = f"{match[0]} is no character"
        raise PayloadFault(message)
    return chr(code)


def _as_call(value: object, names: Collection[str], *, is_marked: bool) -> ToolCall:
    if not isinstance(value, dict) or value.get("type", "function") != "function":
        message = "a call is an object with a name"
        raise PayloadFault(message)
    given = [value[key] for key in _ARGUMENTS if key in value]
    name = value.get("name")
    if not isinstance(name, str) or name not in names or len(given) > 1:
        message = "no tool of this name was offered"
        raise PayloadFault(message)
    if not given and not is_marked:
        message = "a call has arguments"
        raise PayloadFault(message)
    arguments = given[0] if given else {}
    if isinstance(arguments, str):  # JSON in JSON, as some models write it
        arguments = parse_json(arguments)
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        message = "the arguments are no object"
        raise PayloadFault(message)
    return ToolCall(name, arguments)
