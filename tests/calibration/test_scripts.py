"""What is given in a window is what the model's template writes, and the model writes the rest."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
from artifacts.chat_templates import TEMPLATES
from artifacts.dialogs import demo_format
from artifacts.json_tokenizers import json_bytes

from llama_export.calibration.scripts import DialogForm, DialogScript, TextScript
from llama_export.sources.resolve import DEMO_FOLDER
from llama_export.tokenizer.chat.chat_format import ChatFormat, Dialog
from llama_export.tokenizer.chat.find_turns import find_turns
from llama_export.tokenizer.chat.messages import Message
from llama_export.tokenizer.json_tokenizer import JsonTokenizer
from llama_export.tokenizer.tokenizer import load_tokenizer

START, END, OTHER_END, LETTER = 1, 2, 3, 70
ENDS = frozenset({END, OTHER_END})
# As tests/tokenizer/test_turns.py has it.
WITHOUT_TURNS = {"hermes tools", "qwen-like"}
NOON = datetime(2024, 7, 26, 12)


def test_a_text_begins_and_another_follows_its_end():
    script = TextScript([START], [START], ENDS)
    drawn = [0, LETTER, LETTER, END, 0, LETTER]
    assert [script.next(each) for each in drawn] == [START, LETTER, LETTER, END, START, LETTER]


def test_where_the_end_of_a_text_begins_the_next_it_stands_once():
    script = TextScript([END], [END], ENDS)
    assert [script.next(each) for each in (0, LETTER, END, LETTER)] == [END, LETTER, END, LETTER]


def test_a_text_does_not_end_before_it_begins():
    script = TextScript([START], [START], ENDS)
    script.next(0)
    assert not script.may_end
    script.next(LETTER)
    assert script.may_end
    script.next(END)
    assert not script.may_end


def test_a_text_that_was_given_may_end_at_once():
    script = TextScript([START, LETTER], [START], ENDS)
    assert [script.next(0), script.next(0)] == [START, LETTER]
    assert script.may_end


@pytest.fixture(scope="module")
def demo() -> ChatFormat:
    return demo_format(load_tokenizer(DEMO_FOLDER))


def form_of(chat: ChatFormat) -> DialogForm:
    turns = find_turns(chat).turns
    assert turns is not None
    return DialogForm.of(chat.tokenizer, turns)


class Fixed:
    """Random numbers of one's choice."""

    def __init__(self, chance: float, asked: int) -> None:
        self.chance, self.asked = chance, asked

    def random(self) -> float:
        return self.chance

    def integers(self, low: int, high: int | None = None) -> int:
        return 0 if high is None else self.asked


@pytest.mark.parametrize("system", [None, "You are a helpful assistant."])
def test_a_dialog_is_what_the_template_writes(demo, system):
    """The model writes two questions and answers; all else is the template's."""
    tokenizer, ends = demo.tokenizer, frozenset({demo.tokenizer.special_tokens["<|eot_id|>"]})
    (end,) = ends
    said = [Message("user", "Hi"), Message("assistant", "So"), Message("user", "Why")]
    said += [Message("assistant", "No")]
    if system is not None:
        said.insert(0, Message("system", system))
    whole = demo.encode(Dialog(said, add_generation_prompt=False, now=NOON))
    script = DialogScript(form_of(demo), ends, Fixed(0.0 if system else 0.9, asked=2))
    to_draw = [
        each for text in ("Hi", "So", "Why", "No") for each in [*tokenizer.encode(text), end]
    ]
    found = []
    while len(found) < len(whole):
        # What is given is not asked for: the queue is empty where the model is.
        drawn = to_draw.pop(0) if not script._queue else -1
        found.append(script.next(drawn))
    assert found == whole
    assert to_draw == []
    assert script.next(-1) == whole[0]  # and the next dialog begins


def test_a_message_is_not_empty_and_a_question_not_endless(demo):
    form = form_of(demo)
    script = DialogScript(form, ENDS, Fixed(0.9, asked=1))
    for expected in form.openings[0]:
        assert not script.may_end
        assert script.next(-1) == expected
    assert not script.may_end
    written = [script.next(LETTER) for _ in range(500)]
    assert script.may_end
    question = written.index(form.asked[0])
    assert question == 160
    assert written[question : question + len(form.asked)] == list(form.asked)
    assert set(written[question + len(form.asked) :]) == {LETTER}  # an answer is as long as it is


def test_dialogs_are_of_several_shapes(demo):
    form = form_of(demo)
    begun = {}
    for seed in range(200):
        script = DialogScript(form, ENDS, np.random.Generator(np.random.Philox(seed)))
        begun.setdefault(tuple(script._queue), []).append(script._left)
    assert set(begun) == set(form.openings)
    assert 60 < len(begun[form.openings[0]]) < 140  # half of them have no system message
    assert {asked for each in begun.values() for asked in each} == {1, 2, 3, 4}


@pytest.mark.parametrize("name", sorted(TEMPLATES.keys() - WITHOUT_TURNS))
def test_every_template_with_turns_has_an_opening(name):
    tokenizer = JsonTokenizer.from_bytes(json_bytes("smollm2"), {}, "tokenizer.json")
    keys = {"chat_template": TEMPLATES[name], "bos_token": "<s>", "eos_token": "</s>"}
    chat = ChatFormat.of(tokenizer, keys)
    form = form_of(chat)
    text = chat.render(Dialog([Message("user", "zq")], add_generation_prompt=False, now=NOON))
    opening = tokenizer.encode_rendered(text.partition("zq")[0])
    assert list(form.openings[0])[: len(opening) - 1] == opening[:-1]
