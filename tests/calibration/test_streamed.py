"""The seam of calibration: a method sees what flows into its weight, quantised so far; no more."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from artifacts.tiny import MULTI_HEAD, TINY, UNTIED, random_tokens, write_checkpoint
from transformers import LlamaConfig, LlamaForCausalLM

from llama_export.calibration import layer_streams, sums
from llama_export.calibration import streamed as calibration_module
from llama_export.calibration.scratch import Scratch
from llama_export.calibration.streamed import CalibrationInputs, StreamedCalibration
from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.llama.names import HEAD, TABLE
from llama_quantize import (
    Float,
    GroupedInt,
    InputStatistics,
    Needs,
    QuantizationError,
    QuantizedWeights,
    QuantRecipe,
    QuantRule,
    find_method,
    quantize_to,
    register_method,
)

pytestmark = pytest.mark.usefixtures("one_thread")

WINDOWS = torch.tensor([random_tokens(TINY, 40, seed) for seed in range(3)])
SAME = 1e-5  # float32 products in another order, against the largest element
OTHER = 1e-2  # what one stage that is not quantised changes at least


class NearestThatLooks:
    """Rounds to nearest, and keeps what it was told of each weight's inputs."""

    name = "test-nearest-that-looks"
    needs = Needs.INPUTS
    settings: Mapping[str, str] = {}

    def __init__(self) -> None:
        self.seen: list[InputStatistics] = []

    def quantize(self, weight, scheme, inputs=None):
        self.seen.append(inputs)
        return find_method("nearest").quantize(weight, scheme)


METHOD = NearestThatLooks()
register_method(METHOD)

RULES = (
    QuantRule(r".*_proj\.weight", GroupedInt(4, 32), METHOD.name),
    QuantRule(r"model\.embed_tokens\.weight", GroupedInt(8, None), "nearest"),
    QuantRule(r".*norm\.weight", Float("bfloat16")),
)
CALIBRATED = QuantRecipe("calibrated", RULES)
WITH_HEAD = QuantRecipe("head", (*RULES, QuantRule(HEAD, GroupedInt(4, 32), METHOD.name)))


@dataclass
class Run:
    """A checkpoint that was quantised by the method, and what the method saw of each weight."""

    checkpoint: HfCheckpoint
    weights: QuantizedWeights
    seen: dict[str, InputStatistics]

    def before(self, name: str) -> set[str]:
        return set(self.checkpoint.names[: self.checkpoint.names.index(name)])


def streamed(checkpoint: HfCheckpoint, folder: Path, **inputs) -> StreamedCalibration:
    """Calibrate on the windows, and on what else is given, in a folder of its own."""
    chosen = CalibrationInputs(**{"windows": WINDOWS, "needs": Needs.INPUTS, **inputs})
    return StreamedCalibration(checkpoint, chosen, Scratch(folder / "scratch", "key"))


def run(folder: Path, config=TINY, chosen: QuantRecipe = CALIBRATED, **inputs) -> Run:
    checkpoint = HfCheckpoint.open(write_checkpoint(folder / "model", config))
    METHOD.seen.clear()
    quantize_to(folder / "out", checkpoint, chosen, streamed(checkpoint, folder, **inputs))
    weights = QuantizedWeights.open(folder / "out")
    looked = [stats.name for stats in weights.stats if stats.method == METHOD.name]
    return Run(checkpoint, weights, dict(zip(looked, METHOD.seen, strict=True)))


@pytest.fixture(scope="module")
def tied(tmp_path_factory) -> Run:
    return run(tmp_path_factory.mktemp("tied"))


@torch.no_grad()
def eager_gram(found: Run, name: str, quantised: set[str]) -> tuple[torch.Tensor, int]:
    """Hook transformers' model, in which only the named tensors are quantised; float64 sums."""
    checkpoint = found.checkpoint
    model = LlamaForCausalLM(LlamaConfig(**checkpoint.config.to_hf())).eval()
    state = {
        key: found.weights.dequantized(key) if key in quantised else checkpoint.tensor(key).float()
        for key in checkpoint.names
    }
    model.load_state_dict({**state, HEAD: state.get(HEAD, state[TABLE])})
    rows: list[torch.Tensor] = []
    hook = model.get_submodule(name.removesuffix(".weight")).register_forward_pre_hook(
        lambda _, inputs: rows.append(inputs[0].flatten(0, 1).double())
    )
    model(WINDOWS)
    hook.remove()
    (inputs,) = rows
    return inputs.t() @ inputs, len(inputs)


def difference(expected: torch.Tensor, found: torch.Tensor) -> float:
    return float((expected - found).abs().max() / expected.abs().max())


def test_every_weight_gets_the_gram_matrix_of_an_eager_pass(tied):
    assert len(tied.seen) == 14
    for name, statistics in tied.seen.items():
        expected, count = eager_gram(tied, name, tied.before(name))
        assert statistics.gram.dtype == torch.float32
        assert statistics.cross is None
        assert statistics.curvature is None
        assert statistics.count == count == WINDOWS.numel()
        assert difference(expected, statistics.gram) < SAME, name


@pytest.mark.parametrize("kind", ["untied", "MHA"])
def test_other_shapes_and_the_head(tmp_path, kind):
    chosen = WITH_HEAD if kind == "untied" else CALIBRATED
    found = run(tmp_path, UNTIED if kind == "untied" else MULTI_HEAD, chosen)
    names = ["model.layers.1.self_attn.o_proj.weight", *([HEAD] if kind == "untied" else [])]
    for name in names:
        expected, _ = eager_gram(found, name, found.before(name))
        assert difference(expected, found.seen[name].gram) < SAME, name


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("model.layers.1.self_attn.q_proj.weight", r"model.layers.0."),
        ("model.layers.0.self_attn.q_proj.weight", TABLE),
        ("model.layers.0.self_attn.o_proj.weight", "model.layers.0.self_attn.v_proj.weight"),
        ("model.layers.0.mlp.up_proj.weight", "model.layers.0.self_attn.o_proj.weight"),
        ("model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.gate_proj.weight"),
    ],
)
def test_what_is_not_quantised_before_its_use_is_seen(tied, name, left_out):
    """The twin: were a layer, the table or an earlier stage still of floats, it would show."""
    before = tied.before(name)
    without = {key for key in before if not key.startswith(left_out)}
    assert without < before
    floor = SAME * 10 if left_out == TABLE else OTHER  # the table is int8: it changes little
    expected, _ = eager_gram(tied, name, without)
    assert difference(expected, tied.seen[name].gram) > floor
    # What comes after the weight must not have been quantised yet.
    if name.endswith("q_proj.weight"):
        return
    after, _ = eager_gram(tied, name, set())
    assert difference(after, tied.seen[name].gram) > OTHER


def test_products_of_one_input_share_their_sums(tied):
    layer = "model.layers.1."
    query = tied.seen[f"{layer}self_attn.q_proj.weight"].gram
    assert all(tied.seen[f"{layer}self_attn.{part}_proj.weight"].gram is query for part in "kv")
    gate = tied.seen[f"{layer}mlp.gate_proj.weight"].gram
    assert tied.seen[f"{layer}mlp.up_proj.weight"].gram is gate
    assert gate is not query


def test_chunks_do_not_change_the_sums(tied, tmp_path, monkeypatch):
    monkeypatch.setattr(layer_streams, "_CHUNK_TOKENS", 40)
    monkeypatch.setattr(sums, "_BLOCK_PRODUCTS", 1000)
    again = run(tmp_path)
    for name, statistics in again.seen.items():
        assert difference(tied.seen[name].gram, statistics.gram) < SAME, name
        assert statistics.count == WINDOWS.numel()


def test_two_runs_give_the_same_bytes(tied, tmp_path):
    assert run(tmp_path).weights.weights_sha256 == tied.weights.weights_sha256


def test_the_record_says_what_decides_the_result(tmp_path):
    origin = run(tmp_path, about={"text": "random"}).weights.calibration
    assert origin == {
        "text": "random",
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": "1",
        "dead_channels": "0",
    }


@pytest.mark.parametrize(("needs", "layers_at_once"), [(Needs.INPUTS, 1), (Needs.TARGETS, 2)])
def test_few_layers_and_one_gram_matrix_are_in_memory(
    tied, tmp_path, monkeypatch, needs, layers_at_once
):
    layers: list[weakref.ref] = []
    grams: list[weakref.ref] = []
    most = {"layers": 0, "grams": 0}

    def count(kind: str, kept: list[weakref.ref], new: object) -> None:
        kept.append(weakref.ref(new))
        living = {id(each()) for each in kept if each() is not None}
        most[kind] = max(most[kind], len(living))

    load, quantize = calibration_module.load_layer, find_method("nearest").quantize
    make = calibration_module.LlamaDecoderLayer
    loaded = 0

    def counted_layer(*arguments):
        nonlocal loaded
        loaded += 1
        layer = load(*arguments)
        count("layers", layers, layer)
        return layer

    def counted_twin(config):
        layer = make(config)
        count("layers", layers, layer)
        return layer

    def looks(weight, scheme, inputs=None):
        count("grams", grams, inputs.gram)
        return quantize(weight, scheme)

    monkeypatch.setattr(calibration_module, "load_layer", counted_layer)
    monkeypatch.setattr(calibration_module, "LlamaDecoderLayer", counted_twin)
    monkeypatch.setattr(METHOD, "quantize", looks)
    calibration = streamed(tied.checkpoint, tmp_path, needs=needs)
    quantize_to(tmp_path / "out", tied.checkpoint, CALIBRATED, calibration)
    assert most == {"layers": layers_at_once, "grams": 1}
    assert (loaded, len(grams)) == (2, 14), "each layer is read once"


def test_inputs_that_cannot_be_computed_are_refused(tied, tmp_path):
    calibration = streamed(tied.checkpoint, tmp_path)
    for name in ("model.norm.weight", "model.layers.0.input_layernorm.weight", "unknown"):
        with pytest.raises(QuantizationError, match="has no inputs"):
            calibration.inputs(name, Needs.INPUTS)
    calibration.inputs("model.layers.1.mlp.down_proj.weight", Needs.INPUTS)
    with pytest.raises(QuantizationError, match="its inputs were discarded: layer 1"):
        calibration.inputs("model.layers.0.mlp.down_proj.weight", Needs.INPUTS)
