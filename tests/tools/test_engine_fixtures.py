"""tools/apps/engine_fixtures.py and step_server.py on sessions in memory."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest

from engine_fixtures import TURNS, Turn, digest, play, played
from step_server import serve

VOCAB = 50


class Session:
    """Logits that follow from all that was read; a choice is close after ids of `close`."""

    vocab_size, max_context, num_layers = VOCAB, 100, 0

    def __init__(self, close: frozenset[int] = frozenset()) -> None:
        self.read: list[int] = []
        self.pieces: list[int] = []
        self.close_after = close

    @property
    def position(self) -> int:
        return len(self.read)

    def rewind(self, position: int) -> None:
        del self.read[position:]

    def restore(self, layers) -> None:
        self.restored = list(layers)

    def prefill(self, ids):
        self.read += ids
        self.pieces.append(len(ids))
        logits = np.zeros(VOCAB, np.float32)
        likeliest = sum(self.read) % VOCAB
        logits[likeliest] = 1.0
        logits[likeliest - 1] = 0.9 if self.read[-1] in self.close_after else 0.0
        return logits


def test_a_turn_goes_back_reads_in_pieces_and_writes_the_likeliest():
    session = Session()
    session.read = [7, 8, 9]
    assert play(session, Turn(1, 130, 3), [1] * 130, 0.5) == [37, 24, 48]
    assert session.pieces == [128, 2, 1, 1]
    assert session.read == [7, *[1] * 130, 37, 24]


def test_a_close_choice_is_none():
    assert play(Session(frozenset({3})), Turn(0, 1, 2), [3], 0.5) is None
    assert play(Session(frozenset({3})), Turn(0, 1, 1), [3], 0.0) == [3]


def test_another_part_of_the_text_is_taken_where_the_first_leads_to_a_close_choice():
    turn = played(Session(frozenset({3})), Turn(0, 2, 1), [1, 3, 5, 2], 0.5)
    assert turn == {"position": 0, "ids": [3, 5], "written": [8]}


def test_a_text_without_a_clear_part_is_refused():
    with pytest.raises(SystemExit, match=r"leaves a margin of 0\.5"):
        played(Session(frozenset({3})), Turn(0, 2, 1), [3], 0.5)


def test_the_turns_rewind_edit_and_double_a_cache():
    held = 0
    for turn in TURNS:
        assert turn.position <= held
        held = turn.position + turn.length + turn.count - 1
    assert TURNS[0].count == 64
    assert 0 < TURNS[1].position < TURNS[0].length
    assert TURNS[2].position < 512 < TURNS[2].position + TURNS[2].length


def test_the_stamp_follows_the_models():
    assert digest({"demo": ["onnx"]}) == digest({"demo": ["onnx"]})
    assert digest({"demo": ["onnx"]}) != digest({"demo": ["onnx", "coreml"]})


def test_the_server_answers_each_request_with_logits():
    requests = struct.pack("<2i3i2ii", 3, 0, 1, 2, 3, 1, 2, 4)
    answers = io.BytesIO()
    session = Session()
    serve(session, io.BytesIO(requests), answers)
    content = answers.getvalue()
    assert struct.unpack_from("<2i", content) == (VOCAB, 100)
    logits = np.frombuffer(content, "<f4", offset=8).reshape(2, VOCAB)
    assert logits.argmax(axis=1).tolist() == [6, 7]
    assert session.read == [1, 2, 4]
