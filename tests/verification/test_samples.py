"""What a verification reads: the built-in text, a user's own, and how much of it."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
from artifacts import tiny

from llama_export.errors import PromptError
from llama_export.llama.presets import PRESETS
from llama_export.verification.samples import (
    Text,
    UserText,
    built_in_text,
    cache_bytes,
    plan_budget,
    plan_reading,
    read_text,
    sample_text,
    tokenize,
)

DEMO = dataclasses.replace(
    tiny.TINY, vocab_size=4096, hidden_size=256, intermediate_size=768, num_hidden_layers=6
)


class Bytes:
    prefix_ids = (256,)

    def encode(self, text: str) -> list[int]:
        return list(text.encode())


def test_the_text_is_long_enough_and_cycles():
    text = sample_text()
    assert 6000 < len(text) < 10_000
    assert text.isascii()
    ids = list(built_in_text(Bytes()).take(len(text) + 3))
    assert ids[0] == 256
    assert ids[1:3] == ids[-2:]
    assert list(built_in_text(Bytes()).take(5)) == ids[:5]


def test_one_token_more_is_read_than_is_compared():
    reading = plan_reading(DEMO, Text("short", (256,), (1, 2, 3), ""), 8192, quick=True)
    assert len(reading.compared) == len(reading.longest) == 32
    assert len(reading.token_ids) == 33
    assert reading.token_ids[:6] == (256, 1, 2, 3, 1, 2)


def test_budgets_are_bounded_for_large_models():
    one, three, eight = (PRESETS[name] for name in ("3.2-1B", "3.2-3B", "3.1-8B"))
    assert plan_budget(DEMO, 8192, quick=False).positions == 1000
    assert plan_budget(DEMO, 8192, quick=False).longest == 8192
    quick = plan_budget(one, 8192, quick=True)
    assert (quick.positions, quick.longest, quick.exact_steps) == (32, 32, 4)
    assert quick.fills_context
    full = plan_budget(one, 8192, quick=False)
    assert 200 < full.positions < 300
    assert 1000 < full.longest < 1100
    assert sum(map(len, full.portions)) <= 48
    assert plan_budget(eight, 8192, quick=False).positions == 64
    # 1.9 GB that an export need not have free.
    assert cache_bytes(three, 8192) > 1.8e9
    assert not plan_budget(three, 8192, quick=True).fills_context
    assert plan_budget(three, 8192, quick=False).fills_context


@pytest.mark.parametrize("quick", [True, False])
def test_a_budget_fits_into_any_context(quick):
    for context in [*range(1, 70), 300, 5000]:
        budget = plan_budget(DEMO, context, quick=quick)
        assert budget.longest <= context
        assert budget.lengths == tuple(sorted(set(budget.lengths)))
        assert budget.positions in budget.lengths
        assert 0 < budget.exact_steps < budget.positions or budget.positions == 1
        assert {sum(sizes) for sizes in budget.portions} == {min(budget.positions, 93)}
        assert all(size > 0 for sizes in budget.portions for size in sizes)
    assert budget.portions[0][:3] == (1, 3, 7)


def test_a_text_is_read_from_a_file(tmp_path):
    path = tmp_path / "page.txt"
    path.write_bytes(b"\xef\xbb\xbfna\xc3\xafve")
    assert read_text(path) == UserText(path, "naïve")
    sha256 = hashlib.sha256(b"abc").hexdigest()
    found = tokenize(Bytes(), UserText(path, "abc"))
    assert found == Text("page.txt", (256,), (97, 98, 99), sha256)
    assert Text("t", (9,), (1, 2), "").take(6) == (9, 1, 2, 1, 2, 1)
    assert Text("t", (), (1, 2), "").take(3) == (1, 2, 1)
    path.write_text("x" + "ä" * 600_000, encoding="utf-8")
    # A megabyte, and no half character.
    assert read_text(path).content == "x" + "ä" * (2**19 - 1)


@pytest.mark.parametrize("content", ["", "x"])
def test_a_text_of_fewer_than_two_tokens_is_refused(content):
    with pytest.raises(PromptError, match=rf"page.txt: .* found {len(content)}"):
        tokenize(Bytes(), UserText(Path("page.txt"), content))


def test_a_text_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(PromptError, match=r"none.txt cannot be read: No such file"):
        read_text(tmp_path / "none.txt")
    with pytest.raises(PromptError, match="cannot be read: Is a directory"):
        read_text(tmp_path)
    path = tmp_path / "latin.txt"
    path.write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(PromptError, match=r"latin.txt is not UTF-8: byte 3"):
        read_text(path)
