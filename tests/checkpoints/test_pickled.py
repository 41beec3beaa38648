"""`pytorch_model.bin`: tensors are mapped as from safetensors, and no pickle runs anything."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from artifacts.tiny import TINY, UNTIED, random_llama, write_checkpoint
from safetensors.torch import load_file

from llama_export.checkpoints.formats import find_format
from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.checkpoints.hugging_face_files import SINGLE_FILE
from llama_export.errors import CheckpointError
from llama_export.llama.names import HEAD, TABLE

BIN = "pytorch_model.bin"
INDEX = "pytorch_model.bin.index.json"
QUERY = "model.layers.0.self_attn.q_proj.weight"


def pickled(folder: Path, config=TINY, parts: int = 1) -> Path:
    """Write a checkpoint as older versions of transformers saved it."""
    write_checkpoint(folder, config)
    state = load_file(folder / SINGLE_FILE)
    (folder / SINGLE_FILE).unlink()
    if parts == 1:
        torch.save(state, folder / BIN)
        return folder
    index = {}
    for number in range(parts):
        name = f"pytorch_model-{number + 1:05}-of-{parts:05}.bin"
        part = {key: state[key].clone() for key in sorted(state)[number::parts]}
        torch.save(part, folder / name)
        index |= dict.fromkeys(part, name)
    (folder / INDEX).write_text(json.dumps({"weight_map": index}))
    return folder


def refusal(folder: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        HfCheckpoint.open(folder)
    return caught.value


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("config", [TINY, UNTIED], ids=["tied", "untied"])
def test_tensors_are_those_of_the_model(tmp_path, config, parts):
    folder = pickled(tmp_path / "model", config, parts)
    assert find_format(folder).is_complete(folder)
    checkpoint = HfCheckpoint.open(folder)
    state = random_llama(config).state_dict()
    for _ in range(2):
        for name in checkpoint.names:
            assert checkpoint.tensor(name).dtype is torch.bfloat16
            assert torch.equal(checkpoint.tensor(name).float(), state[name])
        checkpoint.release()
    assert checkpoint.size_bytes == 2 * config.num_parameters
    assert checkpoint.notes == ()


def test_a_missing_part_is_named(tmp_path):
    folder = pickled(tmp_path / "model", parts=2)
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    assert "pytorch_model-00002-of-00002.bin is missing" in refusal(folder).message
    assert not find_format(folder).is_complete(folder)


def test_safetensors_win(tmp_path):
    folder = write_checkpoint(tmp_path / "model")
    (folder / BIN).write_bytes(b"not even a pickle")
    assert HfCheckpoint.open(folder).names


def test_a_tied_head_and_parameters_are_taken(tmp_path):
    folder = pickled(tmp_path / "model")
    state = torch.load(folder / BIN, weights_only=True)
    state[HEAD] = state[TABLE]
    state["lm_head.bias"] = torch.zeros(state[TABLE].shape[0])
    torch.save({name: torch.nn.Parameter(value) for name, value in state.items()}, folder / BIN)
    checkpoint = HfCheckpoint.open(folder)
    assert not checkpoint.tensor(TABLE).requires_grad
    state["lm_head.bias"][-1] = 1
    torch.save(state, folder / BIN)
    assert "lm_head.bias is not zero" in refusal(folder).message


class Program:
    """What a pickle may hold: a call of anything."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return (Path.touch, (self.place,))


def test_a_pickle_that_would_run_a_program_is_refused_and_does_not(tmp_path):
    folder, proof = pickled(tmp_path / "model"), tmp_path / "it-ran"
    state = torch.load(folder / BIN, weights_only=True)
    torch.save({**state, "x": Program(proof)}, folder / BIN)
    error = refusal(folder)
    assert "nothing of it was run" in error.message
    assert "save_pretrained" in error.hint
    assert not proof.exists()
    torch.load(folder / BIN, weights_only=False)
    assert proof.exists(), "the program works, or it proves nothing"


def test_a_bare_pickle_is_refused(tmp_path):
    folder, proof = pickled(tmp_path / "model"), tmp_path / "it-ran"
    (folder / BIN).write_bytes(pickle.dumps(Program(proof)))
    assert "truncated, or in a form that torch before 1.6 wrote" in refusal(folder).message
    assert not proof.exists()


def test_the_oldest_form_says_how_to_convert_it(tmp_path):
    folder = pickled(tmp_path / "model")
    state = torch.load(folder / BIN, weights_only=True)
    torch.save(state, folder / BIN, _use_new_zipfile_serialization=False)
    error = refusal(folder)
    assert "torch before 1.6" in error.message
    assert "save_pretrained" in error.hint


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"model": {QUERY: torch.ones(2)}}, "model is a dict, not a plain tensor"),
        ({QUERY: torch.ones(2), "epoch": 3}, "epoch is a int, not a plain tensor"),
        ([torch.ones(2)], "holds a list, not tensors by name"),
        ({"x": torch.ones(2, 2).to_sparse()}, "sparse_coo tensor"),
        ({"x": torch.empty(2**40, device="meta")}, "tensor on meta"),
    ],
)
def test_what_is_no_plain_tensor_is_named(tmp_path, content, match):
    folder = pickled(tmp_path / "model")
    torch.save(content, folder / BIN)
    assert match in refusal(folder).message


@pytest.mark.parametrize("keep", [0, 10, 0.5, -1])
def test_truncated_file(tmp_path, keep):
    folder = pickled(tmp_path / "model")
    raw = (folder / BIN).read_bytes()
    (folder / BIN).write_bytes(raw[: int(len(raw) * keep) if isinstance(keep, float) else keep])
    assert BIN in refusal(folder).message


def archive(members: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", kind) as written:
        for name, data in members.items():
            written.writestr(name, data)
    return content.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        archive({"readme.txt": b"x"}),
        archive({"a/data.pkl": b"0" * 2**20, "a/version": b"3"}, zipfile.ZIP_DEFLATED),
        archive({"a/data.pkl": b"x", "b/data.pkl": b"x"}),
    ],
    ids=["no pickle", "would grow", "two pickles"],
)
def test_archives_that_torch_did_not_write_are_refused_before_torch_sees_them(
    tmp_path, content, monkeypatch
):
    folder = pickled(tmp_path / "model")
    (folder / BIN).write_bytes(content)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened"))
    assert "an archive that torch.save did not write" in refusal(folder).message


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path):
    folder = pickled(tmp_path / "model")
    raw = (folder / BIN).read_bytes()
    with zipfile.ZipFile(io.BytesIO(raw)) as old:
        members = {each.filename: old.read(each) for each in old.infolist()}
    name = next(each for each in members if each.endswith("data.pkl"))
    # 128 columns of the query matrix become 64,000: BININT1 128 -> BININT2.
    members[name] = members[name].replace(b"K\x80", b"M\x00\xfa")
    (folder / BIN).write_bytes(archive(members))
    assert "cannot be read as tensors" in refusal(folder).message


MEASURE = """
import sys
from pathlib import Path
import torch
from llama_export.checkpoints.hugging_face import HfCheckpoint

def anonymous():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    return {l.split(":")[0]: int(l.split()[1]) / 1024 for l in lines}["Anonymous"]

torch.ones(1000).view(torch.uint8).max()
before = anonymous()
checkpoint = HfCheckpoint.open(Path(sys.argv[1]))
for name in checkpoint.names:
    checkpoint.tensor(name).view(torch.uint8).max()
print(checkpoint.size_bytes / 2**20, anonymous() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="/proc is Linux only")
def test_tensors_stay_in_the_file(tmp_path):
    import subprocess
    import sys
    from dataclasses import replace

    folder = pickled(tmp_path / "big", replace(TINY, hidden_size=1024, intermediate_size=4096))
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
    )
    size, anonymous = map(float, run.stdout.split())
    assert size > 50
    assert anonymous < 10
    shutil.rmtree(folder)
