"""The seam for methods: found by name, fed with inputs if they ask for them, never guessed."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from fakes.source import FakeSource

from llama_quantize import (
    Float,
    GroupedInt,
    InputStatistics,
    Needs,
    QuantizationError,
    QuantizedTensor,
    QuantizedWeights,
    QuantRecipe,
    QuantRule,
    find_method,
    quantize_to,
    recipe,
    register_method,
)
from llama_quantize.checkpoint import store as store_module
from llama_quantize.recipe import METHODS_WITHOUT_INPUTS

FORM = GroupedInt(4, 32)


class ByInputs:
    """A calibrated method: it rounds to nearest what the inputs say that they see of a weight."""

    name = "test-by-inputs"
    needs = Needs.INPUTS
    settings: Mapping[str, str] = {"passes": "1"}

    def __init__(self) -> None:
        self.seen: list[tuple[tuple[int, ...], int, int]] = []

    def quantize(self, weight, scheme, inputs=None):
        assert inputs is not None
        self.seen.append((tuple(weight.shape), inputs.count, threading.get_ident()))
        scaled = weight.float() * inputs.gram.diagonal().float().sqrt()
        return find_method("nearest").quantize(scaled, scheme)


METHOD = ByInputs()
register_method(METHOD)


class FakeCalibration:
    """Answers with a multiple of the identity, and writes down what it is told."""

    origin: Mapping[str, str] = {"text": "none", "seed": "7"}

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.events: list[tuple[str, str]] = []
        self.stored: dict[str, torch.Tensor | QuantizedTensor] = {}

    def finished(self, name: str, scheme: GroupedInt) -> QuantizedTensor | None:
        return None

    def inputs(self, name: str, needs: Needs) -> InputStatistics:
        assert needs is Needs.INPUTS
        self.events.append(("inputs", name))
        return InputStatistics(4.0 * torch.eye(self.columns), 3)

    def quantised(self, name: str, tensor: torch.Tensor | QuantizedTensor) -> None:
        self.events.append(("quantised", name))
        copy = tensor if isinstance(tensor, torch.Tensor) else tensor.dequantize()
        self.stored[name] = copy.clone()


def test_methods_are_found_by_their_names():
    for name in ("nearest", "clip_search", "test-by-inputs"):
        assert find_method(name).name == name
    assert set(METHODS_WITHOUT_INPUTS) == {"nearest", "clip_search"}
    assert not any(find_method(name).needs for name in METHODS_WITHOUT_INPUTS)
    with pytest.raises(QuantizationError, match="unknown method 'gptq': expected one of nearest"):
        find_method("gptq")
    with pytest.raises(QuantizationError, match="exists already"):
        register_method(ByInputs())


def test_an_unknown_method_is_refused_before_anything_is_written(tmp_path):
    own = QuantRecipe("own", (QuantRule("w", FORM, "gptq"),))
    with pytest.raises(QuantizationError, match="unknown method"):
        quantize_to(tmp_path / "x", FakeSource({"w": torch.ones(2, 32)}), own)
    assert not (tmp_path / "x").exists()


def test_a_calibrated_method_without_a_calibration_is_refused(tmp_path):
    own = QuantRecipe("own", (QuantRule("w", FORM, METHOD.name),))
    with pytest.raises(QuantizationError, match=r"w: the method test-by-inputs needs its inputs"):
        quantize_to(tmp_path / "x", FakeSource({"w": torch.ones(2, 32)}), own)
    assert not (tmp_path / "x").exists()


def test_a_calibrated_method_gets_whole_weights_and_their_inputs_in_model_order(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(store_module, "BLOCK_WEIGHTS", 64)
    METHOD.seen.clear()
    torch.manual_seed(3)
    tensors = {
        "table": torch.randn(9, 32),
        "norm": torch.rand(32) + 0.001,
        "a": torch.randn(11, 32).bfloat16(),
        "b": torch.randn(5, 32),
    }
    rules = (
        QuantRule("table", GroupedInt(8, None), "nearest"),
        QuantRule("norm", Float("bfloat16")),
        QuantRule("a|b", FORM, METHOD.name),
    )
    calibration = FakeCalibration(32)
    source = FakeSource(tensors)
    seen: list[int] = []
    summary = quantize_to(
        tmp_path, source, QuantRecipe("own", rules), calibration, progress=seen.append
    )
    assert source.asked == list(tensors)
    assert calibration.events == [
        ("quantised", "table"),
        ("quantised", "norm"),
        ("inputs", "a"),
        ("quantised", "a"),
        ("inputs", "b"),
        ("quantised", "b"),
    ]
    here = threading.get_ident()
    assert METHOD.seen == [((11, 32), 3, here), ((5, 32), 3, here)]
    weights = QuantizedWeights.open(tmp_path)
    for name, stored in calibration.stored.items():
        assert torch.equal(
            stored, weights.get(name) if name == "norm" else weights.dequantized(name)
        )
    assert not torch.equal(calibration.stored["norm"], tensors["norm"]), "told of what is stored"
    codes, scales = find_method("nearest").quantize(tensors["a"].float() * 2, FORM)
    assert torch.equal(weights.get("a").unpacked(), codes)
    assert torch.equal(weights.get("a").scales, scales)
    # What the method made of the weight is far from it, and the figures say so.
    assert summary.stats[2].sqnr_db < 1 < summary.stats[0].sqnr_db
    assert [stats.method for stats in summary.stats] == ["nearest", None, *[METHOD.name] * 2]
    assert weights.calibration == {"text": "none", "seed": "7"}
    assert seen[-1] == 9 * 32 * 4 + 32 * 4 + 11 * 32 * 2 + 5 * 32 * 4
    assert len(seen) > 10


def test_an_error_of_a_method_names_the_tensor(tmp_path):
    class Singular(ByInputs):
        name = "test-singular"

        def quantize(self, weight, scheme, inputs=None):
            message = "the inputs are singular"
            raise QuantizationError(message, "give more text")

    register_method(Singular())
    own = QuantRecipe("own", (QuantRule("w", FORM, "test-singular"),))
    with pytest.raises(QuantizationError, match=r"^w: the inputs are singular") as caught:
        quantize_to(tmp_path, FakeSource({"w": torch.ones(2, 32)}), own, FakeCalibration(32))
    assert caught.value.hint == "give more text"
    assert list(tmp_path.iterdir()) == []
    bad = torch.ones(2, 32)
    bad[1, 7] = torch.nan
    with pytest.raises(QuantizationError, match=r"^w: value nan at \[1, 7\]"):
        quantize_to(tmp_path, FakeSource({"w": bad}), own, FakeCalibration(32))


def quantized(folder: Path, weight: torch.Tensor, scheme: GroupedInt) -> QuantizedTensor:
    quantize_to(folder, FakeSource({"w": weight}), one_rule("w", scheme))
    found = QuantizedWeights.open(folder).get("w")
    assert isinstance(found, QuantizedTensor)
    return found


def one_rule(name: str, scheme: GroupedInt, method: str = "nearest") -> QuantRecipe:
    return QuantRecipe("own", (QuantRule(name, scheme, method),))


@pytest.fixture
def kept(tmp_path) -> dict[str, QuantizedTensor | torch.Tensor]:
    """A table and a linear that come quantised, and a norm of floats."""
    torch.manual_seed(4)
    table = quantized(tmp_path / "table", torch.randn(33, 64), GroupedInt(8, None))
    return {
        "model.embed_tokens.weight": table,
        "model.layers.0.mlp.up_proj.weight": quantized(tmp_path / "up", torch.randn(33, 64), FORM),
        "model.norm.weight": torch.rand(64).bfloat16(),
    }


def test_what_comes_quantised_is_copied_bit_for_bit(tmp_path, kept, monkeypatch):
    monkeypatch.setattr(store_module, "BLOCK_WEIGHTS", 64 * 5)

    def rounded_again(*_):
        pytest.fail("codes that are there are not chosen again")

    for name in ("nearest", "clip_search"):
        monkeypatch.setattr(type(find_method(name)), "quantize", rounded_again)
    seen: list[int] = []
    summary = quantize_to(tmp_path / "out", FakeSource(kept), recipe("int4"), progress=seen.append)
    weights = QuantizedWeights.open(tmp_path / "out")
    for name, tensor in kept.items():
        found = weights.get(name)
        if isinstance(tensor, torch.Tensor):
            assert torch.equal(found, tensor)
            continue
        assert found.codes_sha256() == tensor.codes_sha256()
        assert found.scales_sha256() == tensor.scales_sha256()
    assert [stats.method for stats in weights.stats] == ["kept", "kept", None]
    assert [stats.sqnr_db for stats in summary.stats] == [float("inf")] * 3
    assert summary.sqnr_db == float("inf")
    assert seen[-1] == (33 * 64 + 33 * 2) + (33 * 32 + 33 * 2 * 2) + 64 * 2
    changed = kept["model.layers.0.mlp.up_proj.weight"].codes.clone()
    changed[32, 31] ^= 0x10
    other = QuantizedTensor(
        FORM, (33, 64), changed, kept["model.layers.0.mlp.up_proj.weight"].scales
    )
    assert other.codes_sha256() != weights.get("model.layers.0.mlp.up_proj.weight").codes_sha256()


def test_a_mixed_source_counts_only_what_was_rounded_here(tmp_path, kept):
    linear = torch.randn(7, 64)
    mixed = {**kept, "model.layers.0.mlp.down_proj.weight": linear}
    summary = quantize_to(tmp_path / "out", FakeSource(mixed), recipe("int4"))
    alone = quantize_to(
        tmp_path / "alone", FakeSource({"w": linear}), one_rule("w", FORM, "clip_search")
    )
    assert summary.sqnr_db == alone.sqnr_db < 30


@pytest.mark.parametrize("scheme", [GroupedInt(8, 32), GroupedInt(4, 64), Float("bfloat16")])
def test_a_recipe_that_wants_another_form_of_it_is_refused(tmp_path, kept, scheme):
    own = QuantRecipe("own", (QuantRule("w", scheme),))
    source = FakeSource({"w": kept["model.layers.0.mlp.up_proj.weight"]})
    with pytest.raises(QuantizationError, match=r"w is quantised already, as int4 g32") as caught:
        quantize_to(tmp_path / "out", source, own)
    assert scheme.label in caught.value.message
    assert caught.value.hint
    assert list((tmp_path / "out").iterdir()) == []


def test_a_quantised_tensor_of_another_shape_is_refused(tmp_path, kept):
    shapes = {"w": (32, 64)}
    tensor = kept["model.layers.0.mlp.up_proj.weight"]
    with pytest.raises(QuantizationError, match=r"w: expected .*\[32, 64\], found .*\[33, 64\]"):
        quantize_to(tmp_path / "out", FakeSource({"w": tensor}, shapes=shapes), one_rule("w", FORM))


@pytest.mark.parametrize("scale", [-1.0, 0.0, torch.nan, torch.inf])
def test_scales_that_no_target_holds_are_refused(tmp_path, kept, scale):
    tensor = kept["model.layers.0.mlp.up_proj.weight"]
    scales = tensor.scales.clone()
    scales[20, 1] = scale
    changed = QuantizedTensor(FORM, (33, 64), tensor.codes, scales)
    with pytest.raises(QuantizationError, match="w: a scale in rows 0 to 32"):
        quantize_to(tmp_path / "out", FakeSource({"w": changed}), one_rule("w", FORM))
    assert list((tmp_path / "out").iterdir()) == []
