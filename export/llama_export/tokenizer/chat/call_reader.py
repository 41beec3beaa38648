"""Read a reply as it is written: what is text, and what is a call of a tool that was offered.

Text is held back only while it may still be a call, and a call is reported once it is whole; so
what looked like one and breaks comes out as the text that it is. The reply may be cut anywhere, and
is read alike. Names of special tokens, such as `<|python_tag|>`, are in the text that tokenizers
decode, and are found there. The module knows no tokenizer and no session.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto

from llama_export.tokenizer.chat.call_form import CallForm, Kind
from llama_export.tokenizer.chat.call_payload import parse_calls
from llama_export.tokenizer.chat.call_scanner import (
    BLANKS,
    AnyOf,
    JsonScanner,
    PythonScanner,
    State,
)
from llama_export.tokenizer.chat.messages import ToolCall
from llama_export.tokenizer.special_tokens import END_OF_MESSAGE, END_OF_TURN, PYTHON_TAG

_TAG, _END_TAG = "<tool_call>", "</tool_call>"
_PYTHON_END = "<|python_end|>"
_TAGS = (_TAG,)
_MARKS = (PYTHON_TAG, "<|python_start|>", "[TOOL_CALLS]")
# What may follow a call and is no text: a model whose stop tokens lack one of these writes it.
_ENDS = (END_OF_MESSAGE, END_OF_TURN, _PYTHON_END)
# What parts two calls, where a model writes several without a mark.
_BETWEEN = ";"
_METHOD = ".call"


@dataclass(frozen=True)
class TextDelta:
    """More text of a reply.

    Args:
        text: the text, never empty.
    """

    text: str


@dataclass(frozen=True)
class CallDelta:
    """More of a call, as OpenAI's interface streams it: first its name, then its arguments.

    Args:
        index: number of the call in the reply, from 0.
        id: the call's id, in its first delta; else "".
        name: the function's name, in its first delta; else "".
        arguments: more of the arguments' JSON.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


Delta = TextDelta | CallDelta


class _Place(Enum):
    """Where in a reply the reader is."""

    GAP = auto()  # at its beginning, or behind a call
    TEXT = auto()
    CALL = auto()
    CLOSING = auto()


class CallReader:
    """Reads one reply; `calls` are those that were found so far.

    Args:
        form: form in which the model writes calls.
        names: names of the tools that were offered.
        id_prefix: what the ids of calls begin with; each call's number follows.
        most_calls: largest number of calls that are wanted, of which the first ones are read; None:
            all of them.
    """

    def __init__(
        self,
        form: CallForm,
        names: Collection[str],
        id_prefix: str = "call_",
        most_calls: int | None = None,
    ) -> None:
        self.calls: list[ToolCall] = []
        self._is_tagged = form.kind is Kind.TAGGED
        self._marks = _TAGS if self._is_tagged else _MARKS
        self._mark = re.compile("|".join(map(re.escape, self._marks)))
        self._names = frozenset(names)
        self._id_prefix, self._most_calls = id_prefix, most_calls
        self._place, self._follows_call = _Place.GAP, False
        self._blanks: list[str] = []  # not given out: a call may follow
        self._carry = ""  # what may become a mark
        self._held: list[str] = []  # what may become a call, with its mark
        self._payload: list[str] = []
        self._opened_by = ""
        self._found: list[ToolCall] = []
        self._scanner = AnyOf(())
        self._out: list[Delta] = []

    def push(self, text: str) -> list[Delta]:
        """Read more of the reply, and return what is certain by now."""
        rest = text
        while rest:
            rest = self._step(rest)
        return self._given_out()

    def finish(self) -> list[Delta]:
        """Return the rest of a reply that has ended."""
        if self._place is _Place.CALL:
            self._release()
        elif self._place is _Place.CLOSING:
            self._report()  # a model that ends its turn may leave the last mark out
            self._carry = ""
        if self._carry:
            self._begin_text()
            self._write(self._carry)
            self._carry = ""
        if not self._follows_call:
            self._flush_blanks()
        return self._given_out()

    def _step(self, text: str) -> str:
        if self._place is _Place.CALL:
            return self._read_call(text)
        text, self._carry = self._carry + text, ""
        if self._place is _Place.TEXT:
            return self._read_text(text)
        body = text.lstrip(BLANKS)
        blanks = text[: len(text) - len(body)]
        (self._blanks if self._place is _Place.GAP else self._held).append(blanks)
        if not body:
            return ""
        return self._read_gap(body) if self._place is _Place.GAP else self._read_closing(body)

    def _read_gap(self, text: str) -> str:
        """Read where a call may begin; the text begins with no blank."""
        ends = _ENDS if self.calls else ()
        if mark := next((each for each in self._marks if text.startswith(each)), ""):
            return self._open(mark, text[len(mark) :])
        if end := next((each for each in ends if text.startswith(each)), ""):
            return text[len(end) :]
        if any(each.startswith(text) for each in (*self._marks, *ends)):
            self._carry = text
            return ""
        if self.calls and text[0] == _BETWEEN:
            self._blanks.append(_BETWEEN)
            return text[1:]
        if text[0] in "{[" and not self._is_tagged:
            return self._open("", text)
        self._begin_text()
        return text

    def _read_text(self, text: str) -> str:
        found = self._mark.search(text)
        if found:
            self._write(text[: found.start()])
            return self._open(found[0], text[found.end() :])
        longest = max(map(len, self._marks)) - 1
        lengths = (
            length
            for length in range(min(longest, len(text)), 0, -1)
            if any(mark.startswith(text[-length:]) for mark in self._marks)
        )
        cut = len(text) - next(lengths, 0)
        self._write(text[:cut])
        self._carry = text[cut:]
        return ""

    def _open(self, mark: str, rest: str) -> str:
        self._place, self._opened_by = _Place.CALL, mark
        self._held, self._payload = [mark], []
        json_calls = JsonScanner(self._names)
        if self._is_tagged:
            self._scanner = AnyOf([json_calls])
        else:
            builtin = PythonScanner(self._names, method=_METHOD, is_list=False)
            alone = [builtin] if mark else []
            self._scanner = AnyOf([json_calls, PythonScanner(self._names), *alone])
        return rest

    def _read_call(self, text: str) -> str:
        length = self._scanner.feed(text)
        self._held.append(text[:length])
        self._payload.append(text[:length])
        if self._scanner.state is State.BROKEN:
            self._release()
        elif self._scanner.state is State.WHOLE:
            self._take("".join(self._payload))
        return text[length:]

    def _take(self, payload: str) -> None:
        """Parse what the scanner let through."""
        is_builtin = payload.lstrip(BLANKS)[:1] not in ("{", "[")
        found = parse_calls(
            payload,
            self._names,
            is_marked=bool(self._opened_by),
            method=_METHOD if is_builtin else "",
        )
        if found is None:
            self._release()
        elif self._is_tagged:
            self._found, self._place = found, _Place.CLOSING
        else:
            self._found = found
            self._report()

    def _read_closing(self, text: str) -> str:
        if text.startswith(_END_TAG):
            self._report()
            return text[len(_END_TAG) :]
        if _END_TAG.startswith(text):
            self._carry = text
            return ""
        self._release()
        return text

    def _report(self) -> None:
        """Put out the calls that were found."""
        wanted = None if self._most_calls is None else self._most_calls - len(self.calls)
        for call in self._found[:wanted]:
            index = len(self.calls)
            named = ToolCall(call.name, call.arguments, f"{self._id_prefix}{index}")
            self.calls.append(named)
            self._out.append(CallDelta(index, named.id, named.name))
            arguments = json.dumps(call.arguments, ensure_ascii=False)
            self._out.append(CallDelta(index, arguments=arguments))
        self._found, self._held, self._blanks = [], [], []
        self._place, self._follows_call = _Place.GAP, True

    def _release(self) -> None:
        """Put out as text what is no call after all."""
        held, self._held = "".join(self._held), []
        self._begin_text()
        self._write(held)

    def _begin_text(self) -> None:
        """Go on with text; blanks between a call and a text are neither's."""
        if self._follows_call and _BETWEEN not in self._blanks:
            self._blanks = []
        self._place, self._follows_call = _Place.TEXT, False

    def _write(self, text: str) -> None:
        body = text.rstrip(BLANKS)
        if body:
            self._flush_blanks()
            self._out.append(TextDelta(body))
        self._blanks.append(text[len(body) :])

    def _flush_blanks(self) -> None:
        blanks, self._blanks = "".join(self._blanks), []
        if blanks:
            self._out.append(TextDelta(blanks))

    def _given_out(self) -> list[Delta]:
        """Return what was found since the last time, neighbouring texts as one."""
        given: list[Delta] = []
        for delta in self._out:
            last = given[-1] if given else None
            if isinstance(delta, TextDelta) and isinstance(last, TextDelta):
                given[-1] = TextDelta(last.text + delta.text)
            else:
                given.append(delta)
        self._out = []
        return given
