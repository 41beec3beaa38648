"""The rows of logits of one run: those that single steps give, in each runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from artifacts.opened import session_of
from artifacts.small_bundle import Silent
from artifacts.tiny import TINY, write_checkpoint

import llama_export
from llama_export import CoremlOptions, OnnxOptions
from llama_export.bundle.bundle import Bundle
from llama_export.errors import UsageError
from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.targets.options import TargetOptions

IDS = [1, 5, 9, 2, 7, 7]
FORMS = {
    "onnx": ("onnx", OnnxOptions(all_logits=True, accuracy_level=1)),
    "coreml state": ("coreml", CoremlOptions()),
    "coreml io": ("coreml", CoremlOptions(kv_cache="io")),
    "coreml fixed": ("coreml", CoremlOptions(functions="prefill+decode")),
}
TOOLKITS = {"onnx": "onnxruntime", "executorch": "executorch", "coreml": "coremltools"}


def export_tiny(target: str, options: TargetOptions, folder: Path) -> Bundle:
    pytest.importorskip(TOOLKITS[target], reason=f"needs the {target} extra")
    checkpoint = write_checkpoint(folder / "tiny", TINY)
    request = ExportRequest(
        str(checkpoint),
        (target,),
        folder / "out",
        options={target: options},
        max_context=64,
        verify=False,
        keep_weights=False,
    )
    return export_bundle(request, Silent()).bundles[0].bundle


def steps_and_rows(bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of single steps, and of one run, after the same first token."""
    session = session_of(bundle, threads=1)
    session.prefill(IDS[:1])
    steps = np.array([session.prefill([token]).copy() for token in IDS[1:]])
    session.rewind(1)
    rows = session.run(IDS[1:]).copy()
    assert session.position == len(IDS)
    return steps, rows


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(name, marks=getattr(pytest.mark, target))
        for name, (target, options) in FORMS.items()
    ],
)
def test_a_run_gives_what_single_steps_give(form, tmp_path):
    target, options = FORMS[form]
    bundle = export_tiny(target, options, tmp_path)
    steps, rows = steps_and_rows(bundle)
    if form == "coreml fixed":
        assert not session_of(bundle).all_logits
        assert rows.shape == steps[-1:].shape
        with pytest.raises(UsageError, match="the last position alone") as refused:
            llama_export.load(bundle.folder, lookup=True)
        assert "--functions" in refused.value.hint
        return
    assert session_of(bundle).all_logits
    assert rows.shape == steps.shape
    scale = steps.std()
    assert np.abs(rows - steps).max() < 0.02 * scale
    # The twin: rows in another order are far away.
    assert np.abs(rows[::-1] - steps).max() > scale


@pytest.mark.slow
@pytest.mark.executorch
def test_a_pte_gives_every_row(tmp_path):
    from llama_export import ExecutorchOptions

    bundle = export_tiny("executorch", ExecutorchOptions(all_logits=True), tmp_path)
    steps, rows = steps_and_rows(bundle)
    assert session_of(bundle).all_logits
    assert rows.shape == steps.shape
    # Activations are rounded to int8, row by row.
    assert np.abs(rows - steps).max() < 0.2 * steps.std()
    assert np.abs(rows[::-1] - steps).max() > steps.std()
