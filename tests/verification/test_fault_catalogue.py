"""Every fault of the catalogue turns an export's own check red, or is refused by name."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
from artifacts import tiny
from artifacts.fault_catalogue import CATALOGUE, CONFIG, CONTEXT
from artifacts.resealing import reseal
from artifacts.small_bundle import Silent

from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.errors import LlamaExportError
from llama_export.exporting.pipeline import export_bundle
from llama_export.exporting.request import ExportRequest
from llama_export.verification.verify import VerifySettings, verify_bundle
from llama_quantize.checkpoint.weights import QuantizedWeights

pytestmark = pytest.mark.usefixtures("one_thread")

FEWEST, IN_THE_FAST_TIER = 40, 12
TOOLKITS = {"onnx": "onnxruntime", "executorch": "executorch", "coreml": "coremltools"}
# What 32 positions do not show; a full run must.
ONLY_IN_FULL: frozenset[tuple[str, str]] = frozenset()


def _cases():
    for target, faults in CATALOGUE.items():
        if importlib.util.find_spec(TOOLKITS[target]) is None:
            continue
        names = list(faults())
        step = len(names) / IN_THE_FAST_TIER
        fast = {names[int(index * step)] for index in range(IN_THE_FAST_TIER)}
        for name in names:
            marks = [getattr(pytest.mark, target)] + ([] if name in fast else [pytest.mark.slow])
            yield pytest.param(target, name, marks=marks, id=f"{target}: {name}")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return tiny.write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", CONFIG)


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    made: dict[str, Path] = {}

    def export(target: str) -> Path:
        if target not in made:
            output = tmp_path_factory.mktemp(target)
            request = ExportRequest(
                str(checkpoint), (target,), output, max_context=CONTEXT, verify=False, force=True
            )
            made[target] = export_bundle(request, Silent()).output
        return made[target]

    return export


def verdict(folder: Path, weights: Path, checkpoint: Path, *, quick: bool = True) -> str:
    """Return "green", "red", or the class of the error that names the fault."""
    try:
        report = verify_bundle(
            reseal(folder),
            weights=QuantizedWeights.open(weights),
            checkpoint=HfCheckpoint.open(checkpoint),
            settings=VerifySettings(quick=quick, threads=1),
        )
    except LlamaExportError as error:
        return type(error).__name__
    return "green" if report.passed else "red"


@pytest.mark.parametrize("target", CATALOGUE)
def test_there_are_forty_of_each_target(target):
    pytest.importorskip(TOOLKITS[target])
    assert len(CATALOGUE[target]()) >= FEWEST


@pytest.mark.parametrize("target", CATALOGUE)
def test_without_a_fault_the_bundle_is_green(exported, checkpoint, tmp_path, target):
    pytest.importorskip(TOOLKITS[target])
    output = exported(target)
    folder = Path(shutil.copytree(output / target, tmp_path / target))
    assert verdict(folder, output / "weights", checkpoint) == "green"


@pytest.mark.parametrize(("target", "name"), list(_cases()))
def test_a_fault_is_found(exported, checkpoint, tmp_path, target, name):
    output = exported(target)
    folder = Path(shutil.copytree(output / target, tmp_path / target))
    CATALOGUE[target]()[name](folder)
    quick = (target, name) not in ONLY_IN_FULL
    found = verdict(folder, output / "weights", checkpoint, quick=quick)
    assert found in ("red", "BundleError", "EvaluationError")
