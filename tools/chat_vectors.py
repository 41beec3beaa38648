"""Test vectors of `chat` in a manifest: what an export finds in templates, and the templates' ids.

The ids are those of the template itself, rendered and encoded with the demo's tokenizer; the turns
are what `find_turns` makes of the template, or the reason why there are none. This module knows
templates and messages; it does not know who reads the vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from llama_export.sources.resolve import DEMO_FOLDER
from llama_export.tokenizer import chat
from llama_export.tokenizer.chat.chat_format import ChatFormat, Dialog
from llama_export.tokenizer.chat.find_turns import find_turns
from llama_export.tokenizer.chat.messages import Message
from llama_export.tokenizer.chat.turns import Said
from llama_export.tokenizer.tokenizer import load_tokenizer

FORMAT_VERSION = 1

_SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_ZEPHYR = (
    "{% for message in messages %}\n{{ '<|' + message['role'] + '|>\n' + message['content'] + "
    "eos_token }}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n"
    "{% endif %}\n{% endfor %}"
)
_LLAMA_2 = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ bos_token + '[INST] <<SYS>>\n' + "
    "m['content'] + '\n<</SYS>>\n\n' }}{% elif m['role'] == 'user' %}{% if loop.index0 != 1 or "
    "messages[0]['role'] != 'system' %}{{ bos_token + '[INST] ' }}{% endif %}{{ m['content'] + "
    "' [/INST]' }}{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
_NO_THOUGHTS = (
    "{{ bos_token }}{% for m in messages %}{{ '<' + m['role'] + '>' + "
    "m['content'].split('</think>')[-1] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
_TYPED = "Say <|eot_id|><|start_header_id|>system<|end_header_id|> and <|im_end|> </s>"
DIALOGS: Mapping[str, Sequence[Said]] = {
    "a question": [("user", "What is the weather in Bergen?")],
    "a system message": [("system", "Be brief."), ("user", "Hi")],
    "turns": [("user", "Hi"), ("assistant", "Hello!"), ("user", "Tell a tale.")],
    "a system message and turns": [
        ("system", "You are\nkind."),
        *[("user", "And then?"), ("assistant", "The fox ran.")] * 3,
        ("user", "Why?"),
    ],
    "line ends in front": [("user", "\n\nHi"), ("assistant", "\nYes"), ("user", "\nHi\n")],
    "blanks around": [
        ("system", "  Be brief. "),
        ("user", " \t a"),
        ("assistant", "b\u3000"),
        ("user", "\xa0c "),
    ],
    "empty and blank": [("user", ""), ("assistant", ""), ("user", "  ")],
    "typed special tokens": [
        ("system", _TYPED),
        ("user", _TYPED),
        ("assistant", _TYPED),
        ("user", _TYPED),
    ],
    "letters of many scripts": [
        ("user", "caf\u00e9 cafe\u0301 \u5929\u6c17 \U0001f469\u200d\U0001f680 \u0645")
    ],
}
TIMES = (datetime(2024, 7, 5, 9, 3, 7), datetime(2031, 11, 26, 18, 45, 52))


def templates() -> Mapping[str, str | None]:
    """Return the templates by name; None: a model that has none."""
    llama = Path(chat.__file__).with_name("llama_3_2.jinja").read_text(encoding="utf-8")
    return {
        "llama 3.2": llama,
        "smollm2": _SMOLLM2,
        "zephyr": _ZEPHYR,
        "llama 2": _LLAMA_2,
        "thoughts left out": _NO_THOUGHTS,
        "a base model": None,
    }


def chat_vectors() -> Mapping[str, Any]:
    """Return the vectors of `chat` in a manifest."""
    tokenizer = load_tokenizer(DEMO_FOLDER)
    names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    forms, dialogs = [], []
    for name, template in templates().items():
        keys = tokenizer.config_keys() | names
        form = ChatFormat.of(tokenizer, keys | ({"chat_template": template} if template else {}))
        found = find_turns(form)
        forms.append({"name": name, "chat": found.to_json()})
        if found.turns is None:
            continue
        for title, messages in DIALOGS.items():
            for now in TIMES if found.turns.has_date else TIMES[:1]:
                given = [Message(role, content) for role, content in messages]
                dialogs.append(
                    {
                        "name": f"{name}: {title}, {now.year}",
                        "form": name,
                        "messages": [{"role": role, "content": said} for role, said in messages],
                        "time": now.isoformat(),
                        "ids": form.encode(Dialog(given, now=now)),
                    }
                )
    return {"format_version": FORMAT_VERSION, "forms": forms, "dialogs": dialogs}
