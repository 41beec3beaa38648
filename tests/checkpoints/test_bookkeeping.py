"""Weight files as people have them: what transformers reads is read, and the rest is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from artifacts.tiny import TINY, UNTIED, random_llama, write_checkpoint
from safetensors.torch import load_file, save_file

from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.checkpoints.hugging_face_files import INDEX_FILE, SINGLE_FILE
from llama_export.errors import CheckpointError
from llama_export.llama.names import HEAD, TABLE

QUERY = "model.layers.0.self_attn.q_proj.weight"
NORM = "model.norm.weight"
PARTS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def rewrite(folder: Path, change: Callable[[dict], object]) -> Path:
    state = {name: value.clone() for name, value in load_file(folder / SINGLE_FILE).items()}
    changed = change(state)
    save_file(changed if isinstance(changed, dict) else state, folder / SINGLE_FILE)
    return folder


def refusal(folder: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        HfCheckpoint.open(folder)
    assert "download" not in caught.value.hint, "the files are whole"
    return caught.value


def is_whole(checkpoint: HfCheckpoint, config=TINY) -> bool:
    state = random_llama(config).state_dict()
    return all(
        torch.equal(checkpoint.tensor(name).float(), state[name]) for name in checkpoint.names
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_checkpoint(tmp_path / "model")


def in_two(folder: Path, both: dict[str, torch.Tensor] | None = None) -> dict[str, str]:
    """Split the single file; tensors of `both` go into the part that should not hold them too."""
    state = load_file(folder / SINGLE_FILE)
    halves = [{name: state[name].clone() for name in sorted(state)[half::2]} for half in (0, 1)]
    index = {name: PARTS[half] for half in (0, 1) for name in halves[half]}
    for name, value in (both or {}).items():
        halves[1 - PARTS.index(index[name])][name] = value
    for part, half in zip(PARTS, halves, strict=True):
        save_file(half, folder / part)
    (folder / SINGLE_FILE).unlink()
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return index


def write_index(folder: Path, index: dict[str, str]) -> None:
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": index}))


# Files.


def test_names_in_an_index_that_no_part_holds_are_passed_over(folder):
    index = in_two(folder)
    write_index(
        folder, {**index, "model.layers.0.self_attn.rotary_emb.inv_freq": PARTS[0], "x": PARTS[1]}
    )
    checkpoint = HfCheckpoint.open(folder)
    assert is_whole(checkpoint)
    assert checkpoint.notes == ()


def test_tensors_that_the_index_leaves_out_or_puts_elsewhere_are_found(folder):
    index = in_two(folder)
    del index[NORM]
    index[QUERY] = PARTS[1 - PARTS.index(index[QUERY])]
    write_index(folder, index)
    assert is_whole(HfCheckpoint.open(folder))


@pytest.mark.parametrize("name", [QUERY, NORM, TABLE])
def test_the_index_decides_where_a_tensor_is_in_two_parts(folder, name):
    """Whichever of the two parts is read first: these tensors lie in different ones."""
    wrong = torch.zeros_like(load_file(folder / SINGLE_FILE)[name])
    index = in_two(folder, both={name: wrong})
    assert is_whole(HfCheckpoint.open(folder))
    index[name] = PARTS[1 - PARTS.index(index[name])]
    write_index(folder, index)
    assert bool((HfCheckpoint.open(folder).tensor(name) == 0).all())


def test_the_index_may_spell_a_part_with_other_capitals(folder):
    index = in_two(folder)
    write_index(folder, {name: part.replace("model", "Model") for name, part in index.items()})
    assert is_whole(HfCheckpoint.open(folder))


def test_files_that_are_not_read_do_no_harm(folder):
    for name in (*PARTS, "consolidated.safetensors", "pytorch_model.bin", "optimizer.pt"):
        (folder / name).write_bytes(b"x")
    checkpoint = HfCheckpoint.open(folder)
    assert is_whole(checkpoint)
    assert checkpoint.notes == ()


@pytest.mark.parametrize("name", ["tiny-llama.safetensors", "model-00001-of-00001.safetensors"])
def test_the_only_file_may_have_another_name(folder, name):
    (folder / SINGLE_FILE).rename(folder / name)
    save_file({"a": torch.ones(1)}, folder / "adapter_model.safetensors")
    checkpoint = HfCheckpoint.open(folder)
    assert is_whole(checkpoint)
    assert name in checkpoint.notes[0]


def test_two_files_of_other_names_are_refused_by_name(folder):
    for name in ("a.safetensors", "b.safetensors"):
        (folder / name).write_bytes((folder / SINGLE_FILE).read_bytes())
    (folder / SINGLE_FILE).unlink()
    with pytest.raises(CheckpointError, match="has no weights") as caught:
        HfCheckpoint.open(folder)
    assert "a.safetensors, b.safetensors" in caught.value.hint


# Names.


def test_the_inner_model_saved_alone_is_read(folder):
    rewrite(folder, lambda s: {name.removeprefix("model."): value for name, value in s.items()})
    assert is_whole(HfCheckpoint.open(folder))


def test_the_inner_model_of_an_untied_one_lacks_its_head(tmp_path):
    folder = write_checkpoint(tmp_path, UNTIED)
    rewrite(
        folder,
        lambda s: {name.removeprefix("model."): v for name, v in s.items() if name != HEAD},
    )
    error = refusal(folder)
    assert f"{HEAD} is missing" in error.message
    assert "set tie_word_embeddings to true" in error.hint
    assert "LlamaForCausalLM" in error.hint


@pytest.mark.parametrize("tied", [False, None])
def test_a_model_without_a_head_says_what_to_set(folder, tied):
    raw = json.loads((folder / "config.json").read_text())
    raw["tie_word_embeddings"] = tied
    if tied is None:
        del raw["tie_word_embeddings"]
    (folder / "config.json").write_text(json.dumps(raw))
    error = refusal(folder)
    assert error.message.count("\n") == 1
    assert "set tie_word_embeddings to true in config.json" in error.hint


@pytest.mark.parametrize(
    ("prefix", "maker", "hint"),
    [
        ("_orig_mod.", "torch.compile", "_orig_mod"),
        ("module.", "DataParallel", "model.module"),
        ("base_model.model.", "PEFT", "merge the adapter first"),
        ("model.language_model.", "larger model", "language model alone"),
        ("module._orig_mod.", "torch.compile", "_orig_mod"),
        ("pretrained_model.", "TRL", "model.pretrained_model"),
        ("strange.", "all that is missing stands under strange.", "take that part out"),
    ],
)
def test_prefixes_are_named_with_what_wrote_them(folder, prefix, maker, hint):
    rewrite(folder, lambda s: {f"{prefix}{name}": value for name, value in s.items()})
    error = refusal(folder)
    assert f"{prefix}model.embed_tokens.weight" in error.message, "a name that IS there"
    assert maker in error.message
    assert hint in error.hint


def test_a_prefix_in_the_middle_is_named(folder):
    rewrite(
        folder,
        lambda s: {
            name.replace("layers.0.", "layers.0._checkpoint_wrapped_module."): value
            for name, value in s.items()
        },
    )
    error = refusal(folder)
    assert "_checkpoint_wrapped_module" in error.message
    assert "full state dict" in error.hint


@pytest.mark.parametrize(
    ("rename", "what"),
    [
        (lambda n: n.replace("self_attn.q_proj", "attention.wq").removeprefix("model."), "Meta"),
        (lambda n: n.replace("self_attn.q_proj", "self_attn.qkv_proj"), "several matrices"),
        (lambda n: n.replace("model.layers", "transformer.h"), "GPT-2"),
        (lambda n: n.replace("q_proj.weight", "q_proj.base_layer.weight"), "not merged"),
        (lambda n: n.replace("mlp.up_proj", "block_sparse_moe.experts.0.w1"), "experts"),
        (lambda n: n.replace("q_proj.weight", "q_proj.qweight"), "quantised weights"),
    ],
)
def test_names_of_other_layouts_are_named(folder, rename, what):
    rewrite(folder, lambda s: {rename(name): value for name, value in s.items()})
    assert what in refusal(folder).message


# Tensors that the model does not have.


HARMLESS = {
    "v_head.summary.weight": torch.ones(1, 128),
    "v_head.summary.bias": torch.ones(1),
    "score.weight": torch.ones(2, 128),
    "classifier.bias": torch.ones(2),
}


def test_extra_heads_are_passed_over_and_named(folder):
    rewrite(folder, lambda s: s.update(HARMLESS))
    checkpoint = HfCheckpoint.open(folder)
    assert is_whole(checkpoint)
    assert len(checkpoint.notes) == 1
    assert all(name in checkpoint.notes[0] for name in HARMLESS)


def test_buffers_of_old_versions_are_passed_over_in_silence(folder):
    buffers = (
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.layers.1.self_attn.rotary_emb.cos_cached",
        "model.rotary_emb.original_inv_freq",
        "model.layers.0.self_attn.masked_bias",
    )
    rewrite(folder, lambda s: s.update({name: torch.ones(32) for name in buffers}))
    checkpoint = HfCheckpoint.open(folder)
    assert is_whole(checkpoint)
    assert checkpoint.notes == ()


def test_layers_beyond_the_count_are_passed_over_and_named(folder):
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "num_hidden_layers": 1}))
    checkpoint = HfCheckpoint.open(folder)
    assert not any("layers.1" in name for name in checkpoint.names)
    assert "config.json says 1 layers: model.layers.1." in checkpoint.notes[0]
    assert "5 more" in checkpoint.notes[0]


BIASES = (
    "model.layers.0.self_attn.q_proj.bias",
    "model.layers.1.mlp.down_proj.bias",
    "lm_head.bias",
)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_biases_that_are_zero_change_nothing(folder, dtype):
    rewrite(
        folder, lambda s: s.update({name: torch.zeros(300_000, dtype=dtype) for name in BIASES})
    )
    checkpoint = HfCheckpoint.open(folder)
    assert is_whole(checkpoint)
    assert not set(BIASES) & set(checkpoint.names)


@pytest.mark.parametrize("name", BIASES)
def test_a_bias_that_is_not_zero_is_refused(folder, name):
    def spoil(state: dict) -> None:
        state |= {each: torch.zeros(300_000) for each in BIASES}
        state[name][-1] = 1e-30

    error = refusal(rewrite(folder, spoil))
    assert f"{name} is not zero" in error.message
    assert error.message.count("\n") == 1
    assert "attention_bias" in error.hint


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("model.layers.0.self_attn.q_norm.weight", "norms of queries"),
        ("model.layers.0.mlp.experts.3.up_proj.weight", "experts"),
        ("model.layers.0.self_attn.q_proj.lora_A.weight", "not merged"),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", "not merged"),
        ("model.embed_positions.weight", "not part of this model"),
        ("model.layers.0.input_layernorm.scale", "not part of this model"),
    ],
)
def test_what_would_change_the_result_is_refused(folder, name, what):
    rewrite(folder, lambda s: s.update({name: torch.ones(4)}))
    error = refusal(folder)
    assert what in error.message
    assert name in error.message


def test_float64_becomes_float32(folder):
    rewrite(folder, lambda s: s.update({QUERY: s[QUERY].double()}))
    checkpoint = HfCheckpoint.open(folder)
    assert checkpoint.tensor(QUERY).dtype is torch.float32
    assert is_whole(checkpoint)


def merged_types(state: dict) -> None:
    state[QUERY] = state[QUERY].double()
    state[HEAD] = state[TABLE].float()


VARIANTS: dict[str, Callable[[Path], object]] = {
    "the inner model alone": lambda folder: rewrite(
        folder, lambda s: {name.removeprefix("model."): value for name, value in s.items()}
    ),
    "extra heads": lambda folder: rewrite(folder, lambda s: s.update(HARMLESS)),
    "other types": lambda folder: rewrite(folder, merged_types),
    "zero biases": lambda folder: rewrite(
        folder, lambda s: s.update({name: torch.zeros(256) for name in BIASES})
    ),
    "fewer layers in the config": lambda folder: (folder / "config.json").write_text(
        json.dumps({**json.loads((folder / "config.json").read_text()), "num_hidden_layers": 1})
    ),
    "two parts and stale names": lambda folder: write_index(
        folder, {**in_two(folder), "model.rotary_emb.inv_freq": PARTS[0]}
    ),
    "a pickle": lambda folder: (
        torch.save(load_file(folder / SINGLE_FILE), folder / "pytorch_model.bin"),
        (folder / SINGLE_FILE).unlink(),
    ),
}


@pytest.mark.filterwarnings("ignore")  # of the library's own, about its next version
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_tensors_are_read_as_by_transformers(folder, variant):
    """The oracle loads each of these folders, and so must we, to the bit."""
    transformers = pytest.importorskip("transformers", reason="needs transformers, the oracle")
    VARIANTS[variant](folder)
    oracle = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    theirs = oracle.state_dict()
    checkpoint = HfCheckpoint.open(folder)
    assert set(checkpoint.names) == set(theirs) - {HEAD}
    for name in checkpoint.names:
        assert torch.equal(checkpoint.tensor(name).float(), theirs[name]), name
