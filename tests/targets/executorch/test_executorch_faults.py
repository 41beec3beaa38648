"""Faults of a lowering to ExecuTorch that verify must find, each in a real `.pte` of the demo.

The layers' kinds are lowered once and kept; a fault is put where it costs little: in what surrounds
the delegates, or in the bytes that go into them.
"""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
from contextlib import contextmanager
from unittest import mock

import pytest

pytest.importorskip("executorch", reason="executorch is not installed (the extra 'executorch')")
from artifacts.executorch_artifacts import remembered_kinds

from llama_export.errors import BundleError
from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.sources.resolve import resolve_model
from llama_export.sources.source import open_source
from llama_export.targets.executorch.options import ExecutorchOptions
from llama_export.targets.executorch.xnnpack import host_program, weight_bytes
from llama_export.targets.executorch.xnnpack import lower as lowering
from llama_export.verification.verify import VerifySettings, verify_bundle
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.tensor import QuantizedTensor

MAX_CONTEXT = 256
# o, gate, up, down, then two halves each of q and k, and v.
BETWEEN_LAYERS = 9


class Silent:
    @contextmanager
    def step(self, label):
        yield lambda done, total: None


@pytest.fixture(scope="module")
def lowered_once():
    """Keep what was lowered of each kind: a fault around it does not lower it again."""
    with remembered_kinds():
        yield


@pytest.fixture
def export(lowered_once, tmp_path):
    def make():
        request = ExportRequest(
            "demo", ("executorch",), tmp_path / "out", max_context=MAX_CONTEXT, verify=False
        )
        return export_bundle(request, Silent()).bundles[0].bundle

    return make


def rows_of(bundle, quick=True):
    weights = QuantizedWeights.open(bundle.folder.parent / "weights")
    checkpoint = open_source(resolve_model("demo", revision=None, token=None)).checkpoint
    report = verify_bundle(
        bundle, weights=weights, checkpoint=checkpoint, settings=VerifySettings(quick=quick)
    )
    return report, {row.key: row for row in report.rows}


def failed(bundle):
    report, rows = rows_of(bundle)
    assert not report.passed
    return {key: row for key, row in rows.items() if row.passed is False}


def changed_forward(old, new):
    """Return `HostModule.forward` with one expression replaced."""
    source = textwrap.dedent(inspect.getsource(host_program.HostModule.forward))
    assert old in source
    names = dict(vars(host_program))
    exec(source.replace(old, new), names)
    return mock.patch.object(host_program.HostModule, "forward", names["forward"])


def changed_calls(change):
    """Let every delegate call be changed after its segment was lowered and filled."""
    real = lowering._Filler.call
    return mock.patch.object(
        lowering._Filler, "call", lambda self, segment: change(segment, real(self, segment))
    )


def test_a_sound_artifact_passes_and_every_figure_of_the_issue_holds(export):
    report, rows = rows_of(export(), quick=False)
    assert report.passed
    assert rows["codes_weights"].value == rows["floats_weights"].value == 0
    assert all(rows[key].passed for key in ("wiring", "attributes", "lookups"))
    assert rows["rotary"].value < 1e-6
    # KL with the rounding of activations in the reference, and without.
    assert rows["kl_shipped_emulated"].value <= 1e-4
    assert rows["kl_shipped_emulated"].value <= 0.1 * rows["kl_shipped"].value
    assert rows["best_step"].value < 1e-6
    assert rows["cache_steps"].value == 0
    assert rows["rewind"].value == rows["side_by_side"].value == rows["beyond_context"].value == 0


@pytest.mark.slow
def test_a_float16_cache_is_verified_with_its_own_limits(lowered_once, tmp_path):
    request = ExportRequest(
        "demo",
        ("executorch",),
        tmp_path / "out",
        max_context=MAX_CONTEXT,
        options={"executorch": ExecutorchOptions(kv_dtype="float16", kv_cache="io")},
    )
    exported = export_bundle(request, Silent()).bundles[0]
    assert exported.report.passed
    rows = {row.key: row for row in exported.report.rows}
    assert 1e-6 < rows["best_step"].value < 5e-3


@pytest.mark.slow
def test_rope_scaling_left_out_is_found(export):
    plain = host_program.inverse_frequencies
    without = mock.patch.object(
        host_program,
        "inverse_frequencies",
        lambda config: plain(dataclasses.replace(config, rope_scaling=None)),
    )
    with without:
        assert "rotary" in failed(export())


# The expression, what a buggy exporter might write instead, and whether another operator or value
# stands in the program then: such a program is not handed to the runtime.
AROUND = {
    "keys in the cache of values": (
        "values[KEY].to(dtype), key_",
        "values[VALUE].to(dtype), key_",
        True,
    ),
    "values rounded a little": (
        "values[VALUE].to(dtype)",
        "(values[VALUE] * 1.001).to(dtype)",
        True,
    ),
    "wrong scale of attention": ("0.0, True, None)", "0.0, True, 0.12)", False),
    "no causal mask": ("None, 0.0, True, None)", "None, 0.0, False, None)", False),
    "rotated a little too far": (
        "self.cos.narrow(0, start",
        "self.cos[:].flip(0).narrow(0, start",
        True,
    ),
    "a stale row": (
        "values[KEY].to(dtype), key_cache, start",
        "values[KEY].to(dtype), key_cache, start * 0",
        True,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", AROUND)
def test_a_fault_around_the_delegates_is_found(export, name):
    old, changed, is_stranger = AROUND[name]
    with changed_forward(old, changed):
        bundle = export()
    if is_stranger:
        with pytest.raises(BundleError, match="not the program of its model: instruction"):
            rows_of(bundle)
    else:
        assert failed(bundle)


def test_the_first_wrong_layer_is_named(export):
    def change(segment, call):
        wrong = "model.layers.2.mlp.down_proj.weight" in segment.weights
        return dataclasses.replace(call, epsilon=1.0) if wrong else call

    with changed_calls(change):
        found = failed(export())
    # That segment has the norms behind attention 2 and before attention 3.
    assert found["cache_steps"].note.startswith("first: keys of layer 3")


@pytest.mark.slow
def test_another_epsilon_is_found_though_rounding_hides_it(export):
    with changed_calls(lambda _, call: dataclasses.replace(call, epsilon=1e-4)):
        found = failed(export())
    assert found["cache_steps"].note.startswith("first: keys of layer 0")
    assert "kl_shipped" not in found


def swapped(first, second):
    """Fill two products of a segment with each other's weights."""
    real = lowering._Filler._fill

    def fill(self, kind, template, tensors):
        turned = {first: second, second: first}
        if len(kind.products()) == BETWEEN_LAYERS:
            fillings = {
                index: dataclasses.replace(
                    filling, product=turned.get(filling.product, filling.product)
                )
                for index, filling in template.fillings.items()
            }
            template = dataclasses.replace(template, fillings=fillings)
        return real(self, kind, template, tensors)

    return mock.patch.object(lowering._Filler, "_fill", fill)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second", "tensor"),
    [(2, 3, "mlp.gate_proj"), (5, 6, "self_attn.q_proj"), (7, 8, "self_attn.k_proj")],
    ids=["gate and up", "halves of q_proj", "halves of k_proj"],
)
def test_swapped_weights_are_found_by_their_hashes(export, first, second, tensor):
    with swapped(first, second):
        found = failed(export())
    assert tensor in found["codes_weights"].note


@pytest.mark.slow
def test_one_scale_a_hundredth_off_is_found(export):
    real = weight_bytes.scales_bytes

    def scales(tensor, rows, head_dim):
        if tensor.shape == (256, 768):
            off = tensor.scales.clone()
            off[3, 1] *= 1.01
            tensor = QuantizedTensor(tensor.scheme, tensor.shape, tensor.codes, off)
        return real(tensor, rows, head_dim)

    with mock.patch.object(lowering, "scales_bytes", scales):
        found = failed(export())
    first = "first: model.layers.0.mlp.down_proj.weight: other scales"
    assert found["codes_weights"].note == first


@pytest.mark.slow
def test_nibbles_the_other_way_round_are_found(export):
    real = weight_bytes.codes_bytes

    def codes(tensor, rows, head_dim):
        if tensor.scheme.bits == 4:
            turned = (tensor.codes >> 4) | (tensor.codes << 4)
            tensor = QuantizedTensor(tensor.scheme, tensor.shape, turned, tensor.scales)
        return real(tensor, rows, head_dim)

    with mock.patch.object(lowering, "codes_bytes", codes):
        assert "codes_weights" in failed(export())


def test_layers_that_share_a_cache_are_refused(export):
    shared = changed_forward(
        "kept[2 * layer], kept[2 * layer + 1]",
        "kept[2 * (layer // 2 * 2)], kept[2 * (layer // 2 * 2) + 1]",
    )
    with shared:
        bundle = export()
    with pytest.raises(BundleError, match="not the program of its model: instruction"):
        rows_of(bundle)
