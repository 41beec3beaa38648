"""What the model writes is drawn from its own probabilities, and nothing else is ever drawn."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch
from artifacts.json_tokenizers import json_bytes
from artifacts.tiny import RANKS, TINY, write_byte_vocabulary
from fakes.checkpoint import FakeCheckpoint

from llama_export.calibration import own_text
from llama_export.calibration.own_text import Order, OwnWriter, draw, drawable, text_start
from llama_export.calibration.stepwise import StepwiseModel
from llama_export.errors import CheckpointError
from llama_export.llama.streamed import reference_logits
from llama_export.tokenizer.json_tokenizer import JsonTokenizer
from llama_export.tokenizer.tokenizer import load_tokenizer

WINDOW = 48
START = (RANKS,)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bytes")
    write_byte_vocabulary(folder / "tokenizer.model")
    return load_tokenizer(folder)


def writer(tokenizer, config=TINY, seed: int = 0) -> OwnWriter:
    return OwnWriter(config, FakeCheckpoint(config).tensors, tokenizer, None, START, seed)


def orders(*numbers: int) -> list[Order]:
    return [Order(number) for number in numbers]


def test_a_token_is_drawn_as_often_as_it_is_likely():
    shares = torch.tensor([0.5, 0.0, 0.2, 0.3])
    chances = torch.arange(1000, dtype=torch.float64) / 1000
    found = draw(shares.log().repeat(1000, 1), chances)
    counted = torch.bincount(found, minlength=4)
    assert counted[1] == 0
    assert torch.allclose(counted / 1000, shares, atol=0.0011)


def test_the_last_chance_draws_nothing_that_is_impossible():
    logits = torch.tensor([[0.0, 1.0, float("-inf"), float("-inf")]])
    assert draw(logits, torch.tensor([1 - 2.0**-32], dtype=torch.float64)).tolist() == [1]


def test_the_first_chance_draws_nothing_that_is_impossible():
    logits = torch.tensor([[float("-inf"), 1.0, 0.0]])
    assert draw(logits, torch.zeros(1, dtype=torch.float64)).tolist() == [1]


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused(broken):
    with pytest.raises(CheckpointError, match="are not finite"):
        draw(torch.tensor([[0.0, broken]]), torch.zeros(1, dtype=torch.float64))


def test_what_is_written_is_as_likely_as_the_model_says(tokenizer):
    """The mean surprise of drawn tokens is the entropy of what they are drawn from."""
    config = replace(TINY, vocab_size=RANKS + 16, eos_token_id=(RANKS + 1,))
    own = writer(tokenizer, config)
    ids = own.write(orders(*range(64)), WINDOW, lambda _: None)
    logits = reference_logits(config, own.weights.__getitem__, ids)[:, :-1]
    banned = drawable(config, tokenizer)
    shares = (logits + banned).log_softmax(-1)
    surprise = -shares.gather(-1, ids[:, 1:, None])[..., 0]
    entropy = -(shares.exp() * shares.clamp_min(-1e4)).sum(-1)
    # Where a text has just begun, or is given, another rule holds.
    free = (ids[:, 1:] < RANKS) & (ids[:, :-1] < RANKS)
    difference = (surprise - entropy)[free]
    assert abs(difference.mean()) < 4 * difference.std() / len(difference) ** 0.5
    assert entropy[free].mean() > 1


def test_a_window_depends_on_the_seed_and_its_number_alone(tokenizer):
    own = writer(tokenizer)
    together = own.write(orders(0, 1, 2, 3, 4), WINDOW, lambda _: None)
    assert torch.equal(own.write(orders(0, 1, 2, 3, 4), WINDOW, lambda _: None), together)
    assert torch.equal(own.write(orders(3, 1), WINDOW, lambda _: None), together[[3, 1]])
    assert len({tuple(row) for row in together.tolist()}) == 5
    other = writer(tokenizer, seed=1).write(orders(0, 1, 2, 3, 4), WINDOW, lambda _: None)
    assert not any(torch.equal(one, two) for one, two in zip(together, other, strict=True))


def test_windows_that_do_not_fit_side_by_side_are_written_in_turn(tokenizer, monkeypatch):
    own, taken = writer(tokenizer), []
    whole = own.write(orders(*range(7)), WINDOW, lambda _: None)
    monkeypatch.setattr(own_text, "_LEAST_CACHE_BYTES", 0)
    monkeypatch.setattr(own_text, "_WEIGHTS_TO_CACHE", 10**9)
    assert torch.equal(own.write(orders(*range(7)), WINDOW, taken.append), whole)
    assert taken == [1] * 7 * WINDOW


def test_the_caches_of_windows_that_are_written_are_gone(tokenizer, monkeypatch):
    monkeypatch.setattr(own_text, "_LEAST_CACHE_BYTES", 0)
    monkeypatch.setattr(own_text, "_WEIGHTS_TO_CACHE", 10**9)
    alive: weakref.WeakSet[StepwiseModel] = weakref.WeakSet()
    most = []

    class Watched(StepwiseModel):
        def __init__(self, *given) -> None:
            super().__init__(*given)
            alive.add(self)
            most.append(len(alive))

    monkeypatch.setattr(own_text, "StepwiseModel", Watched)
    writer(tokenizer).write(orders(0, 1, 2, 3), WINDOW, lambda _: None)
    assert most == [1, 1, 1, 1]


def test_progress_counts_tokens(tokenizer):
    taken = []
    writer(tokenizer).write(orders(0, 1, 2), WINDOW, taken.append)
    assert taken == [3] * WINDOW
    assert writer(tokenizer).write([], WINDOW, taken.append).shape == (0, WINDOW)


def test_a_window_goes_on_from_what_is_given(tokenizer):
    given = tuple(tokenizer.encode("Once upon a time"))
    (found,) = writer(tokenizer).write([Order(0, given=given)], WINDOW, lambda _: None).tolist()
    assert found[: len(given)] == list(given)
    assert len(set(found[len(given) :])) > 10


def test_a_text_is_never_empty(tokenizer):
    """A model that would end every text at once writes a token of text before."""
    config = replace(TINY, tie_word_embeddings=False)
    checkpoint = FakeCheckpoint(config)
    end = config.eos_token_id[0]
    # Whatever is read, the end is the likeliest by far.
    checkpoint.tensors["model.norm.weight"][:] = 0.0
    checkpoint.tensors["model.norm.weight"][0] = 1.0
    checkpoint.tensors["lm_head.weight"][:, 0] = 0.0
    checkpoint.tensors["lm_head.weight"][end, 0] = 50.0
    checkpoint.tensors["model.embed_tokens.weight"][:, 0] = 5.0
    own = OwnWriter(config, checkpoint.tensors, tokenizer, None, START, 0)
    (found,) = own.write(orders(0), 30, lambda _: None).tolist()
    begin = config.bos_token_id
    assert found[::3] == [begin] * 10
    assert all(each < RANKS for each in found[1::3])
    assert found[2::3] == [end] * 10


def test_only_text_and_ends_are_drawn(tokenizer):
    found = drawable(TINY, tokenizer)
    assert found.shape == (TINY.vocab_size,)
    drawn = set(torch.nonzero(found == 0)[:, 0].tolist())
    assert drawn == {*range(RANKS), *TINY.eos_token_id}
    padded = replace(TINY, vocab_size=TINY.vocab_size + 64)
    assert set(torch.nonzero(drawable(padded, tokenizer) == 0)[:, 0].tolist()) == drawn


def test_an_id_in_a_gap_is_not_drawn():
    tokenizer = JsonTokenizer.from_bytes(json_bytes("gap"), {}, "tokenizer.json")
    known = set(tokenizer._ids.values())
    missing = set(range(tokenizer.vocab_size)) - known
    assert missing
    config = replace(TINY, vocab_size=tokenizer.vocab_size, bos_token_id=None, eos_token_id=(2,))
    drawn = set(torch.nonzero(drawable(config, tokenizer) == 0)[:, 0].tolist())
    control = set(tokenizer.special_tokens.values())
    assert drawn == (known - control) | {2}


@pytest.mark.parametrize(
    ("prefix", "own", "in_config", "is_chat", "expected"),
    [
        ((7, 8), 5, 5, False, (7, 8)),
        ((7, 8), 5, 5, True, (7, 8)),
        ((), 5, 6, False, (6,)),
        ((), 5, None, False, (5,)),
        ((), None, None, False, (257,)),
        ((), 5, 5, True, (10,)),
    ],
)
def test_a_text_starts_as_the_models_texts_do(prefix, own, in_config, is_chat, expected):
    class Told:
        prefix_ids, bos_token_id = prefix, own

        def encode(self, text: str) -> list[int]:
            return list(text.encode())

    config = replace(TINY, bos_token_id=in_config, eos_token_id=(257, 258))
    assert text_start(config, Told(), is_chat=is_chat) == expected
