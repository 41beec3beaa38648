"""Operators put into a package, and settings that were changed: each is red, and is named."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from artifacts import tiny
from artifacts.coreml_artifacts import FIXED, IO, IOS17, STATE, UNTIED
from artifacts.coreml_artifacts import workshop as workshop
from artifacts.small_bundle import Silent

pytest.importorskip("coremltools", reason="needs the coreml extra")
from artifacts.coreml_graph_faults import OTHERS, VOCAB, WAYS, Program, ids_through
from artifacts.opened import target_of
from artifacts.resealing import reseal

from llama_export.bundle.bundle import Bundle
from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.targets.coreml.reading.wiring import read_wiring
from llama_export.targets.coreml.running.lookup import CoremlLookup
from llama_export.verification.artifact import Artifact
from llama_export.verification.judge.lookups import lookup_row, wiring_rows
from llama_export.verification.measure.lookups import measure_lookups
from llama_export.verification.verify import VerifySettings, verify_bundle
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.recipe import recipe

pytestmark = [pytest.mark.coreml, pytest.mark.usefixtures("one_thread")]


def export(folder: Path, config=tiny.TINY, options=STATE) -> Bundle:
    request = ExportRequest(
        str(tiny.write_checkpoint(folder / "checkpoint", config)),
        ("coreml",),
        folder / "out",
        max_context=64,
        verify=False,
        options={"coreml": options},
    )
    return export_bundle(request, Silent()).bundles[0].bundle


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def two_functions(tmp_path_factory):
    return export(tmp_path_factory.mktemp("two"), options=FIXED)


def edited(bundle: Bundle, edit, folder: Path) -> Artifact:
    copied = Path(shutil.copytree(bundle.folder, folder / "coreml"))
    program = Program(copied)
    edit(program)
    program.write()
    weights = QuantizedWeights.open(bundle.folder.parent / "weights")
    return Artifact(reseal(copied), target_of(bundle), weights, threads=1)


def rows_of(bundle: Bundle, edit, folder: Path):
    artifact = edited(bundle, edit, folder)
    lookups = measure_lookups(artifact, quick=True)
    rows = [*wiring_rows(artifact.wiring()), lookup_row(lookups, has_weights=True)]
    return {row.key: row for row in rows}


@pytest.mark.parametrize("name", WAYS)
def test_another_way_of_the_ids_is_red(exported, tmp_path, name):
    edit, words = WAYS[name]
    rows = rows_of(exported, edit, tmp_path)
    assert rows["lookups"].passed is False
    assert rows["wiring"].passed is False
    assert words in rows["wiring"].note


@pytest.mark.parametrize("function", ["decode", "prefill"])
def test_each_function_is_looked_at(two_functions, tmp_path, function):
    rows = rows_of(two_functions, ids_through("minimum", VOCAB - 2, function), tmp_path)
    assert rows["lookups"].note.startswith(f"in {function}: model.layers.0")
    assert f"{VOCAB - 1} gets the row of {VOCAB - 2}" in rows["lookups"].note
    assert rows["wiring"].note.startswith(f"first: {function}, model.embed_tokens: it looks put")


@pytest.mark.parametrize("name", OTHERS)
def test_another_operator_or_setting_is_named(exported, tmp_path, name):
    edit, key, words = OTHERS[name]
    found = edited(exported, edit, tmp_path).wiring()
    row = next(row for row in wiring_rows(found) if row.key == key)
    assert row.passed is False
    assert words in row.note


@pytest.mark.parametrize(
    ("form", "config", "chosen"),
    [
        (STATE, UNTIED, "int4"),
        (STATE, dataclasses.replace(tiny.TINY, num_hidden_layers=1), "int4"),
        pytest.param(
            dataclasses.replace(STATE, all_logits=True), tiny.TINY, "int8", marks=pytest.mark.slow
        ),
        pytest.param(
            STATE,
            dataclasses.replace(tiny.TINY, num_key_value_heads=4),
            "int4",
            marks=pytest.mark.slow,
        ),
        (FIXED, tiny.TINY, "int4"),
        pytest.param(IO, tiny.TINY, "int4", marks=pytest.mark.slow),
        (IOS17, UNTIED, "fp16"),
    ],
    ids=["untied", "one layer", "all logits of int8", "no groups", "two functions", "io", "iOS 17"],
)
def test_a_sound_package_of_each_form_is_followed_whole(workshop, form, config, chosen):
    package = workshop.tiny(form, config, recipe(chosen))
    wiring = read_wiring(package.path, config, package.spec)
    assert wiring.strangers == ()
    assert all(each.is_right for each in wiring.attributes)
    lookup = CoremlLookup.open(package.path, threads=1)
    ids = [0, 300, 7, VOCAB - 1]
    table = package.weights.dequantized("model.embed_tokens.weight")[ids].numpy()
    found = lookup.rows(ids)
    assert len(found) == 3 * max(1, len(package.spec.functions))
    for rows in found.values():
        np.testing.assert_array_equal(rows, table)


@pytest.mark.parametrize(
    "quick", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["quick", "full"]
)
def test_verify_is_red_where_the_ids_are_clipped(exported, tmp_path, quick):
    copied = Path(shutil.copytree(exported.folder, tmp_path / "coreml"))
    program = Program(copied)
    ids_through("minimum", VOCAB - 4)(program)
    program.write()
    weights = QuantizedWeights.open(exported.folder.parent / "weights")
    settings = VerifySettings(quick=quick, threads=1)
    report = verify_bundle(reseal(copied), weights=weights, settings=settings)
    assert {"wiring", "lookups"} <= {row.key for row in report.failures}
    assert f"{VOCAB - 3} gets the row of {VOCAB - 4}" in report.row("lookups").note
