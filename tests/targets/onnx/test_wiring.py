"""Operators put into an ONNX graph, and settings that were changed: each is red, and is named."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from artifacts import tiny
from artifacts.small_bundle import Silent

from llama_export.bundle.bundle import Bundle
from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.targets.onnx.options import OnnxOptions
from llama_export.verification.artifact import Artifact as ToVerify
from llama_export.verification.judge.lookups import lookup_row, wiring_rows
from llama_export.verification.measure.lookups import choose_ids, measure_lookups
from llama_export.verification.verify import VerifySettings, verify_bundle
from llama_quantize.checkpoint.weights import QuantizedWeights

pytest.importorskip("onnx", reason="needs the onnx extra")
pytest.importorskip("onnxruntime", reason="needs the onnx extra")
from artifacts.faults import inject
from artifacts.onnx_graph_faults import (
    LAST,
    OPERATORS,
    SETTINGS,
    VOCAB,
    WAYS,
    before_lookup,
    one_id_reads_its_neighbour,
)
from artifacts.opened import target_of

pytestmark = [pytest.mark.onnx, pytest.mark.usefixtures("one_thread")]


def export(folder: Path, config=tiny.TINY, *, recipe="int4", all_logits=False) -> Bundle:
    request = ExportRequest(
        str(tiny.write_checkpoint(folder / "checkpoint", config)),
        ("onnx",),
        folder / "out",
        recipe=recipe,
        max_context=64,
        verify=False,
        options={"onnx": OnnxOptions(all_logits=all_logits)},
    )
    return export_bundle(request, Silent()).bundles[0].bundle


def rows_of(bundle: Bundle, weights: Path, *, quick=True):
    artifact = ToVerify(bundle, target_of(bundle), QuantizedWeights.open(weights), threads=1)
    lookups = measure_lookups(artifact, quick=quick)
    rows = [*wiring_rows(artifact.wiring()), lookup_row(lookups, has_weights=True)]
    return {row.key: row for row in rows}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export(tmp_path_factory.mktemp("exported"))


@pytest.fixture
def judged(exported, tmp_path):
    folder = Path(shutil.copytree(exported.folder, tmp_path / "onnx"))

    def make(edit, *, quick=True):
        return rows_of(inject(folder, edit), exported.folder.parent / "weights", quick=quick)

    return make


@pytest.mark.parametrize("name", WAYS)
def test_another_way_of_the_ids_is_red_in_quick_and_in_full(judged, name):
    edit, words = WAYS[name]
    rows = judged(edit)
    assert rows["lookups"].passed is False
    assert rows["wiring"].passed is (words is None)
    assert words is None or words in rows["wiring"].note


def test_negative_ids_read_the_same_rows_and_are_named_all_the_same(judged):
    rows = judged(lambda artifact: before_lookup(artifact, "Sub", np.int64(VOCAB)), quick=False)
    assert rows["lookups"].passed
    assert "made by the Sub put in" in rows["wiring"].note


def test_the_ids_with_another_row_are_named(judged):
    note = judged(one_id_reads_its_neighbour, quick=False)["lookups"].note
    assert note.endswith(f": {LAST} gets the row of {LAST - 1}")


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_read_back(exported, tmp_path, name):
    edit, words = SETTINGS[name]
    row = wiring_row(exported, tmp_path, edit, "attributes")
    assert row.passed is False
    assert words in row.note


def wiring_row(exported, folder, edit, key):
    """Return a row of a graph that need not run."""
    bundle = inject(Path(shutil.copytree(exported.folder, folder / "onnx")), edit)
    rows = wiring_rows(ToVerify(bundle, target_of(bundle)).wiring())
    return next(row for row in rows if row.key == key)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_that_is_not_a_llamas_is_named(exported, tmp_path, name):
    edit, words = OPERATORS[name]
    row = wiring_row(exported, tmp_path, edit, "wiring")
    assert row.passed is False
    assert words in row.note


@pytest.mark.parametrize(
    ("config", "recipe", "all_logits"),
    [
        (tiny.TINY, "int4", True),
        pytest.param(tiny.UNTIED, "int4", False, marks=pytest.mark.slow),
        (tiny.UNTIED, "int8", False),
        (tiny.TINY, "bf16", False),
        (dataclasses.replace(tiny.TINY, num_hidden_layers=1), "fp16", False),
    ],
    ids=["all logits", "untied", "int8", "bf16", "one layer of fp16"],
)
def test_a_sound_artifact_of_each_kind_is_green(tmp_path, config, recipe, all_logits):
    bundle = export(tmp_path, config, recipe=recipe, all_logits=all_logits)
    rows = rows_of(bundle, bundle.folder.parent / "weights", quick=False)
    assert all(row.passed for row in rows.values()), rows
    assert rows["lookups"].note == f"all {VOCAB} ids looked up"


@pytest.mark.parametrize(
    "quick", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["quick", "full"]
)
def test_verify_is_red_where_the_ids_are_clipped(exported, tmp_path, quick):
    folder = Path(shutil.copytree(exported.folder, tmp_path / "onnx"))
    weights = QuantizedWeights.open(exported.folder.parent / "weights")
    settings = VerifySettings(quick=quick, threads=1)
    right = verify_bundle(exported, weights=weights, settings=settings)
    assert not right.failures
    assert all(right.row(key).passed for key in ("wiring", "attributes", "lookups"))
    bundle = inject(folder, lambda a: before_lookup(a, "Min", np.int64(VOCAB - 4)))
    report = verify_bundle(bundle, weights=weights, settings=settings)
    assert {"wiring", "lookups"} <= {row.key for row in report.failures}
    assert f"{VOCAB - 3} gets the row of {VOCAB - 4}" in report.row("lookups").note


def test_without_weights_the_lookups_are_not_checked_and_the_graph_is(exported):
    artifact = ToVerify(exported, target_of(exported))
    row = lookup_row(measure_lookups(artifact, quick=True), has_weights=False)
    assert row.passed is None
    assert "no quantised weights" in row.note
    assert all(row.passed for row in wiring_rows(artifact.wiring()))


def test_a_quick_run_chooses_the_special_tokens_both_ends_and_512_others():
    special = list(range(128_000, 128_256))
    chosen = choose_ids(128_256, special, quick=True)
    assert {0, *special} <= set(chosen)
    assert len(chosen) == len(set(chosen)) == 1 + 256 + 512
    assert chosen == choose_ids(128_256, special, quick=True)
    assert choose_ids(3000, [], quick=False) == list(range(3000))
