"""The recipe of a checkpoint that comes quantised, and what quantising keeps of one."""

from __future__ import annotations

import re

import pytest
import torch

from llama_quantize import (
    Float,
    GroupedInt,
    QuantizationError,
    QuantizedTensor,
    QuantizedWeights,
    QuantRecipe,
    keep_codes,
    kept_recipe,
    pack_int4,
    quantize_to,
    recipe,
    with_rules_beside,
)
from llama_quantize.checkpoint.summary import KEPT

INT4, WIDE, INT8, ROWS = (
    GroupedInt(4, 32),
    GroupedInt(4, 64),
    GroupedInt(8, 32),
    GroupedInt(8, None),
)
BF16 = Float("bfloat16")
LINEARS = [
    *(f"self_attn.{part}_proj.weight" for part in "qkvo"),
    *(f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
]


def mixed_schemes(layers: int, wide: set[int]) -> dict[str, object]:
    """Some layers with groups of 64, two tables that differ, floats beside them."""
    schemes: dict[str, object] = {"model.embed_tokens.weight": ROWS}
    for layer in range(layers):
        stem = f"model.layers.{layer}"
        schemes[f"{stem}.input_layernorm.weight"] = BF16
        for name in LINEARS:
            schemes[f"{stem}.{name}"] = WIDE if layer in wide else INT4
            schemes[f"{stem}.{name.replace('weight', 'bias')}"] = BF16
        schemes[f"{stem}.mlp.down_proj.weight"] = INT8
    schemes["lm_head.weight"] = BF16
    return schemes


@pytest.mark.parametrize(("layers", "wide"), [(3, set()), (3, {1}), (126, {0, 5, 125}), (300, {7})])
def test_each_tensor_gets_the_form_that_it_has(layers, wide):
    schemes = mixed_schemes(layers, wide)
    made = kept_recipe(schemes)
    resolved = made.resolve(dict.fromkeys(schemes, (64, 128)))
    assert dict(resolved.schemes) == schemes
    assert all(len(rule.pattern) <= 700 for rule in made.rules)
    assert QuantRecipe.from_json(made.to_json()) == made
    # The order of the rules decides nothing: no two of them match one name.
    assert all(sum(rule.matches(name) for rule in made.rules) == 1 for name in schemes)


def test_one_form_needs_one_rule_and_dots_are_dots():
    made = kept_recipe({f"model.layers.{n}.{name}": INT4 for n in range(16) for name in LINEARS})
    assert len(made.rules) == 1
    assert not made.rules[0].matches("model.layers.3.self_attnxq_proj.weight")
    assert re.compile(made.rules[0].pattern)


def test_floats_get_codes_by_the_methods_of_the_built_in_recipes():
    resolved = kept_recipe({"a": INT4, "b": ROWS, "c": BF16}).resolve(
        {"a": (4, 32), "b": (4, 32), "c": (4,)}
    )
    assert resolved.methods == {"a": "clip_search", "b": "nearest"}


class MixedSource:
    """Codes of four forms beside floats."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)

        def codes(low: int, high: int) -> torch.Tensor:
            drawn = torch.randint(low, high + 1, (64, 128), generator=generator)
            return drawn.to(torch.int8)

        def scales(groups: int) -> torch.Tensor:
            return (torch.rand(64, groups, generator=generator) / 64 + 2**-9).bfloat16()

        shape = (64, 128)
        self._tensors = {
            "model.embed_tokens.weight": QuantizedTensor(ROWS, shape, codes(-128, 127), scales(1)),
            "model.layers.0.a.weight": QuantizedTensor(
                INT4, shape, pack_int4(codes(-8, 7)), scales(4)
            ),
            "model.layers.1.a.weight": QuantizedTensor(
                WIDE, shape, pack_int4(codes(-8, 7)), scales(2)
            ),
            "model.layers.0.b.weight": QuantizedTensor(INT8, shape, codes(-127, 127), scales(4)),
            "model.layers.1.b.weight": torch.randn(64, 128, generator=generator),
            "model.norm.weight": torch.randn(128, generator=generator),
        }
        self.names = tuple(self._tensors)
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}
        self.tied: dict[str, str] = {}

    def tensor(self, name: str) -> torch.Tensor | QuantizedTensor:
        return self._tensors[name]

    def schemes(self) -> dict[str, object]:
        return {
            name: tensor.scheme if isinstance(tensor, QuantizedTensor) else BF16
            for name, tensor in self._tensors.items()
        } | {"model.layers.1.b.weight": INT8}


def test_codes_are_kept_bit_for_bit_and_floats_beside_them_quantised(tmp_path):
    source = MixedSource()
    summary = quantize_to(tmp_path, source, kept_recipe(source.schemes(), "foreign"))
    weights = QuantizedWeights.open(tmp_path)
    methods = {stats.name: stats.method for stats in summary.stats}
    for name in source.names:
        given, stored = source.tensor(name), weights.get(name)
        if isinstance(given, QuantizedTensor):
            assert methods[name] == KEPT
            assert torch.equal(stored.codes, given.codes)
            assert torch.equal(stored.scales, given.scales)
    assert methods["model.layers.1.b.weight"] == "clip_search"
    assert methods["model.norm.weight"] is None
    assert weights.recipe.name == "foreign"
    # What was kept lost nothing here, so the one rounded matrix is the whole of the figure.
    rounded = next(each for each in summary.stats if each.name == "model.layers.1.b.weight")
    assert summary.sqnr_db == pytest.approx(rounded.sqnr_db)


def test_kept_codes_of_another_form_than_the_rule_says_are_refused(tmp_path):
    source = MixedSource()
    wrong = source.schemes() | {"model.layers.0.a.weight": WIDE}
    with pytest.raises(QuantizationError, match=r"quantised already, as int4 g32.*int4 g64"):
        quantize_to(tmp_path, source, kept_recipe(wrong))


def test_rules_for_biases_and_adaptors_are_there_where_something_is_to_be_named():
    linear = "model.layers.0.self_attn.q_proj"
    plain = {"model.embed_tokens.weight", f"{linear}.weight", "model.norm.weight"}
    assert with_rules_beside(recipe("int4"), plain) == recipe("int4")
    beside = {f"{linear}.bias", f"{linear}.adaptor.A.weight", f"{linear}.adaptor.B.weight"}
    resolved = with_rules_beside(recipe("int4"), plain | beside).resolve(
        dict.fromkeys(plain | beside, (64, 64))
    )
    assert {resolved.schemes[name] for name in beside} == {BF16}
    assert resolved.schemes[f"{linear}.weight"] == INT4
    # A recipe with a rule for everything needs no other.
    assert with_rules_beside(recipe("fp16"), plain | beside) == recipe("fp16")


def test_kept_scales_are_rounded_and_the_change_is_measured(tmp_path):
    generator = torch.Generator().manual_seed(5)
    codes = torch.randint(-8, 8, (64, 128), generator=generator).to(torch.int8)
    scales = torch.rand(64, 4, generator=generator) / 64 + 0.001
    kept = keep_codes(codes, scales, INT4)
    assert torch.equal(kept.unpacked(), codes)
    assert torch.equal(kept.scales, scales.bfloat16())
    weight = codes * scales.repeat_interleave(32, 1)
    noise = kept.dequantize() - weight
    expected = 20 * torch.log10(weight.norm() / noise.norm())
    assert kept.scales_sqnr_db == pytest.approx(float(expected), abs=0.01)
    assert 50 < kept.scales_sqnr_db < 60
    assert keep_codes(codes, scales.bfloat16(), INT4).scales_sqnr_db == float("inf")

    class Source:
        names = ("a",)
        shapes = {"a": (64, 128)}  # noqa: RUF012 - of one test
        tied: dict[str, str] = {}  # noqa: RUF012 - of one test

        def tensor(self, name: str) -> QuantizedTensor:
            return kept

    quantize_to(tmp_path, Source(), kept_recipe({"a": INT4}))
    summary = QuantizedWeights.open(tmp_path).summary
    assert summary.stats[0].sqnr_db == pytest.approx(kept.scales_sqnr_db, abs=1e-3)
    # The rounding of scales is not the error of the codes, which nobody knows here.
    assert summary.sqnr_db == float("inf")


def test_scales_too_small_for_a_target_take_their_codes_along():
    codes = torch.full((2, 64), 100, dtype=torch.int8)
    scales = torch.tensor([[2.0**-10, 0.0], [2.0**-20, 2.0**-18]])
    kept = keep_codes(codes, scales, GroupedInt(8, 32))
    assert kept.scales.tolist() == [[2.0**-10, 2.0**-17], [2.0**-17, 2.0**-17]]
    expected = (codes * scales.repeat_interleave(32, 1)).float()
    assert (kept.dequantize() - expected).abs().max() <= 2.0**-18
    assert codes.unique().tolist() == [100]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"codes": torch.full((2, 64), 8, dtype=torch.int8)}, r"code 8 at \[0, 0\]"),
        ({"codes": torch.zeros(2, 64)}, "expected int8 codes"),
        ({"codes": torch.zeros(64, dtype=torch.int8)}, "expected int8 codes"),
        ({"scales": torch.ones(2, 1)}, r"scales \[2, 1\]"),
        (
            {"scales": torch.tensor([[1.0, 1.0], [1.0, float("nan")]])},
            "scale nan of group 1 in row 1",
        ),
        ({"scales": torch.tensor([[1.0, 1.0], [-1.0, 1.0]])}, "scale -1.0 of group 0 in row 1"),
        ({"scales": torch.tensor([[1e9, 1.0], [1.0, 1.0]])}, "expected 0 to 65280"),
    ],
)
def test_codes_and_scales_that_cannot_be_kept_are_refused(change, error):
    given = {"codes": torch.ones(2, 64, dtype=torch.int8), "scales": torch.ones(2, 2)} | change
    with pytest.raises(QuantizationError, match=error):
        keep_codes(given["codes"], given["scales"], INT4)
