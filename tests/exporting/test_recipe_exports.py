"""A recipe's file through an export: every target holds the mix, or the plan refuses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from artifacts.opened import stored_in
from artifacts.small_bundle import Silent
from artifacts.tiny import TINY, UNTIED, write_checkpoint

from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.errors import LoweringError, UsageError
from llama_export.exporting.pipeline import export_bundle
from llama_export.exporting.plan import plan_export
from llama_export.exporting.request import ExportRequest
from llama_export.verification.measure.structure import recorded_hashes
from llama_export.verification.verify import VerifySettings, verify_bundle
from llama_quantize import QuantizationError, QuantizedWeights

pytestmark = pytest.mark.usefixtures("one_thread", "empty_cache")

# Products of one input in several forms, and groups of every kind.
EVERYWHERE = [
    {"match": "model.layers.0.*.down_proj", "scheme": "int8 row"},
    {"match": "model.layers.1.*.q_proj", "scheme": "int8 row"},
    {"match": "model.layers.0.*.gate_proj", "scheme": "int4 g64"},
    {"match": "model.layers.1.*.v_proj", "scheme": "int4 g128"},
]
INT8_GROUPS = [
    {"match": "model.layers.0.*.down_proj", "scheme": "int8 g32"},
    {"match": "model.layers.1.*.q_proj", "scheme": "int8 g64"},
]
HALVES = [
    {"match": "*.o_proj", "scheme": "fp16"},
    {"match": "lm_head", "scheme": "fp16"},
    {"match": "model.layers.1.*.k_proj", "scheme": "fp16"},
]
BRAINS = [{"match": "*.o_proj", "scheme": "bf16"}]


def request(folder: Path, target: str, rules, config=UNTIED, **choices) -> ExportRequest:
    checkpoint = write_checkpoint(folder / "tiny", config)
    file = folder / "mix.json"
    file.write_text(json.dumps({"name": "a mix", "rules": rules}))
    fixed = {"recipe_file": file, "max_context": 64, "quality": "fast"}
    return ExportRequest(str(checkpoint), (target,), folder / "out", **fixed, **choices)


def of_target(target, rules, *marks):
    return pytest.param(target, rules, marks=[getattr(pytest.mark, target), *marks])


@pytest.mark.parametrize(
    ("target", "rules"),
    [
        of_target("onnx", EVERYWHERE),
        of_target("onnx", INT8_GROUPS + BRAINS),
        of_target("coreml", EVERYWHERE, pytest.mark.slow),
        of_target("coreml", INT8_GROUPS + HALVES, pytest.mark.slow),
        of_target("executorch", EVERYWHERE, pytest.mark.slow),
    ],
)
def test_a_mix_is_in_the_artifact_and_proved(tmp_path, target, rules):
    pytest.importorskip({"coreml": "coremltools"}.get(target, target))
    asked = request(tmp_path, target, rules)
    made = export_bundle(asked, Silent()).bundles[0]
    weights = QuantizedWeights.open(tmp_path / "out/weights")
    report = verify_bundle(
        made.bundle,
        weights=weights,
        checkpoint=HfCheckpoint.open(Path(asked.model)),
        settings=VerifySettings(quick=False),
    )
    assert not made.report.failures
    assert not report.failures
    quantization = made.bundle.manifest.quantization
    assert quantization["recipe"] == "a mix"
    assert stored_in(made.bundle).quantized == recorded_hashes(quantization)
    # The plan's sizes hold: an artifact is as large as its forms say.
    planned = plan_export(request(tmp_path, target, rules, force=True)).targets[0].estimate
    assert abs(planned.bundle_bytes - made.bundle.size_bytes) < 0.05 * made.bundle.size_bytes
    assert quantization["group_size"] is None


@pytest.mark.parametrize(
    ("target", "rules", "error", "words"),
    [
        ("executorch", INT8_GROUPS, LoweringError, r"layers\.0\.mlp\.down_proj.*int8 .*of 32"),
        ("executorch", HALVES, LoweringError, r"o_proj\.weight is stored as float16"),
        ("executorch", BRAINS, LoweringError, r"o_proj\.weight is stored as bfloat16"),
        ("coreml", BRAINS, UsageError, r"no bfloat16 weights, as model\.layers\.0\.\S*o_proj"),
    ],
)
def test_a_mix_without_a_form_is_refused_by_the_plan(tmp_path, target, rules, error, words):
    pytest.importorskip({"coreml": "coremltools"}.get(target, target))
    with pytest.raises(error, match=words) as caught:
        plan_export(request(tmp_path, target, rules))
    assert "in a recipe's file" in caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.onnx
def test_a_recipe_has_one_source(tmp_path):
    pytest.importorskip("onnx")
    for more in ({"recipe": "int4"}, {"group_size": 64}):
        with pytest.raises(UsageError, match="--quantize, --group-size or --table another"):
            plan_export(request(tmp_path, "onnx", EVERYWHERE, TINY, **more))
    with pytest.raises(
        QuantizationError, match=r"recipe a mix: no tensor matches the pattern 'model\.x'"
    ):
        plan_export(request(tmp_path, "onnx", [{"match": "model.x", "scheme": "fp16"}]))


@pytest.mark.onnx
def test_the_plan_reads_the_file_once(tmp_path):
    """What was planned is exported, whatever becomes of the file."""
    from llama_export.exporting.pipeline import run_export

    pytest.importorskip("onnx")
    asked = request(tmp_path, "onnx", EVERYWHERE, verify=False)
    plan = plan_export(asked)
    asked.recipe_file.unlink()
    assert plan.width_notes == ()
    weights = run_export(plan, Silent()).output / "weights"
    assert QuantizedWeights.open(weights).recipe == plan.recipe


@pytest.mark.onnx
def test_the_command_takes_a_file_and_shows_its_name(tmp_path, command):
    pytest.importorskip("onnx")
    asked = request(tmp_path, "onnx", EVERYWHERE)
    arguments = ["-t", "onnx", "-m", asked.model, "-o", tmp_path / "out", "--max-context", 64]
    arguments += ["--quality", "fast"]
    arguments += ["--recipe", asked.recipe_file]
    code, out, _ = command(*arguments, "--dry-run")
    assert code == 0
    assert "a mix" in out
    code, _, err = command(*arguments, "--group-size", 64)
    assert code == UsageError.exit_code
    assert "write base, group_size and table into the file" in err
    code, _, _ = command(*arguments, "--no-verify")
    assert code == 0
    code, out, _ = command("inspect", tmp_path / "out/onnx")
    assert code == 0
    assert "a mix, " in out
