"""The apps' vectors of drawing, writing and dialogs, held against what else knows the answer."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts.app_turns import app_pieces, written_date
from artifacts.chat_templates import TEMPLATES

import generation_vectors
from chat_vectors import models, tokenizer_of
from generation_vectors import RowModel
from generation_vectors import generation_vectors as make_generation
from llama_export.generation.prefix_cache import PrefixCache
from llama_export.tokenizer import chat
from llama_export.tokenizer.chat.chat_format import ChatFormat, Dialog
from llama_export.tokenizer.chat.messages import Message
from llama_export.tokenizer.chat.template import ChatTemplate
from llama_export.tokenizer.special_tokens import BEGIN_OF_TEXT, END_OF_TURN
from make_vectors import FOLDER
from sampler_vectors import split_mix

LLAMA_3_2 = Path(chat.__file__).with_name("llama_3_2.jinja").read_text("utf-8")
# As the models' own repositories have them.
REAL = {
    **{name: TEMPLATES[name] for name in ("llama 2", "mistral", "vicuna", "smollm2", "zephyr")},
    **{name: TEMPLATES[name] for name in ("llama 3", "deepseek-r1")},
    "llama 3.2": LLAMA_3_2,
    "tinyllama": TEMPLATES["zephyr"],
    "llama 2 by words": TEMPLATES["llama 2"],
}


def read(name: str):
    return json.loads((FOLDER / name).read_text("ascii"))


def plain_draw(logits, settings, u, order=("top_k", "top_p", "min_p")) -> int:
    """Draw in float64 with sorts alone, the filters in the order given."""
    if settings.get("temperature") == 0:
        return int(np.argmax(logits))
    scaled = np.array(logits, np.float64) / max(settings.get("temperature", 0.7), 1e-6)
    shares = np.exp(scaled - scaled.max())
    ids = list(range(len(shares)))
    ranked = sorted(ids, key=lambda each: (-shares[each], each))
    top_p, top_k = settings.get("top_p", 0.95), settings.get("top_k", 0)
    if top_p < 1 or 0 < top_k < len(ids):
        ids = ranked
    for each in order:
        if each == "top_k" and top_k:
            ids = ids[:top_k]
        if each == "top_p" and top_p < 1:
            sums = np.cumsum(shares[ids])
            ids = ids[: int(np.searchsorted(sums, top_p * sums[-1])) + 1]
        if each == "min_p":
            ids = [token for token in ids if shares[token] >= settings.get("min_p", 0)]
    sums = np.cumsum(shares[ids])
    return ids[int(np.searchsorted(sums, u * sums[-1], side="right"))]


def wrong_draws(vectors, **changes) -> list[str]:
    logits = {
        each["name"]: [-np.inf if value is None else value for value in each["values"]]
        for each in vectors["logits"]
    }
    return [
        case["name"]
        for case in vectors["draw"]
        if plain_draw(logits[case["logits"]], case["settings"], case["u"], **changes) != case["id"]
    ]


def test_a_plain_calculation_draws_the_same():
    assert wrong_draws(read("sampler.json")) == []


@pytest.mark.parametrize(
    "order",
    [("top_p", "top_k", "min_p"), ("top_p", "min_p"), ("top_k", "min_p"), ("top_k", "top_p")],
)
def test_filters_in_another_order_or_left_out_are_caught(order):
    assert wrong_draws(read("sampler.json"), order=order)


def test_every_kind_of_draw_is_there():
    cases = read("sampler.json")["draw"]
    for name in sampler_settings(cases):
        drawn = [case for case in cases if f": {name}, " in case["name"]]
        assert len(drawn) > 4, name


def sampler_settings(cases) -> set[str]:
    return {case["name"].split(": ", 1)[1].rsplit(", ", 1)[0] for case in cases}


def test_split_mix_is_the_published_one():
    """The numbers that its author's C gives for the seed 1234567."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert split_mix(1234567, 3) == [(number >> 11) * 2.0**-53 for number in expected]


def with_template(tokenizer, source: str) -> ChatFormat:
    demo = BEGIN_OF_TEXT in tokenizer.special_tokens
    bos, eos = (BEGIN_OF_TEXT, END_OF_TURN) if demo else ("<s>", "</s>")
    names = {"bos_token": bos, "eos_token": eos}
    return ChatFormat(tokenizer, {"default": ChatTemplate(source, "the template")}, names)


def test_every_dialog_has_the_ids_of_its_template():
    vectors = read("chat.json")
    tokenizers = {each["name"]: tokenizer_of(each["tokenizer"]) for each in vectors["forms"]}
    cases = vectors["dialogs"]
    assert {case["form"] for case in cases} == {*REAL, "llama guard"}
    for case in cases:
        if case["form"] not in REAL:
            continue
        form = with_template(tokenizers[case["form"]], REAL[case["form"]])
        messages = [Message(each["role"], each["content"]) for each in case["messages"]]
        dialog = Dialog(messages, now=datetime.fromisoformat(case["time"]))
        assert form.encode(dialog) == case["ids"], case["name"]


def encoded(parts, tokenizer, *, continues: bool = True) -> list[int]:
    ids: list[int] = []
    for part in parts:
        behind = continues and bool(ids)
        ids += tokenizer.encode(part, continues=behind) if isinstance(part, str) else [part]
    return ids


def test_texts_that_are_not_joined_are_caught():
    vectors = read("chat.json")
    forms = {form["name"]: form for form in vectors["forms"]}
    differs = set()
    for case in vectors["dialogs"]:
        said = [(each["role"], each["content"]) for each in case["messages"]]
        form, now = forms[case["form"]], datetime.fromisoformat(case["time"])
        pieces = [
            written_date(each["strftime"], now) if isinstance(each, dict) else each
            for each in app_pieces(form["chat"]["turns"], said)
        ]
        if encoded(pieces, tokenizer_of(form["tokenizer"])) != case["ids"]:
            differs.add(case["form"])
    assert {"llama 2", "llama 2 by words", "llama guard", "mistral", "vicuna"} <= differs


def test_texts_that_are_encoded_as_if_nothing_came_before_are_caught():
    differs = set()
    for case in read("chat.json")["dialogs"]:
        tokenizer = tokenizer_of(models()[case["form"]].tokenizer)
        assert encoded(case["parts"], tokenizer) == case["ids"], case["name"]
        if encoded(case["parts"], tokenizer, continues=False) != case["ids"]:
            differs.add(case["form"])
    assert differs == {"zephyr", "tinyllama"}


class Rows:
    """As much of a session as the record of a cache needs."""

    def __init__(self) -> None:
        self.max_context, self.vocab_size = 64, 8

    def rewind(self, position: int) -> None:
        """Forget nothing: there is nothing."""

    def prefill(self, input_ids):
        """Return logits of no meaning."""
        return np.zeros(8, np.float32)


def test_the_shared_length_is_that_of_the_cache():
    for case in read("generation.json")["shared"]:
        rows: Any = Rows()
        cache = PrefixCache(rows)
        if case["held"]:
            cache.prefill(case["held"])
        assert cache.shared_length(case["ids"]) == case["shared"], case["name"]


def names_of_changed_texts(monkeypatch, name: str, change) -> list[str]:
    expected = make_generation()["texts"]
    monkeypatch.setattr(RowModel, name, change)
    found = make_generation()["texts"]
    return [one["name"] for one, other in zip(expected, found, strict=True) if one != other]


def test_a_position_off_by_one_changes_the_texts(monkeypatch):
    true = generation_vectors.mix

    def prefill(self, input_ids):
        for token in input_ids:
            self.rows.append(true(token, len(self.rows) + (len(self.rows) > 0)))
            self.tokens.append(token)
        state = 0
        for row in self.rows:
            state = true(state, row)
        steps = [(true(state, token) >> 19) - 4096 for token in range(64)]
        return np.array(steps, np.float32) / np.float32(256)

    assert "a text" in names_of_changed_texts(monkeypatch, "prefill", prefill)


def test_a_row_left_over_changes_the_texts(monkeypatch):
    def keep_prefix_of(self, token_ids):
        shared = generation_vectors.shared_length(self.tokens, token_ids)
        kept = min(shared + 1, len(self.rows))
        del self.tokens[shared:], self.rows[kept:]
        return shared

    changed = names_of_changed_texts(monkeypatch, "keep_prefix_of", keep_prefix_of)
    assert {"an edit in the middle", "a shorter prompt", "another prompt"} <= set(changed)


def test_a_penalty_on_stop_tokens_changes_the_texts(monkeypatch):
    from llama_export.generation import decoding

    expected = make_generation()["texts"]
    true = decoding.penalise
    monkeypatch.setattr(
        decoding, "penalise", lambda logits, ids, penalty: true(logits, {*ids, 5, 14, 23}, penalty)
    )
    found = make_generation()["texts"]
    changed = [one["name"] for one, other in zip(expected, found, strict=True) if one != other]
    assert "a penalty spares stop tokens" in changed
