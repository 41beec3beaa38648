"""What the vectors of manifests, chats and golden data say is true, by other code than theirs."""

from __future__ import annotations

import json
import math
from datetime import datetime

import pytest
from artifacts.app_turns import app_ids, app_parts
from artifacts.phone import measured

from chat_vectors import tokenizer_of
from llama_export.bundle.manifest import Manifest
from llama_export.errors import BundleError
from make_vectors import FOLDER


def vectors(name: str) -> dict:
    return json.loads((FOLDER / name).read_bytes())


def test_good_manifests_are_read_and_bad_ones_refused():
    found = vectors("manifests.json")
    for case in found["good"]:
        Manifest.from_text(case["text"])
    for case in found["bad"]:
        with pytest.raises(BundleError) as caught:
            Manifest.from_text(case["text"])
        assert case["says"] in caught.value.message, case["name"]
    assert len(found["bad"]) > 40


def test_an_app_s_reading_of_the_turns_gives_the_ids():
    found = vectors("chat.json")
    forms = {form["name"]: form for form in found["forms"]}
    for case in found["dialogs"]:
        messages = [(each["role"], each["content"]) for each in case["messages"]]
        now = datetime.fromisoformat(case["time"])
        form = forms[case["form"]]
        turns, tokenizer = form["chat"]["turns"], tokenizer_of(form["tokenizer"])
        assert app_ids(turns, tokenizer, messages, now) == case["ids"], case["name"]
        assert app_parts(turns, messages, now) == case["parts"], case["name"]
    written = {case["form"] for case in found["dialogs"]}
    assert written == {name for name, form in forms.items() if form["chat"]["turns"]}
    assert len(written) == 11


def systems(forms) -> set[str]:
    """The places of a system message that there are."""
    found = [form["chat"]["turns"]["system"] for form in forms if form["chat"]["turns"]]
    return {"none" if each is None else each.get("user", "its own turn") for each in found}


def test_every_place_of_a_system_message_is_there():
    forms = vectors("chat.json")["forms"]
    assert systems(forms) == {"none", "its own turn", "first", "last"}
    assert {form["tokenizer"] for form in forms} == {"demo", "llama2", "metaspace", "tinyllama"}
    ends = [form["chat"]["turns"]["thoughts_end"] for form in forms if form["chat"]["turns"]]
    assert set(ends) == {None, "</think>"}


def logits_of(rows: list[tuple[int, int]]) -> list[float]:
    """The model, as the README describes it."""
    state = 0
    for token, position in rows:
        state = (31 * state + (token + 1) * (position + 7)) % 65521
    return [((state * (v + 1) * 40503) % 65521 // 16) / 1024 for v in range(64)]


def test_the_model_of_the_readme_gives_the_right_report():
    found = vectors("golden.json")
    rows: list[tuple[int, int]] = []

    def step(ids: list[int], position: int) -> list[float]:
        del rows[position:]
        rows.extend((token, position + number) for number, token in enumerate(ids))
        return logits_of(rows)

    right = next(case for case in found["reports"] if case["name"] == "right")
    for mine, theirs in zip(
        measured(step, found["golden"]), right["report"]["positions"], strict=True
    ):
        assert (mine["at"], mine["best"]) == (theirs["at"], theirs["best"])
        assert mine["logprobs"] == pytest.approx(theirs["logprobs"], abs=2e-5)
        assert mine["rest_logprob"] == pytest.approx(theirs["rest_logprob"], abs=2e-5)


def kl(answer: dict, measured: dict) -> float:
    """The KL of one call, from the description of the format."""
    golden = [logprob for _, logprob in answer["top"]] + [answer["rest_logprob"]]
    found = measured["logprobs"] + [measured["rest_logprob"]]
    if None in found or measured["best"] is None:
        return math.inf
    p, q = ([math.exp(x) for x in each] for each in (golden, found))
    return sum(a / sum(p) * math.log(a / sum(p) / (b / sum(q))) for a, b in zip(p, q, strict=True))


def test_the_figures_are_those_of_the_description():
    found = vectors("golden.json")
    answers = found["golden"]["positions"]
    limits = found["golden"]["limits"]
    verdicts = {}
    for case in found["reports"]:
        positions = case["report"]["positions"]
        verdicts[case["name"]] = case["passed"]
        if len(positions) != len(answers):
            assert list(case["rows"]) == ["golden_calls"]
            continue
        figures = [kl(answer, each) for answer, each in zip(answers, positions, strict=True)]
        swapped = [
            each["best"] != answer["top"][0][0]
            and answer["top"][0][1] - answer["top"][1][1] > limits["margin"]
            for answer, each in zip(answers, positions, strict=True)
        ]
        beyond = [
            number
            for number, (x, other) in enumerate(zip(figures, swapped, strict=True))
            if x > limits["kl_worst"] or other
        ]
        worst, mean = max(figures), sum(figures) / len(figures)
        rows = case["rows"]
        assert rows["golden_top1"]["value"] == sum(swapped)
        assert case["first"] == (beyond[0] if beyond else None)
        for key, value in (("golden_kl_mean", mean), ("golden_kl_worst", worst)):
            expected = None if math.isinf(value) else pytest.approx(value, abs=2e-6)
            assert rows[key]["value"] == expected
    assert [name for name, passed in verdicts.items() if passed] == ["right", "another rounding"]
    assert len(verdicts) == 9
    assert any(case["rows"].get("golden_top1", {}).get("value") for case in found["reports"])
