"""What an interrupted calibration is taken up from: whole files of the same key, and no others."""

from __future__ import annotations

import json
import os

import pytest
import torch
from artifacts.tiny import TINY, random_tokens, write_checkpoint

from llama_export.calibration import curvature as curvature_module
from llama_export.calibration.curvature import measure_curvature
from llama_export.calibration.scratch import Scratch, noted_layer
from llama_export.checkpoints.hugging_face import HfCheckpoint

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOWS = torch.tensor([random_tokens(TINY, 16, seed) for seed in range(2)])


def test_files_that_were_begun_since_do_not_count(tmp_path):
    scratch = Scratch(tmp_path / "a", "key")
    scratch.array("states", (3,)).fill_(2.0)
    assert noted_layer(tmp_path / "a") == 0
    scratch.finish(4, {}, {"dead": 7})
    # A process that is killed while it notes the next layer leaves a part of it.
    (tmp_path / "a" / "layer-005.safetensors").write_bytes(b"half")
    again = Scratch(tmp_path / "a", "key")
    assert (again.layer, again.counts, noted_layer(again.folder)) == (5, {"dead": 7}, 5)
    assert again.array("states", (3,)).tolist() == [2.0, 2.0, 2.0]
    with (tmp_path / "a" / "states.f32").open("r+b") as file:
        file.truncate(8)
    assert Scratch(tmp_path / "a", "key").layer == 0


def test_another_key_starts_over(tmp_path):
    Scratch(tmp_path / "a", "key").finish(0, {}, {})
    assert Scratch(tmp_path / "a", "other").layer == 0
    assert list((tmp_path / "a").iterdir()) == []


def test_a_state_that_cannot_be_read_is_none(tmp_path):
    assert noted_layer(tmp_path) == 0
    for text in ("", "[]", json.dumps({"layer": "3"})):
        (tmp_path / "state.json").write_text(text, encoding="utf-8")
        assert noted_layer(tmp_path) == 0


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system reserves no room")
def test_room_is_taken_before_an_array_is_mapped(tmp_path):
    """Twin of the refusal: with a hole in it the file would end the process on a full disk."""
    Scratch(tmp_path / "a", "key").array("states", (1 << 18,))
    found = (tmp_path / "a" / "states.f32").stat()
    assert found.st_blocks * 512 >= found.st_size == 1 << 20


@pytest.mark.parametrize("most_rows", [4096, 130])
def test_curvature_is_measured_once_and_its_states_go(tmp_path, monkeypatch, most_rows):
    monkeypatch.setattr(curvature_module, "_MOST_ROWS", most_rows)
    checkpoint = HfCheckpoint.open(write_checkpoint(tmp_path / "tiny"))
    names = [name for name in checkpoint.names if "_proj" in name]

    def measure(read) -> dict[str, tuple[torch.Tensor | None, torch.Tensor | None]]:
        scratch = Scratch(tmp_path / "a", "key")
        found = measure_curvature(TINY, read, WINDOWS, 0, scratch)
        return {
            name: tuple(
                None if each is None else each.clone()
                for each in (found.of(name), found.diagonal(name))
            )
            for name in names
        }

    first = measure(checkpoint.tensor)
    assert sum(matrix is None for matrix, _ in first.values()) == (0 if most_rows == 4096 else 6)
    kept = {path.name for path in (tmp_path / "a").iterdir()}
    assert {name for name in kept if name.startswith(("states", "gradient"))} == set()

    def refuse(_name):
        pytest.fail("it is measured already")

    for name, pair in measure(refuse).items():
        for before, after in zip(first[name], pair, strict=True):
            assert (before is None) == (after is None)
            assert before is None or torch.equal(before, after)
