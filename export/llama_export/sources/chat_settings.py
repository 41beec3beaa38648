"""What a model's files say of its chats: the templates, and the tokens that end an answer.

Clients look in several files, so each of a bundle's says the same: the union of what the model's
own files say. The module reads no file and renders no dialog of anybody's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from llama_export.checkpoints.checkpoint import Companions
from llama_export.errors import ConfigError
from llama_export.llama.config import LlamaConfig
from llama_export.sources.resolve import DEMO
from llama_export.tokenizer import chat
from llama_export.tokenizer.chat.chat_format import (
    DEFAULT_TEMPLATE,
    EXTRA_KEY,
    TOOL_TEMPLATE,
    ChatFormat,
    extra_names,
    template_title,
    templates_key,
)
from llama_export.tokenizer.chat.template import ChatTemplate
from llama_export.tokenizer.special_tokens import (
    END_HEADER,
    END_OF_MESSAGE,
    END_OF_TEXT,
    END_OF_TURN,
    START_HEADER,
)
from llama_export.tokenizer.tokenizer import Tokenizer
from llama_quantize.printable import shown_name

_EOS = "eos_token_id"
_LLAMA_3_ENDS = (END_OF_TEXT, END_OF_MESSAGE, END_OF_TURN)
_INSTRUCT = re.compile(r"instruct(?![a-z])", re.IGNORECASE)


def chat_settings(
    tokenizer: Tokenizer, companions: Companions, name: str = ""
) -> dict[str, object]:
    """Return the tokenizer_config.json of a bundle: the checkpoint's own templates and tokens.

    Args:
        tokenizer: tokenizer of the model.
        companions: what the checkpoint says of itself.
        name: name of the model, which tells Meta's Instruct models in a layout without templates.
    """
    templates = companions.chat_templates
    if not templates and _is_metas_instruct(tokenizer, companions, name):
        path = Path(chat.__file__).with_name("llama_3_2.jinja")
        templates = {"default": path.read_text(encoding="utf-8")}
    theirs = companions.tokenizer_config or {}
    own = {key: theirs.get(key) for key in ("eos_token", "pad_token")}
    kept = {key: value for key, value in own.items() if isinstance(value, str)}
    extra = extra_names(theirs)
    named = {EXTRA_KEY: extra} if extra else {}
    return tokenizer.config_keys() | templates_key(templates) | kept | named


def own_chat_format(name: str, tokenizer: Tokenizer, settings: Mapping[str, object]) -> ChatFormat:
    """Return how a model's dialogs are written, with what it gives its template itself.

    Args:
        name: name of the model.
        tokenizer: its tokenizer.
        settings: keys of its tokenizer_config.json.
    """
    form = ChatFormat.of(tokenizer, settings)
    # The demo was trained without Meta's lines of dates.
    return replace(form, arguments={"date_string": ""}) if name == DEMO else form


def completed(config: LlamaConfig, tokenizer: Tokenizer, companions: Companions) -> LlamaConfig:
    """Return a config that names every token which begins or ends a text.

    Args:
        config: config of the model.
        tokenizer: its tokenizer.
        companions: what else the checkpoint says of itself.

    Raises:
        ConfigError: no file of the model names a token that ends a text.
        ChatTemplateError: a template is no Jinja, or is stopped in the plainest dialog.
    """
    # Each by itself: two halves of one template would be sound together.
    for name in (DEFAULT_TEMPLATE, TOOL_TEMPLATE):
        if (text := companions.chat_templates.get(name)) is not None:
            ChatTemplate(text, template_title(name)).require_sound()
    form = ChatFormat.of(tokenizer, chat_settings(tokenizer, companions))
    if form.is_for_chat:
        form.try_out()
    special = tokenizer.special_tokens
    others = [
        *generation_ends(companions.generation_config),
        tokenizer.eos_token_id,
        form.turn_end,
        *(special[end] for end in _LLAMA_3_ENDS if end in special),
    ]
    # The first is what clients pad with: it stays the config's own.
    known = [*config.eos_token_id, *sorted(each for each in others if each is not None)]
    size = min(tokenizer.vocab_size, config.vocab_size)
    ends = dict.fromkeys(each for each in known if 0 <= each < size)
    if not ends:
        message = "no file of the model names a token that ends a text"
        hint = f"add {_EOS} to generation_config.json or config.json"
        raise ConfigError(message, hint)
    # Texts begin with the tokenizer's token in any case, so it counts before another of config's.
    bos = config.bos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return replace(config, bos_token_id=bos, eos_token_id=tuple(ends))


def template_notes(templates: Mapping[str, str]) -> tuple[str, ...]:
    """Return what a user must know of templates that a bundle does not keep."""
    others = sorted({*templates} - {DEFAULT_TEMPLATE, TOOL_TEMPLATE})
    if not others or DEFAULT_TEMPLATE not in templates:
        return ()
    names = shown_name(", ".join(others), 60)
    return (f"the bundle keeps the chat templates that clients choose, and not {names}",)


def generation_ends(settings: Mapping[str, object] | None) -> list[int]:
    """Return the ids in a generation_config.json that end a text."""
    found = (settings or {}).get(_EOS)
    listed = found if isinstance(found, list) else [found]
    return [each for each in listed if isinstance(each, int)]


def generation_settings(config: LlamaConfig, companions: Companions) -> dict[str, object]:
    """Return a bundle's generation_config.json: the checkpoint's, or the one that Meta ships.

    Args:
        config: completed config, whose ends of a text are written.
        companions: what the checkpoint says of itself.
    """
    theirs = companions.generation_config
    ends = list(config.eos_token_id)
    if theirs is None:
        begin = {"bos_token_id": config.bos_token_id, _EOS: ends}
        return {**begin, "do_sample": True, "temperature": 0.6, "top_p": 0.9}
    same = set(generation_ends(theirs)) == set(ends)
    return dict(theirs) if same else {**theirs, _EOS: ends}


def _is_metas_instruct(tokenizer: Tokenizer, companions: Companions, name: str) -> bool:
    """Whether a model without a template is one that Meta trained on Llama 3.1's chat format.

    Its name says so, or its generation_config.json ends a text at the end of a turn; a base model
    has the same vocabulary, and neither of these. Where there is a tokenizer_config.json, it would
    hold the template: the other file may then be one of ours, which names every end.
    """
    special = tokenizer.special_tokens
    if not {START_HEADER, END_HEADER, END_OF_TURN, END_OF_MESSAGE} <= special.keys():
        return False
    ends = generation_ends(companions.generation_config)
    by_its_ends = companions.tokenizer_config is None and special[END_OF_TURN] in ends
    return by_its_ends or _INSTRUCT.search(name) is not None
