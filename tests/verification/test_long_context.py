"""Faults that only a long call or a late position shows are red in a full run, and say where."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from artifacts import tiny
from artifacts.coreml_artifacts import export_to

pytest.importorskip("onnx", reason="needs the onnx extra")
pytest.importorskip("onnxruntime", reason="needs the onnx extra")
from artifacts import faults
from onnx import helper

from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.verification.verify import VerifySettings, verify_bundle
from llama_quantize.checkpoint.weights import QuantizedWeights

pytestmark = [pytest.mark.onnx, pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

CONFIG = dataclasses.replace(tiny.TINY, num_hidden_layers=3)
CONTEXT, LONG = 512, 300


def long_call(artifact):
    """A call of more than 300 tokens gets a hundredth too much from one layer."""
    maker = artifact.node_of(faults.DOWN)
    output = maker.output[0]
    maker.output[0] = "long.right"
    axis, most = (artifact.add(f"long.{n}", np.array(n, np.int64)) for n in (1, LONG))
    one, more = (artifact.add(f"long.{n}", np.array(n, np.float32)) for n in (1.0, 1.01))
    nodes = [
        helper.make_node("Shape", ["input_ids"], ["long.shape"]),
        helper.make_node("Gather", ["long.shape", axis], ["long.length"], axis=0),
        helper.make_node("Greater", ["long.length", most], ["long.is"]),
        helper.make_node("Where", ["long.is", more, one], ["long.factor"]),
        helper.make_node("Mul", ["long.right", "long.factor"], [output]),
    ]
    index = list(artifact.graph.node).index(maker)
    for offset, node in enumerate(nodes, start=1):
        artifact.graph.node.insert(index + offset, node)


def window(artifact):
    (node,) = artifact.attentions(faults.LAYER)
    (found,) = (each for each in node.attribute if each.name == "local_window_size")
    found.i = LONG


def stale_rotation(artifact):
    for name in ("cos_cache", "sin_cache"):
        rows = artifact.bytes_of(name).view(np.float32).reshape(CONTEXT, -1)
        rows[-3:] = rows[-4]


@pytest.mark.parametrize(
    ("fault", "row", "says"),
    [
        (long_call, "lengths_exact", "512"),
        (window, "lengths_exact", "512"),
        (stale_rotation, "rotary", "position 511"),
    ],
)
def test_it_is_named_in_a_full_run(tmp_path, fault, row, says):
    checkpoint = tiny.write_checkpoint(tmp_path / "checkpoint", CONFIG)
    bundle = export_to(tmp_path / "out", checkpoint, "onnx", max_context=CONTEXT)
    copied = shutil.copytree(bundle, tmp_path / "faulty")
    report = verify_bundle(
        faults.inject(copied, fault),
        weights=QuantizedWeights.open(tmp_path / "out" / "weights"),
        checkpoint=HfCheckpoint.open(checkpoint),
        settings=VerifySettings(quick=False, threads=1),
    )
    assert report.row(row).passed is False
    assert says in report.row(row).note
