"""All three artifacts of a model hold the same int4 codes and the same scales, bit for bit."""

from __future__ import annotations

import pytest
from artifacts.small_bundle import Silent

pytest.importorskip("coremltools", reason="needs the coreml extra")
pytest.importorskip("executorch", reason="needs the executorch extra")
pytest.importorskip("onnx", reason="needs the onnx extra")

from artifacts.opened import stored_in

from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.targets import registry
from llama_export.verification.measure.structure import recorded_hashes

pytestmark = [pytest.mark.coreml, pytest.mark.executorch, pytest.mark.onnx, pytest.mark.slow]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    request = ExportRequest(
        "demo", registry.TARGETS, tmp_path_factory.mktemp("all"), max_context=128, verify=False
    )
    exported = export_bundle(request, Silent()).bundles
    return {each.bundle.manifest.target: each.bundle for each in exported}


def test_codes_and_scales_are_equal_in_all_three(bundles):
    assert set(bundles) == {"onnx", "executorch", "coreml"}
    recorded = recorded_hashes(bundles["onnx"].manifest.quantization)
    assert len(recorded) == 1 + 6 * 7
    for target, bundle in bundles.items():
        found = dict(stored_in(bundle).quantized)
        # The head is the table again where an artifact names it as well.
        head = found.pop("lm_head.weight", recorded["model.embed_tokens.weight"])
        assert found == recorded, target
        assert head == recorded["model.embed_tokens.weight"], target


def test_norms_are_equal_in_all_three(bundles):
    onnx, executorch, coreml = (stored_in(each).floats for each in bundles.values())
    assert coreml == onnx
    assert set(executorch.values()) == set(onnx.values())
    assert len(coreml) == 2 * 6 + 1


def test_a_changed_byte_of_a_package_is_another_weight(bundles):
    bundle = bundles["coreml"]
    before = stored_in(bundle).quantized
    path = bundle.artifact / "Data/com.apple.CoreML/weights/weight.bin"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    after = stored_in(bundle)
    changed = sum(before[name] != after.quantized[name] for name in before)
    assert changed == 1 or after.floats != stored_in(bundles["onnx"]).floats
