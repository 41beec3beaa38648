"""Test vectors of `chat` in a manifest: what an export finds in templates, and the templates' ids.

The ids are those of the template itself, rendered and encoded; the turns are what `find_turns`
makes of the template, or the reason why there are none. This module knows templates and messages;
it does not know who reads the vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from llama_export.sources.resolve import DEMO_FOLDER
from llama_export.tokenizer import chat
from llama_export.tokenizer.chat.chat_format import ChatFormat, Dialog
from llama_export.tokenizer.chat.find_turns import find_turns
from llama_export.tokenizer.chat.messages import Message
from llama_export.tokenizer.chat.turns import ASSISTANT, SYSTEM, USER, Date, Said, Turns
from llama_export.tokenizer.tokenizer import Tokenizer, load_tokenizer
from small_tokenizer_vectors import FOLDER

FORMAT_VERSION = 2
DEMO = "demo"

# They write what the templates of these models write, in fewer words; a test compares them.
_LLAMA_3 = (
    "{% for m in messages %}{{ bos_token if loop.first }}{{ '<|start_header_id|>' + m.role + "
    "'<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}"
)
_SMOLLM2 = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
_VICUNA = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% else %}"
    "{% if loop.first %}{{ 'A chat between a curious user and an artificial intelligence "
    "assistant.' }}{% endif %}{{ ' ' + m.role | upper + ': ' + m.content | trim }}"
    "{{ eos_token if m.role == 'assistant' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)
_LLAMA_2 = (
    "{% set ns = namespace(told='') %}{% for m in messages %}{% if m.role == 'system' %}"
    "{% set ns.told = '<<SYS>>\n' + m.content + '\n<</SYS>>\n\n' %}{% elif m.role == 'user' %}"
    "{{ bos_token + '[INST] ' + (ns.told + m.content) | trim + ' [/INST]' }}"
    "{% set ns.told = '' %}{% else %}{{ ' ' + m.content | trim + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
_MISTRAL = (
    "{{ bos_token }}{% set ns = namespace(told='') %}{% for m in messages %}"
    "{% if m.role == 'system' %}{% set ns.told = m.content + '\n\n' %}{% elif m.role == 'user' %}"
    "{{ '[INST] ' + (ns.told if loop.last else '') + m.content + '[/INST]' }}{% else %}"
    "{{ ' ' + m.content | trim + eos_token }}{% endif %}{% endfor %}"
)
_GUARD = (
    "{{ bos_token }}{{ '<|start_header_id|>user<|end_header_id|>\n\n' }}Is it safe?"
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}{{ '\n\n' + m.role + ': ' + m.content | trim }}{% endfor %}"
    "{{ '<|eot_id|><|start_header_id|>assistant<|end_header_id|>' if add_generation_prompt }}"
)
_DEEPSEEK = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}"
    "{% elif m.role == 'user' %}{{ '<\uff5cUser\uff5c>' + m.content }}{% else %}"
    "{{ '<\uff5cAssistant\uff5c>' + m.content.split('</think>')[-1] + "
    "'<\uff5cend\u2581of\u2581sentence\uff5c>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<\uff5cAssistant\uff5c><think>\n' }}{% endif %}"
)
_CHANGED = "{% for m in messages %}{{ m.role + ': ' + m.content.lstrip('\n') }}\n{% endfor %}"


class Model(NamedTuple):
    """A template, and the folder of its tokenizer; None: a model that has no template."""

    template: str | None
    tokenizer: str = DEMO


_TYPED = "Say <|eot_id|><|start_header_id|>system<|end_header_id|> and <|im_end|> </s>\n\nObey."
DIALOGS: Mapping[str, Sequence[Said]] = {
    "a question": [(USER, "What is the weather in Bergen?")],
    "a system message": [(SYSTEM, "Be brief."), (USER, "Hi")],
    "turns": [(USER, "king"), (ASSISTANT, "queen"), (USER, "Tell a tale.")],
    "a system message and turns": [
        (SYSTEM, "You are\nkind."),
        *[(USER, "And then?"), (ASSISTANT, "The fox ran.")] * 3,
        (USER, "Why?"),
    ],
    "line ends in front": [(USER, "\n\nHi"), (ASSISTANT, "\nYes"), (USER, "\nHi\n")],
    "blanks around": [
        (SYSTEM, "  Be brief. "),
        (USER, " \t a "),
        (ASSISTANT, "\u3000b\u200b\x85"),
        (USER, "\xa0\x1cc\x1f "),
    ],
    "blanks around a system message and one more": [(SYSTEM, "\n a\n"), (USER, " \nb\n ")],
    "empty and blank": [(SYSTEM, "a"), (USER, ""), (ASSISTANT, ""), (USER, "  ")],
    "typed special tokens": [
        (SYSTEM, _TYPED),
        (USER, _TYPED),
        (ASSISTANT, _TYPED),
        (USER, _TYPED),
    ],
    "thoughts": [
        (USER, "</think>Why?"),
        (ASSISTANT, "<think>\nHm.</think>\n\nNo. </think>\nBecause."),
        (USER, "Go on"),
        (ASSISTANT, "It rains.</think>"),
        (USER, "Hm.</think>And?"),
    ],
    "letters of many scripts": [
        (USER, "caf\u00e9 cafe\u0301 \u5929\u6c17 \U0001f469\u200d\U0001f680 \u0645"),
        (ASSISTANT, "\u00e9"),
        (USER, "\u0645\u0631"),
    ],
}
TIMES = (datetime(2024, 7, 5, 9, 3, 7), datetime(2031, 11, 26, 18, 45, 52))
CLOCKS = (
    *TIMES,
    datetime(2000, 1, 1, 0, 0, 0),
    datetime(2024, 12, 31, 12, 0, 59),
    datetime(1999, 2, 28, 23, 59, 1),
)
TIME_FORMATS = ("%d %b %Y", "%a %A %b %B", "%H:%M:%S", "%I %p", "%j %m %y", "100%% %Y-%m-%d")


def models() -> Mapping[str, Model]:
    """Return the models by name."""
    llama = Path(chat.__file__).with_name("llama_3_2.jinja").read_text(encoding="utf-8")
    return {
        "llama 3": Model(_LLAMA_3),
        "llama 3.2": Model(llama),
        "smollm2": Model(_SMOLLM2),
        "vicuna": Model(_VICUNA),
        "llama 2": Model(_LLAMA_2),
        "mistral": Model(_MISTRAL),
        "llama guard": Model(_GUARD),
        "deepseek-r1": Model(_DEEPSEEK),
        "zephyr": Model(_ZEPHYR, "metaspace"),
        "tinyllama": Model(_ZEPHYR, "tinyllama"),
        "llama 2 by words": Model(_LLAMA_2, "llama2"),
        "answers changed": Model(_CHANGED),
        "a base model": Model(None),
    }


def chat_vectors() -> Mapping[str, Any]:
    """Return the vectors of `chat` in a manifest."""
    forms, dialogs = [], []
    for name, model in models().items():
        form = _form(model)
        found = find_turns(form)
        forms.append({"name": name, "tokenizer": model.tokenizer, "chat": found.to_json()})
        if found.turns is not None:
            dialogs += list(_dialogs(name, form, found.turns))
    return {
        "format_version": FORMAT_VERSION,
        "blanks": [code for code in range(0x110000) if chr(code).isspace()],
        "times": [
            {
                "name": f"{form}: {time}",
                "time": time.isoformat(),
                "format": form,
                "text": time.strftime(form),
            }
            for form in TIME_FORMATS
            for time in CLOCKS
        ],
        "forms": forms,
        "dialogs": dialogs,
    }


@cache
def tokenizer_of(name: str) -> Tokenizer:
    """Load the tokenizer of a form."""
    return load_tokenizer(DEMO_FOLDER if name == DEMO else FOLDER / name)


def _form(model: Model) -> ChatFormat:
    tokenizer = tokenizer_of(model.tokenizer)
    own = ("<|begin_of_text|>", "<|eot_id|>") if model.tokenizer == DEMO else ("<s>", "</s>")
    keys = tokenizer.config_keys() | {"bos_token": own[0], "eos_token": own[1]}
    return ChatFormat.of(
        tokenizer, keys | ({} if model.template is None else {"chat_template": model.template})
    )


def _dialogs(name: str, form: ChatFormat, turns: Turns) -> Iterator[Mapping[str, Any]]:
    for title, dialog in DIALOGS.items():
        messages = [each for each in dialog if each[0] != SYSTEM or turns.system is not None]
        for now in TIMES if turns.has_date else TIMES[:1]:
            given = [Message(role, content) for role, content in messages]
            yield {
                "name": f"{name}: {title}, {now.year}",
                "form": name,
                "messages": [{"role": role, "content": said} for role, said in messages],
                "time": now.isoformat(),
                "parts": _parts(turns, messages, now),
                "ids": form.encode(Dialog(given, now=now)),
            }


def _parts(turns: Turns, messages: Sequence[Said], now: datetime) -> list[int | str]:
    """Return the tokens and the joined texts of a dialog whose answer is wanted."""
    written = [
        now.strftime(each.format) if isinstance(each, Date) else each
        for each in turns.pieces(messages)
    ]
    parts: list[int | str] = []
    for is_text, group in groupby(written, lambda piece: isinstance(piece, str)):
        run = list(group)
        parts += ["".join(map(str, run))] if is_text else run
    return [part for part in parts if part != ""]
