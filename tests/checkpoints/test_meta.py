"""Checkpoints of floats in Meta's own layout: read as Hugging Face's, and computed as Meta does."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from artifacts.demo_bundle import Silent
from artifacts.meta_layout import from_hugging_face, meta_params
from artifacts.meta_oracle import MetaLlama
from artifacts.tiny import (
    MULTI_HEAD,
    RANKS,
    TINY,
    UNTIED,
    random_tokens,
    write_checkpoint,
)

from llama_export.checkpoints.checkpoint import AS_IT_IS, ReadOptions, WantedFiles
from llama_export.checkpoints.formats import find_format, open_checkpoint, wanted_files
from llama_export.checkpoints.hugging_face import HfCheckpoint, HuggingFaceFormat
from llama_export.checkpoints.meta import MetaFormat
from llama_export.checkpoints.meta_names import meta_order
from llama_export.exporting.pipeline import export_bundle
from llama_export.exporting.request import ExportRequest
from llama_export.llama.config import RopeScaling
from llama_export.llama.names import TABLE
from llama_export.llama.streamed import reference_logits
from llama_export.sources.resolve import DEMO_FOLDER, ModelSource
from llama_export.sources.source import describe, open_source
from llama_quantize.lazy import LazyTensor

LLAMA_2 = dataclasses.replace(MULTI_HEAD, tie_word_embeddings=False)
# Mean over the positions, in nats; both sides compute in float32.
MOST_KL = 1e-6


def whole(tensor):
    return tensor.whole() if isinstance(tensor, LazyTensor) else tensor


def mean_kl(reference: torch.Tensor, candidate: torch.Tensor) -> float:
    first, second = (each.double().log_softmax(-1) for each in (reference, candidate))
    return float((first.exp() * (first - second)).sum(-1).mean())


def oracle(folder: Path, factor: float = 32.0) -> MetaLlama:
    """Meta's program over the file that lies there."""
    state = torch.load(folder / "consolidated.00.pth", weights_only=True)
    return MetaLlama(state, json.loads((folder / "params.json").read_text()), factor)


def ours(folder: Path, tokens: list[int], options: ReadOptions = AS_IT_IS) -> torch.Tensor:
    checkpoint = open_checkpoint(folder, options=options)
    return reference_logits(checkpoint.config, checkpoint.tensor, torch.tensor([tokens]))[0]


@pytest.fixture
def folder(tmp_path) -> Path:
    return from_hugging_face(write_checkpoint(tmp_path / "hf"), tmp_path / "meta")


@pytest.mark.parametrize(
    ("config", "shards", "table_dim"),
    [(TINY, 1, 0), (TINY, 2, 0), (UNTIED, 2, 0), (UNTIED, 1, 0), (LLAMA_2, 2, 1), (LLAMA_2, 4, 1)],
)
def test_every_tensor_is_the_one_in_hugging_faces_layout(tmp_path, config, shards, table_dim):
    source = write_checkpoint(tmp_path / "hf", config)
    meta = open_checkpoint(from_hugging_face(source, tmp_path / "meta", shards, table_dim))
    theirs = HfCheckpoint.open(source)
    assert meta.names == theirs.names
    assert dict(meta.shapes) == dict(theirs.shapes)
    assert dict(meta.tied) == dict(theirs.tied)
    assert (meta.recipe, meta.weights_folder) == (None, None)
    assert meta.size_bytes - theirs.size_bytes == (shards - 1) * 5 * 2 * config.hidden_size
    assert dataclasses.replace(meta.config, max_position_embeddings=16384) == config
    some = torch.tensor([5, 1, 60, 5, 255])
    for name in meta.names:
        tensor, expected = meta.tensor(name), theirs.tensor(name)
        assert torch.equal(whole(tensor), expected), name
        if expected.ndim == 2:
            assert torch.equal(tensor[3:70], expected[3:70]), name
            assert torch.equal(tensor[some % len(expected)], expected[some % len(expected)]), name
    meta.release()
    assert torch.equal(whole(meta.tensor(TABLE)), theirs.tensor(TABLE))


def test_the_order_of_rows_is_a_permutation_within_each_head():
    assert meta_order(8, 2) == [0, 2, 1, 3, 4, 6, 5, 7]
    assert sorted(meta_order(256, 4)) == list(range(256))


def test_the_model_computes_what_metas_own_program_computes(folder):
    tokens = random_tokens(TINY, 256)
    expected = oracle(folder).logits(tokens)
    assert mean_kl(expected, ours(folder, tokens)) <= MOST_KL
    # Twins: rows of queries and keys left in Meta's order, and another factor.
    checkpoint = open_checkpoint(folder)
    state = torch.load(folder / "consolidated.00.pth", weights_only=True)

    def unpermuted(name):
        names = {".q_proj.": "wq", ".k_proj.": "wk"}
        found = [meta for part, meta in names.items() if part in name]
        if not found:
            return checkpoint.tensor(name)
        return state[f"layers.{name.split('.')[2]}.attention.{found[0]}.weight"]

    wrong = reference_logits(checkpoint.config, unpermuted, torch.tensor([tokens]))[0]
    assert mean_kl(expected, wrong) > 1e-2
    assert mean_kl(expected, ours(folder, tokens, ReadOptions(rope_factor=8.0))) > 10 * MOST_KL


def test_a_bf16_onnx_export_computes_it_too(folder, tmp_path):
    from artifacts.opened import session_of

    request = ExportRequest(
        str(folder), ("onnx",), tmp_path / "out", recipe="bf16", verify=False, keep_weights=False
    )
    bundle = export_bundle(request, Silent()).bundles[0].bundle
    tokens = random_tokens(TINY, 64)
    expected = oracle(folder).logits(tokens)[-1:]
    session = session_of(bundle)
    found = torch.as_tensor(session.prefill(tokens)).view(-1, TINY.vocab_size)[-1:]
    session.close()
    assert mean_kl(expected, found) <= MOST_KL


def test_what_params_json_leaves_out_is_inferred_and_said(tmp_path, folder):
    checkpoint = open_checkpoint(folder)
    assert checkpoint.config.rope_scaling == RopeScaling(factor=32.0)
    assert checkpoint.config.max_position_embeddings == 131072
    assert ["factor" in checkpoint.notes[0], "131072" in checkpoint.notes[1]] == [True, True]
    chosen = open_checkpoint(folder, options=ReadOptions(rope_factor=8.0))
    assert chosen.config.rope_scaling == RopeScaling(factor=8.0)
    assert len(chosen.notes) == 1
    assert find_format(folder).read_config(folder) == checkpoint.config
    assert checkpoint.config.bos_token_id == RANKS
    assert checkpoint.config.eos_token_id == TINY.eos_token_id


@pytest.mark.parametrize(
    ("keys", "factor", "positions"),
    [
        ({"dim": 2048, "use_scaled_rope": True}, 32, 131072),
        ({"dim": 3072, "use_scaled_rope": True}, 32, 131072),
        ({"dim": 4096, "use_scaled_rope": True}, 8, 131072),
        ({"dim": 8192, "use_scaled_rope": True, "rope_scale_factor": 16}, 16, 131072),
        ({"dim": 4096, "vocab_size": 128256}, None, 8192),
        ({"dim": 4096, "rope_theta": None}, None, 4096),
        ({"dim": 4096, "rope_theta": None, "norm_eps": 1e-6}, None, 2048),
        ({"dim": 4096, "rope_theta": 1e6}, None, 16384),
        ({"dim": 4096, "max_seq_len": 4000}, None, 4000),
    ],
)
def test_a_config_without_weights_is_what_metas_models_have(tmp_path, keys, factor, positions):
    """Of a repository the small files come first; what the weights say is then assumed."""
    params = meta_params(dataclasses.replace(TINY, rope_scaling=None)) | keys
    del params["head_dim"], params["n_kv_heads"]
    params |= {"vocab_size": params.get("vocab_size", -1)}
    (tmp_path / "params.json").write_text(json.dumps(params))
    shutil.copyfile(
        write_checkpoint(tmp_path / "hf") / "tokenizer.model", tmp_path / "tokenizer.model"
    )
    config = MetaFormat().read_config(tmp_path)
    assert (config.rope_scaling and config.rope_scaling.factor) == factor
    assert config.max_position_embeddings == positions
    assert config.num_key_value_heads == config.num_attention_heads
    assert config.head_dim == keys["dim"] // 4
    assert config.tie_word_embeddings == (factor == 32)
    assert config.rope_theta == (keys.get("rope_theta", 500000.0) or 10000.0)
    assert not MetaFormat().is_complete(tmp_path)


def test_what_was_assumed_before_the_weights_came_is_corrected(tmp_path):
    """Of a repository the small files are judged first; this model is not tied, and seems to be."""
    source = write_checkpoint(tmp_path / "hf", UNTIED)
    folder = from_hugging_face(source, tmp_path / "meta", vocab_size=-1)
    (folder / "consolidated.00.pth").rename(tmp_path / "later")
    early = describe(folder, with_weights=False)
    assert early.config.tie_word_embeddings
    (tmp_path / "later").rename(folder / "consolidated.00.pth")
    opened = open_source(ModelSource("meta", folder, None, None), early)
    assert not opened.config.tie_word_embeddings
    assert opened.info.config["tie_word_embeddings"] is False


@pytest.mark.parametrize(
    ("keys", "width"),
    [
        ({"dim": 2048, "ffn_dim_multiplier": 1.5, "multiple_of": 256}, 8192),
        ({"dim": 3072, "ffn_dim_multiplier": 1.0, "multiple_of": 256}, 8192),
        ({"dim": 4096, "ffn_dim_multiplier": 1.3, "multiple_of": 1024}, 14336),
        ({"dim": 4096, "multiple_of": 256}, 11008),
        ({"dim": 5120, "multiple_of": 256}, 13824),
        ({"dim": 8192, "ffn_dim_multiplier": 1.3, "multiple_of": 4096}, 28672),
        ({"dim": 2048, "hidden_dim": 6400}, 6400),
    ],
)
def test_the_width_of_the_feed_forward_layers(tmp_path, keys, width):
    from llama_export.checkpoints.meta_params import MetaParams

    path = tmp_path / "params.json"
    path.write_text(json.dumps({"n_layers": 2, "n_heads": 16} | keys))
    assert MetaParams.read(path).hidden_dim == width


def test_guards_spellings_are_read(tmp_path):
    from llama_export.checkpoints.meta_params import MetaParams

    path = tmp_path / "params.json"
    keys = {"dim": 2048, "n_layers": 12, "n_heads": 32, "hidden_dim": 6400, "rope_freq_base": 5e5}
    path.write_text(json.dumps(keys))
    assert MetaParams.read(path).rope_theta == 5e5


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_is_tied_where_it_is_the_table(tmp_path, tied):
    """Whether it shares the table's bytes, is a copy of them, or is left out."""
    config = TINY if tied else UNTIED
    folder = from_hugging_face(write_checkpoint(tmp_path / "hf", config), tmp_path / "meta")
    assert open_checkpoint(folder).config.tie_word_embeddings is tied
    path = folder / "consolidated.00.pth"
    state = torch.load(path, weights_only=True)
    state["output.weight"] = state["output.weight"].clone()
    torch.save(state, path)
    assert open_checkpoint(folder).config.tie_word_embeddings is tied
    if tied:
        del state["output.weight"]
        torch.save(state, path)
        assert open_checkpoint(folder).config.tie_word_embeddings


def test_a_vocabulary_of_unknown_size_is_the_tables(tmp_path):
    source = write_checkpoint(tmp_path / "hf", LLAMA_2)
    for number, table_dim in enumerate((0, 1)):
        folder = from_hugging_face(source, tmp_path / f"m{number}", 2, table_dim, vocab_size=-1)
        assert open_checkpoint(folder).config.vocab_size == LLAMA_2.vocab_size


def test_what_lies_beside_the_weights_is_passed_over(folder):
    path = folder / "consolidated.00.pth"
    state = torch.load(path, weights_only=True)
    state["rope.freqs"] = torch.ones(32)
    state["layers.0.attention.inner_attention.rope.freqs"] = torch.ones(32)
    torch.save({"model": state, "epoch": 3}, path)
    assert open_checkpoint(folder).names == HfCheckpoint.open(folder.parent / "hf").names


def test_the_places_of_metas_files(tmp_path, folder):
    """The folder, one of its files, a repository's subfolder; a tokenizer one level up."""
    inside = tmp_path / "repository" / "original"
    shutil.copytree(folder, inside)
    for path in (folder, folder / "consolidated.00.pth", inside, inside.parent):
        assert isinstance(find_format(path), MetaFormat)
        checkpoint = open_checkpoint(path)
        assert checkpoint.folder == path
        assert find_format(path).is_complete(path)
        assert find_format(path).read_tokenizer(path).vocab_size == TINY.vocab_size
    (inside / "tokenizer.model").rename(inside.parent / "tokenizer.model")
    assert find_format(inside).read_tokenizer(inside).vocab_size == TINY.vocab_size
    assert find_format(inside).tokenizer_bytes(inside) > 0
    renamed = folder / "model.pth"
    (folder / "consolidated.00.pth").rename(renamed)
    assert open_checkpoint(renamed).names == open_checkpoint(folder).names
    # Weights in the other layout count first.
    shutil.copyfile(tmp_path / "hf/model.safetensors", inside.parent / "model.safetensors")
    shutil.copyfile(tmp_path / "hf/config.json", inside.parent / "config.json")
    assert isinstance(find_format(inside.parent), HuggingFaceFormat)


def test_of_a_repository_metas_files_are_wanted_where_there_are_no_others():
    shards = ("consolidated.00.pth", "consolidated.01.pth")
    small = ("LICENSE", "params.json", "tokenizer.model")
    found = wanted_files({*shards, *small, "README.md", "other/params.json"})
    assert found == WantedFiles(small, shards, "params.json")
    original = tuple(f"original/{name}" for name in (*shards, "params.json", "tokenizer.model"))
    found = wanted_files({*original, "LICENSE", "config.json"})
    assert found == WantedFiles(("LICENSE", *original[2:]), original[:2], original[2])
    found = wanted_files({*original, "config.json", "model.safetensors"})
    assert found.last == "config.json"


def test_the_demo_in_metas_layout_gives_the_same_bytes(tmp_path):
    assert_same_bytes(tmp_path, ("onnx",))


@pytest.mark.slow
def test_the_demo_in_metas_layout_gives_the_same_bytes_on_the_other_targets(tmp_path):
    assert_same_bytes(tmp_path, ("executorch", "coreml"))


def assert_same_bytes(tmp_path, targets):
    """Name and notes go into bundles: here both have one name, and nothing is inferred."""
    found = []
    for place in ("hf", "meta"):
        folder = tmp_path / place / "tale"
        if place == "hf":
            names = ("config.json", "model.safetensors", "tokenizer.model")
            folder.mkdir(parents=True)
            for name in names:
                shutil.copyfile(DEMO_FOLDER / name, folder / name)
        else:
            from_hugging_face(DEMO_FOLDER, folder, 2, max_seq_len=2048, rope_scale_factor=32)
        out = tmp_path / place / "out"
        export_bundle(ExportRequest(str(folder), targets, out, verify=False), Silent())
        files = (path for path in out.rglob("*") if path.is_file())
        found.append({path.relative_to(out).as_posix(): path.read_bytes() for path in files})
    first, second = found
    assert set(first) == set(second)
    differing = sorted(name for name in first if first[name] != second[name])
    assert differing == []
    assert any(name.endswith("config.json") for name in first)


MEASURE = """
import sys
from pathlib import Path
import torch
from llama_export.checkpoints.formats import open_checkpoint
from llama_quantize import quantize_to, recipe

def anonymous():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Anonymous"))

class Peak:
    value = 0.0
    def __call__(self, done):
        self.value = max(self.value, anonymous())

checkpoint = open_checkpoint(Path(sys.argv[1]))
torch.ones(1000).max()
before, peak = anonymous(), Peak()
quantize_to(Path(sys.argv[2]), checkpoint, recipe("int4"), progress=peak)
print(checkpoint.size_bytes / 2**20, peak.value - before)
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="/proc is Linux only")
def test_shards_are_joined_row_by_row(tmp_path):
    """The table of 32 MB, in four shards, is never in memory whole."""
    config = dataclasses.replace(UNTIED, vocab_size=131072, num_hidden_layers=1)
    source = write_checkpoint(tmp_path / "hf", config)
    folder = from_hugging_face(source, tmp_path / "meta", 4)
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"},
    )
    size, anonymous = map(float, run.stdout.split())
    assert size > 60
    assert anonymous < 25
