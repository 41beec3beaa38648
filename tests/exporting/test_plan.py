"""A plan is resolved once, and executed as it is."""

from __future__ import annotations

import pytest
from artifacts.tiny import write_checkpoint

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

    counted(plan, "name_model")
    counted(plan, "estimate")
    counted(plan, "first_refusal")
    counted(LlamaConfig, "read")
    checkpoint = write_checkpoint(tmp_path / "tiny")
    request = ExportRequest(str(checkpoint), ("onnx",), tmp_path / "out", verify=False)
    made = plan.plan_export(request)
    again = list(asked)
    assert sorted(again) == ["estimate", "first_refusal", "first_refusal", "name_model", "read"]
    result = pipeline.run_export(made, Silent())
    assert asked == again
    assert result.bundles[0].bundle.folder == made.targets[0].folder
