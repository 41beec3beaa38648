"""Checkpoint folders, whole and damaged: every fault is a named error."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from artifacts.tiny import MULTI_HEAD, TINY, UNTIED, random_llama, write_checkpoint
from safetensors.torch import load_file, save_file

from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.checkpoints.hugging_face_files import INDEX_FILE, SINGLE_FILE
from llama_export.errors import CheckpointError, ConfigError
from llama_export.llama.names import HEAD, TABLE, expected_shapes

QUERY = "model.layers.0.self_attn.q_proj.weight"


def write_header(path: Path, header: object, data: bytes = b"") -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


def rewrite(folder: Path, change: Callable[[dict], object]) -> Path:
    state = {name: value.clone() for name, value in load_file(folder / SINGLE_FILE).items()}
    change(state)
    save_file(state, folder / SINGLE_FILE)
    return folder


def shard(folder: Path, count: int = 3) -> dict[str, str]:
    """Split the single file; return the index."""
    state = load_file(folder / SINGLE_FILE)
    index = {}
    for number in range(count):
        name = f"model-{number + 1:05}-of-{count:05}.safetensors"
        part = {key: state[key].clone() for key in sorted(state)[number::count]}
        save_file(part, folder / name)
        index |= dict.fromkeys(part, name)
    (folder / SINGLE_FILE).unlink()
    write_index(folder, index)
    return index


def write_index(folder: Path, index: object) -> None:
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": index}))


def failure(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        HfCheckpoint.open(folder)
    return caught.value.message


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_checkpoint(tmp_path / "model")


# What is right opens.


@pytest.mark.parametrize("config", [TINY, UNTIED, MULTI_HEAD], ids=["tied", "untied", "mha"])
@pytest.mark.parametrize("sharded", [False, True])
def test_tensors_are_those_of_the_model(tmp_path, config, sharded):
    write_checkpoint(tmp_path, config)
    if sharded:
        shard(tmp_path)
    checkpoint = HfCheckpoint.open(tmp_path)
    state = random_llama(config).state_dict()
    if config.tie_word_embeddings:
        del state[HEAD]
    assert checkpoint.config == config
    assert list(checkpoint.names) == list(checkpoint.shapes)
    assert set(checkpoint.names) == set(state)
    for name in checkpoint.names:
        assert checkpoint.tensor(name).dtype is torch.bfloat16
        assert checkpoint.tensor(name).shape == checkpoint.shapes[name]
        assert torch.equal(checkpoint.tensor(name).float(), state[name])
    assert checkpoint.size_bytes == 2 * config.num_parameters


def test_names_are_in_model_order():
    names = list(expected_shapes(UNTIED))
    assert names[0] == TABLE
    assert names[-2:] == ["model.norm.weight", HEAD]
    assert names.index(QUERY) < names.index("model.layers.1.input_layernorm.weight")
    assert HEAD not in expected_shapes(TINY)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_other_float_dtypes(folder, dtype):
    rewrite(folder, lambda s: s.update({k: v.to(dtype) for k, v in list(s.items())}))
    checkpoint = HfCheckpoint.open(folder)
    assert checkpoint.tensor(QUERY).dtype is dtype


def test_rotary_buffers_of_old_checkpoints_are_ignored(folder):
    buffers = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(32),
        "model.rotary_emb.inv_freq": torch.ones(32),
    }
    rewrite(folder, lambda s: s.update(buffers))
    checkpoint = HfCheckpoint.open(folder)
    assert not set(buffers) & set(checkpoint.names)
    assert checkpoint.size_bytes == 2 * TINY.num_parameters


def test_stored_copy_of_the_tied_table_is_skipped(folder):
    rewrite(folder, lambda s: s.update({HEAD: s[TABLE].clone()}))
    checkpoint = HfCheckpoint.open(folder)
    assert HEAD not in checkpoint.names
    with pytest.raises(CheckpointError, match="lm_head"):
        checkpoint.tensor(HEAD)


def test_links_into_a_download_cache_are_followed(folder, tmp_path):
    (folder / SINGLE_FILE).rename(tmp_path / "blob")
    (folder / SINGLE_FILE).symlink_to("../blob")
    assert HfCheckpoint.open(folder).names


def test_unknown_tensor_name_is_named(folder):
    checkpoint = HfCheckpoint.open(folder)
    with pytest.raises(CheckpointError, match=r"model\.nothing"):
        checkpoint.tensor("model.nothing")


MEASURE = """
import sys
from pathlib import Path
import torch
from llama_export.checkpoints.hugging_face import HfCheckpoint

def usage():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    found = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
    return found["Anonymous"], found["Rss"]

torch.ones(1000).view(torch.uint8).max()
anonymous, resident = usage()
checkpoint = HfCheckpoint.open(Path(sys.argv[1]))
opened = usage()[1] - resident
kept = [checkpoint.tensor(name) for name in checkpoint.names]
for tensor in kept:
    tensor.view(torch.uint8).max()
print(checkpoint.size_bytes / 2**20, usage()[0] - anonymous, opened, usage()[1] - resident)
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="/proc is Linux only")
def test_tensors_stay_in_the_file(tmp_path):
    """A mapped tensor takes no anonymous memory, even when all of it was read and is kept."""
    from dataclasses import replace

    import make_checkpoint

    config = replace(TINY, hidden_size=1024, intermediate_size=2048)
    make_checkpoint.write_checkpoint(config, tmp_path / "big", shard_size_bytes=20_000_000)
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "big")],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
    )
    size, anonymous, opened, resident = map(float, run.stdout.split())
    assert size > 25
    assert opened < 10, "opening reads nothing"
    assert resident > 0.9 * size, "the probe must have read it all, or it measures nothing"
    assert anonymous < 10


# What is missing is named, with what to do.


def test_folder_that_is_not_there(tmp_path):
    assert "does not exist" in failure(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    assert "not a folder" in failure(tmp_path / "file")


def test_folder_without_config(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.json"):
        HfCheckpoint.open(tmp_path)


@pytest.mark.parametrize(
    ("files", "hint"),
    [
        ([], "download the weights"),
        (["model.pt"], "save_pretrained"),
        (["model-00001-of-00002.safetensors"], INDEX_FILE),
    ],
)
def test_no_weights(folder, files, hint):
    (folder / SINGLE_FILE).unlink()
    for name in files:
        (folder / name).write_bytes(b"x")
    with pytest.raises(CheckpointError) as caught:
        HfCheckpoint.open(folder)
    assert hint in caught.value.hint
    assert SINGLE_FILE in caught.value.message


def test_missing_shard_is_named(folder):
    name = shard(folder)[QUERY]
    (folder / name).unlink()
    message = failure(folder)
    assert f"{name} is missing" in message
    assert message.count("\n") == 1, "the tensors of the missing shard must not bury the cause"


def test_missing_tensor(folder):
    rewrite(folder, lambda s: s.pop(QUERY))
    assert f"{QUERY} is missing" in failure(folder)


def test_untied_model_without_head(folder):
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "tie_word_embeddings": False}))
    assert f"{HEAD} is missing" in failure(folder)


def test_extra_tensor(folder):
    rewrite(folder, lambda s: s.update({"model.layers.1.mlp.side.weight": torch.ones(2, 3)}))
    assert "model.layers.1.mlp.side.weight [2, 3] is not part of this model" in failure(folder)


def test_bias_is_an_extra_tensor(folder):
    rewrite(folder, lambda s: s.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(256)}))
    assert "q_proj.bias" in failure(folder)


def test_wrong_shape(folder):
    rewrite(folder, lambda s: s.update({QUERY: s[QUERY].t().contiguous()}))
    assert f"{QUERY} must be [256, 128] by config.json, found [128, 256]" in failure(folder)


@pytest.mark.parametrize(
    ("dtype", "spelling"),
    [(torch.int8, "I8"), (torch.float8_e4m3fn, "F8_E4M3")],
)
def test_wrong_dtype(folder, dtype, spelling):
    rewrite(folder, lambda s: s.update({QUERY: s[QUERY].to(dtype)}))
    assert f"{QUERY} must be BF16, F16, F32 or F64, found {spelling}" in failure(folder)


def test_all_problems_are_in_one_error(folder):
    def spoil(state: dict) -> None:
        state["model.layers.0.surprise"] = torch.ones(1)
        state[QUERY] = state[QUERY][:, :5].contiguous()
        state["model.norm.weight"] = state["model.norm.weight"].int()
        del state[TABLE]

    message = failure(rewrite(folder, spoil))
    assert message.count("\n") == 5
    for name in ("surprise", QUERY, "model.norm.weight", TABLE):
        assert name in message


def test_long_lists_are_cut(folder):
    rewrite(folder, lambda s: s.update({f"model.norm.{i}": torch.ones(1) for i in range(100)}))
    message = failure(folder)
    assert "and 88 more" in message
    assert message.count("\n") == 13


# A tied model must really be tied.


@pytest.mark.parametrize("change", ["value", "value in float32"])
def test_tied_model_with_another_head_is_refused(folder, change):
    def spoil(state: dict) -> None:
        head = state[TABLE].clone()
        head[-1, -1] += 1
        state[HEAD] = head.float() if "float32" in change else head

    rewrite(folder, spoil)
    with pytest.raises(CheckpointError, match="ties lm_head") as caught:
        HfCheckpoint.open(folder)
    assert "tie_word_embeddings" in caught.value.hint


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tied_head_in_a_wider_type_is_a_copy(folder, dtype):
    rewrite(folder, lambda s: s.update({HEAD: s[TABLE].to(dtype)}))
    assert HfCheckpoint.open(folder).tensor(TABLE).dtype is torch.bfloat16


def test_tied_head_that_was_rounded_is_a_copy(folder):
    def widen(state: dict) -> None:
        state[TABLE] = state[TABLE].float() * 1.0001
        state[HEAD] = state[TABLE].to(torch.bfloat16)

    rewrite(folder, widen)
    assert HfCheckpoint.open(folder).tensor(TABLE).dtype is torch.float32


def test_tied_head_of_another_size_is_refused_by_the_plan(folder):
    rewrite(folder, lambda s: s.update({HEAD: s[TABLE][:-1].clone()}))
    assert f"{HEAD} must be [{TINY.vocab_size}, 128]" in failure(folder)


def test_tied_head_is_compared_beyond_the_first_block(folder, monkeypatch):
    monkeypatch.setattr("llama_export.checkpoints.hugging_face._COMPARED_ROWS", 10)
    rewrite(folder, lambda s: s.update({HEAD: s[TABLE].clone()}))
    HfCheckpoint.open(folder).tensor(TABLE)
    rewrite(folder, lambda s: s[HEAD][45].neg_())
    with pytest.raises(CheckpointError, match="differs"):
        HfCheckpoint.open(folder).tensor(TABLE)


# An index is not to be trusted.


@pytest.mark.parametrize(
    "path",
    [
        "../secret.safetensors",
        "a/../../secret.safetensors",
        "/etc/secret.safetensors",
        "C:\\secret.safetensors",
        "..\\secret.safetensors",
        "\\\\server\\secret.safetensors",
        "a\0.safetensors",
        "/etc/passwd",
        "config.json",
        "",
        7,
        None,
        ["x"],
    ],
)
def test_shard_path_that_leaves_the_folder(folder, path):
    index = shard(folder)
    secret = {QUERY: torch.ones(256, 128)}
    save_file(secret, folder.parent / "secret.safetensors")
    write_index(folder, {**index, QUERY: path})
    assert "inside the folder" in failure(folder)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"weight_map": {}}', b"\xff", b"[" * 99999]
)
def test_damaged_index(folder, content):
    shard(folder)
    (folder / INDEX_FILE).write_bytes(content)
    assert INDEX_FILE in failure(folder)


def test_damaged_shards_are_all_named(folder):
    for name in sorted(set(shard(folder).values()))[:2]:
        (folder / name).write_bytes(b"short")
    message = failure(folder)
    assert "model-00001-of-00003" in message
    assert "model-00002-of-00003" in message


# A safetensors file is not to be trusted.


@pytest.mark.parametrize("keep", [0, 7, 8, 100, 0.5, -1])
def test_truncated_file(folder, keep):
    raw = (folder / SINGLE_FILE).read_bytes()
    length = int(len(raw) * keep) if isinstance(keep, float) else keep
    (folder / SINGLE_FILE).write_bytes(raw[:length])
    message = failure(folder)
    assert SINGLE_FILE in message
    assert "truncated" in message or "no safetensors file" in message


@pytest.mark.parametrize("claimed", [2**40, 2**63, 2**64 - 1, 10**8 + 1])
def test_header_that_claims_terabytes(folder, claimed):
    raw = (folder / SINGLE_FILE).read_bytes()
    (folder / SINGLE_FILE).write_bytes(claimed.to_bytes(8, "little") + raw[8:])
    assert f"claims a header of {claimed} bytes" in failure(folder)


def test_tensor_that_claims_terabytes(folder):
    write_header(
        folder / SINGLE_FILE,
        {"a": {"dtype": "F32", "shape": [2**42], "data_offsets": [0, 2**44]}},
        bytes(64),
    )
    assert "truncated" in failure(folder)


def test_what_the_header_accepts_safetensors_maps(tmp_path):
    """An odd header length makes the data unaligned; the reader must survive it."""
    write_checkpoint(tmp_path)
    raw = (tmp_path / SINGLE_FILE).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    shifted = raw[8 : 8 + length] + b" "
    (tmp_path / SINGLE_FILE).write_bytes(
        len(shifted).to_bytes(8, "little") + shifted + raw[8 + length :]
    )
    checkpoint = HfCheckpoint.open(tmp_path)
    want = random_llama(TINY).state_dict()[QUERY]
    assert torch.equal(checkpoint.tensor(QUERY).float(), want)


def test_released_pages_are_mapped_again(tmp_path):
    checkpoint = HfCheckpoint.open(write_checkpoint(tmp_path / "checkpoint"))
    before = checkpoint.tensor("model.norm.weight").clone()
    checkpoint.release()
    checkpoint.release()
    assert torch.equal(checkpoint.tensor("model.norm.weight"), before)
