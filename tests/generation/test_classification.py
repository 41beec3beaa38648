"""A judgement is read from the logits of its first word, and its categories from the rest."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from llama_export.errors import PromptError, UsageError
from llama_export.generation.classification import (
    Labels,
    calibrated_threshold,
    classify_prompt,
    label_ids,
    listed_categories,
    named_categories,
    probability_of,
)

WORDS = ["safe", "unsafe", "\n\n", "x"]
PROMPT = "Task\nS1: Violent Crimes.\nS2: Privacy.\n  S3: not at the edge\nS12: Sexual Content.\n"


class Words:
    """A tokenizer whose tokens are words."""

    def encode(self, text):
        return [WORDS.index(text)] if text in WORDS else []

    def decode(self, ids):
        return "".join(WORDS[each] for each in ids)


@dataclass
class Judge:
    """A session that says blank lines first, and then the same logits for ever."""

    logits_of_words: tuple[float, float]
    blanks: int = 0
    says: str = "\nS2,S12,S99"
    asked: list = field(default_factory=list)
    tokenizer = Words()

    def logits(self, prompt):
        self.asked.append(tuple(prompt))
        blank = len(prompt) <= self.blanks
        return np.array([*self.logits_of_words, 9.0 if blank else -9.0, -9.0], dtype=np.float32)

    def generate(self, prompt, *, max_tokens, sampling):
        self.asked.append(tuple(prompt))
        assert sampling.temperature == 0
        return type("Completion", (), {"text": self.says})()


def test_an_unsafe_prompt_is_asked_for_its_categories():
    session = Judge((1.0, 3.0))
    found = classify_prompt(session, [3], listed_categories(PROMPT))
    assert found.is_unsafe
    assert found.probability == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert found.categories == {"S2": "Privacy", "S12": "Sexual Content", "S99": "S99"}
    assert session.asked == [(3,), (3, 1)]
    assert found.to_json()["prompt_tokens"] == 1


def test_a_safe_prompt_is_asked_no_more():
    session = Judge((3.0, 1.0))
    found = classify_prompt(session, [3], {})
    assert (found.is_unsafe, dict(found.categories)) == (False, {})
    assert session.asked == [(3,)]
    strict = classify_prompt(Judge((3.0, 1.0)), [3], {}, threshold=0.1)
    assert strict.is_unsafe
    assert strict.probability == found.probability == pytest.approx(1 / (1 + np.exp(2.0)))


@pytest.mark.parametrize("blanks", [1, 3])
def test_blank_lines_before_the_word_are_stepped_over(blanks):
    session = Judge((1.0, 3.0), blanks=blanks)
    assert classify_prompt(session, [3], {}).probability > 0.8
    assert session.asked[-1] == (3, *[2] * blanks, 1)


def test_blank_lines_without_end_are_not():
    session = Judge((1.0, 3.0), blanks=10**6)
    assert classify_prompt(session, [3], {}).probability > 0.8
    assert len(session.asked) < 9


def test_words_need_tokens_of_their_own():
    assert label_ids(Words(), Labels()) == ([0], [1])
    for labels in (Labels("safe", "safe"), Labels("safe", "unknown"), Labels("", "unsafe")):
        with pytest.raises(UsageError, match="tokens of their own"):
            label_ids(Words(), labels)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), True, "0.5", None])
def test_a_threshold_is_a_probability(threshold):
    with pytest.raises(UsageError, match="from 0 to 1"):
        classify_prompt(Judge((0.0, 0.0)), [3], {}, threshold=threshold)


def test_categories_are_those_of_the_prompt():
    assert listed_categories(PROMPT) == {
        "S1": "Violent Crimes",
        "S2": "Privacy",
        "S12": "Sexual Content",
    }
    with pytest.raises(PromptError, match="lists no categories"):
        listed_categories("<|im_start|>user\nS1\n")
    assert named_categories("unsafe\nS1, S12", {"S1": "a"}) == {"S1": "a", "S12": "S12"}
    assert named_categories("\nUSSR S1x", {}) == {}


def test_a_probability_of_far_logits_is_finite():
    assert probability_of(-1e4, 1e4) == 0.0
    assert probability_of(1e4, -1e4) == 1.0
    assert probability_of(2.0, 2.0) == 0.5


def test_a_threshold_that_lets_few_false_alarms_through():
    probabilities, unsafe = (
        [0.1, 0.2, 0.3, 0.4, 0.9, 0.35],
        [False, False, False, False, True, True],
    )
    none = calibrated_threshold(probabilities, unsafe, 0.0)
    assert 0.4 < none < 0.4001
    one = calibrated_threshold(probabilities, unsafe, 0.25)
    assert 0.3 < one < 0.3001
    assert calibrated_threshold(probabilities, unsafe, 1.0) == 0.0
    with pytest.raises(UsageError, match="certain that 1 of 2 are"):
        calibrated_threshold([1.0, 0.5], [False, False], 0.0)
    with pytest.raises(UsageError, match="there are none"):
        calibrated_threshold([0.5], [True], 0.1)
