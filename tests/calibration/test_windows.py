"""The windows of a calibration: what they hold, how they are mixed, and what is said of them."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import torch
from artifacts.dialogs import demo_format
from artifacts.tiny import RANKS, TINY, write_byte_vocabulary
from fakes.checkpoint import FakeCheckpoint

from llama_export.calibration import windows as gathering
from llama_export.calibration.options import CalibrationOptions
from llama_export.calibration.refused import RUN, RefusedRuns
from llama_export.calibration.windows import CalibrationWindows, gather_windows
from llama_export.errors import CheckpointError, PromptError, UsageError
from llama_export.tokenizer.chat.chat_format import ChatFormat
from llama_export.tokenizer.tokenizer import Tokenizer, load_tokenizer
from llama_export.verification.samples import sample_text

SHORT = replace(TINY, max_position_embeddings=96, rope_scaling=None)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("bytes")
    write_byte_vocabulary(folder / "tokenizer.model")
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def base(tokenizer) -> ChatFormat:
    return ChatFormat.of(tokenizer, tokenizer.config_keys())


@pytest.fixture(scope="module")
def chat(tokenizer) -> ChatFormat:
    return demo_format(tokenizer)


@pytest.fixture
def gather(tmp_path):
    def gather(form: ChatFormat, config=SHORT, progress=None, **options) -> CalibrationWindows:
        chosen = CalibrationOptions(**{"tokens": 8 * 96, **options})
        told = progress or (lambda done, total: None)
        return gather_windows(FakeCheckpoint(config), form, chosen, tmp_path, told)

    return gather


def test_a_base_model_writes_texts(gather, base):
    found = gather(base)
    assert found.ids.shape == (8, 96)
    assert found.ids.dtype == torch.int64
    assert (found.ids[:, 0] == SHORT.bos_token_id).all()
    assert found.origin["text_windows"] == "8"
    assert found.origin["dialog_windows"] == "0"
    assert "no chat template" in found.origin["template"]


def test_half_of_a_chat_models_windows_are_dialogs(gather, chat):
    found = gather(chat)
    header = chat.tokenizer.special_tokens["<|start_header_id|>"]
    dialogs = (found.ids[:, :4] == header).any(1)
    assert dialogs.tolist() == [False, True] * 4  # so that any first part is a fair mix
    assert found.origin["dialog_windows"] == "4"


def test_a_window_has_512_tokens_where_the_model_reads_as_many(gather, base):
    found = gather(base, config=replace(TINY, num_hidden_layers=1), tokens=1023)
    assert found.ids.shape == (1, 512)
    assert found.origin["window"] == "512"
    assert gather(base, tokens=5).ids.shape == (1, 96)


def test_the_same_seed_gives_the_same_ids(gather, base):
    one, again, other = gather(base), gather(base), gather(base, seed=1)
    assert torch.equal(one.ids, again.ids)
    assert one.origin == again.origin
    assert not torch.equal(one.ids, other.ids)
    assert one.origin["ids_sha256"] != other.origin["ids_sha256"]
    packed = one.ids.to(torch.int32).numpy().astype("<i4").tobytes()
    assert one.origin["ids_sha256"] == hashlib.sha256(packed).hexdigest()
    assert (one.origin["seed"], one.origin["tokens"]) == ("0", "768")


def test_progress_ends_with_all_tokens(gather, base):
    told = []
    gather(base, progress=lambda done, total: told.append((done, total)))
    assert told[:2] == [(0, 768), (8, 768)]
    assert told[-1] == (768, 768)
    assert told == sorted(told)


def test_nothing_is_left_in_the_scratch_folder(gather, base, tmp_path):
    gather(base)
    assert list(tmp_path.iterdir()) == []


def test_rows_that_pad_the_table_are_not_drawn(gather, base):
    config = replace(SHORT, vocab_size=4 * SHORT.vocab_size)
    assert int(gather(base, config=config).ids.max()) < RANKS + 256


def numbers(count: int) -> str:
    return "".join(f"{number:07}\n" for number in range(count))


@pytest.fixture
def user_text(tmp_path):
    path = tmp_path / "texts" / "mine.txt"
    path.parent.mkdir()
    path.write_text(numbers(10000))
    return path


def is_numbers(tokenizer: Tokenizer, ids: torch.Tensor) -> bool:
    return set(tokenizer.decode(ids[1:].tolist())) <= set("0123456789\n")


def test_half_of_the_windows_are_the_users(gather, chat, user_text):
    found = gather(chat, files=(user_text,), tokens=16 * 96)
    assert found.is_user.tolist() == [False, True] * 8
    whose = [is_numbers(chat.tokenizer, row) for row in found.ids]
    assert whose == found.is_user.tolist()
    header = chat.tokenizer.special_tokens["<|start_header_id|>"]
    own = found.ids[~found.is_user]
    # Of every four windows one is the model's dialog, so that any first part is a fair mix.
    assert (own[:, :4] == header).any(1).tolist() == [False, True] * 4
    counts = {key: found.origin[key] for key in found.origin if key.endswith("_windows")}
    assert counts == {"user_windows": "8", "text_windows": "4", "dialog_windows": "4"}
    assert found.origin["user_text_sha256"] == hashlib.sha256(user_text.read_bytes()).hexdigest()


def test_of_one_window_and_of_an_odd_one_the_user_has_the_larger_half(gather, base, user_text):
    assert gather(base, files=(user_text,), tokens=1).is_user.tolist() == [True]
    assert gather(base, files=(user_text,), tokens=3 * 96).is_user.tolist() == [False, True, True]


def test_what_a_short_text_does_not_fill_is_the_models(gather, base, user_text):
    user_text.write_text(numbers(20))  # 160 tokens: a window and a half
    found = gather(base, files=(user_text,))
    assert found.ids.shape == (8, 96)
    assert found.is_user.tolist() == [False, False, False, True] * 2
    one, other = found.ids[found.is_user]
    tokenizer = base.tokenizer
    assert tokenizer.decode(one[1:].tolist()) == numbers(20)[:95]
    assert tokenizer.decode(other[1:66].tolist()) == numbers(20)[95:]
    assert not is_numbers(tokenizer, other)  # the model goes on from there
    assert found.origin["user_windows"] == "2"


def test_the_users_windows_need_no_model(gather, base, user_text, monkeypatch):
    """One whose head was pruned writes no text; all windows are the user's then."""
    monkeypatch.setattr(gathering, "mapped_floats", None)
    pruned = replace(SHORT, tie_word_embeddings=False, head_tokens=(70, 71, 257))
    found = gather(base, config=pruned, files=(user_text,))
    assert found.ids.shape == (8, 96)
    assert found.is_user.all()
    assert found.origin["written_in"] == "nothing"
    with pytest.raises(UsageError, match="was given no 96 to read") as raised:
        gather(base, config=pruned)
    assert "--calibration" in raised.value.hint
    user_text.write_text("short")
    with pytest.raises(UsageError, match="was given no 96 to read"):
        gather(base, config=pruned, files=(user_text,))


@pytest.mark.parametrize("options", [{"tokens": 0}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(gather, base, options):
    with pytest.raises(UsageError, match="at least 1 token, and a seed from 0 on"):
        gather(base, **options)


def test_a_text_that_verify_measures_on_is_refused(gather, base, user_text):
    user_text.write_text(sample_text())
    with pytest.raises(PromptError, match="`verify` measures on this text"):
        gather(base, files=(user_text,))


class WhatVerifyMeasuresOn:
    """Refuses windows by their first token of text."""

    def __init__(self, refuse) -> None:
        self.find = lambda ids: 1 if refuse(ids[1]) else None


@pytest.fixture
def refusing(monkeypatch):
    def refusing(refuse) -> None:
        class Refused:
            of_verification = staticmethod(lambda _: WhatVerifyMeasuresOn(refuse))

        monkeypatch.setattr(gathering, "RefusedRuns", Refused)

    return refusing


def test_an_own_window_that_verify_measures_on_is_written_again(gather, base, refusing):
    before = gather(base)
    bad = int(before.ids[2, 1])
    expected = (before.ids[:, 1] == bad).sum()
    refusing(lambda token: token == bad)
    found = gather(base)
    assert int(found.origin["written_again"]) >= expected
    assert found.origin["left_out"] == "0"
    same = [torch.equal(one, other) for one, other in zip(before.ids, found.ids, strict=True)]
    assert same == (before.ids[:, 1] != bad).tolist()
    assert bad not in found.ids[:, 1]
    assert torch.equal(gather(base).ids, found.ids)


def test_what_is_refused_again_and_again_is_left_out(gather, base, refusing):
    refusing(lambda token: token % 4 != 0)
    found = gather(base, tokens=16 * 96)
    left_out = int(found.origin["left_out"])
    assert left_out > 0
    assert found.ids.shape == (16 - left_out, 96)
    assert (found.ids[:, 1] % 4 == 0).all()
    refusing(lambda token: True)
    with pytest.raises(CheckpointError, match="whatever the model writes"):
        gather(base)


def test_every_part_of_an_own_window_is_looked_at(gather, base, monkeypatch):
    before = gather(base)
    run = tuple(before.ids[3, -RUN:].tolist())
    known = RefusedRuns(frozenset({hash(run)}))
    monkeypatch.setattr(RefusedRuns, "of_verification", lambda _: known)
    found = gather(base)
    assert found.origin["written_again"] == "1"
    same = [torch.equal(one, other) for one, other in zip(before.ids, found.ids, strict=True)]
    assert same == [True, True, True, False, True, True, True, True]
