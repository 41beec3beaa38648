"""A model in GGUF that a tag picks: planned, exported, recorded, and found again by `verify`."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pytest
from artifacts.gguf_files import SMALL, write_gguf
from artifacts.small_bundle import Silent
from fakes.hub import COMMIT, Hub, nothing_of_this_machine, serve

from llama_export import ExportSettings, export, inspect, verify
from llama_export.exporting.pipeline import run_export
from llama_export.exporting.plan import plan_export
from llama_export.exporting.request import ExportRequest
from llama_export.sources.references import reference_for
from llama_export.sources.repository import fetch

ID = "org/M-1B-GGUF"
Q8, Q4 = "M-1B-Q8_0.gguf", "sub/M-1B-Q4_0.gguf"
FORMS = {Q8: "Q8_0", Q4: "Q4_0"}
PLAIN = replace(SMALL, rope_scaling=None)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="module")
def hub(place):
    """A hub with two models, in whose cache lies what the tests before this one fetched."""
    paths = {name: write_gguf(place / name, PLAIN, form) for name, form in FORMS.items()}
    files = {name: path.read_bytes() for name, path in paths.items()}
    stand_in = Hub({**files, "LICENSE": b"MIT"}, large=frozenset(files))
    with (
        pytest.MonkeyPatch.context() as patch,
        nothing_of_this_machine(patch, place),
        serve(stand_in) as running,
    ):
        for name in ("adapters", "catalogue", "resolve"):
            there = partial(fetch, endpoint=running.endpoint)
            patch.setattr(f"llama_export.sources.{name}.fetch", there)
        yield running


@pytest.fixture(scope="module")
def plan(hub, place):
    request = ExportRequest(f"{ID}:q8_0", ("onnx",), place / "out", verify=False, max_context=64)
    return plan_export(request)


@pytest.fixture(scope="module")
def bundle(plan):
    pytest.importorskip("onnx", reason="needs the onnx extra")
    return run_export(plan, Silent()).bundles[0].bundle


def test_the_plan_knows_the_recipe_and_the_notes_without_the_file(plan, hub):
    assert [r.range for r in hub.sent("GET", Q8)] == ["bytes=0-1048575"]
    assert plan.recipe.name == "int8"
    assert plan.estimate.recipe == "int8"
    assert "codes of its linear layers are kept" in plan.notes[0]
    assert plan.resources.download.size_bytes == len(hub.files[Q8])
    other = ExportRequest(f"{ID}/{Q4}", ("onnx",), plan.output / "other")
    found = plan_export(other, to_show=True)
    assert found.recipe.name == "int4"
    assert "its weights are Q4_0" in found.notes[0]
    assert not (plan.output / "other").exists()


@pytest.mark.parametrize(
    ("model", "folder"), [(f"{ID}:Q8_0", "M-1B-GGUF-Q8_0"), (f"{ID}/{Q4}", "M-1B-Q4_0")]
)
def test_the_output_is_named_after_what_was_picked(model, folder):
    assert ExportRequest(model, ("onnx",)).output_folder.as_posix() == folder


def test_a_folder_of_this_machine_keeps_its_name(tmp_path):
    (tmp_path / "a:b.gguf").mkdir()
    request = ExportRequest(str(tmp_path / "a:b.gguf"), ("onnx",))
    assert request.output_folder.name == "a:b.gguf"


@pytest.mark.onnx
def test_the_manifest_and_the_weights_say_which_file_it_was(plan, bundle):
    model = bundle.manifest.model
    assert (model.name, model.hub_id, model.revision) == ("M-1B-GGUF", ID, COMMIT)
    assert model.file == Q8
    record = json.loads((plan.output / "weights/quantization.json").read_text())
    assert json.loads(record["metadata"]["reading"])["file"] == Q8
    assert inspect(bundle.folder).model["file"] == Q8
    assert (bundle.folder / "LICENSE").read_bytes() == b"MIT"
    again = ExportRequest(str(plan.output / "weights"), ("onnx",), plan.output / "again")
    kept = run_export(plan_export(replace(again, verify=False)), Silent())
    assert kept.bundles[0].bundle.manifest.model.file == Q8


@pytest.mark.onnx
def test_inspect_shows_the_file(bundle, command):
    code, out, _ = command("inspect", bundle.folder)
    assert code == 0
    assert f"{ID}/{Q8} at {COMMIT[:12]}" in " ".join(out.split())


@pytest.mark.onnx
@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("checkpoint", [ID, f"{ID}:Q8_0", f"{ID}/{Q8}"])
def test_verify_finds_the_same_file_again(hub, bundle, monkeypatch, checkpoint, offline):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    found = reference_for(bundle, checkpoint, None).checkpoint
    assert found.folder.name == Q8
    assert found.recipe.name == "int8"


@pytest.mark.onnx
def test_verify_proves_the_bundle_by_it_and_by_no_other(bundle):
    assert verify(bundle.folder, checkpoint=ID, quick=True).verdict == "passed"
    other = verify(bundle.folder, checkpoint=f"{ID}/{Q4}", quick=True)
    assert other.verdict == "failed"


@pytest.mark.onnx
def test_python_takes_the_same_names(hub, tmp_path):
    pytest.importorskip("onnx", reason="needs the onnx extra")
    settings = ExportSettings(verify=False)
    done = export(f"{ID}:Q4_0", "onnx", tmp_path / "out", max_context=64, settings=settings)
    model = done.bundles[0].bundle.manifest.model
    assert (model.hub_id, model.file) == (ID, Q4)
    assert (done.bundles[0].bundle.folder / "LICENSE").read_bytes() == b"MIT"
