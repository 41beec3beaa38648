"""Ten faults in a real ONNX bundle: each one turns the verification red, and is located."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from artifacts import tiny
from artifacts.opened import probe_of, session_of

from llama_export.bundle.bundle import Bundle
from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.cli import app
from llama_export.errors import BundleError
from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.verification.locate.locate import locate
from llama_export.verification.verify import VerifySettings, verify_bundle
from llama_quantize.checkpoint.weights import QuantizedWeights

pytest.importorskip("onnx", reason="needs the onnx extra")
pytest.importorskip("onnxruntime", reason="needs the onnx extra")
from artifacts import faults

pytestmark = [pytest.mark.onnx, pytest.mark.usefixtures("one_thread")]

CONFIG = dataclasses.replace(tiny.TINY, num_hidden_layers=3)
TOKENS = tiny.random_tokens(CONFIG, 32)
EVERY = {**faults.TEN, **faults.MORE}
WEIGHT_FAULTS = (
    "one scale times 1.01",
    "nibbles swapped",
    "two vocabulary rows swapped",
    "head not tied",
)


class Silent:
    @contextmanager
    def step(self, label):
        yield lambda done, total: None


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
        config = self.checkpoint.config

        def probe(chunks):
            return probe_of(bundle, threads=1)(chunks)

        return locate(probe, config, self.weights.get, TOKENS)


def export(folder: Path, config=CONFIG, seed=0, recipe="int4", group_size=None) -> Exported:
    checkpoint = tiny.write_checkpoint(folder / "checkpoint", config, seed)
    request = ExportRequest(
        str(checkpoint),
        ("onnx",),
        folder / "out",
        recipe=recipe,
        group_size=group_size,
        max_context=128,
        verify=False,
    )
    bundle = export_bundle(request, Silent()).bundles[0].bundle
    weights = QuantizedWeights.open(folder / "out" / "weights")
    return Exported(bundle, weights, HfCheckpoint.open(checkpoint))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export(tmp_path_factory.mktemp("exported"))


@pytest.fixture
def copied(exported, tmp_path):
    return Path(shutil.copytree(exported.bundle.folder, tmp_path / "onnx"))


def test_there_are_ten():
    assert len(faults.TEN) == 10


def test_without_a_fault_it_passes_and_nothing_is_located(exported, copied):
    bundle = faults.inject(copied, lambda artifact: None)
    report = exported.verify(bundle)
    assert report.passed, report.failures
    assert report.divergence is None
    assert exported.locate(bundle) is None


@pytest.mark.parametrize("name", EVERY)
def test_a_fault_is_located(exported, copied, name):
    fault = EVERY[name]
    found = exported.locate(faults.inject(copied, fault.edit))
    assert found is not None
    assert found.operator == fault.operator
    assert fault.says in found.detail
    assert tuple(name for name in found.others if name not in fault.perhaps) == fault.others
    assert found.error > 1.2 * found.limit
    layer = fault.operator.split(".")[2] if ".layers." in fault.operator else None
    assert found.layer == (None if layer is None else int(layer))


@pytest.mark.parametrize("name", faults.TEN)
def test_a_fault_turns_the_verification_red_and_is_named(exported, copied, name):
    report = exported.verify(faults.inject(copied, faults.TEN[name].edit))
    assert not report.passed
    assert report.row("files").passed
    assert report.divergence.operator == faults.TEN[name].operator


def test_a_full_run_sees_what_rounding_hides_from_the_logits(exported, copied):
    right = exported.verify(exported.bundle, quick=False)
    assert right.passed, right.failures
    assert right.row("operators").value == 0
    fault = faults.MORE["wrong norm epsilon in one layer"]
    report = exported.verify(faults.inject(copied, fault.edit), quick=False)
    assert [row.key for row in report.failures] == ["attributes", "operators"]
    assert report.divergence.operator == fault.operator


def wrong_rotary_row(artifact):
    artifact.bytes_of("cos_cache").view("float32").reshape(128, 32)[101] += 1e-4


def larger_gamma(artifact):
    artifact.bytes_of("model.layers.2.input_layernorm.weight").view("float32")[7] *= 1.001


@pytest.mark.parametrize(
    ("fault", "row"), [(wrong_rotary_row, "rotary"), (larger_gamma, "floats_weights")]
)
def test_what_few_tokens_reach_is_compared_byte_by_byte(exported, copied, fault, row):
    report = exported.verify(faults.inject(copied, fault))
    assert row in {row.key for row in report.failures}


def test_a_row_of_a_float_table_that_no_text_holds_is_compared(tmp_path):
    untied = export(tmp_path, tiny.UNTIED, recipe="bf16")
    assert untied.verify(untied.bundle).passed

    def other_row(artifact):
        (node,) = (n for n in artifact.nodes("Gather") if "embed_tokens" in str(n.metadata_props))
        rows = artifact.bytes_of(node.input[0]).reshape(artifact.shape(node.input[0])[0], -1)
        rows[200] = rows[201]

    report = untied.verify(faults.inject(untied.bundle.folder, other_row))
    assert {row.key for row in report.failures} >= {"floats_weights"}
    assert "embed_tokens" in report.row("floats_weights").note


@pytest.mark.parametrize("name", WEIGHT_FAULTS)
def test_a_manifest_that_records_the_faulty_weights_hides_nothing(exported, copied, name):
    report = exported.verify(faults.inject(copied, faults.TEN[name].edit, relabel=True))
    failed = {row.key for row in report.failures}
    assert "codes_manifest" not in failed
    assert "codes_weights" in failed
    assert report.divergence.operator == faults.TEN[name].operator


def test_a_fault_that_is_not_sealed_again_is_a_changed_file(exported, copied):
    artifact = faults.Artifact(copied)
    faults.nibbles_swapped(artifact)
    artifact.write()
    with pytest.raises(BundleError, match=r"model\.onnx_data"):
        exported.verify(exported.bundle.open(copied))


RECIPES = [("int4", None), ("int8", None), ("bf16", None)]


def assert_no_alarm(folder, seed, recipe, group_size):
    one = export(folder, tiny.TINY, seed, recipe, group_size)
    report = one.verify(one.bundle)
    assert report.passed, report.failures
    assert one.locate(one.bundle) is None


@pytest.mark.parametrize(("recipe", "group_size"), [*RECIPES, ("int4", 128)])
def test_no_false_alarm(tmp_path, recipe, group_size):
    assert_no_alarm(tmp_path, 0, recipe, group_size)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 20))
def test_no_false_alarm_over_many_models(tmp_path, seed):
    for recipe, group_size in RECIPES:
        assert_no_alarm(tmp_path / recipe, seed, recipe, group_size)


def test_a_graph_of_another_shape_is_located_and_not_an_error(exported, copied):
    def renamed(artifact):
        """Another form of SiLU: right, but not what can be mapped."""
        node = artifact.nodes("QuickGelu")[faults.LAYER]
        sigmoid = faults.helper.make_node("Sigmoid", [node.input[0]], ["other.sigmoid"])
        artifact.insert(node, [sigmoid])
        node.op_type, node.domain = "Mul", ""
        node.input.append("other.sigmoid")
        del node.attribute[:]

    found = exported.locate(faults.inject(copied, renamed))
    assert (found.layer, found.operator) == (1, "model.layers.1.mlp.gate_proj")
    assert "the artifact's graph is another" in found.detail


def test_an_artifact_that_cannot_run_is_a_named_error(exported, copied):
    def broken(artifact):
        (node,) = artifact.attentions(0)
        node.input[5] = "mask_length"

    bundle = faults.inject(copied, broken)
    with pytest.raises(BundleError, match="onnxruntime cannot"):
        probe_of(bundle, threads=1)([[1, 2]])


def test_the_points_of_the_graph_are_all_found_with_every_call_s_rows(exported):
    tapped = probe_of(exported.bundle, threads=1)([TOKENS[:5], TOKENS[5:6]])
    first, second = tapped
    assert set(first.values) == set(second.values)
    assert len(first.values) == 3 + 3 * 15
    assert second.values["model.layers.2.self_attn.past_key"].shape == (2, 5, 64)
    assert second.values["model.layers.2.self_attn.key"].shape == (2, 6, 64)
    assert second.values["lm_head"].shape == (1, CONFIG.vocab_size)
    assert first.names["model.layers.0.self_attn.key"] == "present.0.key"
    assert first.names["model.layers.2.self_attn.past_value"] == "past_key_values.2.value"
    alone = session_of(exported.bundle, threads=1, exact=True)
    alone.prefill(TOKENS[:6])
    assert (abs(alone.prefill(TOKENS[6:7])) > 0).any()
    key, _ = alone.cache(2)
    assert abs(key[:, :6] - second.values["model.layers.2.self_attn.key"]).max() < 1e-4


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments: object) -> tuple[int, dict]:
        monkeypatch.setattr(sys, "argv", ["llama-export", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            app.main()
        logging.disable(logging.NOTSET)
        return stopped.value.code or 0, json.loads(capsys.readouterr().out)

    return call


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    request = ExportRequest("demo", ("onnx",), tmp_path_factory.mktemp("demo"), verify=False)
    return export_bundle(request, Silent()).bundles[0].bundle


@pytest.mark.parametrize("name", ["one scale times 1.01", "K and V swapped"])
def test_the_command_names_the_divergence_in_the_demo_model(demo, tmp_path, run, name):
    copied = Path(shutil.copytree(demo.folder, tmp_path / "onnx"))
    faults.inject(copied, faults.TEN[name].edit)
    weights = demo.folder.parent / "weights"
    code, report = run("verify", copied, "--weights", weights, "--quick", "--json")
    assert (code, report["passed"]) == (1, False)
    assert report["divergence"]["operator"] == faults.TEN[name].operator
    assert report["divergence"]["layer"] == faults.LAYER
    assert faults.TEN[name].says in report["divergence"]["detail"]
