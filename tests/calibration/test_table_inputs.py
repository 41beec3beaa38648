"""What an int4 token table is asked for: its rows by the lookup, and products by a tied head."""

from __future__ import annotations

import pytest
import torch
from artifacts.tiny import TINY, UNTIED, random_llama, random_tokens, write_checkpoint

from llama_export.calibration import table_inputs as table_module
from llama_export.calibration.scratch import Scratch
from llama_export.calibration.streamed import CalibrationInputs, StreamedCalibration
from llama_export.calibration.table_inputs import table_inputs
from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.llama.names import HEAD, TABLE
from llama_quantize import GroupedInt, Needs, QuantizedWeights, find_method, quantize_to, recipe

WINDOWS = torch.tensor([random_tokens(TINY, 40, seed) for seed in range(5)])


def head_gram(windows: torch.Tensor) -> torch.Tensor:
    """What the head of the random model takes, by its own forward pass."""
    model, seen = random_llama(TINY), []
    model.lm_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        model(windows)
    rows = seen[0].flatten(0, 1).double()
    return (rows.t() @ rows).float()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> HfCheckpoint:
    return HfCheckpoint.open(write_checkpoint(tmp_path_factory.mktemp("tied"), TINY))


def test_a_tied_table_has_the_heads_inputs_and_those_of_a_lookup(checkpoint):
    found = table_inputs(TINY, checkpoint.tensor, WINDOWS)
    gram = head_gram(WINDOWS)
    expected = gram + torch.eye(TINY.hidden_size) * gram.diagonal().mean()
    assert (found.gram - expected).abs().max() < 1e-5 * expected.max()
    # The twin: other texts flow in otherwise.
    assert (found.gram - head_gram(WINDOWS + 1)).abs().max() > 1e-2 * expected.max()
    assert found.count == WINDOWS.numel()
    assert found.cross is None
    assert found.curvature is None


def test_of_many_windows_it_takes_the_first(checkpoint, monkeypatch):
    monkeypatch.setattr(table_module, "_MOST_TOKENS", 100)
    found = table_inputs(TINY, checkpoint.tensor, WINDOWS)
    some = table_inputs(TINY, checkpoint.tensor, WINDOWS[:2])
    assert found.count == 80
    assert torch.equal(found.gram, some.gram)


def test_a_table_that_is_no_head_is_asked_for_its_rows_alone(tmp_path):
    opened = HfCheckpoint.open(write_checkpoint(tmp_path, UNTIED))
    found = table_inputs(UNTIED, opened.tensor, WINDOWS)
    assert torch.equal(found.gram, torch.eye(UNTIED.hidden_size))


@pytest.mark.parametrize("config", [TINY, UNTIED], ids=["tied", "untied"])
@pytest.mark.parametrize("quality", ["good", "best"])
def test_int4_tables_are_calibrated_like_the_linears(tmp_path, config, quality):
    opened = HfCheckpoint.open(write_checkpoint(tmp_path / "checkpoint", config))
    chosen = recipe("int4", table="int4", quality=quality)
    methods = chosen.resolve(opened.shapes).methods
    assert len({methods[name] for name in (TABLE, HEAD) if name in methods}) == 1
    assert methods[TABLE] == methods["model.layers.0.mlp.up_proj.weight"] != "clip_search"
    inputs = CalibrationInputs(WINDOWS, Needs.TARGETS)
    calibration = StreamedCalibration(opened, inputs, Scratch(tmp_path / "work", "key"))
    quantize_to(tmp_path / "weights", opened, chosen, calibration)
    weights = QuantizedWeights.open(tmp_path / "weights")
    expected = find_method(methods[TABLE]).quantize(
        opened.tensor(TABLE), GroupedInt(4, 32), table_inputs(config, opened.tensor, WINDOWS)
    )
    assert torch.equal(weights.get(TABLE).unpacked(), expected[0])
    assert torch.equal(weights.get(TABLE).scales, expected[1])
    by_weights, _ = find_method("clip_search").quantize(opened.tensor(TABLE), GroupedInt(4, 32))
    assert not torch.equal(expected[0], by_weights)


def lost(checkpoint, method: str, inputs) -> float:
    """The squared error of the head's products, and of the lookup's rows."""
    weight = checkpoint.tensor(TABLE).float()
    codes, scales = find_method(method).quantize(weight, GroupedInt(4, 32), inputs)
    error = weight - codes.float() * scales.float().repeat_interleave(32, 1)
    return float((error @ inputs.gram * error).sum())


def test_a_calibrated_table_loses_less_of_what_is_asked(checkpoint):
    inputs = table_inputs(TINY, checkpoint.tensor, WINDOWS)
    assert lost(checkpoint, "gptq_descent", inputs) < 0.9 * lost(checkpoint, "clip_search", inputs)
