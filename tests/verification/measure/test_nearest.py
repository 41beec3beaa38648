"""Plain rounding while weights are read: linears alone, in the forms of the weights, to the bit."""

from __future__ import annotations

import pytest
import torch
from artifacts import packed_weights as packed
from artifacts import tiny

from llama_export.checkpoints.formats import open_checkpoint
from llama_export.llama.streamed import whole
from llama_export.verification.measure.nearest import methods_of_linears, rounded_to_nearest
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.recipe import QuantRecipe, QuantRule
from llama_quantize.scheme import Float, GroupedInt

pytestmark = pytest.mark.usefixtures("one_thread")

LINEARS = r"model\.layers\..*_proj\.weight"
TABLES = r"(model\.embed_tokens|lm_head)\.weight"
INT8_ROWS = GroupedInt(8, None)
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 64, "checkpoint_format": "gptq_v2"}


def mixed(method: str, tables: GroupedInt = INT8_ROWS) -> QuantRecipe:
    return QuantRecipe(
        "mixed",
        (
            QuantRule(r"model\.layers\.0\.mlp.*_proj\.weight", GroupedInt(8, 64), method),
            QuantRule(r"model\.layers\.1\.mlp.*_proj\.weight", INT8_ROWS, method),
            QuantRule(r"model\.layers\.1\.self_attn\.o_proj\.weight", Float("float16")),
            QuantRule(LINEARS, GroupedInt(4, 32), method),
            QuantRule(TABLES, tables, method),
            QuantRule(r".*", Float("bfloat16")),
        ),
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return open_checkpoint(tiny.write_checkpoint(tmp_path_factory.mktemp("model"), tiny.UNTIED))


def made(folder, checkpoint, recipe) -> QuantizedWeights:
    quantize_to(folder, checkpoint, recipe)
    return QuantizedWeights.open(folder)


def test_of_weights_that_were_rounded_to_nearest_all_is_the_same_to_the_bit(tmp_path, checkpoint):
    weights = made(tmp_path / "weights", checkpoint, mixed("nearest", GroupedInt(4, 32)))
    read = rounded_to_nearest(weights, checkpoint.tensor)
    for name in weights.names():
        assert torch.equal(whole(read(name)), weights.dequantized(name)), name


def test_linears_in_groups_are_rounded_and_all_else_is_as_the_weights_have_it(tmp_path, checkpoint):
    searched = made(tmp_path / "searched", checkpoint, mixed("clip_search", GroupedInt(4, 32)))
    plain = made(tmp_path / "plain", checkpoint, mixed("nearest", GroupedInt(4, 32)))
    read = rounded_to_nearest(searched, checkpoint.tensor)
    rounded = methods_of_linears(searched)
    assert set(rounded.values()) == {"clip_search"}
    assert len(rounded) == 3 + 8 - 1  # the MLP of layer 0, and attention but for one of floats
    for name in searched.names():
        source = plain if name in rounded else searched
        assert torch.equal(whole(read(name)), source.dequantized(name)), name
    differ = [
        name
        for name in searched.names()
        if not torch.equal(whole(read(name)), searched.dequantized(name))
    ]
    assert set(differ) == set(rounded)


def test_a_tied_head_is_the_table_of_the_weights(tmp_path):
    checkpoint = open_checkpoint(tiny.write_checkpoint(tmp_path / "model", tiny.TINY))
    weights = made(tmp_path / "weights", checkpoint, mixed("clip_search"))
    read = rounded_to_nearest(weights, checkpoint.tensor)
    assert torch.equal(whole(read("lm_head.weight")), weights.dequantized("lm_head.weight"))


def test_codes_that_the_checkpoint_came_with_have_no_method(tmp_path):
    checkpoint = open_checkpoint(
        packed.write_packed(
            tmp_path / "model",
            GPTQ,
            lambda module, weight: packed.gptq(packed.rounded(weight, 64), version=2),
        )
    )
    weights = made(tmp_path / "weights", checkpoint, checkpoint.recipe)
    assert methods_of_linears(weights) == {}
