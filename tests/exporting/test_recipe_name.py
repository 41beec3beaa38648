"""A recipe in a word: what it asks for, what it is written as, and what is no such word."""

from __future__ import annotations

import pytest

from llama_export.errors import UsageError
from llama_export.exporting.recipe_name import (
    DEFAULT_QUALITY,
    RecipeName,
    near_scheme,
    parse_built_in,
    parse_recipe_name,
)
from llama_export.exporting.request import ExportRequest
from llama_quantize.errors import QuantizationError
from llama_quantize.recipe import recipe


@pytest.mark.parametrize(
    ("word", "asked"),
    [
        ("int4", RecipeName("int4")),
        ("int4:g64", RecipeName("int4", 64)),
        ("int8:fast", RecipeName("int8", quality="fast")),
        ("int4:best:tableint4:g128", RecipeName("int4", 128, "int4", "best")),
        ("bf16", RecipeName("bf16")),
    ],
)
def test_a_word_says_scheme_group_table_and_quality(word, asked):
    assert parse_recipe_name(word) == asked
    assert parse_recipe_name(str(asked)).recipe() == asked.recipe()


def test_what_is_written_names_the_defaults(monkeypatch):
    monkeypatch.setitem(DEFAULT_QUALITY, "int4", "good")
    written = [str(parse_recipe_name(each).resolved()) for each in ("int4", "int8", "fp16")]
    assert written == ["int4:g32:good", "int8:g32", "fp16"]
    assert str(parse_recipe_name("int4:tableint8:g64:fast")) == "int4:g64:fast"
    assert str(parse_recipe_name("int4:tableint4")) == "int4:g32:tableint4"


def test_a_file_stands_in_place_of_a_scheme(tmp_path):
    file = tmp_path / "mine.json"
    rule = '{"match": "model.layers.0.*.down_proj", "scheme": "int8 row"}'
    file.write_text(f'{{"base": "int4", "group_size": 64, "rules": [{rule}]}}')
    plain, best = parse_recipe_name(str(file)), parse_recipe_name(f"{file}:best")
    assert (plain.file, plain.quality, best.quality) == (file, None, "best")
    assert plain.export_options() == ("--recipe", str(file))
    assert best.export_options() == ("--recipe", str(file), "--quality", "best")
    assert {rule.method for rule in best.recipe().rules} >= {"curvature_descent"}
    assert str(best) == f"{file}:best"
    with pytest.raises(QuantizationError, match="cannot be read"):
        parse_recipe_name(str(tmp_path / "none.json"))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("int3", "'int3' is no recipe"),
        ("int4:g64:g32", "'g32' of the recipe 'int4:g64:g32'"),
        ("int4:64", "'64' of the recipe"),
        ("int4:better", "'better' of the recipe"),
        ("int4:tableint2", "'tableint2' of the recipe"),
        ("int4:", "'' of the recipe"),
    ],
)
def test_what_is_no_word_is_refused_with_an_example(word, said):
    with pytest.raises(UsageError, match=said) as refused:
        parse_recipe_name(word)
    assert "int4:g64" in refused.value.hint


@pytest.mark.parametrize(
    ("word", "scheme"),
    [
        ("Q4_0", "int4"),
        ("q4_K_M", "int4"),
        ("IQ4_XS", "int4"),
        ("nf4", "int4"),
        ("4bit", "int4"),
        ("w4a16", "int4"),
        ("INT8", "int8"),
        ("Q8_0", "int8"),
        ("Q5_K_M", "int8"),
        ("float16", "fp16"),
        ("F16", "fp16"),
        ("bfloat16", "bf16"),
        ("float32", ""),
        ("int16", ""),
        ("good", ""),
    ],
)
def test_the_scheme_that_another_name_means(word, scheme):
    assert near_scheme(word) == scheme
    with pytest.raises(UsageError) as refused:
        parse_recipe_name(word)
    assert refused.value.hint.count("did you mean") == bool(scheme)


@pytest.mark.parametrize("word", ["int4:g48", "bf16:g32", "bf16:fast"])
def test_what_no_recipe_has_is_refused_by_the_recipe(word):
    with pytest.raises(QuantizationError):
        parse_recipe_name(word).recipe()


def test_an_export_takes_a_word_and_no_option_that_contradicts_it():
    asked = ExportRequest("demo", ("onnx",), recipe="int4:g64:fast:tableint4")
    assert asked.chosen_recipe() == recipe("int4", 64, table="int4", quality="fast")
    beside = ExportRequest("demo", ("onnx",), recipe="int4:g64", quality="fast")
    assert beside.chosen_recipe() == recipe("int4", 64, quality="fast")
    for option, value in (("group_size", 32), ("table", "int8"), ("quality", "best")):
        request = ExportRequest("demo", ("onnx",), recipe=asked.recipe, **{option: value})
        with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} {value}"):
            request.chosen_recipe()
    with pytest.raises(QuantizationError, match="unknown recipe"):
        parse_built_in("mine.json")
