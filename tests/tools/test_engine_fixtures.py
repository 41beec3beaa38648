"""tools/apps/engine_fixtures.py and step_server.py on sessions in memory."""

from __future__ import annotations

import io
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from artifacts.demo_bundle import demo_bundle  # noqa: F401 - a fixture
from artifacts.sample_bundle import write_bundle

import llama_export
from engine_fixtures import (
    STAMP,
    TURNS,
    Turn,
    digest,
    is_current,
    pack_twice,
    play,
    played,
    record_golden,
    sources,
    toolkits,
)
from llama_export.bundle.bundle import Bundle
from llama_export.targets import registry
from llama_export.verification.golden.golden import read_golden
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


def test_the_stamp_follows_models_toolkits_and_files(tmp_path):
    file = tmp_path / "a.json"
    file.write_text("1")
    first = digest({"demo": ["onnx"]}, [file])
    assert digest({"demo": ["onnx"]}, [file]) == first
    assert digest({"demo": ["onnx", "coreml"]}, [file]) != first
    assert digest({"demo": ["onnx"], "onnxruntime": "1.0"}, [file]) != first
    file.write_text("2")
    assert digest({"demo": ["onnx"]}, [file]) != first


def test_what_is_no_python_counts_too():
    """The demo's weights and the texts decide what a bundle answers."""
    found = set(sources())
    assert all(path.is_file() for path in found)
    package = Path(llama_export.__file__).parent
    assert {path for path in found if path.suffix != ".py" and package in path.parents}
    assert package / "version.py" in found
    assert "torch" in toolkits()


def test_what_lies_there_is_made_again_when_a_part_is_gone(tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "onnx.json").write_text("{}")
    (tmp_path / STAMP).write_text("abc")
    assert is_current(tmp_path, "abc", ["demo/onnx"])
    assert not is_current(tmp_path, "abd", ["demo/onnx"])
    assert not is_current(tmp_path, "abc", ["demo/onnx", "smollm2/onnx"])


def test_golden_data_are_recorded_where_there_are_none(demo_bundle, tmp_path):  # noqa: F811
    folder = Path(shutil.copytree(demo_bundle, tmp_path / "onnx"))
    record_golden(folder)
    recorded = read_golden(Bundle.open(folder))
    assert len(recorded.positions) == 64
    assert recorded.limits.kl_mean == registry.get("onnx").limits.shipped_kl.value
    before = (folder / "manifest.json").read_bytes()
    record_golden(folder)
    assert (folder / "manifest.json").read_bytes() == before


def test_a_bundle_is_packed_with_both_kinds_of_headers(tmp_path):
    folder = write_bundle(tmp_path / "onnx")
    pack_twice(folder)
    for name, version in (("onnx.zip", 20), ("onnx-large.zip", zipfile.ZIP64_VERSION)):
        with zipfile.ZipFile(tmp_path / name) as packed:
            assert packed.testzip() is None
            assert packed.getinfo("model.onnx.data").extract_version == version


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
