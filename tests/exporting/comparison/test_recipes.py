"""Recipes side by side: figures that the weights have, what costs most, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from artifacts.small_bundle import Silent
from artifacts.tiny import UNTIED, write_checkpoint

from llama_export.calibration.options import CalibrationOptions
from llama_export.checkpoints.formats import open_checkpoint
from llama_export.errors import CheckpointError, PromptError, UsageError
from llama_export.exporting.comparison.identity import Identity
from llama_export.exporting.comparison.recipes import compare_recipes
from llama_export.exporting.comparison.request import NamedText, RecipesRequest
from llama_export.exporting.plan import fitted_recipe
from llama_export.exporting.recipe_name import parse_recipe_name
from llama_export.llama.streamed import reference_logits
from llama_export.sources.resolve import name_model
from llama_export.verification.measure.metrics import compare_logits
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.errors import QuantizationError
from llama_quantize.recipe import recipe

pytestmark = pytest.mark.usefixtures("one_thread")

IDENTITY = Identity("llama-export compare", {"llama-export": "0"}, "a processor", 1, None)
TEXT = NamedText("mine", "".join(chr(97 + index * index % 23) for index in range(700)))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("compared") / "tiny", UNTIED)


def compared(model, *words, positions=400, **choices):
    request = RecipesRequest(
        name_model(str(model)),
        tuple(parse_recipe_name(each) for each in words),
        choices.pop("texts", (TEXT,)),
        positions,
        **choices,
    )
    return compare_recipes(request, IDENTITY, Silent())


def test_the_figures_are_those_of_the_weights_that_an_export_makes(model, tmp_path):
    found = compared(model, "int4:g64", "int8", "bf16")
    (text,) = found.texts
    assert (text.positions, text.window, text.blocks) == (400, 400, 12)
    four, eight, floats = found.recipes
    checkpoint = open_checkpoint(model)
    quantize_to(tmp_path / "w", checkpoint, fitted_recipe(recipe("int4", 64), UNTIED))
    weights = QuantizedWeights.open(tmp_path / "w")
    assert four.size_bytes == weights.summary.size_bytes
    assert four.bits_per_weight == weights.summary.bits_per_weight
    prefix = [UNTIED.bos_token_id]
    ids = torch.tensor([[*prefix, *TEXT.content.encode()][:400]])
    own, other = (
        reference_logits(UNTIED, read, ids)[0].numpy() for read in (checkpoint.tensor, weights.get)
    )
    wanted = compare_logits(own, other)
    figures = four.texts[0]
    assert figures.kl.value == pytest.approx(wanted.kl_mean, rel=1e-4)
    assert figures.top1.value == pytest.approx(wanted.top1)
    assert figures.kl_p90 == pytest.approx(wanted.kl_p90, rel=1e-3)
    assert figures.kl_max == pytest.approx(wanted.kl_max, rel=1e-3)
    assert figures.ratio.value == pytest.approx(
        figures.perplexity.value / text.perplexity.value, rel=1e-9
    )
    assert figures.kl.value > 30 * eight.texts[0].kl.value > 0
    assert floats.texts[0].kl.value == 0  # its weights are bfloat16 already


def test_the_linears_that_cost_most_are_named_and_floats_cost_nothing(model):
    found = compared(model, "int4:g64", "bf16")
    four, floats = found.recipes
    assert len(four.costliest) == 5
    assert [each.share for each in four.costliest] == sorted(
        (each.share for each in four.costliest), reverse=True
    )
    assert 5 / 14 < sum(each.share for each in four.costliest) <= 1
    assert {each.form for each in four.costliest} == {"int4 g64"}
    assert floats.costliest == ()
    assert (four.targets, floats.targets) == (("onnx", "executorch", "coreml"), ("onnx",))


def test_a_calibrated_recipe_says_what_it_was_calibrated_on(model, tmp_path, no_own_text):
    options = CalibrationOptions(1024, no_own_text)
    found = compared(model, "int4:g64:fast", "int4:g64:good", "int4:g32:good", calibration=options)
    fast, good, finer = found.recipes
    assert fast.calibration == {}
    assert good.calibration["tokens"] == "1024"
    assert good.calibration["ids_sha256"] == finer.calibration["ids_sha256"]
    assert good.texts[0].kl.value != fast.texts[0].kl.value
    assert good.export_options == ("--quantize", "int4:g64:good")


@pytest.fixture
def no_own_text(tmp_path):
    file = tmp_path / "calibration.txt"
    file.write_text("the quick brown fox jumps over the lazy dog. " * 60)
    return (file,)


def test_another_checkpoint_can_be_the_reference(model, tmp_path):
    other = write_checkpoint(tmp_path / "other", UNTIED, seed=5)
    found = compared(model, "bf16", reference=name_model(str(other)))
    assert found.reference == "other"
    assert found.recipes[0].texts[0].kl.value > 0.1
    smaller = write_checkpoint(tmp_path / "smaller", replace(UNTIED, num_hidden_layers=1))
    with pytest.raises(CheckpointError, match="models of different shapes"):
        compared(model, "bf16", reference=name_model(str(smaller)))


def test_what_cannot_be_compared_is_refused_before_the_work(model, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "llama_export.exporting.comparison.recipes.Yardstick",
        lambda *_: pytest.fail("nothing is read"),
    )
    with pytest.raises(QuantizationError, match="256"):
        compared(model, "bf16", "int4:g256")
    with pytest.raises(PromptError, match="expected at least 128 positions, found 60"):
        compared(model, "bf16", texts=(NamedText("short", "a" * 60),))
    quantised = tmp_path / "w"
    quantize_to(quantised, open_checkpoint(model), recipe("int4"))
    for name in ("config.json", "tokenizer.model"):
        shutil.copy(model / name, quantised)
    with pytest.raises(UsageError, match="is quantised already, as int4"):
        compared(quantised, "bf16")
    text = NamedText("mine", "x", tmp_path / "mine.txt")
    with pytest.raises(UsageError, match="is both"):
        compared(model, "bf16", texts=(text,), calibration=CalibrationOptions(512, (text.path,)))


@pytest.mark.slow
@pytest.mark.onnx
def test_int4_has_the_figures_of_verify_on_its_text(tmp_path):
    from llama_export.bundle.bundle import Bundle
    from llama_export.exporting.comparison.request import named_texts
    from llama_export.exporting.pipeline import ExportRequest, export_bundle
    from llama_export.sources.resolve import DEMO_FOLDER
    from llama_export.targets import registry
    from llama_export.verification.artifact import Artifact
    from llama_export.verification.measure.measure import measure

    request = ExportRequest(
        "demo", ("onnx",), tmp_path / "out", recipe="int4:g32:fast", verify=False
    )
    bundle = Bundle.open(export_bundle(request, Silent()).bundles[0].bundle.folder)
    weights = QuantizedWeights.open(tmp_path / "out" / "weights")
    checkpoint = open_checkpoint(DEMO_FOLDER)
    shipped = measure(Artifact(bundle, registry.get("onnx"), weights, checkpoint)).shipped
    found = compared("demo", "int4:g32:fast", positions=8192, texts=named_texts(()))
    figures, wanted = found.recipes[0].texts[0], shipped.quantisation
    assert found.texts[0].positions == wanted.positions == 1000
    assert figures.kl.value == pytest.approx(wanted.kl_mean, rel=1e-5)
    assert figures.kl_max == pytest.approx(wanted.kl_max, rel=1e-4)
    assert figures.top1.value == pytest.approx(wanted.top1, abs=1e-9)
    assert figures.perplexity.value == pytest.approx(shipped.quantised_loss.perplexity, rel=1e-6)
    assert found.texts[0].perplexity.value == pytest.approx(
        shipped.checkpoint_loss.perplexity, rel=1e-6
    )
    # Another window's figures are others.
    shorter = compared("demo", "int4:g32:fast", positions=900, texts=named_texts(()))
    assert shorter.recipes[0].texts[0].kl.value != pytest.approx(wanted.kl_mean, rel=1e-3)
