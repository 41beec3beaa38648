"""A pruned head has the rows of its tokens, in their order, whatever form the model comes in."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from artifacts.adapters import low_rank, write_adapter
from artifacts.gguf_files import write_gguf
from artifacts.meta_int4 import write_spinquant
from artifacts.tiny import TINY, UNTIED, write_checkpoint

from llama_export.checkpoints.checkpoint import AS_IT_IS, ReadOptions
from llama_export.checkpoints.formats import open_checkpoint, reading_of
from llama_export.checkpoints.pruned_head import PrunedHead
from llama_export.errors import CheckpointError, ConfigError
from llama_export.llama.config import LlamaConfig
from llama_export.llama.names import HEAD, TABLE
from llama_export.llama.streamed import reference_logits, whole
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.lazy import LazyTensor
from llama_quantize.recipe import recipe
from llama_quantize.tensor import QuantizedTensor

IDS = (3, 97, 115, 257)


def pruned(config: LlamaConfig, ids=IDS) -> LlamaConfig:
    return replace(config, head_tokens=ids, tie_word_embeddings=False)


def opened(path, options=AS_IT_IS):
    config = open_checkpoint(path, options=options).config
    return open_checkpoint(path, pruned(config), options)


@pytest.mark.parametrize("config", [TINY, UNTIED], ids=["tied", "untied"])
def test_logits_are_those_of_the_whole_head_at_the_kept_ids(tmp_path, config):
    base = open_checkpoint(write_checkpoint(tmp_path / "tiny", config))
    checkpoint = opened(tmp_path / "tiny")
    ids = torch.tensor([[5, 200, 31, 7]])
    full = reference_logits(base.config, base.tensor, ids)
    few = reference_logits(checkpoint.config, checkpoint.tensor, ids)
    assert torch.allclose(few, full[..., list(IDS)], atol=1e-6), "sums in another order"
    assert checkpoint.shapes[HEAD] == (4, 128)
    assert checkpoint.shapes[TABLE] == base.shapes[TABLE]
    assert (checkpoint.tied, checkpoint.recipe) == ({}, None)
    assert "pruned to 4 of 512 tokens" in checkpoint.notes[-1]
    spared = base.size_bytes - checkpoint.size_bytes
    assert abs(spared - 2 * 128 * (508 if config is UNTIED else -4)) <= 4


def test_kept_codes_stay_bit_for_bit(tmp_path):
    base = open_checkpoint(write_spinquant(tmp_path / "spinquant"))
    checkpoint = opened(tmp_path / "spinquant")
    head, whole_head = checkpoint.tensor(HEAD), base.tensor(HEAD)
    assert isinstance(head, QuantizedTensor)
    assert torch.equal(head.codes, whole_head.codes[list(IDS)])
    assert torch.equal(head.scales, whole_head.scales[list(IDS)])
    assert checkpoint.recipe == base.recipe
    quantize_to(tmp_path / "weights", checkpoint, checkpoint.recipe)
    kept = QuantizedWeights.open(tmp_path / "weights").get(HEAD)
    assert torch.equal(kept.codes, head.codes)


def test_a_tied_table_whose_codes_are_kept_gives_its_head_the_same_form(tmp_path):
    base = open_checkpoint(write_gguf(tmp_path / "m.gguf", forms="Q8_0"))
    assert HEAD not in base.shapes
    checkpoint = opened(tmp_path / "m.gguf")
    table = base.recipe.resolve(base.shapes).schemes[TABLE]
    assert checkpoint.recipe.resolve(checkpoint.shapes).schemes[HEAD] == table
    quantize_to(tmp_path / "weights", checkpoint, checkpoint.recipe)
    kept = QuantizedWeights.open(tmp_path / "weights").get(HEAD)
    ids = list(IDS)
    assert torch.allclose(whole(kept), whole(base.tensor(TABLE))[ids], atol=2e-3)


def test_rows_are_those_with_the_adapter(tmp_path):
    write_checkpoint(tmp_path / "base")
    tensors = low_rank(UNTIED, ["model.embed_tokens", "lm_head"])
    write_adapter(tmp_path / "tuned", tensors, base=tmp_path / "base")
    options = ReadOptions(adapters=(str(tmp_path / "tuned"),))
    checkpoint = opened(tmp_path / "base", options)
    assert isinstance(checkpoint, PrunedHead)
    expected = whole(checkpoint.base.tensor(HEAD))[list(IDS)]
    found = checkpoint.tensor(HEAD)
    assert isinstance(found, LazyTensor)
    torch.testing.assert_close(found.whole(), expected)
    torch.testing.assert_close(found[torch.tensor([2, 0])], expected[[2, 0]])
    assert (found.shape, found[1:3].shape) == ((4, 128), (2, 128))
    assert reading_of(checkpoint) == options


def test_quantised_weights_are_pruned_once(tmp_path):
    write_checkpoint(tmp_path / "tiny")
    checkpoint = opened(tmp_path / "tiny")
    quantize_to(tmp_path / "weights", checkpoint, recipe("int4"))
    (tmp_path / "weights" / "config.json").write_text(json.dumps(checkpoint.config.to_hf()))
    again = open_checkpoint(tmp_path / "weights", checkpoint.config)
    assert again.weights_folder == tmp_path / "weights"
    with pytest.raises(CheckpointError, match="pruned to 4 tokens already"):
        open_checkpoint(tmp_path / "weights", pruned(TINY, (1, 2)))


def test_the_config_is_read_as_it_was_written():
    config = pruned(TINY)
    raw = config.to_hf()
    assert raw["architectures"] == ["LlamaExportForCausalLM"]
    assert LlamaConfig.from_hf(raw) == config
    assert config.num_logits == 4
    assert TINY.num_logits == TINY.vocab_size
    assert config.num_parameters == TINY.num_parameters + 4 * 128
    assert "llama_export" not in TINY.to_hf()


@pytest.mark.parametrize(
    ("ids", "fault"),
    [((4, 3), "ascend"), ((3, 3), "once"), ((3, 512), "outside"), ((-1, 3), "outside")],
)
def test_tokens_in_no_order_or_outside_are_refused(ids, fault):
    with pytest.raises(ConfigError, match=fault):
        pruned(TINY, ids)
    with pytest.raises(ConfigError, match="tied to the table"):
        replace(TINY, head_tokens=(1, 2))
