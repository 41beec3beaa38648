"""Faults of a lowering to Core ML that verify must find, each in a real package of the demo.

A fault is written into the saved program or its weights, and the bundle is sealed again, so that no
file's hash gives it away.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from artifacts import tiny
from artifacts.coreml_artifacts import export_to
from artifacts.opened import probe_of
from artifacts.resealing import reseal

pytest.importorskip("coremltools", reason="needs the coreml extra")
from artifacts.coreml_faults import CONFIG, CONTEXT, FAULTS, TOKENS, Saved

from llama_export.bundle.bundle import Bundle
from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.verification.locate.locate import locate
from llama_export.verification.verify import VerifySettings, verify_bundle
from llama_quantize.checkpoint.weights import QuantizedWeights

pytestmark = [pytest.mark.coreml, pytest.mark.usefixtures("one_thread")]


@dataclasses.dataclass(frozen=True)
class Exported:
    bundle: Bundle
    weights: QuantizedWeights
    checkpoint: HfCheckpoint

    def verify(self, bundle: Bundle, *, quick: bool = True):
        return verify_bundle(
            bundle,
            weights=self.weights,
            checkpoint=self.checkpoint,
            settings=VerifySettings(quick=quick, threads=1),
        )

    def locate(self, bundle: Bundle):
        found = probe_of(bundle, threads=1)
        return locate(found, self.checkpoint.config, self.weights.get, TOKENS)


def export(folder: Path, **choices) -> Exported:
    checkpoint = tiny.write_checkpoint(folder / "checkpoint", CONFIG)
    bundle = export_to(folder / "out", checkpoint, max_context=CONTEXT, **choices)
    weights = QuantizedWeights.open(folder / "out" / "weights")
    return Exported(Bundle.open(bundle), weights, HfCheckpoint.open(checkpoint))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export(tmp_path_factory.mktemp("exported"))


@pytest.fixture
def copied(exported, tmp_path):
    return Path(shutil.copytree(exported.bundle.folder, tmp_path / "coreml"))


def inject(folder: Path, fault: Callable[[Saved], None]) -> Bundle:
    saved = Saved(folder)
    fault(saved)
    saved.write()
    return reseal(folder)


def test_without_a_fault_it_passes_and_nothing_is_located(exported, copied):
    bundle = inject(copied, lambda saved: None)
    report = exported.verify(bundle, quick=False)
    assert report.passed, report.failures
    assert report.row("operators").value == 0
    assert all(report.row(key).passed for key in ("wiring", "attributes", "lookups"))
    assert exported.locate(bundle) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"kv_cache": "io"}, {"functions": "prefill+decode"}],
    ids=["io", "prefill+decode"],
)
def test_the_other_packages_pass_too(tmp_path, options):
    other = export(tmp_path, options=options)
    report = other.verify(other.bundle, quick=False)
    assert report.passed, report.failures
    assert report.row("operators").value == 0


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_turns_the_verification_red_and_is_named(exported, copied, name):
    fault, operator, row = FAULTS[name]
    report = exported.verify(inject(copied, fault))
    assert not report.passed
    assert report.row("files").passed
    assert report.row(row).passed is False
    assert report.divergence.operator == operator
