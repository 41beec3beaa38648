"""Biases, the rotation before down_proj and side branches, in every target's artifact.

Each artifact is verified as an export does it, and what its reader would say of another model is
the twin: a part that is missing, or one too many, is red.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from artifacts.opened import footprint_of, probe_of, session_of, target_of
from artifacts.small_bundle import Silent
from artifacts.tiny import TINY, random_llama, random_tokens, write_checkpoint
from transformers import LlamaConfig as HfConfig
from transformers import LlamaForCausalLM

from llama_export.bundle.bundle import Bundle
from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.llama.config import LlamaConfig
from llama_export.llama.intermediates import in_layer
from llama_export.targets.executorch.options import ExecutorchOptions
from llama_export.targets.footprint import ADAPTORS, BIASES, GRAPH, PADDING
from llama_export.targets.stored import StoredArtifact
from llama_export.verification.locate.locate import locate
from llama_export.verification.rows import VerifyReport
from llama_quantize import QuantizedWeights

pytestmark = pytest.mark.usefixtures("one_thread")

BIASED = replace(TINY, attention_bias=True, mlp_bias=True)
ROTATED = replace(TINY, down_proj_rotation=True)
ADAPTED = replace(TINY, adaptor_rank=8, adaptor_scale=1.5)
ALL = replace(
    BIASED, down_proj_rotation=True, adaptor_rank=8, adaptor_scale=2.0, tie_word_embeddings=False
)
CONFIGS = {"biased": BIASED, "rotated": ROTATED, "adapted": ADAPTED, "all": ALL}

# What a reader is told that is not so; each is another model than the artifact's.
OTHERS = {
    "biased": [TINY, replace(TINY, attention_bias=True), replace(TINY, mlp_bias=True)],
    "rotated": [TINY],
    "adapted": [TINY, replace(ADAPTED, adaptor_scale=1.0)],
    "all": [
        replace(ALL, down_proj_rotation=False),
        replace(ALL, mlp_bias=False),
        replace(ALL, adaptor_rank=0, adaptor_scale=0.0),
    ],
}

ONNX = pytest.param("onnx", marks=pytest.mark.onnx)
COREML = pytest.param("coreml", marks=pytest.mark.coreml)
EXECUTORCH = pytest.param("executorch", marks=pytest.mark.executorch)
CASES = [
    *(pytest.param("onnx", name, marks=pytest.mark.onnx) for name in CONFIGS),
    *(pytest.param("coreml", name, marks=pytest.mark.coreml) for name in CONFIGS),
    pytest.param("executorch", "all", marks=pytest.mark.executorch),
    *(
        pytest.param("executorch", name, marks=[pytest.mark.executorch, pytest.mark.slow])
        for name in ("biased", "rotated", "adapted")
    ),
]


@dataclass(frozen=True)
class Exported:
    bundle: Bundle
    report: VerifyReport
    predicted: dict[str, object]


_made: dict[tuple[str, str], Exported] = {}


@pytest.fixture
def exported(tmp_path_factory):
    def make(target: str, name: str) -> Exported:
        pytest.importorskip({"coreml": "coremltools"}.get(target, target))
        if (target, name) not in _made:
            folder = tmp_path_factory.mktemp(f"{target}-{name}")
            _made[target, name] = export(folder, target, CONFIGS[name])
        return _made[target, name]

    return make


def export(folder: Path, target: str, config: LlamaConfig, recipe: str = "int4") -> Exported:
    from llama_export.exporting.plan import plan_export

    checkpoint = write_checkpoint(folder / "checkpoint", config)
    request = ExportRequest(
        str(checkpoint), (target,), folder / "out", recipe=recipe, max_context=96
    )
    (planned,) = plan_export(request).estimate.targets
    made = export_bundle(request, Silent()).bundles[0]
    parts = {part.kind: part for part in planned.footprint.parts}
    return Exported(made.bundle, made.report, parts)


@pytest.mark.parametrize(("target", "name"), CASES)
def test_an_artifact_computes_what_the_model_does(exported, target, name):
    made = exported(target, name)
    rows = {row.key: row for row in made.report.rows}
    assert not made.report.failures
    assert rows["wiring"].passed
    assert rows["floats_weights"].passed
    assert rows["codes_weights"].passed


LOCATED = [
    *(pytest.param("onnx", name, marks=pytest.mark.onnx) for name in CONFIGS),
    *(pytest.param("coreml", name, marks=pytest.mark.coreml) for name in CONFIGS),
]


@pytest.mark.parametrize(("target", "name"), LOCATED)
def test_every_operator_is_found_and_a_wrong_one_is_named(exported, target, name):
    bundle, config = exported(target, name).bundle, CONFIGS[name]
    weights = QuantizedWeights.open(bundle.folder.parent / "weights")
    probe = probe_of(bundle, threads=1)
    tokens = random_tokens(config, 12)
    assert locate(probe, config, weights.get, tokens) is None
    module = "model.layers.1.mlp.gate_proj"
    tensors = [f"{module}.{part}" for part in ("bias", "adaptor.A.weight", "adaptor.B.weight")]
    for wrong in (tensor for tensor in tensors if tensor in weights.names()):
        read = {wrong: weights.get(wrong) * 1.01}
        found = locate(probe, config, lambda n, r=read: r.get(n, weights.get(n)), tokens)
        assert found is not None
        assert found.operator == module
    if config.down_proj_rotation:

        def unrotated(chunks):
            kept, lost = in_layer(1, "mlp.activation"), in_layer(1, "mlp.rotated")
            return tuple(
                replace(each, values=each.values | {lost: each.values[kept]})
                for each in probe(chunks)
            )

        found = locate(unrotated, config, weights.get, tokens)
        assert found is not None
        assert found.operator == "model.layers.1.mlp (rotation)"
        assert "nothing is rotated" in found.detail


@pytest.mark.parametrize(("target", "name"), CASES)
def test_a_reader_that_expects_another_model_is_red(exported, target, name):
    bundle = exported(target, name).bundle
    artifact, config = StoredArtifact.of(bundle), CONFIGS[name]
    wiring = target_of(bundle).wiring(artifact, config)
    assert not wiring.strangers
    assert all(each.is_right for each in wiring.attributes)
    for other in OTHERS[name]:
        wiring = target_of(bundle).wiring(artifact, other)
        assert wiring.strangers or not all(each.is_right for each in wiring.attributes), other


@pytest.mark.parametrize("target", [ONNX, COREML, EXECUTORCH])
@pytest.mark.parametrize("part", ["bias", "adaptor.A.weight", "adaptor.B.weight"])
def test_a_number_that_was_changed_in_the_file_is_seen(exported, tmp_path, target, part):
    bundle = exported(target, "all").bundle
    name = f"model.layers.1.mlp.gate_proj.{part}"
    weights = QuantizedWeights.open(bundle.folder.parent / "weights")
    stored = weights.get(name).float().numpy().tobytes()
    folder = Path(shutil.copytree(bundle.folder, tmp_path / target))
    files = [path for path in folder.rglob("*") if path.is_file() and stored in path.read_bytes()]
    assert len(files) == 1
    content = bytearray(files[0].read_bytes())
    content[content.index(stored) + 2] ^= 1
    files[0].write_bytes(content)
    artifact = StoredArtifact.of(bundle)
    changed = folder / artifact.path.relative_to(bundle.folder)
    found = target_of(bundle).stored(replace(artifact, path=changed)).floats
    right = target_of(bundle).stored(artifact).floats
    assert {key for key in right if found[key] != right[key]} == {name}


@pytest.mark.parametrize(("target", "name"), CASES)
def test_an_estimate_counts_them(exported, target, name):
    made, config = exported(target, name), CONFIGS[name]
    found = {part.kind: part for part in footprint_of(made.bundle).parts}
    about = {GRAPH, PADDING}
    assert {k: v for k, v in found.items() if k not in about} == {
        k: v for k, v in made.predicted.items() if k not in about
    }
    assert (BIASES in found) == config.attention_bias
    assert (ADAPTORS in found) == bool(config.adaptor_rank)


@pytest.mark.onnx
@pytest.mark.parametrize("name", CONFIGS)
def test_a_rotation_or_bias_that_is_left_out_is_named(exported, tmp_path, name):
    """The graph as a buggy exporter would have written it, with one part of layer 1 left out."""
    onnx = pytest.importorskip("onnx")
    bundle, config = exported("onnx", name).bundle, CONFIGS[name]
    proto = onnx.load(str(bundle.artifact), load_external_data=False)
    graph = proto.graph
    down = "model.layers.1.mlp.down_proj"
    product = next(n for n in graph.node if f"{down}.weight" in str(n.metadata_props))
    if config.down_proj_rotation:
        behind = {name: node for node in graph.node for name in node.output}
        source = behind[product.input[0]]
        assert source.op_type == "Reshape"
        while source.op_type != "Mul":
            source = behind[next(v for v in source.input if v in behind)]
        product.input[0] = source.output[0]
    else:
        add = next(n for n in graph.node if n.op_type == "Add" and product.output[0] in n.input)
        for node in graph.node:
            for place, value in enumerate(node.input):
                if value == add.output[0]:
                    node.input[place] = product.output[0]
    changed = tmp_path / "model.onnx"
    onnx.save(proto, str(changed))
    artifact = replace(StoredArtifact.of(bundle), path=changed)
    wiring = target_of(bundle).wiring(artifact, config)
    assert any("layers.1" in each or "down_proj" in each for each in wiring.strangers)


@pytest.mark.onnx
@pytest.mark.parametrize(
    "config",
    [BIASED, replace(TINY, attention_bias=True), replace(TINY, mlp_bias=True)],
    ids=["both", "attention", "mlp"],
)
def test_a_bf16_export_with_biases_is_transformers_model(tmp_path, config):
    pytest.importorskip("onnx")
    bundle = export(tmp_path, "onnx", config, "bf16").bundle
    hf = LlamaForCausalLM(HfConfig(**config.to_hf())).float().eval()
    hf.load_state_dict(random_llama(config).state_dict())
    tokens = random_tokens(config, 64)
    session = session_of(bundle, exact=True)
    found = np.stack([session.prefill([token]) for token in tokens])
    with torch.inference_mode():
        expected = hf(torch.tensor([tokens])).logits[0].log_softmax(-1)
    log_shares = torch.from_numpy(found).log_softmax(-1)
    divergence = (expected.exp() * (expected - log_shares)).sum(-1)
    assert float(divergence.mean()) < 1e-6


@pytest.mark.executorch
@pytest.mark.slow
@pytest.mark.parametrize("delegate", ["vulkan", "coreml"])
def test_one_delegate_takes_all_of_it(tmp_path, delegate):
    pytest.importorskip("executorch")
    if delegate == "coreml":
        pytest.importorskip("coremltools")
    checkpoint = write_checkpoint(tmp_path / "checkpoint", ALL)
    options = {"executorch": ExecutorchOptions(delegate=delegate)}
    request = ExportRequest(
        str(checkpoint), ("executorch",), tmp_path / "out", max_context=64, options=options
    )
    spec = export_bundle(request, Silent()).bundles[0].bundle.manifest.spec
    assert spec.delegate["delegate_calls"] == 1
    assert spec.delegate["products_inside"] == 7 * ALL.num_hidden_layers + 1
    assert set(spec.delegate["outside"]) <= {"quantized_decomposed::embedding_byte.dtype_out"}


def test_weights_of_an_export_are_a_source_again(tmp_path):
    made = export(tmp_path, "onnx", ALL)
    weights = tmp_path / "out" / "weights"
    names = set(QuantizedWeights.open(weights).names())
    assert "model.layers.0.mlp.down_proj.adaptor.B.weight" in names
    request = ExportRequest(str(weights), ("onnx",), tmp_path / "again", max_context=96)
    again = export_bundle(request, Silent()).bundles[0]
    assert not again.report.failures
    assert again.bundle.artifact.read_bytes() == made.bundle.artifact.read_bytes()


@pytest.mark.onnx
def test_transformers_does_not_compute_the_folder_of_a_rotated_model(exported):
    """It would leave the rotation out; there is nothing in the folder that it takes for weights."""
    folder = exported("onnx", "rotated").bundle.folder
    for place in (folder, folder.parent / "weights"):
        with pytest.raises(OSError, match="no file named"):
            LlamaForCausalLM.from_pretrained(place)
