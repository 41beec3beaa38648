"""The windows of a calibration: what they hold, how they are mixed, and what is said of them."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import torch
from artifacts.dialogs import demo_format
from artifacts.tiny import RANKS, TINY, write_byte_vocabulary
from fakes.checkpoint import FakeCheckpoint

from llama_export.calibration.options import CalibrationOptions
from llama_export.calibration.windows import CalibrationWindows, gather_windows
from llama_export.tokenizer.chat.chat_format import ChatFormat
from llama_export.tokenizer.tokenizer import Tokenizer, load_tokenizer

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
