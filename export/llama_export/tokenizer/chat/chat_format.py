"""How one model's dialogs are written: its templates, its tokens' names, and its tokenizer.

A dialog is rendered by the model's own template, as transformers does it, and encoded so that
nobody ends a turn from inside a message. A base model has no template: its dialogs are plain text
that it goes on with. The module knows no file and generates nothing.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from llama_export.errors import ChatTemplateError, PromptError
from llama_export.tokenizer.chat.guard import encode_guarded
from llama_export.tokenizer.chat.messages import Message
from llama_export.tokenizer.chat.template import ChatTemplate, plain_data
from llama_export.tokenizer.tokenizer import Tokenizer, encode_text

DEFAULT_TEMPLATE, TOOL_TEMPLATE = "default", "tool_use"
TEMPLATE_KEY = "chat_template"
"""Key of tokenizer_config.json that holds the template, or several by name."""
EXTRA_KEY = "extra_special_tokens"
"""Key of tokenizer_config.json that names tokens of one model's own, such as `image_token`."""
_TOKEN_KEYS = tuple(f"{kind}_token" for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
_BETWEEN = "\n\n"
_TOOL = {"type": "function", "function": {"name": "ask", "description": "", "parameters": {}}}
_EMPTY = "{{ '' }}"
# Blanks before a tag that begins a template, and the line break that ends it.
_TRIMMED = re.compile(r"\A[ \t]+(?=\{[%#](?!\+))|(?:\r\n|\r|\n)\Z")


@dataclass(frozen=True)
class Dialog:
    """A dialog whose next answer is wanted.

    Args:
        messages: what was said, oldest first.
        tools: JSON schemas of functions that the model may call.
        arguments: more variables of the template, such as `date_string`, `enable_thinking` or
            `documents`.
        add_generation_prompt: whether the beginning of an answer is written at the end.
        now: time that the template is told; None: the true one.
    """

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, object]] = ()
    arguments: Mapping[str, object] = field(default_factory=dict)
    add_generation_prompt: bool = True
    now: datetime | None = None


@dataclass(frozen=True)
class ChatFormat:
    """One model's way to write a dialog.

    Args:
        tokenizer: tokenizer of the model.
        templates: its templates by name; none: a base model.
        token_names: names of its special tokens, by what a template calls them.
        arguments: variables of the template that a dialog does not give itself.
    """

    tokenizer: Tokenizer
    templates: Mapping[str, ChatTemplate]
    token_names: Mapping[str, str]
    arguments: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, tokenizer: Tokenizer, settings: Mapping[str, object]) -> ChatFormat:
        """Read a model's chat format from its tokenizer_config.json.

        Args:
            tokenizer: tokenizer of the model.
            settings: keys of the file, with its templates.
        """
        templates = {
            name: ChatTemplate(text, template_title(name))
            for name, text in templates_of(settings).items()
        }
        return cls(tokenizer, templates, token_names(settings))

    @property
    def is_for_chat(self) -> bool:
        """Whether the model has a template, and so was trained to answer."""
        return bool(self.templates)

    def render(self, dialog: Dialog) -> str:
        """Write a dialog as one text.

        Raises:
            PromptError: there is no message, or the template refuses the dialog.
            ChatTemplateError: the template is no Jinja, or was stopped.
        """
        return self._render(dialog, _said(dialog))

    def encode(self, dialog: Dialog, *, parse_special: bool = False) -> list[int]:
        """Encode a dialog; special tokens that somebody typed stay text, unless told otherwise.

        Args:
            dialog: what was said.
            parse_special: whether names of special tokens in what was said become their ids.

        Raises:
            PromptError, ChatTemplateError: as `render`.
            TokenizerError: a text holds a lone surrogate.
        """
        said = _said(dialog)
        if not self.templates:
            text = self._render(dialog, said)
            return encode_text(self.tokenizer, text, parse_special=parse_special)
        if parse_special:
            return self.tokenizer.encode_rendered(self._render(dialog, said))
        return encode_guarded(self.tokenizer, lambda given: self._render(dialog, given), said)

    def try_out(self) -> None:
        """Render the plainest dialog, without tools and with one; a template may refuse either.

        Raises:
            ChatTemplateError: it is no Jinja, or was stopped, as it would be in every dialog.
        """
        for tools in ((), (_TOOL,)):
            with contextlib.suppress(PromptError):
                self.render(Dialog([Message("user", "Question")], tools=tools))

    @cached_property
    def turn_end(self) -> int | None:
        """Id of the special or added token that a template writes after an answer; None: none."""
        answer = "Aanswer"
        messages = [Message("user", "Question"), Message("assistant", answer)]
        try:
            text = self.render(Dialog(messages, add_generation_prompt=False))
        except (PromptError, ChatTemplateError):
            return None
        after = text.rpartition(answer)[2].lstrip() if self.templates and answer in text else ""
        names = [name for name in self.tokenizer.special_tokens if name and after.startswith(name)]
        if names or not after:
            return self.tokenizer.special_tokens[max(names, key=len)] if names else None
        first = next(iter(self.tokenizer.encode_rendered(after)), -1)  # an added token, perhaps
        name = None if first < 0 else self.tokenizer.token_name(first)
        return first if name and after.startswith(name) else None

    def _render(self, dialog: Dialog, given: object) -> str:
        if not dialog.messages:
            message = "the dialog has no messages"
            raise PromptError(message, "begin with a user message")
        if not self.templates:
            return _BETWEEN.join(message.text for message in dialog.messages)
        if not isinstance(given, Mapping):
            raise TypeError
        variables = {
            **self.token_names,
            **self.arguments,
            "documents": None,
            **given["arguments"],
            "add_generation_prompt": dialog.add_generation_prompt,
            "tools": given["tools"] or None,
            "messages": given["messages"],
        }
        return self._template(has_tools=bool(dialog.tools)).render(variables, now=dialog.now)

    def _template(self, *, has_tools: bool) -> ChatTemplate:
        name = TOOL_TEMPLATE if has_tools and TOOL_TEMPLATE in self.templates else DEFAULT_TEMPLATE
        found = self.templates.get(name)
        if found is None:
            names = ", ".join(sorted(self.templates))
            message = f"the model has the chat templates {names:.200}, and none is the default"
            hint = f"give one of them the name {DEFAULT_TEMPLATE} in tokenizer_config.json"
            raise ChatTemplateError(message, f"{hint}, and export the model again")
        return found


def templates_of(settings: Mapping[str, object]) -> dict[str, str]:
    """Return the templates in the keys of a tokenizer_config.json, by name."""
    found = settings.get(TEMPLATE_KEY)
    if isinstance(found, str):
        return {DEFAULT_TEMPLATE: found}
    named: dict[str, str] = {}
    for each in found if isinstance(found, list) else ():
        match each:
            case {"name": str(name), "template": str(text)}:
                named[name] = text
    return named


def templates_key(templates: Mapping[str, str]) -> dict[str, object]:
    """Return the key of tokenizer_config.json that holds templates; without one, nothing.

    onnxruntime-genai opens no tokenizer whose templates are a list, so what transformers chooses
    from a list is written as one template. Others, which a client must ask for by name, are left
    out.
    """
    default, with_tools = templates.get(DEFAULT_TEMPLATE), templates.get(TOOL_TEMPLATE)
    if default is not None:
        one = default if with_tools in (None, default) else _either(with_tools, default)
        return {TEMPLATE_KEY: one}
    named = [{"name": name, "template": templates[name]} for name in sorted(templates)]
    return {TEMPLATE_KEY: named} if named else {}


def _either(with_tools: str, without: str) -> str:
    """Write two templates as one, which is the first of them where there are tools.

    Clients do not trim line breaks and blanks around a tag alike. So an empty text keeps those that
    belong to a template, and what transformers would trim at its ends is left out.
    """
    first, second = (_TRIMMED.sub("", each) for each in (with_tools, without))
    return (
        f"{{% if tools %}}{_EMPTY}{first}{_EMPTY}{{% else %}}{_EMPTY}{second}{_EMPTY}{{% endif %}}"
    )


def token_names(settings: Mapping[str, object]) -> dict[str, str]:
    """Return the names of special tokens that templates may ask for, from tokenizer_config.json."""
    return extra_names(settings) | _named({key: settings.get(key) for key in _TOKEN_KEYS})


def extra_names(settings: Mapping[str, object]) -> dict[str, str]:
    """Return the names of one model's own tokens, by what its templates call them.

    They stand in an object of their own, or beside the others, as transformers reads them.
    """
    own = {key: settings[key] for key in settings if key.endswith("_token")}
    found = settings.get(EXTRA_KEY)
    listed = _named(found) if isinstance(found, Mapping) else {}
    return {key: name for key, name in (_named(own) | listed).items() if key not in _TOKEN_KEYS}


def _named(tokens: Mapping[str, object]) -> dict[str, str]:
    """Return the names of tokens that are spelled as texts, or as objects with a text."""
    found = {}
    for key, value in tokens.items():
        content = value.get("content") if isinstance(value, Mapping) else value
        if isinstance(content, str):
            found[key] = content
    return found


def _said(dialog: Dialog) -> dict[str, object]:
    """Return what is said in a dialog, of JSON's types."""
    return {
        "messages": [plain_data(each.to_json(), "a message") for each in dialog.messages],
        "tools": plain_data(list(dialog.tools), "the tools"),
        "arguments": plain_data(dict(dialog.arguments), "the template's arguments"),
    }


def template_title(name: str) -> str:
    """Return what messages call the template of a name."""
    return "the chat template" if name == DEFAULT_TEMPLATE else f"the chat template {name!r:.60}"
