"""A table's rows go a block at a time, and are what they are together."""

from __future__ import annotations

import pytest
import torch

from llama_quantize import GroupedInt, InputStatistics, QuantizationError, find_method
from llama_quantize.methods import gptq_descent


@pytest.mark.parametrize("name", ["gptq_descent", "curvature_descent"])
@pytest.mark.parametrize("targets", [False, True])
def test_blocks_of_rows_give_what_the_whole_gives(monkeypatch, name, targets):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(50, 64, generator=generator).to(torch.bfloat16)
    inputs = torch.randn(300, 64, generator=generator)
    cross = torch.randn(50, 64, generator=generator) if targets else None
    found = InputStatistics(inputs.t() @ inputs, 300, cross)
    whole = find_method(name).quantize(weight, GroupedInt(4, 32), found)
    monkeypatch.setattr(gptq_descent, "_BLOCK_ROWS", 16)
    parts = find_method(name).quantize(weight, GroupedInt(4, 32), found)
    assert (whole[0] != parts[0]).float().mean() < 0.01  # products of other shapes round otherwise
    assert (whole[1] != parts[1]).float().mean() < 0.05


def test_a_value_in_a_later_block_is_named_by_its_own_row(monkeypatch):
    monkeypatch.setattr(gptq_descent, "_BLOCK_ROWS", 16)
    weight = torch.ones(50, 64)
    weight[40, 3] = float("nan")
    found = InputStatistics(torch.eye(64), 10)
    with pytest.raises(QuantizationError, match=r"value nan at \[40, 3\]"):
        find_method("gptq_descent").quantize(weight, GroupedInt(4, 32), found)
