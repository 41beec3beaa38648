"""All three artifacts of a model hold the same int4 codes and the same scales, bit for bit."""

from __future__ import annotations

import pytest
import torch
from artifacts.small_bundle import Silent

pytest.importorskip("coremltools", reason="needs the coreml extra")
pytest.importorskip("executorch", reason="needs the executorch extra")
pytest.importorskip("onnx", reason="needs the onnx extra")

from artifacts.opened import session_of, stored_in

from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.llama.config import LlamaConfig
from llama_export.llama.streamed import reference_logits
from llama_export.targets import registry
from llama_export.tokenizer.tokenizer import load_tokenizer
from llama_export.verification.measure.structure import recorded_hashes
from llama_quantize.checkpoint.weights import QuantizedWeights

pytestmark = [pytest.mark.coreml, pytest.mark.executorch, pytest.mark.onnx, pytest.mark.slow]


@pytest.fixture(scope="module", params=["int8", "int4"], ids=["int8 table", "int4 table"])
def bundles(request, tmp_path_factory):
    request = ExportRequest(
        "demo",
        registry.TARGETS,
        tmp_path_factory.mktemp("all"),
        max_context=128,
        verify=False,
        table=request.param,
        quality="fast",
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


def test_those_that_do_not_round_write_the_text_that_the_eager_model_writes(bundles):
    """The likeliest token each time. ExecuTorch rounds, and where two are near takes the other."""
    any_bundle = bundles["onnx"]
    config = LlamaConfig.read(any_bundle.folder / "config.json")
    weights = QuantizedWeights.open(any_bundle.folder.parent / "weights")
    begin = [config.bos_token_id, *load_tokenizer(any_bundle.folder).encode("Once upon a time")]
    expected = list(begin)
    for _ in range(16):
        logits = reference_logits(config, weights.get, torch.tensor([expected]))
        expected.append(int(logits[0, -1].argmax()))
    assert len(set(expected[len(begin) :])) > 8
    for target in ("onnx", "coreml"):
        session, found = session_of(bundles[target], exact=True), list(begin)
        logits = session.prefill(found)
        for _ in range(16):
            found.append(int(logits.argmax()))
            logits = session.prefill(found[-1:])
        assert found == expected, target


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
