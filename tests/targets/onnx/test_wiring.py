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
from artifacts.faults import Artifact, inject
from artifacts.opened import target_of
from onnx import helper

pytestmark = [pytest.mark.onnx, pytest.mark.usefixtures("one_thread")]

VOCAB = tiny.TINY.vocab_size
LAST = VOCAB - 1


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


def before_lookup(artifact: Artifact, op: str, *constants, **attributes) -> None:
    """Put an operator between the ids and every lookup by them."""
    users = [node for node in artifact.nodes("Gather") if "input_ids" in node.input]
    names = [artifact.add(f"put.{i}", each) for i, each in enumerate(constants)]
    inputs = [names[0], "input_ids"] if op == "Gather" else ["input_ids", *names]
    artifact.insert(users[0], [helper.make_node(op, inputs, ["put"], name="put in", **attributes)])
    for node in users:
        node.input[1] = "put"


def after(artifact: Artifact, value: str, op: str, *constants, **attributes) -> None:
    """Put an operator behind a value, which keeps its name."""
    maker = next(node for node in artifact.graph.node if value in node.output)
    maker.output[list(maker.output).index(value)] = "as it was"
    names = [artifact.add(f"put.{i}", each) for i, each in enumerate(constants)]
    made = helper.make_node(op, ["as it was", *names], [value], name="put in", **attributes)
    index = list(artifact.graph.node).index(maker)
    artifact.graph.node.insert(index + 1, made)


def one_id_reads_its_neighbour(artifact: Artifact) -> None:
    users = [node for node in artifact.nodes("Gather") if "input_ids" in node.input]
    one, other = (artifact.add(f"put.{n}", np.int64(n)) for n in (LAST, LAST - 1))
    nodes = [
        helper.make_node("Equal", ["input_ids", one], ["is it"], name="equal"),
        helper.make_node("Where", ["is it", other, "input_ids"], ["put"], name="where"),
    ]
    artifact.insert(users[0], nodes)
    for node in users:
        node.input[1] = "put"


def a_second_table(artifact: Artifact) -> None:
    """Let the lookup read a copy of the table with one other byte."""
    (codes,) = (node for node in artifact.nodes("Gather") if node.input[0].endswith(".table"))
    content = bytearray(artifact.bytes_of(codes.input[0]).tobytes())
    content[70] ^= 0x40
    codes.input[0] = artifact.append_data("another table", codes.input[0], bytes(content))


def a_value_the_probe_reads(artifact: Artifact) -> None:
    """Hide the wrong rows from who reads the norm's input: only the residual gets them."""
    norm = next(
        node
        for node in artifact.nodes("SkipSimplifiedLayerNormalization")
        if "layers.0." in node.input[2]
    )
    embedded = norm.input[0]
    scale = artifact.add("put.scale", np.float32(1.001))
    artifact.insert(norm, [helper.make_node("Mul", [embedded, scale], ["put"], name="put in")])
    norm.input[0] = "put"


# The fault, and words of the row "wiring"; each of these reads other rows.
WAYS = {
    "ids clipped by Min": (
        lambda a: before_lookup(a, "Min", np.int64(300)),
        "expected input_ids, found put, made by the Min put in",
    ),
    "ids clipped by Clip": (
        lambda a: before_lookup(a, "Clip", np.int64(0), np.int64(400)),
        "the Clip put in",
    ),
    "ids by modulus": (lambda a: before_lookup(a, "Mod", np.int64(500)), "the Mod put in"),
    "ids through a map": (
        lambda a: before_lookup(a, "Gather", np.arange(VOCAB)[::-1].copy()),
        "the Gather put in",
    ),
    "one id reads its neighbour": (one_id_reads_its_neighbour, "the Where where"),
    "another table": (a_second_table, None),
    "another row for the residual": (a_value_the_probe_reads, "the first sum"),
    "rows scaled": (
        lambda a: after(a, "embedding", "Mul", np.float32(1.0001)),
        "expected a Reshape or Cast, found the Mul put in",
    ),
}


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


def attribute(op: str, name: str, value, index=0):
    def edit(artifact: Artifact) -> None:
        node = artifact.nodes(op)[index]
        kept = [each for each in node.attribute if each.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return edit


def a_bias(op: str, index=0):
    """Give a product or a norm a bias, which it takes as one input more."""

    def edit(artifact: Artifact) -> None:
        node = artifact.nodes(op)[index]
        size = artifact.config.hidden_size
        node.input.extend(["", "", ""][: 3 if op == "MatMulNBits" else 0])
        node.input.append(artifact.add("put.bias", np.full(size, 1e-3, np.float32)))

    return edit


SKIP, ATTENTION = "SkipSimplifiedLayerNormalization", "GroupQueryAttention"
SETTINGS = {
    "epsilon of the last norm": (
        attribute(SKIP, "epsilon", 1.2e-5, -1),
        "model.norm: epsilon is 1.2e-05, expected 1e-05",
    ),
    "epsilon of one norm": (attribute(SKIP, "epsilon", 1.5e-5, 1), "epsilon is 1.5e-05"),
    "epsilon of the first norm": (attribute("RMSNormalization", "epsilon", 1.1e-5), "epsilon"),
    "scale of attention": (attribute(ATTENTION, "scale", 1 / 8.01), "scale is 0.1248439"),
    "a softcap": (attribute(ATTENTION, "softcap", 50.0, 1), "softcap is 50"),
    "a window": (attribute(ATTENTION, "local_window_size", 1500), "local_window_size is 1500"),
    "no rotation": (attribute(ATTENTION, "do_rotary", 0), "do_rotary is 0"),
    "pairs side by side": (attribute(ATTENTION, "rotary_interleaved", 1), "rotary_interleaved"),
    "a sink": (attribute(ATTENTION, "smooth_softmax", 1), "smooth_softmax is 1"),
    "a setting nobody knows": (attribute(ATTENTION, "k_quant_type", "NONE"), "k_quant_type is"),
    "another silu": (attribute("QuickGelu", "alpha", 1.01), "alpha is 1.01"),
    "axis of a lookup": (attribute("Gather", "axis", 1, 1), "axis is 1"),
}


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


OPERATORS = {
    "a bias on one logit": (
        lambda a: after(a, "logits", "Add", np.eye(1, VOCAB, 7, dtype=np.float32)[None]),
        "lm_head: expected a MatMulNBits or FusedMatMul, found the Add put in",
    ),
    "logits capped": (
        lambda a: after(a, "logits", "Clip", np.float32(-50), np.float32(50)),
        "found the Clip put in",
    ),
    "logits in another order": (
        lambda a: after(a, "logits", "Gather", np.roll(np.arange(VOCAB), 1), axis=2),
        "found the Gather put in",
    ),
    "a product with a bias": (a_bias("MatMulNBits", 1), "o_proj: the MatMulNBits"),
    "a sum with a bias": (a_bias(SKIP), "takes"),
    "a mask of its own": (
        lambda a: a.attentions(0)[0].input.extend(
            ["", a.add("put.mask", np.zeros((1, 1, 1, 64), np.float32))]
        ),
        "(attention): the GroupQueryAttention",
    ),
    "an operator that leads nowhere": (
        lambda a: a.graph.node.append(helper.make_node("Neg", ["logits"], ["no"], name="put in")),
        "the Neg put in leads nowhere",
    ),
    "a product that is not hashed": (
        lambda a: a.nodes("MatMulNBits")[2].ClearField("metadata_props"),
        "holds nothing",
    ),
    "one output more": (
        lambda a: a.graph.output.append(helper.make_tensor_value_info("last_token", 7, None)),
        "the graph's output last_token is unknown",
    ),
}


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
    assert right.passed, right.failures
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
