"""A plan is resolved once, and executed as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from artifacts.tiny import TINY, write_checkpoint

from llama_export.errors import LoweringError

pytestmark = pytest.mark.usefixtures("empty_cache")


def test_a_plan_is_resolved_once_and_executed(monkeypatch, tmp_path):
    """Neither the command nor the pipeline asks again for what the plan holds."""
    from artifacts.small_bundle import Silent

    from llama_export.exporting import pipeline, plan
    from llama_export.exporting.request import ExportRequest
    from llama_export.llama.config import LlamaConfig

    pytest.importorskip("onnx", reason="needs the onnx extra")
    asked = []

    def counted(place, name):
        real = getattr(place, name)

        def call(*arguments, **options):
            asked.append(name)
            return real(*arguments, **options)

        monkeypatch.setattr(place, name, call)

    counted(plan, "name_with_adapters")
    counted(plan, "estimate")
    counted(plan, "refusal_of")
    counted(LlamaConfig, "from_hf")
    checkpoint = write_checkpoint(tmp_path / "tiny")
    request = ExportRequest(str(checkpoint), ("onnx",), tmp_path / "out", verify=False)
    made = plan.plan_export(request)
    again = list(asked)
    assert sorted(again) == [
        "estimate",
        "from_hf",
        "name_with_adapters",
        "refusal_of",
        "refusal_of",
    ]
    result = pipeline.run_export(made, Silent())
    assert asked == again
    assert result.bundles[0].bundle.folder == made.targets[0].folder


def test_an_output_has_the_models_name(tmp_path):
    from llama_export.exporting.request import ExportRequest

    (tmp_path / "model-v1.5.gguf").write_bytes(b"x")
    (tmp_path / "v1.5").mkdir()
    names = {
        "3.2-1B": "3.2-1B",
        "someone/Llama-3.5": "Llama-3.5",
        str(tmp_path / "model-v1.5.gguf"): "model-v1.5",
        str(tmp_path / "v1.5"): "v1.5",
    }
    for model, name in names.items():
        assert ExportRequest(model, ("onnx",)).output_folder == Path(name)


def test_a_width_that_no_group_divides_is_said_or_refused_by_the_plan(tmp_path):
    pytest.importorskip("onnx", reason="needs the onnx extra")
    from artifacts.small_bundle import Silent

    from llama_export.exporting import plan
    from llama_export.exporting.pipeline import export_bundle
    from llama_export.exporting.request import ExportRequest

    notes = {}
    for width in (172, 208, 256):
        checkpoint = write_checkpoint(tmp_path / str(width), replace(TINY, intermediate_size=width))
        request = ExportRequest(str(checkpoint), ("onnx",), tmp_path / "out", verify=False)
        if width == 172:
            with pytest.raises(LoweringError, match="rows of 172 columns") as caught:
                plan.plan_export(request)
            assert "--quantize bf16" in (caught.value.hint or "")
        else:
            notes[width] = plan.plan_export(request).notes
    assert notes[256] == ()
    assert len(notes[208]) == 1
    assert "rows of 208 weights: these 2 matrices are int8" in notes[208][0]
    # The export itself says it too.
    request = ExportRequest(str(tmp_path / "208"), ("onnx",), tmp_path / "out", verify=False)
    assert export_bundle(request, Silent()).notes == notes[208]
