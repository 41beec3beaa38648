"""What a calibration is said to take, against what one took, and what makes it take more."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest
from artifacts.small_bundle import FakeMachine
from artifacts.tiny import TINY, write_checkpoint

from llama_export.calibration.calibrate import CALIBRATION_FOLDER
from llama_export.calibration.options import OWN_TEXT, CalibrationOptions
from llama_export.errors import OutputError
from llama_export.exporting.calibration_cost import calibration_cost
from llama_export.exporting.estimate import ExportEstimate
from llama_export.exporting.pipeline import export_bundle
from llama_export.exporting.plan import plan_export
from llama_export.exporting.request import ExportRequest
from llama_export.exporting.resources import look_for_resources
from llama_export.llama.names import expected_shapes
from llama_export.llama.presets import PRESETS
from llama_export.system.byte_sizes import format_bytes
from llama_quantize.recipe import recipe

ONE_B = PRESETS["3.2-1B"]


def cost(config=ONE_B, quality="good", tokens=32768, cores=2):
    methods = recipe("int4", quality=quality).resolve(expected_shapes(config)).methods
    return calibration_cost(config, methods, tokens, cores)


def test_a_search_by_the_weights_alone_costs_nothing():
    assert cost(quality="fast") is None


def test_what_makes_a_calibration_take_more():
    good = cost()
    # Measured with 2 cores: tens of minutes, and less than 3 GB.
    assert 15 * 60 < good.elapsed_s < 90 * 60
    assert 1.5e9 < good.memory_bytes < 2.6e9
    assert (good.tokens, good.kept_bytes) == (32768, 131072)
    best = cost(quality="best")
    assert best.elapsed_s > 1.2 * good.elapsed_s
    assert best.scratch_bytes > good.scratch_bytes
    assert cost(cores=4).elapsed_s < 0.6 * good.elapsed_s
    half = cost(tokens=16384)
    assert 0.4 * good.elapsed_s < half.elapsed_s < 0.9 * good.elapsed_s
    assert cost(PRESETS["3.2-3B"]).elapsed_s > 2 * good.elapsed_s
    # Windows of half a context, and no half windows.
    assert cost(tokens=1000).tokens == 512
    assert cost(replace(ONE_B, max_position_embeddings=64), tokens=1000).tokens == 960


def test_scratch_is_what_the_streams_take():
    streams = 2 * (3 * 2048 + 2048 + 8192) * 32768 * 4
    assert streams < cost().scratch_bytes < streams + 1.2 * ONE_B.num_parameters
    # Few tokens: the copy of the weights that the model writes its text with is larger.
    assert cost(tokens=512).scratch_bytes == 2 * ONE_B.num_parameters


@pytest.mark.onnx
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("quality", ["good", "best"])
def test_the_disk_holds_no_more_than_was_said(tmp_path, quality):
    """Each size of the folder that is seen on the way is less than the estimate, and near it."""
    pytest.importorskip("onnx", reason="needs the onnx extra")
    config = replace(TINY, num_hidden_layers=3, max_position_embeddings=128)
    options = CalibrationOptions(tokens=4096)
    said = cost(config, quality, options.tokens).scratch_bytes
    folder = tmp_path / "out" / CALIBRATION_FOLDER
    seen = [0]

    class Watching:
        @contextmanager
        def step(self, label):
            def look(_done, _total):
                files = [path for path in folder.rglob("*") if path.is_file()]
                seen.append(sum(path.stat().st_blocks * 512 for path in files))

            yield look

    request = ExportRequest(
        str(write_checkpoint(tmp_path / "tiny", config)),
        ("onnx",),
        tmp_path / "out",
        quality=quality,
        calibration=options,
        verify=False,
    )
    plan = plan_export(request)
    assert plan.estimate.calibration is not None
    assert plan.estimate.calibration.scratch_bytes == said
    output = export_bundle(request, Watching()).output
    assert 0.5 * said < max(seen) <= 1.05 * said
    weights = sum(path.stat().st_size for path in (output / "weights").iterdir())
    assert plan.estimate.weights_bytes == pytest.approx(weights, rel=0.05)
    # Its weights are there now: whoever starts from them calibrates nothing.
    again = replace(
        request, model=str(output / "weights"), quality=None, calibration=OWN_TEXT, output=tmp_path
    )
    assert plan_export(again).estimate.calibration is None


def planned(tmp_path, quality: str, *, verify: bool = True) -> ExportEstimate:
    request = ExportRequest(
        "3.2-1B", ("onnx",), tmp_path / "out", quality=quality, max_context=512, verify=verify
    )
    return plan_export(request, to_show=True).estimate


@pytest.mark.usefixtures("empty_cache", "no_network")
def test_a_disk_that_is_too_small_for_it_alone_is_refused(tmp_path):
    fast, good = planned(tmp_path, "fast"), planned(tmp_path, "good")
    assert good.calibration is not None
    assert good.elapsed_s == fast.elapsed_s + good.calibration.elapsed_s
    machine = FakeMachine(free_disk=fast.disk_bytes + 10**9)
    look_for_resources(fast, tmp_path, machine).require()
    with pytest.raises(OutputError, match="are free") as refused:
        look_for_resources(good, tmp_path, machine).require()
    assert "or pass --quality fast, which needs 1.6" in refused.value.hint


@pytest.mark.usefixtures("empty_cache", "no_network")
def test_the_way_out_of_little_memory_is_one(tmp_path):
    machine = FakeMachine(memory=10**10, available=10**9)
    checked = look_for_resources(planned(tmp_path, "good"), tmp_path, machine)
    # The check needs more, and without it the calibration needs still more than an export does.
    assert "--no-verify" in checked.memory_hint
    needed = planned(tmp_path, "good").calibration
    assert needed is not None
    assert f"{format_bytes(needed.memory_bytes)} will do" in checked.memory_hint
    unchecked = look_for_resources(planned(tmp_path, "good", verify=False), tmp_path, machine)
    assert "with --quality fast, 420.0 MB will do" in unchecked.memory_hint
