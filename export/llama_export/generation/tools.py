"""Tools that a model is offered: described to it, and its calls of them read from what it wrote.

A reply that is no call stays text, as does a call of a tool that was not offered. Whether the
arguments fit the tool's schema, and what calling means, is the caller's business: nothing is called
here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llama_export.errors import PromptError
from llama_export.generation.text_stream import Completion
from llama_export.tokenizer.chat.call_form import (
    HERMES,
    LLAMA_JSON,
    MISTRAL,
    PYTHONIC,
    CallForm,
    find_call_form,
)
from llama_export.tokenizer.chat.call_grammar import CallableTool, call_grammar
from llama_export.tokenizer.chat.call_reader import CallReader, TextDelta
from llama_export.tokenizer.chat.chat_format import ChatFormat
from llama_export.tokenizer.chat.messages import ASSISTANT, Message, ToolCall
from llama_export.tokenizer.chat.template import plain_data

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}")
_HINT = (
    'give {"type": "function", "function": {"name": "weather", "description": "...", '
    '"parameters": {"type": "object", "properties": {}}}}'
)
REQUIRED = "required"
"""The choice of any tool, of which one must be called."""


@dataclass(frozen=True)
class Reply:
    """What a model answered where tools were offered.

    Args:
        text: the text, without the calls.
        calls: the calls, each with an id that no other call of the dialog has.
    """

    text: str
    calls: tuple[ToolCall, ...] = ()

    @property
    def message(self) -> Message:
        """The reply as a message of the dialog."""
        content = None if self.calls and not self.text else self.text
        return Message(ASSISTANT, content, self.calls)


class Tools:
    """The tools that a model is offered, and how it calls them.

    Args:
        chat_format: how the model's dialogs are written.
        definitions: JSON schemas of functions, as OpenAI's interface has them, with or without the
            frame around the function.
        form: "json", "pythonic", "tagged" or "marked", in which a message of yours told the model
            to write calls; None: as its chat template does.
        most_calls: largest number of calls in a reply, of which the first ones are read; None: all.

    Raises:
        PromptError: there is no tool, a definition is none, two have one name, there is no such
            form, or the model's template has no place for tools.
    """

    def __init__(
        self,
        chat_format: ChatFormat,
        definitions: Sequence[Mapping[str, object]],
        *,
        form: str | None = None,
        most_calls: int | None = None,
    ) -> None:
        found = _definitions(definitions)
        self.definitions: tuple[Mapping[str, object], ...] = tuple(found.values())
        self.form = _own_form(chat_format) if form is None else _named_form(form)
        self._most_calls = most_calls
        self._special_tokens = chat_format.tokenizer.special_tokens

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the functions."""
        return tuple(_function(each)[0] for each in self.definitions)

    def reader(self, id_prefix: str = "call_") -> CallReader:
        """Return what reads a reply while it is written.

        Args:
            id_prefix: what the ids of its calls begin with, different for each reply of a dialog.
        """
        return CallReader(self.form, self.names, id_prefix, self._most_calls)

    def read(self, completion: Completion) -> Reply:
        """Return the text and the calls of a reply that was written.

        The calls' ids hold the length of the prompt, which grows with each turn of a dialog.
        """
        reader = self.reader(f"call_{completion.stats.prompt_tokens}_")
        deltas = [*reader.push(completion.text), *reader.finish()]
        text = "".join(each.text for each in deltas if isinstance(each, TextDelta))
        return Reply(text, tuple(reader.calls))

    def grammar(self, choice: str = REQUIRED) -> str:
        """Return a grammar of one call in the model's form: Lark's, as llguidance reads it.

        Args:
            choice: name of the tool that must be called, or `REQUIRED` for any.

        Raises:
            PromptError: there is no tool of the name.
        """
        callable_ = [CallableTool(*_function(each)) for each in self.definitions]
        chosen = [tool for tool in callable_ if choice in (REQUIRED, tool.name)]
        if not chosen:
            message = f"no tool is called {choice!r:.80}"
            raise PromptError(message, f"there are {', '.join(self.names):.300}")
        return call_grammar(self.form, chosen, self._special_tokens)


def _named_form(name: str) -> CallForm:
    """Return a form by its name.

    Raises:
        PromptError: there is none.
    """
    for each in (LLAMA_JSON, PYTHONIC, HERMES, MISTRAL):
        if each.kind.value == name:
            return each
    message = f"the form of calls: expected json, pythonic, tagged or marked, found {name!r:.80}"
    raise PromptError(message, "leave it out, and it is what the model's template has")


def _own_form(chat_format: ChatFormat) -> CallForm:
    found = find_call_form(chat_format)
    if found is None:
        message = "the model's chat template has no place for tools"
        hint = "take an Instruct model that was trained to call them, such as Llama 3.2's"
        raise PromptError(message, hint)
    return found


def _definitions(given: object) -> dict[str, Mapping[str, object]]:
    """Return the definitions by name, of JSON's types.

    Raises:
        PromptError: as `Tools`.
    """
    if isinstance(given, str | Mapping) or not isinstance(given, Sequence) or not given:
        message = f"the tools: expected a list of definitions, found {given!r:.80}"
        raise PromptError(message, f"in a list, {_HINT}")
    found: dict[str, Mapping[str, object]] = {}
    for each in given:
        plain = plain_data(each, "a tool")
        if not isinstance(plain, dict):
            message = f"a tool: expected its definition, found {each!r:.80}"
            raise PromptError(message, _HINT)
        name, _ = _function(plain)
        if name in found:
            message = f"two tools are called {name!r}"
            raise PromptError(message, "give each a name of its own")
        found[name] = plain
    return found


def _function(definition: Mapping[str, object]) -> tuple[str, Mapping[str, object]]:
    """Return a function's name, and the schema of its arguments.

    Raises:
        PromptError: the definition is none.
    """
    match definition.get("function", definition):
        case {"name": str(name), **rest}:
            parameters = rest.get("parameters") or {}
            is_sound = definition.get("type", "function") == "function"
            if is_sound and isinstance(parameters, Mapping) and _NAME.fullmatch(name):
                return name, parameters
    message = f"a tool: expected a function's name and parameters, found {dict(definition)!r:.120}"
    raise PromptError(message, f"{_HINT}; names have letters, digits, _, - and full stops")
