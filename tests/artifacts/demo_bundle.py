"""The embedded demo model, exported once for all tests that write with it."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest

from llama_export.exporting.pipeline import ExportRequest, export_bundle

_made: list[Path] = []


class Silent:
    @contextmanager
    def step(self, label):
        yield lambda done, total: None


@pytest.fixture(scope="session")
def demo_bundle(tmp_path_factory) -> Path:
    """Return the bundle's folder. Imported by several files, it still exports once."""
    if not _made:
        output = tmp_path_factory.mktemp("demo")
        request = ExportRequest("demo", ("onnx",), output, verify=False, keep_weights=False)
        _made.append(export_bundle(request, Silent()).bundles[0].bundle.folder)
    return _made[0]
