"""The windows beside the weights: read as they were written, or refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from artifacts.tiny import TINY
from safetensors.torch import load_file, save_file

from llama_export.calibration.windows import CalibrationWindows, ids_sha256
from llama_export.calibration.windows_file import read_windows, write_windows
from llama_export.errors import CheckpointError
from llama_quantize.checkpoint.files import CALIBRATION_FILE

IDS = torch.arange(6).reshape(2, 3) * 100


def windows(ids: torch.Tensor = IDS) -> CalibrationWindows:
    origin = {"ids_sha256": ids_sha256(ids), "seed": "7"}
    return CalibrationWindows(ids, torch.tensor([True, False]), origin)


def test_they_are_read_as_they_were_written(tmp_path):
    write_windows(tmp_path, windows())
    found = read_windows(tmp_path, TINY)
    assert torch.equal(found.ids, IDS)
    assert found.ids.dtype == torch.int64
    assert found.is_user.tolist() == [True, False]
    assert found.origin == windows().origin
    stored = load_file(tmp_path / CALIBRATION_FILE)  # and by anybody else
    assert (stored["ids"].dtype, stored["ids"].tolist()) == (torch.int32, IDS.tolist())


def test_the_same_windows_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_windows(tmp_path / name, windows())
    one, other = ((tmp_path / name / CALIBRATION_FILE).read_bytes() for name in ("a", "b"))
    assert one == other


def test_a_file_that_is_there_is_not_written_over(tmp_path):
    write_windows(tmp_path, windows())
    with pytest.raises(FileExistsError):
        write_windows(tmp_path, windows())


USERS = torch.tensor([1, 0], dtype=torch.uint8)
FAULTS = {
    "another id": ({"ids": IDS.int() + (IDS == 500), "is_user": USERS}, "was changed"),
    "no truth value": ({"ids": IDS.int(), "is_user": USERS * 2}, "was changed"),
    "one tensor": ({"ids": IDS.int()}, "holds no windows"),
    "a third tensor": ({"ids": IDS.int(), "is_user": USERS, "x": USERS + 1}, "holds no windows"),
    "another type": ({"ids": IDS, "is_user": USERS}, "holds no windows"),
    "another rank": ({"ids": IDS.int().flatten(), "is_user": USERS}, "holds no windows"),
    "another number": ({"ids": IDS.int(), "is_user": USERS[:1]}, "holds no windows"),
    "nothing": ({"ids": IDS[:0].int(), "is_user": USERS[:0]}, "holds no windows"),
}


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_file_that_was_changed_is_refused(tmp_path, name):
    tensors, reason = FAULTS[name]
    save_file(tensors, tmp_path / CALIBRATION_FILE, dict(windows().origin))
    with pytest.raises(CheckpointError, match=reason):
        read_windows(tmp_path, TINY)


def test_one_without_a_hash_is_refused(tmp_path):
    save_file({"ids": IDS.int(), "is_user": USERS}, tmp_path / CALIBRATION_FILE, {"seed": "7"})
    with pytest.raises(CheckpointError, match="was changed"):
        read_windows(tmp_path, TINY)


@pytest.mark.parametrize("ids", [IDS, IDS - 1])
def test_ids_that_the_model_does_not_have_are_refused(tmp_path, ids):
    write_windows(tmp_path, windows(ids))
    with pytest.raises(CheckpointError, match="is of another model"):
        read_windows(tmp_path, replace(TINY, vocab_size=500, bos_token_id=1, eos_token_id=(2,)))


def test_a_missing_or_damaged_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_windows(tmp_path, TINY)
    write_windows(tmp_path, windows())
    path = tmp_path / CALIBRATION_FILE
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError):
        read_windows(tmp_path, TINY)
