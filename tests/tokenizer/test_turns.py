"""Turns as data: equal to the template, or absent for a reason that is true."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from artifacts.app_turns import app_ids, written_date
from artifacts.chat_templates import TEMPLATES
from artifacts.json_tokenizers import json_bytes
from artifacts.sentencepieces import trained

from llama_export.sources.chat_settings import own_chat_format
from llama_export.sources.resolve import DEMO_FOLDER
from llama_export.tokenizer import chat
from llama_export.tokenizer.chat import find_turns as finding
from llama_export.tokenizer.chat.chat_format import ChatFormat, Dialog
from llama_export.tokenizer.chat.find_turns import BASE_MODEL, find_turns
from llama_export.tokenizer.chat.messages import Message
from llama_export.tokenizer.chat.proof_dialogs import proof_dialogs
from llama_export.tokenizer.chat.turns import Date, Turn
from llama_export.tokenizer.json_tokenizer import JsonTokenizer
from llama_export.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer
from llama_export.tokenizer.tokenizer import load_tokenizer

LLAMA_3_2 = Path(chat.__file__).with_name("llama_3_2.jinja").read_text(encoding="utf-8")
NAMES = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
NOW = datetime(2026, 2, 9, 15, 4, 5)
# None of them is among the dialogs of the proof.
DIALOGS = [
    [("user", " Hi\u00a0")],
    [("user", "\n"), ("assistant", "<|eot_id|>\n"), ("user", "")],
    [("system", "a\n\n"), ("user", "\t<|im_start|>"), ("assistant", " "), ("user", "Köln 天気")],
    [("system", "</s>x"), *[("user", "a"), ("assistant", "b  ")] * 5, ("user", "c\x1c")],
]
WITHOUT = {
    "deepseek-r1": "what the template writes depends on what a dialog holds, as seen in one with "
    "thoughts in an answer",
    "hermes tools": "the template writes dialogs with tools alone",
    "llama 2": "the template writes the system message inside the first user's turn",
    "llama guard": "the template does not write a dialog with a system message: the chat template "
    "refuses this dialog: Only user and assistant roles are supported!",
    "mistral": "the template writes the system message inside a later turn",
    "qwen-like": "what the template writes depends on what a dialog holds, as seen in one with "
    "line ends before a message",
    "vicuna": "the template takes blanks around the messages of the user away, and leaves those "
    "of the system",
}
IN_TURNS = {name: text for name, text in TEMPLATES.items() if name not in WITHOUT}
ROLES = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
ASKED = "{% if add_generation_prompt %}assistant:{% endif %}"
REASONS = {
    "{% for m in messages %}{{ loop.index }}{{ m.role }}: {{ m.content }}\n{% endfor %}": (
        "the template writes later turns otherwise after a system message"
    ),
    "{{ messages | length // 8 }}" + ROLES: (
        "what the template writes depends on what a dialog holds, as seen in one with many messages"
    ),
    "{{ messages[0].content }}" + ROLES: "the template writes a message more than once",
    "{{ messages[0].content }}": "the template leaves a message out, or changes its letters",
    "{% for m in messages %}{{ m.content | upper }}{% endfor %}": (
        "the template leaves a message out, or changes its letters"
    ),
    "{% for m in messages | reverse %}{{ m.content }}{% endfor %}": (
        "the template writes the messages in another order"
    ),
    "{% set s = messages[0].role == 'system' %}{% for m in messages %}{{ m.content }}"
    "{{ '!' if s }}\n{% endfor %}": "the template writes later turns otherwise after a system "
    "message",
    "{{ strftime_now('%c') }}" + ROLES: "the template writes the time as '%c', which not every "
    "phone can",
    "{{ strftime_now('%-d') }}" + ROLES: "the template writes the time as '%-d', which not every "
    "phone can",
    "{{ strftime_now('%b') | lower }}" + ROLES: (
        "what the template writes depends on what a dialog holds, as seen in one with one question"
    ),
    "{% for m in messages %}{% if m.content %}{{ m.role }}: {{ m.content }}\n{% endif %}"
    "{% endfor %}": "what the template writes depends on what a dialog holds, as seen in one with "
    "an empty message",
    "{{ raise_exception('never') }}": "the template does not write a dialog with no system "
    "message: the chat template refuses this dialog: never",
    "{% if %}": "the template does not write a dialog with no system message: the chat template, "
    "line 1: ",
    "{% for m in messages %}{{ m.content.rstrip() }}|{% endfor %}": "what the template writes "
    "depends on what a dialog holds, as seen in one with blanks before a message",
}


@pytest.fixture(scope="module")
def demo():
    return load_tokenizer(DEMO_FOLDER)


def form_of(tokenizer, template: str, **names: str) -> ChatFormat:
    keys = tokenizer.config_keys() | (names or NAMES) | {"chat_template": template}
    return ChatFormat.of(tokenizer, keys)


def expected_ids(form: ChatFormat, messages) -> list[int]:
    return form.encode(Dialog([Message(*each) for each in messages], now=NOW))


@pytest.mark.parametrize("name", [*IN_TURNS, "llama 3.2", "demo"])
def test_an_app_writes_the_template_s_ids(demo, name):
    template = (IN_TURNS | {"llama 3.2": LLAMA_3_2}).get(name)
    if template is None:
        keys = {"chat_template": (DEMO_FOLDER / "chat_template.jinja").read_text("utf-8")}
        form = own_chat_format("demo", demo, demo.config_keys() | keys)
    else:
        form = form_of(demo, template)
    found = find_turns(form).to_json()
    assert found["reason"] is None
    for messages in DIALOGS:
        assert app_ids(found["turns"], demo, messages, NOW) == expected_ids(form, messages)


@pytest.mark.parametrize("name", WITHOUT)
def test_a_real_template_that_is_no_turns_has_a_reason(demo, name):
    found = find_turns(form_of(demo, TEMPLATES[name]))
    assert found.to_json() == {"turns": None, "reason": WITHOUT[name]}


@pytest.mark.parametrize("template", REASONS)
def test_what_turns_cannot_say_has_its_own_reason(demo, template):
    found = find_turns(form_of(demo, template + ASKED))
    assert found.turns is None
    assert found.reason.startswith(REASONS[template])


def test_the_turns_of_llama_3_are_readable(demo):
    found = find_turns(form_of(demo, TEMPLATES["llama 3"])).to_json()["turns"]
    special = demo.special_tokens
    start, end, turn = (
        special[f"<|{name}|>"] for name in ("start_header_id", "end_header_id", "eot_id")
    )
    assert found["begin"] == [special["<|begin_of_text|>"]]
    assert found["user"] == {"prefix": [start, "user", end, "\n\n"], "suffix": [turn]}
    assert found["answer"] == [start, "assistant", end, "\n\n"]
    assert found["no_system"] == []
    assert found["trim"] is True


def test_smollm2_s_own_system_message_stands_where_there_is_none():
    tokenizer = JsonTokenizer.from_bytes(json_bytes("smollm2"))
    form = form_of(tokenizer, TEMPLATES["smollm2"], bos_token="<|im_start|>")
    found = find_turns(form).to_json()["turns"]
    start, end = (tokenizer.special_tokens[name] for name in ("<|im_start|>", "<|im_end|>"))
    assert found["begin"] == []
    assert found["no_system"][:2] == [
        start,
        "system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face",
    ]
    assert found["user"] == {"prefix": [start, "user\n"], "suffix": [end, "\n"]}
    for messages in DIALOGS:
        assert app_ids(found, tokenizer, messages, NOW) == expected_ids(form, messages)


def test_what_is_written_behind_a_last_answer_alone_does_no_harm(demo):
    """No dialog ends with an answer when another one is asked for."""
    end = "{% if not loop.last %}\n{% else %}{{ eos_token }}{% endif %}"
    form = form_of(demo, ROLES.replace("\n", end) + ASKED)
    found = find_turns(form).to_json()["turns"]
    for messages in DIALOGS:
        assert app_ids(found, demo, messages, NOW) == expected_ids(form, messages)


def test_a_date_is_the_day_of_asking(demo):
    found = find_turns(form_of(demo, LLAMA_3_2))
    assert found.turns.has_date
    assert Date("%d %b %Y") in found.turns.system.prefix
    assert {"strftime": "%d %b %Y"} in found.to_json()["turns"]["no_system"]
    ids = found.turns.encode(demo, DIALOGS[0], NOW)
    assert "Today Date: 09 Feb 2026" in demo.decode(ids)
    assert not find_turns(form_of(demo, TEMPLATES["chatml"])).turns.has_date


def test_dates_have_every_word_that_a_manifest_may_hold():
    every = "%a %A %b %B %d %H %I %j %m %M %p %S %y %Y 100%% %%d"
    for now in (NOW, datetime(2031, 12, 26, 0, 45), datetime(1999, 1, 1, 12)):
        assert written_date(every, now) == now.strftime(every)


def test_a_sentencepiece_vocabulary_has_turns_of_text():
    """Text after a control token begins like a text of its own, unless the settings say no."""
    template = TEMPLATES["zephyr"]
    tokenizer = SentencePieceTokenizer.from_bytes(trained())
    form = form_of(tokenizer, template, bos_token="<s>", eos_token="</s>")
    found = find_turns(form).to_json()["turns"]
    assert found["user"]["suffix"] == [tokenizer.special_tokens["</s>"], "\n"]
    for messages in DIALOGS:
        assert app_ids(found, tokenizer, messages, NOW) == expected_ids(form, messages)
    other = SentencePieceTokenizer.from_bytes(trained(), {"legacy": False})
    reason = find_turns(form_of(other, template, bos_token="<s>", eos_token="</s>")).reason
    assert reason == (
        "the tokenizer encodes a text behind a special token otherwise than alone, as seen in a "
        "dialog with one question"
    )


def test_a_base_model_goes_on_with_a_text(demo):
    found = find_turns(ChatFormat.of(demo, demo.config_keys()))
    assert found.to_json() == {"turns": None, "reason": BASE_MODEL}


def test_templates_without_a_default_are_named(demo):
    named = [{"name": "rag", "template": ROLES}]
    found = find_turns(ChatFormat.of(demo, demo.config_keys() | {"chat_template": named}))
    assert found.turns is None
    assert "the model has the chat templates rag, and none is the default" in found.reason


def test_a_reason_is_one_short_line(demo):
    template = "{{ raise_exception('\x1b[2J\n' ~ 'x' * 5000) }}"
    reason = find_turns(form_of(demo, template)).reason
    assert reason.isprintable()
    assert len(reason) <= 400


def test_the_proof_has_twenty_dialogs_of_their_own():
    dialogs = proof_dialogs(["<|eot_id|>", "<s>"])
    assert len(dialogs) == 20
    assert len({str(messages) for messages in dialogs.values()}) == 20
    for messages in dialogs.values():
        roles = [role for role, _ in messages]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2) + ["user"]


CHANGES = {
    "blanks stay": lambda turns: replace(turns, trim=False),
    "one line end less": lambda turns: replace(
        turns, user=replace(turns.user, prefix=(*turns.user.prefix[:-1], "\n"))
    ),
    "no beginning": lambda turns: replace(turns, begin=()),
    "another answer": lambda turns: replace(turns, answer=turns.user.prefix),
    "an open turn": lambda turns: replace(turns, assistant=Turn(turns.assistant.prefix, ())),
    "an open system message": lambda turns: replace(turns, system=Turn(turns.system.prefix, ())),
    "another date": lambda turns: replace(
        turns,
        no_system=tuple(
            Date("%d %B %Y") if isinstance(each, Date) else each for each in turns.no_system
        ),
    ),
    "a day that passed": lambda turns: replace(
        turns,
        no_system=tuple(
            "05 Jul 2024" if isinstance(each, Date) else each for each in turns.no_system
        ),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_turns_that_are_not_the_template_s_are_not_proved(demo, monkeypatch, change):
    form = form_of(demo, LLAMA_3_2)
    wrong = CHANGES[change](find_turns(form).turns)
    monkeypatch.setattr(finding, "_taken_apart", lambda form: wrong)
    found = find_turns(form)
    assert found.turns is None
    assert found.reason.startswith("what the template writes depends on")
