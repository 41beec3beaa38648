"""The writer of full-size random checkpoints, on shapes small enough for a test."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from artifacts.tiny import TINY, UNTIED
from click.testing import CliRunner

import make_checkpoint as tool
from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.checkpoints.hugging_face_files import INDEX_FILE, SINGLE_FILE
from llama_export.errors import ConfigError, OutputError
from llama_export.llama.model import Llama
from llama_export.llama.presets import PRESETS


def hashes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_shards_open_as_a_checkpoint(tmp_path):
    done: list[int] = []
    tool.write_checkpoint(UNTIED, tmp_path / "out", shard_size_bytes=400_000, progress=done.append)
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 2
    assert shards[0].name == f"model-00001-of-{len(shards):05}.safetensors"
    assert all(path.stat().st_size < 400_000 + 10_000 for path in shards)
    checkpoint = HfCheckpoint.open(tmp_path / "out")
    assert checkpoint.config == UNTIED
    assert checkpoint.size_bytes == 2 * UNTIED.num_parameters == done[-1]
    assert checkpoint.tensor("lm_head.weight").dtype is torch.bfloat16


def test_one_shard_needs_no_index(tmp_path):
    tool.write_checkpoint(TINY, tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {SINGLE_FILE, "config.json"}
    HfCheckpoint.open(tmp_path / "out")


def test_weights_have_the_asked_spread_and_differ(tmp_path):
    tool.write_checkpoint(TINY, tmp_path / "out", std=0.05)
    checkpoint = HfCheckpoint.open(tmp_path / "out")
    query = checkpoint.tensor("model.layers.0.self_attn.q_proj.weight").float()
    assert query.std().item() == pytest.approx(0.05, rel=0.02)
    assert abs(query.mean().item()) < 0.002
    down = checkpoint.tensor("model.layers.0.mlp.down_proj.weight").float()
    assert down.std().item() == pytest.approx(0.05 / 2, rel=0.02)  # 2 layers: sqrt(4)
    assert (checkpoint.tensor("model.layers.1.input_layernorm.weight") == 1).all()
    other = checkpoint.tensor("model.layers.1.self_attn.q_proj.weight").float()
    assert not torch.equal(query, other)


def test_same_seed_same_bytes_whatever_the_shards(tmp_path, monkeypatch):
    tool.write_checkpoint(TINY, tmp_path / "a", seed=7)
    tool.write_checkpoint(TINY, tmp_path / "b", seed=7)
    tool.write_checkpoint(TINY, tmp_path / "c", seed=8)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    assert hashes(tmp_path / "a")[SINGLE_FILE] != hashes(tmp_path / "c")[SINGLE_FILE]
    tool.write_checkpoint(TINY, tmp_path / "d", seed=7, shard_size_bytes=100_000)
    whole, parts = HfCheckpoint.open(tmp_path / "a"), HfCheckpoint.open(tmp_path / "d")
    assert all(torch.equal(whole.tensor(name), parts.tensor(name)) for name in whole.names)


def test_blocks_continue_one_stream(monkeypatch):
    monkeypatch.setattr(tool, "BLOCK_ELEMENTS", 64)
    blocks = [block.clone() for block in tool._random_blocks("x.weight", 150, 0, 1.0)]
    assert [block.numel() for block in blocks] == [64, 64, 22]
    assert not torch.equal(blocks[0], blocks[1])


def test_activations_keep_their_size_with_depth(tmp_path):
    config = replace(TINY, hidden_size=256, intermediate_size=1024, num_hidden_layers=32)
    tool.write_checkpoint(config, tmp_path / "out", std=0.06)
    checkpoint = HfCheckpoint.open(tmp_path / "out")
    with torch.device("meta"):
        model = Llama(config)
    model.load_state_dict(
        {name: checkpoint.tensor(name).float() for name in checkpoint.names},
        strict=False,
        assign=True,
    )
    model.tie_weights()
    spread: list[float] = []
    for layer in model.model.layers:
        layer.register_forward_hook(lambda _m, _i, out: spread.append(out[0].std().item()))
    with torch.no_grad():
        logits, _ = model(torch.arange(32)[None])
    assert torch.isfinite(logits).all()
    assert len(spread) == 32
    assert 0.01 < spread[-1] < 3


def test_tokenizer_is_copied(tmp_path):
    (tmp_path / "some.model").write_bytes(b"IQ== 0\n")
    tool.write_checkpoint(TINY, tmp_path / "out", tokenizer=tmp_path / "some.model")
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == b"IQ== 0\n"


def test_existing_output_is_refused_and_untouched(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    with pytest.raises(OutputError, match="exists"):
        tool.write_checkpoint(TINY, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["precious"]


def test_failure_leaves_nothing_behind(tmp_path):
    def interrupt(size_bytes: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tool.write_checkpoint(TINY, tmp_path / "out", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [{"std": 0.0}, {"shard_size_bytes": 0}, {"tokenizer": Path("nowhere")}]
)
def test_senseless_arguments_are_refused(tmp_path, arguments):
    with pytest.raises(ConfigError):
        tool.write_checkpoint(TINY, tmp_path / "out", **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("1GB", 10**9), ("500 MB", 5 * 10**8), ("1.5kb", 1500), ("12", 12), ("7B", 7)],
)
def test_sizes(text, size_bytes):
    assert tool.parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1GiB", "1e9"])
def test_no_size(text):
    with pytest.raises(ConfigError, match="shard-size"):
        tool.parse_size(text)


def test_presets_split_as_expected():
    shapes = tool.expected_shapes(PRESETS["3.2-1B"])
    shards = tool.plan_shards(shapes, 10**9)
    sizes = [2 * sum(tool.prod(s) for s in shard.values()) for shard in shards]
    assert sum(sizes) == 2 * 1_235_814_400
    assert len(sizes) == 3
    assert max(sizes) <= 10**9


def run(*arguments: str):
    return CliRunner().invoke(tool.main, list(arguments))


def test_command_line(tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    out = tmp_path / "out"
    result = run("--like", "tiny", "--output", str(out), "--layers", "1", "--shard-size", "200KB")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert HfCheckpoint.open(out).config == replace(TINY, num_hidden_layers=1)
    assert (out / INDEX_FILE).is_file()


def test_command_line_errors_have_exit_codes_and_no_traceback(tmp_path):
    result = run("--like", "3.2-2B", "--output", str(tmp_path / "out"))
    assert result.exit_code == ConfigError.exit_code
    assert "3.2-1B" in result.stderr
    (tmp_path / "out").mkdir()
    result = run("--like", "3.2-1B", "--output", str(tmp_path / "out"))
    assert result.exit_code == OutputError.exit_code
    assert "Traceback" not in result.output
