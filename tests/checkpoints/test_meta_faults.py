"""Faults of checkpoints in Meta's layout are named, by the plan too; nothing in them runs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from artifacts.meta_layout import from_hugging_face
from artifacts.tiny import TINY, UNTIED, write_checkpoint

from llama_export.checkpoints.formats import find_format, open_checkpoint
from llama_export.errors import (
    CheckpointError,
    ConfigError,
    LlamaExportError,
    TokenizerError,
    UnsupportedModelError,
)
from llama_export.exporting.plan import plan_export
from llama_export.exporting.request import ExportRequest

SHARDS = 2
WQ, WK = "layers.0.attention.wq.weight", "layers.0.attention.wk.weight"


@pytest.fixture
def folder(tmp_path) -> Path:
    source = write_checkpoint(tmp_path / "hf", UNTIED)
    return from_hugging_face(source, tmp_path / "meta", SHARDS)


def refusal(folder: Path) -> LlamaExportError:
    """Open a checkpoint, and plan its export: both refuse it in the same words."""
    with pytest.raises(LlamaExportError) as caught:
        open_checkpoint(folder)
    with pytest.raises(LlamaExportError) as planned:
        plan_export(ExportRequest(str(folder), ("onnx",), folder.parent / "out"), to_show=True)
    assert str(planned.value) == str(caught.value)
    assert type(planned.value) is type(caught.value)
    assert caught.value.hint
    return caught.value


def shard(folder: Path, number: int = 0) -> Path:
    return folder / f"consolidated.{number:02}.pth"


def change(folder: Path, edit, number: int = 0) -> None:
    state = torch.load(shard(folder, number), weights_only=True)
    edit(state)
    torch.save(state, shard(folder, number))


def test_a_truncated_file_is_named(folder):
    content = shard(folder, 1).read_bytes()
    for length in (0, 4, 1000, len(content) // 2, len(content) - 1):
        shard(folder, 1).write_bytes(content[:length])
        error = refusal(folder)
        assert isinstance(error, CheckpointError)
        assert "consolidated.01.pth" in error.message
        assert not find_format(folder).is_complete(folder)


def test_a_missing_shard_is_named(folder):
    shard(folder, 0).unlink()
    assert "consolidated.00.pth is missing" in refusal(folder).message
    assert not find_format(folder).is_complete(folder)


def test_too_few_and_too_many_shards_are_counted(folder, tmp_path):
    shard(folder, 1).rename(tmp_path / "kept")
    error = refusal(folder)
    assert "1 shards hold 128 of the 256 rows" in error.message
    assert "expected 2 shards" in error.message
    assert not find_format(folder).is_complete(folder)
    for number in (1, 2):
        shutil.copyfile(tmp_path / "kept", shard(folder, number))
    assert "3 shards hold 384 of the 256 rows" in refusal(folder).message


def test_shards_of_two_models_are_told_apart(folder, tmp_path):
    other = from_hugging_face(write_checkpoint(tmp_path / "hf2", UNTIED, 7), tmp_path / "m2", 2)
    shutil.copyfile(shard(other, 1), shard(folder, 1))
    assert "differs between shard 0 and shard 1: they are of two models" in refusal(folder).message


def test_a_model_in_each_shard_is_no_split(folder, tmp_path):
    one = from_hugging_face(tmp_path / "hf", tmp_path / "one")
    for number in range(SHARDS):
        shutil.copyfile(shard(one), shard(folder, number))
    assert "2 shards hold 512 of the 256 rows" in refusal(folder).message


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda s: s.pop(WQ), "consolidated.00.pth holds no layers.0.attention.wq.weight"),
        (lambda s: s.pop("norm.weight"), "consolidated.00.pth holds no norm.weight"),
        (lambda s: s.update({"extra": torch.ones(2)}), "extra is not part of this model"),
        (lambda s: s.update({WK: s[WK].T.contiguous()}), "must be [128, 128] in all, found"),
        (lambda s: s.update({WQ: s[WQ].double()}), "in all, found 2 parts"),
        (lambda s: s.update({"norm.weight": torch.ones(64)}), "must be [128] by params.json"),
        (lambda s: s.update({WQ: s[WQ][:, :64].contiguous()}), "[128, 64] + [128, 128]"),
        (
            lambda s: s.update({WQ: torch.ones(1, 1).bfloat16().expand(128, 128)}),
            "not every number is stored",
        ),
        (lambda s: s.update({WQ: s[WQ].to_sparse()}), "not a plain tensor"),
        (lambda s: s.update({"epoch": 3}), "epoch is a int, not a plain tensor"),
    ],
)
def test_a_wrong_tensor_is_named(folder, edit, match):
    change(folder, edit)
    error = refusal(folder)
    assert isinstance(error, CheckpointError)
    assert match in error.message


def test_what_all_shards_hold_wrong_is_named(folder):
    for number in range(SHARDS):
        change(folder, lambda s: s.update({"extra.weight": torch.ones(2)}), number)
        change(folder, lambda s: s.update({WQ: s[WQ].double()}), number)
        change(folder, lambda s: s.pop("layers.1.feed_forward.w2.weight"), number)
    error = refusal(folder)
    assert "extra.weight is not part of this model" in error.message
    assert "layers.1.feed_forward.w2.weight is missing" in error.message
    assert f"{WQ} must be bfloat16 or float16 or float32, found float64" in error.message


def test_a_table_that_is_split_the_other_way_is_not_taken_for_this_one(tmp_path):
    """Llama 3 splits its table by rows, Llama 2 by columns; taken for each other, none fits."""
    from llama_export.checkpoints.meta_names import MetaTensor
    from llama_export.checkpoints.meta_shards import Shards, join

    source = write_checkpoint(tmp_path / "hf", UNTIED)
    shape = (UNTIED.vocab_size, UNTIED.hidden_size)
    for table_dim in (0, 1):
        folder = from_hugging_face(source, tmp_path / f"m{table_dim}", 2, table_dim)
        shards = Shards(folder, [shard(folder, 0), shard(folder, 1)])
        assert join(shards, MetaTensor("tok_embeddings.weight", shape, (0, 1))).dim == table_dim
        with pytest.raises(CheckpointError, match="in all, found 2 parts"):
            join(shards, MetaTensor("tok_embeddings.weight", shape, (1 - table_dim,)))


class Evil:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def test_a_pickle_that_would_run_a_program_is_refused(folder, tmp_path):
    change(folder, lambda s: s.update({"norm.weight": Evil(tmp_path / "ran")}))
    error = refusal(folder)
    assert "nothing of it was run" in error.message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("layers.0.feed_forward.experts.0.w1.weight", "a mixture of experts"),
        ("layers.0.feed_forward.gate.weight", "a mixture of experts"),
        ("layers.0.feed_forward.router_DE", "a mixture of experts"),
        ("vision_model.vision_encoder.conv1._linear.weight", "a model of text and images"),
        ("text_model.layers.0.attention.wq.weight", "a model of text and images"),
    ],
)
def test_tensors_of_another_architecture_are_named(folder, name, kind):
    for number in range(SHARDS):
        change(folder, lambda s: s.update({name: torch.ones(2)}), number)
    error = refusal(folder)
    assert isinstance(error, UnsupportedModelError)
    assert kind in error.message
    assert name in error.message


def test_names_of_other_layouts_are_shown(tmp_path, folder):
    from safetensors.torch import load_file

    for number in range(SHARDS):
        torch.save(load_file(tmp_path / "hf/model.safetensors"), shard(folder, number))
    error = refusal(folder)
    assert "holds no tok_embeddings.weight" in error.message
    assert "Hugging Face's names" in error.hint
    for number in range(SHARDS):
        torch.save({"module.tok_embeddings.weight": torch.ones(2)}, shard(folder, number))
    assert "called module.tok_embeddings.weight" in refusal(folder).message


def with_params(folder: Path, **keys: object) -> None:
    path = folder / "params.json"
    params = json.loads(path.read_text()) | keys
    path.write_text(json.dumps({key: value for key, value in params.items() if value != "none"}))


@pytest.mark.parametrize(
    ("keys", "kind", "match"),
    [
        ({"moe": {"num_experts": 8}}, UnsupportedModelError, "mixture of experts, such as Mixtral"),
        ({"moe_args": {}}, UnsupportedModelError, "mixture of experts, such as Llama 4"),
        ({"vision_chunk_size": 560}, UnsupportedModelError, "text and images, such as Llama 3.2"),
        ({"sliding_window": 4096}, UnsupportedModelError, "attention has a window"),
        ({"use_qk_norm": True}, UnsupportedModelError, "normalises queries and keys"),
        ({"soft_cap": 30.0}, UnsupportedModelError, "may change what is computed: soft_cap"),
        ({"dim": "none"}, ConfigError, "the key 'dim' is missing"),
        ({"n_layers": "none"}, ConfigError, "the key 'n_layers' is missing"),
        ({"dim": "128"}, ConfigError, "dim must be a whole number above 0, found '128'"),
        ({"dim": True}, ConfigError, "dim must be a whole number above 0"),
        ({"n_heads": 0}, ConfigError, "n_heads must be a whole number above 0"),
        ({"n_heads": 2**50}, ConfigError, "n_heads must be a whole number above 0"),
        ({"norm_eps": -1e-5}, ConfigError, "norm_eps must be a number above 0"),
        ({"use_scaled_rope": "yes"}, ConfigError, "use_scaled_rope must be true or false"),
        ({"n_heads": 3, "head_dim": "none"}, ConfigError, "dim 128 is no multiple of n_heads 3"),
        ({"n_layers": 3}, CheckpointError, "params.json says 3 layers"),
        ({"n_layers": 1}, CheckpointError, "params.json says 1 layers"),
        ({"multiple_of": 384}, CheckpointError, "w1.weight must be [384, 128] in all"),
        ({"vocab_size": 600}, CheckpointError, "tok_embeddings.weight must be [600, 128] in all"),
        ({"n_kv_heads": 4}, CheckpointError, "wk.weight must be [256, 128] in all"),
        ({"n_kv_heads": 3}, ConfigError, "must be a multiple of num_key_value_heads"),
    ],
)
def test_a_wrong_params_json_is_named(folder, keys, kind, match):
    with_params(folder, **keys)
    error = refusal(folder)
    assert isinstance(error, kind)
    assert match in error.message


@pytest.mark.parametrize("text", ["", "{", "[]", '{"dim": 1, "dim": 2}', '{"dim": NaN}'])
def test_a_damaged_params_json_is_named(folder, text):
    (folder / "params.json").write_text(text)
    error = refusal(folder)
    assert isinstance(error, ConfigError)
    assert "params.json cannot be read" in error.message


def test_keys_that_are_switched_off_are_passed_over(folder):
    with_params(folder, sliding_window=None, moe=None, vision_chunk_size=-1, max_batch_size=4)
    assert open_checkpoint(folder).names


def test_a_folder_without_weights_is_named(folder):
    for number in range(SHARDS):
        shard(folder, number).unlink()
    assert "no consolidated.00.pth" in refusal(folder).message


def test_several_files_of_any_names_have_to_be_named(folder):
    shard(folder, 0).rename(folder / "a.pth")
    shard(folder, 1).rename(folder / "b.pth")
    assert "holds several files of weights: a.pth, b.pth" in refusal(folder).message


def test_a_folder_without_a_tokenizer_is_named(folder):
    (folder / "tokenizer.model").unlink()
    with pytest.raises(TokenizerError, match="holds no tokenizer"):
        open_checkpoint(folder)


def test_a_value_that_is_not_finite_is_found_when_it_is_read(tmp_path):
    from llama_quantize import QuantizationError, quantize_to, recipe

    folder = from_hugging_face(write_checkpoint(tmp_path / "hf", TINY), tmp_path / "meta")
    change(folder, lambda s: s[WQ].__setitem__((5, 7), torch.nan))
    with pytest.raises(QuantizationError, match=r"q_proj\.weight: value nan"):
        quantize_to(tmp_path / "out", open_checkpoint(folder), recipe("int4"))
