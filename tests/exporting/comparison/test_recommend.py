"""What is recommended: a KL's upper end counts, a size is exact, and none may be the answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from llama_export.errors import UsageError
from llama_export.exporting.comparison.figures import (
    ReadText,
    RecipeComparison,
    RecipeFigures,
    TextFigures,
)
from llama_export.exporting.comparison.identity import Identity
from llama_export.exporting.comparison.limits import Limit
from llama_export.exporting.comparison.recommend import (
    export_command,
    free_output,
    recommend,
)
from llama_export.verification.estimate import Estimate

ONE = Estimate(1.0, 0.0)


def figures(name: str, size_bytes: int, *kls: tuple[float, float]) -> RecipeFigures:
    texts = tuple(TextFigures(Estimate(*kl), 0.0, 0.0, 0.0, ONE, ONE, ONE) for kl in kls)
    return RecipeFigures(name, ("--quantize", name), {}, {}, size_bytes, 4.5, texts)


def comparison(*recipes: RecipeFigures) -> RecipeComparison:
    texts = tuple(
        ReadText(str(index), "0", 1000, 500, 8, ONE) for index in range(len(recipes[0].texts))
    )
    identity = Identity("llama-export compare", {}, "a processor", 1, None)
    return RecipeComparison("tiny", {}, "tiny", texts, recipes, identity)


SMALL = figures("int4:g128", 90_000_000, (0.030, 0.002))
MIDDLE = figures("int4:g32", 100_000_000, (0.020, 0.002))
LARGE = figures("int8:g32", 150_000_000, (0.001, 0.0001))


@pytest.mark.parametrize(
    ("most", "name"),
    [
        (0.0321, "int4:g128"),
        (0.0319, "int4:g32"),  # its mean is within, its upper end is not
        (0.0219, "int8:g32"),
        (0.0010, None),
    ],
)
def test_the_smallest_whose_upper_end_is_within_a_kl(most, name):
    found = recommend(comparison(LARGE, SMALL, MIDDLE), Limit(most_kl=most))
    assert (found.chosen.name if found.chosen else None) == name
    if name is None:
        assert found.nearest is LARGE
        assert "no recipe has at most 0.001 nats, error included; nearest is int8:g32" in (
            found.sentence
        )


@pytest.mark.parametrize(
    ("most", "name"),
    [(150, "int8:g32"), (149.999999, "int4:g32"), (90, "int4:g128"), (89, None)],
)
def test_the_closest_within_a_size(most, name):
    found = recommend(comparison(SMALL, MIDDLE, LARGE), Limit(most_bytes=round(most * 1e6)))
    assert (found.chosen.name if found.chosen else None) == name
    assert found.nearest is SMALL
    assert found.to_json()["recipe"] == name


def test_every_text_must_be_within():
    two = figures("int4:g32", 100, (0.01, 0.001), (0.05, 0.001))
    other = figures("int8:g32", 200, (0.01, 0.001), (0.011, 0.001))
    assert recommend(comparison(two, other), Limit(most_kl=0.02)).chosen is other
    assert recommend(comparison(two, other), Limit(most_bytes=300)).chosen is other


def test_one_limit_is_asked_for():
    for limits in ((None, None), (0.1, 100)):
        with pytest.raises(UsageError, match="expected one of --max-kl and --budget-mb"):
            Limit(*limits)


def test_the_command_exports_what_was_named():
    everywhere = replace(MIDDLE, targets=("onnx", "executorch", "coreml"))
    command = export_command("my model", everywhere, Path("my out"))
    assert command == (
        "llama-export --target all --model 'my model' --quantize int4:g32 --output 'my out'"
    )
    some = export_command("demo", replace(MIDDLE, targets=("onnx", "coreml")), Path("o"))
    assert some == "llama-export --target onnx,coreml --model demo --quantize int4:g32 --output o"
    assert export_command("demo", MIDDLE, Path("o")) is None


def test_the_command_has_what_else_decides_what_was_measured():
    calibrated = replace(MIDDLE, targets=("onnx",), calibration={"method": "gptq"})
    words = (Path("o"), ["--revision", "v2", "--adapter", "a"], ["--calibration", "my text"])
    command = export_command("m", calibrated, *words)
    assert command == (
        "llama-export --target onnx --model m --revision v2 --adapter a --quantize int4:g32 "
        "--calibration 'my text' --output o"
    )
    assert "--calibration" not in export_command("m", replace(MIDDLE, targets=("onnx",)), *words)


@pytest.mark.parametrize(
    ("model", "recipe", "name"),
    [
        ("3.2-1B", "int4:g32:good", "3.2-1B-int4-g32-good"),
        ("/models/mine.Q4_1.gguf", "bf16", "mine.Q4_1-bf16"),
        ("maker/model:Q4_K_M", "/my recipes/a b.json:best", "model-Q4_K_M-a-b-best"),
    ],
)
def test_the_output_is_named_after_the_recipe_and_is_free(
    model, recipe, name, tmp_path, monkeypatch
):
    """An earlier export of the model is not in its way, nor one of the recipe."""
    monkeypatch.chdir(tmp_path)
    assert str(free_output(model, recipe)) == name
    (tmp_path / name).mkdir()
    (tmp_path / f"{name}-2").symlink_to("nowhere")
    assert str(free_output(model, recipe)) == f"{name}-3"
