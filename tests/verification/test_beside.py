"""Faults beside a real artifact: each turns a row red that names the file and both values."""

from __future__ import annotations

import dataclasses
import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from artifacts import side_faults
from artifacts.side_faults import ANY_TARGET, HASHES, ONNX, injected
from artifacts.small_bundle import Silent

from coreml_evaluator.package import Package
from llama_export.bundle.bundle import Bundle
from llama_export.checkpoints.formats import open_checkpoint
from llama_export.errors import BundleError, CheckpointError
from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.sources.model_files import expected_files
from llama_export.sources.resolve import DEMO_FOLDER
from llama_export.targets import registry
from llama_export.targets.executorch.reading.flatbuffer import write_number
from llama_export.targets.executorch.reading.pte import Pte
from llama_export.verification.artifact import Artifact
from llama_export.verification.judge.beside import beside_rows
from llama_export.verification.judge.structure import structure_rows
from llama_export.verification.measure.beside import compare_beside
from llama_export.verification.measure.structure import read_structure
from llama_quantize.checkpoint.weights import QuantizedWeights

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytestmark = [pytest.mark.onnx, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("beside")
    request = ExportRequest("demo", ("onnx",), output, max_context=256, verify=False)
    return export_bundle(request, Silent()).output


@pytest.fixture(scope="module")
def references(exported):
    weights = QuantizedWeights.open(exported / "weights")
    return {
        "checkpoint": {"checkpoint": open_checkpoint(DEMO_FOLDER), "weights": weights},
        "weights": {"weights": weights},
        "nothing": {},
    }


@pytest.fixture
def copied(exported, tmp_path) -> Path:
    return Path(shutil.copytree(exported / "onnx", tmp_path / "onnx"))


def rows_of(bundle: Bundle, references: dict[str, object]):
    unlisted = bundle.check_hashes()
    artifact = Artifact(bundle, registry.get(bundle.manifest.target), **references)
    return {row.key: row for row in beside_rows(compare_beside(artifact, unlisted))}


def assert_found(folder: Path, expected: tuple[side_faults.Fault, str], references) -> None:
    """A fault turns its row red; a manifest that means nothing may be refused before."""
    fault, key = expected
    row = None
    with suppress(BundleError):
        row = rows_of(injected(folder, fault), references)[key]
    if row is None:
        assert key.startswith("manifest_")
        return
    assert row.passed is False
    assert ": expected " in row.note
    assert ", found " in row.note


@pytest.mark.parametrize("origin", ["checkpoint", "weights"])
def test_a_sound_bundle_is_proved_by_its_checkpoint_and_by_its_weights(copied, references, origin):
    (copied / "my notes.md").write_text("not a client's")
    for name in ("report.json", "talk.chat", "run.py", ".DS_Store", "tokenizer.json.old"):
        (copied / name).write_text("{}")
    rows = rows_of(Bundle.open(copied), references[origin])
    assert {row.passed for row in rows.values()} == {True}
    assert origin in rows["side_chat"].note


def test_a_sound_bundle_without_its_source_is_not_proved(copied, references):
    rows = rows_of(Bundle.open(copied), references["nothing"])
    assert not [row for row in rows.values() if row.passed is False]
    open_rows = {key: row.wants for key, row in rows.items() if not row.made}
    assert open_rows == {
        "side_tokenizer": "checkpoint",
        "side_chat": "checkpoint",
        "side_dialogs": "checkpoint",
        "side_generation": "checkpoint",
        "side_licence": "checkpoint",
        "manifest_model": "checkpoint",
        "manifest_quantization": "weights",
    }


@pytest.mark.parametrize("name", [*ANY_TARGET, *ONNX])
def test_a_fault_is_red_and_named(copied, references, name):
    assert_found(copied, {**ANY_TARGET, **ONNX}[name], references["weights"])


@pytest.mark.parametrize("name", HASHES)
def test_recorded_hashes_that_are_gone_are_red(copied, references, name):
    bundle = injected(copied, HASHES[name])
    artifact = Artifact(bundle, registry.get("onnx"), **references["weights"])
    rows = {row.key: row for row in structure_rows(read_structure(artifact))}
    assert rows["codes_manifest"].passed is False


def test_two_vocabularies_that_contradict_each_other_are_red_without_a_source(copied, references):
    fault, _ = ANY_TARGET["two tokens of tokenizer.model exchanged"]
    row = rows_of(injected(copied, fault), references["nothing"])["side_others"]
    assert row.passed is False
    assert "tokenizer.model, token 259: expected ' the', found ' and'" in row.note


@pytest.mark.parametrize("origin", ["checkpoint", "weights"])
def test_dialogs_that_are_written_otherwise_are_named(copied, references, origin):
    fault, _ = ANY_TARGET["one word of the chat template"]
    row = rows_of(injected(copied, fault), references[origin])["side_dialogs"]
    # The word is the one before calls.
    assert row.value == 2
    assert "prompt of a call and its result: expected '..." in row.note
    assert "assistent" in row.note


def test_a_bundle_that_refuses_what_its_model_does_not_is_named(copied, references):
    fault = side_faults.in_json(
        "tokenizer_config.json",
        side_faults.put("chat_template", value="{{ raise_exception('no') }}"),
    )
    row = rows_of(injected(copied, fault), references["weights"])["side_dialogs"]
    assert row.value == 10
    assert "refuses this dialog: no" in row.note


def test_a_difference_in_a_long_text_is_shown_where_it_begins(copied, references):
    fault, key = ANY_TARGET["one word of the chat template"]
    note = rows_of(injected(copied, fault), references["checkpoint"])[key].note
    assert "tokenizer_config.json, chat_template: expected '..." in note
    assert "assistent" in note


def test_a_file_beside_the_weights_that_was_changed_is_no_reference(exported, tmp_path):
    folder = Path(shutil.copytree(exported / "weights", tmp_path / "weights"))
    info = Bundle.open(exported / "onnx").manifest.model
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json is not what was written"):
        expected_files(info, QuantizedWeights.open(folder), None)
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json is missing"):
        expected_files(info, QuantizedWeights.open(folder), None)


def test_a_hash_of_a_file_elsewhere_is_no_reference(exported, references):
    weights = references["weights"]["weights"]
    outside = dataclasses.replace(weights, metadata={"sha256 of ../manifest.json": "0" * 64})
    with pytest.raises(CheckpointError, match="is missing"):
        expected_files(Bundle.open(exported / "onnx").manifest.model, outside, None)


def test_weights_of_an_older_version_tell_nothing(exported, references):
    weights = dataclasses.replace(references["weights"]["weights"], metadata={"name": "demo"})
    assert expected_files(Bundle.open(exported / "onnx").manifest.model, weights, None) is None


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("twice the context", ["manifest_graph"]),
        ("one word of the chat template", ["side_chat", "side_dialogs"]),
        ("genai: another end", ["side_clients"]),
    ],
)
def test_the_command_ends_with_1_and_nothing_else(copied, exported, command, name, wrong):
    fault, _ = {**ANY_TARGET, **ONNX}[name]
    injected(copied, fault)
    code, out, _ = command("verify", copied, "--weights", exported / "weights", "--quick", "--json")
    report = json.loads(out)
    assert (code, report["verdict"]) == (1, "failed")
    failed = [
        each["key"]
        for rows in report["sections"].values()
        for each in rows
        if each["passed"] is False
    ]
    assert failed == wrong


def test_words_in_a_graph_are_anothers(copied, references):
    import onnx

    model = onnx.load(str(copied / "model.onnx"), load_external_data=False)
    model.metadata_props.add(key="eos_token_id", value="5")
    (copied / "model.onnx").write_bytes(model.SerializeToString())
    row = rows_of(injected(copied, lambda *_: None), references["weights"])["artifact_said"]
    assert row.note == "model.onnx, eos_token_id: expected nothing, found '5'"


def words_of_a_pte(folder: Path, _manifest: side_faults.Json) -> None:
    """Let the method `get_bos_id` answer 5."""
    path = folder / "model.pte"
    pte = Pte.open(path)
    content = bytearray(path.read_bytes())
    (value,) = pte.method("get_bos_id").tables(2)
    write_number(content, value.table(1).place(0), "q", 5)
    path.write_bytes(content)


def words_of_a_package(folder: Path, _manifest: side_faults.Json) -> None:
    """Let the package's metadata give another beginning of a text."""
    package = Package.open(folder / "model.mlpackage")
    package.model.description.metadata.userDefined["llama_export.bos_token_id"] = "5"
    package.model_file.write_bytes(package.model.SerializeToString())


WORDS = {"executorch": words_of_a_pte, "coreml": words_of_a_package}


@pytest.mark.slow
@pytest.mark.executorch
@pytest.mark.coreml
@pytest.mark.parametrize("target", WORDS)
def test_the_other_targets_are_proved_and_refuted_alike(tmp_path, target, references):
    pytest.importorskip({"coreml": "coremltools"}.get(target, target))
    request = ExportRequest("demo", (target,), tmp_path / "out", max_context=256)
    made = export_bundle(request, Silent()).bundles[0]
    assert made.report.passed, made.report.failures
    for expected in (*ANY_TARGET.values(), (WORDS[target], "artifact_said")):
        folder = Path(shutil.copytree(made.bundle.folder, tmp_path / "copied"))
        assert_found(folder, expected, references["weights"])
        shutil.rmtree(folder)


def test_there_are_enough_faults():
    assert len(ANY_TARGET) + len(ONNX) + len(HASHES) >= 38
