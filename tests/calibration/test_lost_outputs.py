"""What a weight's output lacks while all before it is quantised, against two eager passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
import torch
from artifacts.tiny import TINY, UNTIED, random_tokens
from fakes.checkpoint import FakeCheckpoint, random_tensors
from transformers import LlamaConfig as HfConfig
from transformers import LlamaForCausalLM

from llama_export.calibration.scratch import Scratch
from llama_export.calibration.streamed import CalibrationInputs, StreamedCalibration
from llama_export.llama.model import Llama
from llama_export.llama.names import HEAD, TABLE
from llama_quantize import (
    GroupedInt,
    InputStatistics,
    Needs,
    QuantizedWeights,
    QuantRecipe,
    QuantRule,
    find_method,
    quantize_to,
    recipe,
    register_method,
)
from llama_quantize.recipe import with_rules_beside

pytestmark = pytest.mark.usefixtures("one_thread")

WINDOWS = torch.tensor([random_tokens(TINY, 24, seed) for seed in range(4)])
SAME = 2e-4  # sums of small differences in float32, against the largest element
BIASED = replace(UNTIED, attention_bias=True, mlp_bias=True)
ROTATED = replace(TINY, down_proj_rotation=True)
ADAPTED = replace(
    BIASED, down_proj_rotation=True, adaptor_rank=8, adaptor_scale=1.5, num_key_value_heads=4
)
CONFIGS = {"plain": TINY, "biased": BIASED, "rotated": ROTATED, "adapted": ADAPTED}


class NearestWithTargets:
    """Rounds to nearest, and keeps what it was told of each weight."""

    name = "test-nearest-with-targets"
    needs = Needs.TARGETS
    settings: Mapping[str, str] = {}

    def __init__(self) -> None:
        self.seen: list[InputStatistics] = []

    def quantize(self, weight, scheme, inputs=None):
        self.seen.append(inputs)
        return find_method("nearest").quantize(weight, scheme)


class NearestWithInputs(NearestWithTargets):
    """Asks for less than the other method of the same recipe."""

    name = "test-nearest-with-inputs"
    needs = Needs.INPUTS


METHOD, LESS = NearestWithTargets(), NearestWithInputs()
register_method(METHOD)
register_method(LESS)


@dataclass
class Run:
    """A checkpoint that was quantised by the method, and what the method saw of each weight."""

    checkpoint: FakeCheckpoint
    weights: QuantizedWeights
    seen: dict[str, InputStatistics]


def run(folder, config=TINY, first: tuple[QuantRule, ...] = ()) -> Run:
    # No value is one of bf16: what is stored differs from what was read, norms and biases too.
    tensors = {name: value * 1.0013 for name, value in random_tensors(config).items()}
    checkpoint = FakeCheckpoint(config, tensors)
    base = recipe("int4")
    rules = tuple(
        replace(rule, method=METHOD.name) if rule.method == "clip_search" and i == 0 else rule
        for i, rule in enumerate(base.rules)
    )
    chosen = with_rules_beside(QuantRecipe("targets", (*first, *rules)), checkpoint.shapes)
    inputs = CalibrationInputs(WINDOWS, Needs.TARGETS)
    METHOD.seen.clear()
    LESS.seen.clear()
    calibration = StreamedCalibration(checkpoint, inputs, Scratch(folder / "scratch", "key"))
    quantize_to(folder / "out", checkpoint, chosen, calibration)
    weights = QuantizedWeights.open(folder / "out")
    names = [stats.name for stats in weights.stats if stats.method == METHOD.name]
    return Run(checkpoint, weights, dict(zip(names, METHOD.seen, strict=True)))


class Eager:
    """A whole model that remembers what flowed into its linears and its norms."""

    def __init__(self, found: Run, quantised: set[str]) -> None:
        config = found.checkpoint.config
        plain = not (config.down_proj_rotation or config.adaptor_rank)
        model = LlamaForCausalLM(HfConfig(**config.to_hf())) if plain else Llama(config)
        state = {
            name: _stored(found.weights, name)
            if name in quantised
            else found.checkpoint.tensor(name).float()
            for name in found.checkpoint.names
        }
        model.load_state_dict({**state, HEAD: state.get(HEAD, state[TABLE])})
        self.model = model.double().eval()
        self.inputs: dict[str, torch.Tensor] = {}
        for path, module in model.named_modules():
            if path.endswith(("_proj", "norm")):
                module.register_forward_pre_hook(
                    lambda _, given, path=path: self.inputs.__setitem__(
                        path, given[0].flatten(0, 1).detach()
                    )
                )
        with torch.no_grad():
            self.model(WINDOWS)

    @torch.no_grad()
    def product(self, path: str, inputs: torch.Tensor) -> torch.Tensor:
        return self.model.get_submodule(path)(inputs)

    def residual(self, path: str) -> torch.Tensor | float:
        """What the product at a path is added to."""
        layer = path.rsplit(".", 2)[0]
        if path.endswith("o_proj"):
            return self.inputs[f"{layer}.input_layernorm"]
        if path.endswith("down_proj"):
            return self.inputs[f"{layer}.post_attention_layernorm"]
        return 0.0


def _stored(weights: QuantizedWeights, name: str) -> torch.Tensor:
    found = weights.get(name)
    return found.float() if isinstance(found, torch.Tensor) else weights.dequantized(name)


def eager_cross(found: Run, name: str, *, residual: bool = True) -> torch.Tensor:
    """The sum of `e xᵀ`, e being what the original model has there and the quantised one not."""
    names = found.checkpoint.names
    original, quantised = Eager(found, set()), Eager(found, set(names[: names.index(name)]))
    path = name.removesuffix(".weight")
    wanted, inputs = original.inputs[path], quantised.inputs[path]
    lacking = original.product(path, wanted) - original.product(path, inputs)
    if residual:
        lacking = lacking + original.residual(path) - quantised.residual(path)
    return lacking.t() @ inputs


def difference(expected: torch.Tensor, found: torch.Tensor) -> float:
    return float((expected - found).abs().max() / expected.abs().max())


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Run:
    return run(tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("part", ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o",
                                  "mlp.gate", "mlp.up", "mlp.down"])  # fmt: skip
def test_every_linear_is_told_what_its_output_lacks(plain, part):
    for layer in (0, 1):
        name = f"model.layers.{layer}.{part}_proj.weight"
        found = plain.seen[name].cross
        assert found.dtype == torch.float32
        assert found.shape == plain.checkpoint.shapes[name]
        assert difference(eager_cross(plain, name), found) < SAME, name
        if part in ("self_attn.o", "mlp.down"):
            # The twin: without the residual stream's error it would be another sum.
            assert difference(eager_cross(plain, name, residual=False), found) > 10 * SAME


@pytest.mark.parametrize("kind", ["biased", "rotated", "adapted"])
def test_models_with_more_than_seven_matrices_a_layer(tmp_path, kind):
    found = run(tmp_path, CONFIGS[kind])
    for part in ("self_attn.v", "self_attn.o", "mlp.up", "mlp.down"):
        name = f"model.layers.1.{part}_proj.weight"
        assert difference(eager_cross(found, name), found.seen[name].cross) < SAME, name


def test_the_original_is_not_what_was_stored_before_its_turn(tmp_path):
    """A layer's norm, and a linear of which nothing is asked, come before the first that asks."""
    first = (
        QuantRule(r".*\.q_proj\.weight", GroupedInt(4, 32), "nearest"),
        QuantRule(r".*\.up_proj\.weight", GroupedInt(4, 32), LESS.name),
    )
    found = run(tmp_path, first=first)
    for part in ("self_attn.k", "self_attn.o", "mlp.down"):
        for layer in (0, 1):
            name = f"model.layers.{layer}.{part}_proj.weight"
            assert difference(eager_cross(found, name), found.seen[name].cross) < SAME, name


def test_a_method_that_asks_for_inputs_alone_gets_them_alone(tmp_path):
    first = (QuantRule(r".*\.q_proj\.weight", GroupedInt(4, 32), LESS.name),)
    found = run(tmp_path, first=first)
    assert len(LESS.seen) == 2
    assert all(each.cross is None for each in LESS.seen)
    # The twin comes after it at the same place, and asks for more.
    name = "model.layers.1.self_attn.k_proj.weight"
    assert difference(eager_cross(found, name), found.seen[name].cross) < SAME


def test_nothing_lacks_where_nothing_was_changed(tmp_path):
    """The first layer behind a table that is stored as it is has what the original has."""
    tensors = random_tensors(TINY)
    checkpoint = FakeCheckpoint(TINY, tensors)
    inputs = CalibrationInputs(WINDOWS, Needs.TARGETS)
    calibration = StreamedCalibration(checkpoint, inputs, Scratch(tmp_path, "key"))
    for name in checkpoint.names[:2]:
        calibration.quantised(name, tensors[name])
    for part in "qkv":
        name = f"model.layers.0.self_attn.{part}_proj.weight"
        assert not calibration.inputs(name, Needs.TARGETS).cross.any()
