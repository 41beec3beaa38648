"""Turns as data: equal to the template, or absent for a reason that is true."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from artifacts.app_turns import app_ids, written_date
from artifacts.chat_templates import TEMPLATES
from artifacts.json_tokenizers import json_bytes
from artifacts.sentencepieces import trained

from llama_export.errors import PromptError
from llama_export.sources.chat_settings import own_chat_format
from llama_export.sources.resolve import DEMO_FOLDER
from llama_export.tokenizer import chat
from llama_export.tokenizer.chat import find_turns as finding
from llama_export.tokenizer.chat.chat_format import ChatFormat, Dialog
from llama_export.tokenizer.chat.find_turns import BASE_MODEL, find_turns
from llama_export.tokenizer.chat.messages import Message
from llama_export.tokenizer.chat.proof_dialogs import proof_dialogs
from llama_export.tokenizer.chat.turns import FIRST, LAST, Date, Inside, Turn
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
    [("system", "  a\n"), ("user", ""), ("assistant", "</think>\nb"), ("user", " c")],
    [("system", "\na"), ("user", "  b\n")],
]
WITHOUT = {
    "hermes tools": "the template writes dialogs with tools alone",
    "qwen-like": "what the template writes depends on what a dialog holds, as seen in one with "
    "line ends before a message",
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
    "{% for m in messages %}{{ m.content ~ eos_token ~ (messages | length) }}{% endfor %}": (
        "the template writes later turns otherwise after a system message"
    ),
    "{% set s = messages[0].role == 'system' %}{% for m in messages[1 if s else 0:] %}[{{ "
    "messages[0].content ~ eos_token if s and loop.first }}{{ m.content }}]{% endfor %}": (
        "the template writes tokens or times inside a user's message"
    ),
    "{% set s = messages[0].role == 'system' %}{% for m in messages[1 if s else 0:] %}[{{ "
    "messages[0].content if s and loop.first }}{{ m.content }}{{ '!' if s }}]{% endfor %}": (
        "the template writes the system message inside the first user's turn, which it changes"
    ),
    "{% set s = messages[0].role == 'system' %}{% for m in messages[1 if s else 0:] %}[{{ "
    "messages[0].content ~ '!' if s and loop.last }}{{ m.content }}{{ '!' if s }}]{% endfor %}": (
        "the template writes the system message inside a later turn, which it changes"
    ),
    "{% set s = messages[0].role == 'system' %}{% for m in messages[1 if s else 0:] %}[{{ "
    "m.content.strip() }}{{ messages[0].content if s and loop.first }}]{% endfor %}": (
        "the template writes the system message inside a later turn, which it changes"
    ),
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
    "{{ messages.__class__.mro() if messages[0].role == 'system' }}" + ROLES: "the template does "
    "not write a dialog with a system message: the chat template was stopped: ",
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


def dialogs_of(turns):
    """The dialogs, without their system messages where there can be none."""
    return [
        [each for each in messages if turns["system"] is not None or each[0] != "system"]
        for messages in DIALOGS
    ]


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
    for messages in dialogs_of(found["turns"]):
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
    assert found["trim"] == ["system", "user", "assistant"]
    assert found["thoughts_end"] is None


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


PIECES = {
    "legacy": lambda: SentencePieceTokenizer.from_bytes(trained()),
    "not legacy": lambda: SentencePieceTokenizer.from_bytes(trained(), {"legacy": False}),
    "converted": lambda: JsonTokenizer.from_bytes(json_bytes("converted")),
    "metaspace": lambda: JsonTokenizer.from_bytes(json_bytes("metaspace")),
}


@pytest.mark.parametrize("kind", PIECES)
def test_a_sentencepiece_vocabulary_has_turns_of_text(kind):
    """Text after a control token begins like a text of its own, unless the settings say no."""
    template = TEMPLATES["zephyr"]
    tokenizer = PIECES[kind]()
    form = form_of(tokenizer, template, bos_token="<s>", eos_token="</s>")
    found = find_turns(form).to_json()["turns"]
    assert found["user"]["suffix"] == [tokenizer.special_tokens["</s>"], "\n"]
    for messages in DIALOGS:
        assert app_ids(found, tokenizer, messages, NOW) == expected_ids(form, messages)


@pytest.mark.parametrize("kind", PIECES)
@pytest.mark.parametrize("text", ["\n<|user|>\nThe king", "  a", "\u2581a", " ", "Hi <0x41>"])
def test_text_that_continues_is_what_a_template_has_behind_a_token(kind, text):
    tokenizer = PIECES[kind]()
    end = tokenizer.special_tokens["</s>"]
    assert tokenizer.encode_rendered(f"</s>{text}") == [
        end,
        *tokenizer.encode(text, continues=True),
    ]
    without = kind in ("not legacy", "metaspace")
    differs = tokenizer.encode("king", continues=True) != tokenizer.encode("king")
    assert differs is without
    # A name that somebody typed is text, and changes nothing before it.
    template = "{{ eos_token }}{{ messages[0].content }}"
    form = form_of(tokenizer, template, bos_token="<s>", eos_token="</s>")
    typed = expected_ids(form, [("user", f"{text}</s>")])
    assert typed == [end, *tokenizer.encode(f"{text}</s>", continues=True)]


def test_a_token_that_takes_the_blanks_behind_it_has_a_reason():
    document = json.loads(json_bytes("smollm2"))
    for token in document["added_tokens"]:
        token["rstrip"] = True
    tokenizer = JsonTokenizer.from_bytes(json.dumps(document).encode())
    form = form_of(tokenizer, TEMPLATES["chatml"], bos_token="<|im_start|>")
    assert find_turns(form).reason == (
        "the tokenizer encodes a text behind a special token otherwise than alone, as seen in a "
        "dialog with one question"
    )


def test_a_system_message_inside_a_user_s_is_data(demo):
    found = find_turns(form_of(demo, TEMPLATES["llama 2"])).to_json()["turns"]
    assert found["system"] == {"user": "first", "before": "<<SYS>>\n", "after": "\n<</SYS>>\n\n"}
    assert found["trim"] == ["user", "assistant"]
    found = find_turns(form_of(demo, TEMPLATES["mistral"])).to_json()["turns"]
    assert found["system"] == {"user": "last", "before": "", "after": "\n\n"}
    assert found["trim"] == ["assistant"]


NO_SYSTEM = {
    "refused": TEMPLATES["llama guard"],
    "not known": "{{ {'user': '', 'assistant': ''}[messages[0].role] + '' }}" + ROLES + ASKED,
    "left out": "{% for m in messages if m.role != 'system' %}" + ROLES.partition("%}")[2] + ASKED,
}


@pytest.mark.parametrize("kind", NO_SYSTEM)
def test_a_form_without_system_messages_refuses_one(demo, kind):
    found = find_turns(form_of(demo, NO_SYSTEM[kind])).turns
    assert found.system is None
    assert found.to_json()["system"] is None
    with pytest.raises(PromptError, match="have no system message"):
        found.encode(demo, DIALOGS[2])


def test_thoughts_of_earlier_answers_are_left_out(demo):
    form = form_of(demo, TEMPLATES["deepseek-r1"])
    found = find_turns(form).turns
    assert found.thoughts_end == "</think>"
    messages = [("user", "a"), ("assistant", "Hm.\n</think>b</think>c"), ("user", "d")]
    assert "Hm." not in demo.decode(found.encode(demo, messages))
    assert found.encode(demo, messages) == expected_ids(form, messages)
    assert find_turns(form_of(demo, TEMPLATES["chatml"])).turns.thoughts_end is None


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
    "blanks stay": lambda turns: replace(turns, trim=()),
    "blanks of answers stay": lambda turns: replace(turns, trim=("system", "user")),
    "thoughts left out": lambda turns: replace(turns, thoughts_end="</think>"),
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
    monkeypatch.setattr(finding, "taken_apart", lambda form: wrong)
    found = find_turns(form)
    assert found.turns is None
    assert found.reason.startswith("what the template writes depends on")


INSIDE_CHANGES = {
    "another message": {"system": Inside(LAST, "<<SYS>>\n", "\n<</SYS>>\n\n")},
    "another text before": {"system": Inside(FIRST, "<<SYS>>", "\n<</SYS>>\n\n")},
    "another text behind": {"system": Inside(FIRST, "<<SYS>>\n", "\n<</SYS>>\n")},
    "a turn of its own": {"system": Turn(("<<SYS>>\n",), ("\n<</SYS>>\n\n",))},
    "its blanks taken away": {"trim": ("system", "user", "assistant")},
    "the user's blanks left": {"trim": ("assistant",)},
}


@pytest.mark.parametrize("change", INSIDE_CHANGES)
def test_another_place_of_the_system_message_is_not_proved(demo, monkeypatch, change):
    form = form_of(demo, TEMPLATES["llama 2"])
    wrong = replace(find_turns(form).turns, **INSIDE_CHANGES[change])
    monkeypatch.setattr(finding, "taken_apart", lambda form: wrong)
    found = find_turns(form)
    assert found.turns is None
    assert found.reason.startswith("what the template writes depends on")


def test_blanks_around_a_system_message_inside_may_be_taken_away(demo):
    changed = TEMPLATES["llama 2"].replace("+ system_message +", "+ system_message.strip() +")
    form = form_of(demo, changed)
    found = find_turns(form).to_json()["turns"]
    assert found["trim"] == ["system", "user", "assistant"]
    for messages in DIALOGS:
        assert app_ids(found, demo, messages, NOW) == expected_ids(form, messages)


def test_thoughts_that_stay_are_not_proved(demo, monkeypatch):
    form = form_of(demo, TEMPLATES["deepseek-r1"])
    wrong = replace(find_turns(form).turns, thoughts_end=None)
    monkeypatch.setattr(finding, "taken_apart", lambda form: wrong)
    assert find_turns(form).reason.endswith("as seen in one with thoughts in an answer")
