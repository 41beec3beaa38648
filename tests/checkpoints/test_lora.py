"""LoRA adapters over a model: every weight is W + s B A, and what cannot be merged is refused."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from artifacts.adapters import PREFIX, low_rank, merged, modules_of, write_adapter
from artifacts.tiny import TINY, UNTIED, random_llama, write_checkpoint

from llama_export.checkpoints.checkpoint import ReadOptions
from llama_export.checkpoints.formats import (
    open_checkpoint,
    read_config,
    read_small_files,
    read_tokenizer,
)
from llama_export.checkpoints.lora_config import is_adapter
from llama_export.errors import CheckpointError, LlamaExportError, UnsupportedModelError
from llama_export.llama.names import HEAD, TABLE, expected_shapes
from llama_quantize.lazy import LazyTensor

QUERY = "model.layers.0.self_attn.q_proj"
SCALE = 2.0


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def untied(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("untied") / "model", UNTIED)


def weights_of(config) -> dict[str, torch.Tensor]:
    return dict(random_llama(config).state_dict())


def opened(base: Path, *adapters: Path):
    return open_checkpoint(base, options=ReadOptions(adapters=tuple(map(str, adapters))))


def values(checkpoint, name: str) -> torch.Tensor:
    tensor = checkpoint.tensor(name)
    if not isinstance(tensor, LazyTensor):
        return tensor.float()
    assert tensor.dtype is torch.float32
    # Rows are read in blocks, and by number.
    half = tensor.shape[0] // 2
    found = torch.cat([tensor[:half], tensor[torch.arange(half, tensor.shape[0])]])
    assert torch.equal(found, tensor.whole())
    return found


def require_equal(checkpoint, expected: dict[str, torch.Tensor]) -> None:
    assert set(checkpoint.names) == set(expected_shapes(checkpoint.config))
    for name in checkpoint.names:
        assert tuple(values(checkpoint, name).shape) == checkpoint.shapes[name]
        torch.testing.assert_close(values(checkpoint, name), expected[name], atol=1e-6, rtol=0)


def refusal(base: Path, *adapters: Path) -> LlamaExportError:
    with pytest.raises(LlamaExportError) as caught:
        opened(base, *adapters)
    assert caught.value.hint
    return caught.value


# What is merged.


def test_every_linear_is_merged_and_nothing_else_changes(base, tmp_path):
    tensors = low_rank(TINY, modules_of(TINY))
    adapter = write_adapter(tmp_path, tensors)
    checkpoint = opened(base, adapter)
    weights = weights_of(TINY)
    require_equal(checkpoint, merged(weights, tensors, SCALE))
    assert checkpoint.config == TINY
    assert checkpoint.notes == ()
    assert isinstance(checkpoint.tensor(f"{QUERY}.weight"), LazyTensor)
    assert checkpoint.tensor(TABLE).dtype is torch.bfloat16, "what has no update stays as it is"
    # The update is not so small that a comparison would not see it.
    change = values(checkpoint, f"{QUERY}.weight") - weights[f"{QUERY}.weight"]
    assert change.abs().max() > 0.1
    size = sum(t.row_bytes * t.shape[0] if isinstance(t, LazyTensor) else t.nbytes
               for t in map(checkpoint.tensor, checkpoint.names))  # fmt: skip
    assert checkpoint.size_bytes == size, "so that progress ends at its end"
    checkpoint.release()
    assert values(checkpoint, f"{QUERY}.weight").shape == (256, 128)


@pytest.mark.parametrize(
    ("keys", "scale"),
    [
        ({"lora_alpha": 16}, 4.0),
        ({"use_rslora": True}, 8 / math.sqrt(4)),
        ({"alpha_pattern": {"q_proj": 12}}, 3.0),
        ({"alpha_pattern": {r"layers\.\d+\.self_attn\.q_proj": 12}}, 3.0),
        ({"alpha_pattern": {"_proj": 12, "k_proj": 4}}, 2.0),
    ],
)
def test_scales(base, tmp_path, keys, scale):
    tensors = low_rank(TINY, [QUERY])
    checkpoint = opened(base, write_adapter(tmp_path, tensors, **keys))
    require_equal(checkpoint, merged(weights_of(TINY), tensors, scale))


def test_a_rank_of_its_own(base, tmp_path):
    key, value = QUERY, "model.layers.1.self_attn.v_proj"
    tensors = {**low_rank(TINY, [key], rank=2), **low_rank(TINY, [value], rank=4, seed=1)}
    adapter = write_adapter(tmp_path, tensors, rank_pattern={"layers.0.self_attn.q_proj": 2})
    expected = merged(weights_of(TINY), low_rank(TINY, [key], rank=2), 4.0)
    require_equal(
        opened(base, adapter), merged(expected, low_rank(TINY, [value], rank=4, seed=1), 2.0)
    )


def test_dora(base, tmp_path):
    tensors = low_rank(TINY, [QUERY])
    magnitude = torch.rand(256) + 0.5
    adapter = write_adapter(
        tmp_path,
        {**tensors, f"{PREFIX}{QUERY}.lora_magnitude_vector": magnitude},
        use_dora=True,
    )
    expected = merged(weights_of(TINY), tensors, SCALE)
    name = f"{QUERY}.weight"
    expected[name] = magnitude[:, None] * expected[name] / expected[name].norm(dim=1, keepdim=True)
    require_equal(opened(base, adapter), expected)


def test_several_in_a_row_are_merged_in_their_order(base, tmp_path):
    first, second = low_rank(TINY, [QUERY]), low_rank(TINY, [QUERY], seed=7)
    whole = {f"{PREFIX}{QUERY}.weight": torch.randn(256, 128)}
    one = write_adapter(tmp_path / "one", first)
    two = write_adapter(tmp_path / "two", second, lora_alpha=4)
    three = write_adapter(tmp_path / "three", whole)
    both = merged(merged(weights_of(TINY), first, 2.0), second, 1.0)
    require_equal(opened(base, one, two), both)
    name = f"{QUERY}.weight"
    replaced = {**weights_of(TINY), name: whole[f"{PREFIX}{name}"]}
    require_equal(opened(base, one, three, two), merged(replaced, second, 1.0))


def test_modules_saved_whole_take_the_model_s_place_and_untie_it(base, tmp_path):
    table = torch.randn(TINY.vocab_size, 128)
    adapter = write_adapter(tmp_path, {f"{PREFIX}model.embed_tokens.weight": table})
    checkpoint = opened(base, adapter)
    weights = weights_of(TINY)
    assert not checkpoint.config.tie_word_embeddings
    assert checkpoint.tied == {}
    require_equal(checkpoint, {**weights, TABLE: table, HEAD: weights[TABLE]})
    assert "two tensors" in checkpoint.notes[0]
    assert read_config(base, ReadOptions(adapters=(str(adapter),))) == checkpoint.config


def test_a_grown_vocabulary(base, untied, tmp_path):
    grown = TINY.vocab_size + 8
    saved = {
        f"{PREFIX}model.embed_tokens.weight": torch.randn(grown, 128),
        f"{PREFIX}lm_head.weight": torch.randn(grown, 128),
    }
    both = write_adapter(tmp_path / "both", saved)
    for model in (base, untied):
        checkpoint = opened(model, both)
        assert checkpoint.config == replace(UNTIED, vocab_size=grown)
        plain = {key.removeprefix(PREFIX): value for key, value in saved.items()}
        require_equal(checkpoint, {**weights_of(UNTIED), **weights_of(TINY), **plain})
    saved.popitem()
    error = refusal(base, write_adapter(tmp_path / "one", saved))
    assert f"{TABLE} has {grown} rows and {HEAD} has {TINY.vocab_size}" in error.message
    assert "modules_to_save" in error.hint


def test_a_table_that_is_saved_three_times_counts_as_peft_loads_it(untied, tmp_path):
    """Of a table that has grown peft writes the trained one twice, and the one before it too."""
    trained, before = torch.randn(TINY.vocab_size, 128), torch.zeros(TINY.vocab_size, 128)
    for names in (("weight", "modules_to_save.weight"), ("modules_to_save.default.weight",)):
        saved = {f"{PREFIX}lm_head.original_module.weight": before}
        # Where the trained ones differ, peft loads the plain name's.
        for name, value in zip(names, (trained, trained + 1), strict=False):
            saved[f"{PREFIX}lm_head.{name}"] = value
        checkpoint = opened(untied, write_adapter(tmp_path / names[0], saved))
        assert torch.equal(values(checkpoint, HEAD), trained)


def test_the_table_and_the_head_may_have_low_rank_updates(base, untied, tmp_path):
    tensors = low_rank(UNTIED, ["model.embed_tokens", "lm_head"])
    adapter = write_adapter(tmp_path / "a", tensors)
    require_equal(opened(untied, adapter), merged(weights_of(UNTIED), tensors, SCALE))
    tied = weights_of(TINY)
    require_equal(opened(base, adapter), merged({**tied, HEAD: tied[TABLE]}, tensors, SCALE))
    # peft saves the table that it was trained on beside them.
    own = torch.randn(UNTIED.vocab_size, 128)
    with_table = {**tensors, f"{PREFIX}model.embed_tokens.base_layer.weight": own}
    expected = merged({**weights_of(UNTIED), TABLE: own}, tensors, SCALE)
    require_equal(opened(untied, write_adapter(tmp_path / "b", with_table)), expected)


def test_a_base_whose_rows_are_computed_is_merged_too(base, tmp_path, monkeypatch):
    """As a GGUF's or Meta's are: rows of W come as they are asked for, by slice and by number."""
    from llama_export.checkpoints.hugging_face import HfCheckpoint

    whole = HfCheckpoint.tensor

    def lazy(self, name: str) -> LazyTensor:
        tensor = whole(self, name)
        shape, row = tuple(tensor.shape), tensor[:1].nbytes
        return LazyTensor(shape, torch.float32, row, lambda rows: tensor[rows].float())

    tensors = low_rank(TINY, [QUERY])
    adapter = write_adapter(tmp_path, tensors)
    monkeypatch.setattr(HfCheckpoint, "tensor", lazy)
    require_equal(opened(base, adapter), merged(weights_of(TINY), tensors, SCALE))


def test_a_pickled_adapter_is_read_as_tensors_alone(base, tmp_path):
    tensors = low_rank(TINY, [QUERY])
    adapter = write_adapter(tmp_path, tensors)
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(tensors, adapter / "adapter_model.bin")
    require_equal(opened(base, adapter), merged(weights_of(TINY), tensors, SCALE))
    torch.save({"x": Path}, adapter / "adapter_model.bin")
    assert "nothing of it was run" in refusal(base, adapter).message


def test_a_state_dict_with_the_adapter_s_own_name_is_read(base, tmp_path):
    """DeepSpeed's script writes such keys."""
    tensors = low_rank(TINY, [*modules_of(TINY), "lm_head", "model.embed_tokens"])
    expected = opened(base, write_adapter(tmp_path / "one", tensors))
    named = {
        re.sub(r"(lora_[AB])(\.weight)$|(lora_embedding_[AB])$", r"\1\3.default\2", key): value
        for key, value in tensors.items()
    }
    assert not named.keys() & tensors.keys()
    found = opened(base, write_adapter(tmp_path / "two", named))
    for name in expected.names:
        assert torch.equal(values(found, name), values(expected, name)), name


@pytest.mark.parametrize(
    ("put", "maker"),
    [("_orig_mod.model.", "torch.compile"), ("model.language_model.", "a larger model")],
)
def test_what_stands_around_an_adapter_s_names_is_named(base, tmp_path, put, maker):
    tensors = {
        key.replace("base_model.model.model.", f"base_model.model.{put}"): value
        for key, value in low_rank(TINY, modules_of(TINY)).items()
    }
    adapter = write_adapter(tmp_path / "adapter", tensors)
    with pytest.raises(CheckpointError, match=f"changes {put}layers.*{maker}") as caught:
        opened(base, adapter)
    assert "take that part out" in caught.value.hint


def test_a_pointer_in_place_of_an_adapter_is_named(base, tmp_path):
    adapter = write_adapter(tmp_path / "adapter", low_rank(TINY, modules_of(TINY)))
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:7\nsize 9\n"
    (adapter / "optimizer.pt").write_text(pointer)
    opened(base, adapter)
    (adapter / "adapter_model.safetensors").write_text(pointer)
    with pytest.raises(CheckpointError, match=r"pointers in place of files: adapter_model\.saf"):
        opened(base, adapter)


def test_zero_biases_of_peft_fall(base, tmp_path):
    tensors = {**low_rank(TINY, [QUERY]), f"{PREFIX}{QUERY}.bias": torch.zeros(256)}
    adapter = write_adapter(tmp_path / "a", tensors, bias="lora_only")
    require_equal(opened(base, adapter), merged(weights_of(TINY), tensors, SCALE))
    tensors[f"{PREFIX}{QUERY}.bias"][3] = 1
    error = refusal(base, write_adapter(tmp_path / "b", tensors, bias="lora_only"))
    assert f"the model has no {QUERY}.bias" in error.message


@pytest.mark.filterwarnings("ignore")  # of the libraries' own, about their next versions
def test_merged_weights_equal_those_of_peft(base, tmp_path):
    """The oracle: peft merges the same adapter, over the same model in float32."""
    peft = pytest.importorskip("peft", reason="needs peft, the oracle of merging")
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    model = transformers.LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    for kind in ({}, {"use_rslora": True}, {"use_dora": True}, {"rank_pattern": {"q_proj": 3}}):
        torch.manual_seed(1)
        chosen = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"], **kind)
        wrapped = peft.get_peft_model(model, chosen)
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name and "magnitude" not in name:
                torch.nn.init.normal_(parameter, std=0.1)
        wrapped.save_pretrained(tmp_path / "peft")
        checkpoint = opened(base, tmp_path / "peft")
        wrapped.merge_adapter()
        for module in ("layers.0.self_attn.q_proj", "layers.1.mlp.down_proj"):
            expected = wrapped.get_submodule(f"base_model.model.model.{module}").base_layer.weight
            found = values(checkpoint, f"model.{module}.weight")
            torch.testing.assert_close(found, expected.detach(), atol=1e-6, rtol=0)
        wrapped.unmerge_adapter()
        model = wrapped.unload()


@pytest.mark.filterwarnings("ignore")
def test_new_tokens_trained_with_the_table_equal_those_of_peft(untied, tmp_path):
    peft = pytest.importorskip("peft", reason="needs peft, the oracle of merging")
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    model = transformers.LlamaForCausalLM.from_pretrained(untied, dtype=torch.float32)
    model.resize_token_embeddings(TINY.vocab_size + 3)
    whole = ["embed_tokens", "lm_head"]
    chosen = peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=whole)
    wrapped = peft.get_peft_model(model, chosen)
    for name, parameter in wrapped.named_parameters():
        if "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    wrapped.save_pretrained(tmp_path / "peft")
    checkpoint = opened(untied, tmp_path / "peft")
    expected = wrapped.merge_and_unload().state_dict()
    for name in (TABLE, HEAD):
        torch.testing.assert_close(values(checkpoint, name), expected[name], atol=0, rtol=0)


# The small files.


def test_an_adapter_s_tokenizer_counts_before_the_base_s(base, tmp_path):
    plain = write_adapter(tmp_path / "plain", low_rank(TINY, [QUERY]))
    own = write_adapter(tmp_path / "own", low_rank(TINY, [QUERY]))
    (own / "tokenizer.model").write_bytes((base / "tokenizer.model").read_bytes())
    (own / "tokenizer_config.json").write_text('{"eos_token": "x", "chat_template": "own"}')
    (plain / "chat_template.jinja").write_text("not read: it is no tokenizer's")
    for order in ((plain, own), (own, plain)):
        options = ReadOptions(adapters=tuple(map(str, order)))
        assert read_small_files(base, options).chat_templates == {"default": "own"}
        assert read_tokenizer(base, options).vocab_size == TINY.vocab_size
    only = ReadOptions(adapters=(str(plain),))
    assert read_small_files(base, only) == read_small_files(base)


def test_an_adapter_s_folder_is_told_from_a_model_s(base, tmp_path):
    adapter = write_adapter(tmp_path, low_rank(TINY, [QUERY]))
    assert is_adapter(adapter)
    (adapter / "config.json").write_bytes((base / "config.json").read_bytes())
    assert is_adapter(adapter), "trainers put it there"
    (adapter / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes())
    assert not is_adapter(adapter), "a merged model that kept its adapter_config.json"
    assert not is_adapter(base)


# What is refused.


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"peft_type": "IA3"}, "of the kind IA3"),
        ({"peft_type": "PROMPT_TUNING"}, "of the kind PROMPT_TUNING"),
        ({"task_type": "SEQ_CLS"}, "for the task SEQ_CLS"),
        ({"fan_in_fan_out": True}, "transposed weights"),
        ({"lora_bias": True}, "biases of its own"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "repeats layers"),
        ({"trainable_token_indices": [1, 2]}, "single rows of the token table"),
        ({"init_lora_weights": "pissa_niter_16"}, "changes the base's own weights"),
        ({"init_lora_weights": "olora"}, "changes the base's own weights"),
        ({"some_new_option": {"a": 1}}, "some_new_option"),
    ],
)
def test_adapters_of_other_kinds_are_refused_by_name(base, tmp_path, keys, match):
    error = refusal(base, write_adapter(tmp_path, low_rank(TINY, [QUERY]), **keys))
    assert isinstance(error, UnsupportedModelError)
    assert match in error.message


@pytest.mark.parametrize(
    "keys",
    [
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": False},
        {"loftq_config": {}, "megatron_core": "megatron.core", "use_qalora": False},
        {"task_type": None, "eva_config": {"rho": 2.0}, "runtime_config": {"x": False}},
    ],
)
def test_options_that_change_nothing_are_passed_over(base, tmp_path, keys):
    assert opened(base, write_adapter(tmp_path, low_rank(TINY, [QUERY]), **keys))


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"r": 0}, "r must be a rank"),
        ({"lora_alpha": "8"}, "lora_alpha must be a number"),
        ({"rank_pattern": [1]}, "an object of patterns"),
        ({"alpha_pattern": {"(a+)+b": 1}}, "plain patterns"),
        ({"alpha_pattern": {"[": 1}}, "patterns of modules' names"),
        ({"alpha_pattern": {".*.*.*.*q": 1}}, "at most 3 repeats"),
        ({"alpha_pattern": {"q" * 201: 1}}, "plain patterns"),
        ({"base_model_name_or_path": 3}, "must be text"),
        ({"r": 5}, "must be [5, 128], found [4, 128]"),
    ],
)
def test_damaged_configs_are_refused(base, tmp_path, keys, match):
    assert match in refusal(base, write_adapter(tmp_path, low_rank(TINY, [QUERY]), **keys)).message


def test_an_adapter_of_another_model_is_refused_with_both_names(base, tmp_path):
    wide = replace(TINY, hidden_size=256, num_hidden_layers=3)
    tensors = low_rank(wide, modules_of(wide, ("self_attn.q_proj",)))
    error = refusal(base, write_adapter(tmp_path, tensors, base="meta-llama/Other"))
    assert str(base) in error.message
    assert "trained on meta-llama/Other" in error.message
    assert f"{QUERY}.lora_A.weight must be [4, 128], found [4, 256]" in error.message
    assert "the model has no model.layers.2.self_attn.q_proj.weight" in error.message
    assert "--base" in error.hint


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.popitem(), "lora_A.weight has no lora_B beside it"),
        (lambda t: t.update({f"{PREFIX}{QUERY}.lora_C.weight": torch.ones(1)}), "lora_C"),
        (
            lambda t: t.update({f"{QUERY}.lora_A.weight": torch.ones(1)}),
            "how to merge that is not known",
        ),
        (
            lambda t: t.update({f"{PREFIX}{QUERY}.lora_A.weight": torch.ones(4, 128).int()}),
            "I32, not floats",
        ),
        (
            lambda t: t.update({f"{PREFIX}{TABLE[:-7]}.token_adapter.delta": torch.ones(4, 128)}),
            "token_adapter",
        ),
        (lambda t: t.clear(), "holds no tensor"),
        (
            lambda t: t.update({f"{PREFIX}{QUERY}.lora_A.default.weight": torch.ones(4, 128)}),
            "of which one is meant",
        ),
        (
            lambda t: t.update({f"{PREFIX}lm_head.original_module.weight": torch.ones(4, 128)}),
            "before the training",
        ),
    ],
)
def test_damaged_adapters_are_refused(base, tmp_path, change, match):
    tensors = low_rank(TINY, [QUERY])
    change(tensors)
    assert match in refusal(base, write_adapter(tmp_path, tensors)).message


def test_files_that_are_missing_or_truncated_are_named(base, tmp_path):
    adapter = write_adapter(tmp_path, low_rank(TINY, [QUERY]))
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "truncated" in refusal(base, adapter).message
    weights.unlink()
    assert "has no adapter_model.safetensors" in refusal(base, adapter).message
    (adapter / "adapter_config.json").write_text("{")
    assert "adapter_config.json cannot be read" in refusal(base, adapter).message


def test_quantised_weights_take_no_adapter(base, tmp_path):
    from llama_quantize.checkpoint.store import quantize_to
    from llama_quantize.recipe import recipe

    kept = tmp_path / "weights"
    quantize_to(kept, open_checkpoint(base), recipe("int4"))
    (kept / "config.json").write_bytes((base / "config.json").read_bytes())
    error = refusal(kept, write_adapter(tmp_path / "a", low_rank(TINY, [QUERY])))
    assert isinstance(error, CheckpointError)
    assert "16-bit model" in error.hint


def test_a_nan_in_an_adapter_is_named_by_the_quantiser(base, tmp_path):
    from llama_quantize.checkpoint.store import quantize_to
    from llama_quantize.errors import QuantizationError
    from llama_quantize.recipe import recipe

    tensors = low_rank(TINY, [QUERY])
    tensors[f"{PREFIX}{QUERY}.lora_B.weight"][17, 0] = math.nan
    checkpoint = opened(base, write_adapter(tmp_path / "a", tensors))
    with pytest.raises(QuantizationError, match=f"{QUERY}.weight") as caught:
        quantize_to(tmp_path / "weights", checkpoint, recipe("int4"))
    assert "17" in caught.value.message


def test_the_config_of_an_adapter_is_strict_json(base, tmp_path):
    adapter = write_adapter(tmp_path, low_rank(TINY, [QUERY]))
    text = json.dumps({"peft_type": "LORA"})
    (adapter / "adapter_config.json").write_text(text[:-1] + ', "peft_type": "LORA"}')
    assert "given twice" in refusal(base, adapter).message
