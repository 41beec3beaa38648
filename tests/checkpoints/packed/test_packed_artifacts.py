"""Codes that another program chose are in all three artifacts, bit for bit."""

from __future__ import annotations

import pytest
import torch
from artifacts import packed_weights as packed
from artifacts.small_bundle import Silent
from safetensors.torch import load_file, save_file

pytest.importorskip("coremltools", reason="needs the coreml extra")
pytest.importorskip("executorch", reason="needs the executorch extra")
pytest.importorskip("onnx", reason="needs the onnx extra")

from artifacts.opened import stored_in

from llama_export import verify
from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.targets import registry
from llama_quantize.packing import pack_int4
from llama_quantize.tensor import sha256_of

pytestmark = [pytest.mark.coreml, pytest.mark.executorch, pytest.mark.onnx, pytest.mark.slow]


def grouped(bits, group):
    strategy = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
    weights = {"num_bits": bits, "type": "int", "symmetric": True} | strategy
    return {"targets": ["Linear"], "weights": weights}


def attention_and_mlp(module, weight):
    return packed.rounded(weight, 32 if "self_attn" in module else 128, dtype=torch.bfloat16)


KINDS = {
    "two groups of compressed-tensors": (
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {"group_0": grouped(4, 32), "group_1": grouped(4, 128)},
        },
        attention_and_mlp,
        packed.pack_quantized,
        4,
    ),
    "gptq_v2": (
        {"quant_method": "gptq", "bits": 4, "group_size": 64, "checkpoint_format": "gptq_v2"},
        lambda module, weight: packed.rounded(weight, 64),
        lambda grid: packed.gptq(grid, version=2),
        4,
    ),
    "int8 rows": (
        {
            "quant_method": "compressed-tensors",
            "format": "int-quantized",
            "config_groups": {"group_0": grouped(8, None)},
        },
        lambda module, weight: packed.rounded(weight, weight.shape[1], bits=8),
        packed.int_quantized,
        8,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_codes_and_scales_are_those_of_the_file(tmp_path, kind):
    settings, rounded, pack, bits = KINDS[kind]
    folder = packed.write_packed(
        tmp_path / "model", settings, lambda module, weight: pack(rounded(module, weight))
    )
    request = ExportRequest(
        str(folder), registry.TARGETS, tmp_path / "out", max_context=128, verify=False
    )
    expected = {}
    for name, weight in packed.floats().items():
        if "_proj." in name:
            grid = rounded(name, weight)
            codes = (grid.codes - 2 ** (bits - 1)).to(torch.int8)
            codes = pack_int4(codes) if bits == 4 else codes
            expected[name] = (sha256_of([codes]), sha256_of([grid.scales.to(torch.bfloat16)]))
    bundles = export_bundle(request, Silent()).bundles
    assert len(bundles) == 3
    for each in bundles:
        found = stored_in(each.bundle).quantized
        kept = {name: found[name] for name in expected}
        assert kept == expected, each.bundle.manifest.target
        twin = dict(expected)
        twin[next(iter(twin))] = expected[list(expected)[-1]]
        assert kept != twin


def test_a_bundle_is_proved_by_the_file_that_its_codes_are_of(tmp_path):
    settings, rounded, pack, _ = KINDS["gptq_v2"]
    folder = packed.write_packed(
        tmp_path / "model", settings, lambda module, weight: pack(rounded(module, weight))
    )
    request = ExportRequest(str(folder), ("onnx",), tmp_path / "out")
    bundle = export_bundle(request, Silent()).bundles[0]
    assert bundle.report.verdict == "passed"
    assert verify(bundle.bundle.folder, checkpoint=folder).verdict == "passed"
    path = folder / "model.safetensors"
    state = {name: value.clone() for name, value in load_file(path).items()}
    state["model.layers.0.mlp.down_proj.qweight"][7, 7] ^= 1
    save_file(state, path)
    report = verify(bundle.bundle.folder, checkpoint=folder)
    assert [row.key for row in report.failures] == ["codes_checkpoint"]
    assert "down_proj.weight: other codes" in report.failures[0].note
