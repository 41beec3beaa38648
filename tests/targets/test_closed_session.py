"""Sessions that are closed: in each runtime, their memory goes, forks stay, and use is refused."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
from artifacts.small_bundle import Silent
from artifacts.tiny import TINY, write_checkpoint

import llama_export
from llama_export.errors import UsageError
from llama_export.exporting.pipeline import ExportRequest, export_bundle

IDS = [1, 5, 9, 2]
TOOLKITS = {"onnx": "onnxruntime", "executorch": "executorch", "coreml": "coremltools"}
# ExecuTorch's artifact takes long to make, unless another test made it.
MARKS = {"executorch": [pytest.mark.slow]}


def export_tiny(target: str, folder: Path) -> Path:
    checkpoint = write_checkpoint(folder / "tiny", TINY)
    request = ExportRequest(
        str(checkpoint), (target,), folder / "out", max_context=64, verify=False
    )
    return export_bundle(request, Silent()).bundles[0].bundle.folder


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[getattr(pytest.mark, name), *MARKS.get(name, [])])
        for name in TOOLKITS
    ],
)
def bundle(request, tmp_path_factory) -> Path:
    toolkit = TOOLKITS[request.param]
    pytest.importorskip(toolkit, reason=f"needs the {request.param} extra")
    if request.param == "executorch":
        from artifacts.executorch_artifacts import DEMO_CONTEXT, Workshop

        return Workshop(tmp_path_factory).bundle("demo", DEMO_CONTEXT)
    return export_tiny(request.param, tmp_path_factory.mktemp(request.param))


def test_a_closed_session_is_refused_and_its_fork_goes_on(bundle):
    session = llama_export.load(bundle)
    expected = session.logits(IDS)
    fork = session.fork()
    rows = fork.cache.layers(fork.position)
    runtime_session = session.cache._session
    session.close()
    session.close()  # again, in peace
    for call in (
        lambda it: it.prefill(IDS),
        lambda it: it.cache(0),
        lambda it: it.restore(rows),
        lambda it: it.fork(),
    ):
        with pytest.raises(UsageError, match="the session is closed"):
            call(runtime_session)
    runtime_session.close()
    assert runtime_session.position == 0
    gone = weakref.ref(runtime_session)
    del runtime_session
    gc.collect()
    assert gone() is None
    np.testing.assert_allclose(fork.logits(IDS), expected, atol=1e-3)
    fork.rewind(0)
    np.testing.assert_allclose(fork.logits(IDS), expected, atol=1e-3)


def test_with_closes_also_after_an_error(bundle):
    with pytest.raises(UsageError, match="max_tokens"), llama_export.load(bundle) as session:
        session.generate(IDS, max_tokens=0)
    assert session.is_closed
    with pytest.raises(UsageError, match="the session is closed"):
        session.generate(IDS)
