"""A lazy tensor is stored as the tensor of the same numbers is, and never computed whole."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from llama_export.llama.streamed import weight_rows, whole
from llama_quantize.checkpoint.files import WEIGHTS_FILE
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.errors import QuantizationError
from llama_quantize.groupwise import BLOCK_WEIGHTS
from llama_quantize.lazy import LazyTensor
from llama_quantize.recipe import QuantRecipe, QuantRule
from llama_quantize.scheme import Float, GroupedInt

ROWS, COLUMNS = 6000, 512


@dataclass
class OneWeight:
    """A source of one tensor, which counts the rows that it is asked for at a time."""

    weight: torch.Tensor
    lazy: bool
    row_bytes: int = 7
    asked: list[int] = field(default_factory=list)

    names = ("weight",)

    @property
    def tied(self):
        return {}

    @property
    def shapes(self):
        return {"weight": tuple(self.weight.shape)}

    def tensor(self, name):
        if not self.lazy:
            return self.weight
        return LazyTensor(tuple(self.weight.shape), self.weight.dtype, self.row_bytes, self._read)

    def _read(self, rows):
        part = self.weight[rows]
        self.asked.append(len(part))
        return part


def recipe(scheme):
    return QuantRecipe("one", (QuantRule("weight", scheme),))


@pytest.fixture(scope="module")
def weight():
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("scheme", [GroupedInt(4, 32), GroupedInt(8, None), Float("bfloat16")])
def test_it_gives_the_bytes_of_the_tensor(tmp_path, weight, scheme):
    done = []
    lazy = OneWeight(weight, lazy=True)
    summary = quantize_to(tmp_path / "lazy", lazy, recipe(scheme), progress=done.append)
    plain = quantize_to(tmp_path / "plain", OneWeight(weight, lazy=False), recipe(scheme))
    assert (tmp_path / "lazy" / WEIGHTS_FILE).read_bytes() == (
        tmp_path / "plain" / WEIGHTS_FILE
    ).read_bytes()
    assert summary == plain
    assert sum(lazy.asked) == ROWS, "each row is computed once"
    assert max(lazy.asked) * COLUMNS <= BLOCK_WEIGHTS
    assert done[-1] == ROWS * lazy.row_bytes


def test_a_bad_value_is_located(tmp_path, weight):
    broken = weight.clone()
    broken[5000, 17] = float("nan")
    with pytest.raises(QuantizationError, match=r"weight: value nan at \[5000, 17\]"):
        quantize_to(tmp_path, OneWeight(broken, lazy=True), recipe(GroupedInt(4, 32)))


def test_the_eager_model_reads_it(weight):
    lazy = OneWeight(weight, lazy=True).tensor("weight")
    rows = torch.tensor([5, 2, 5])
    assert torch.equal(weight_rows(lazy, rows), weight[rows])
    assert torch.equal(weight_rows(lazy, slice(3, 9)), weight[3:9])
    assert torch.equal(whole(lazy), weight)
