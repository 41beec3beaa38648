"""Recipes that a person writes: what they mean, and what is refused of them."""

from __future__ import annotations

import json
import os

import pytest
from artifacts.tiny import UNTIED

from llama_export.llama.names import expected_shapes
from llama_quantize import GroupedInt, QuantizationError, QuantRecipe
from llama_quantize.recipe import without_spent_rules
from llama_quantize.recipe_file import read_recipe, written_recipe

FIRST = "model.layers.0"


def resolved(rules, shapes=None, **keys):
    shapes = expected_shapes(UNTIED) if shapes is None else shapes
    chosen = written_recipe({"rules": rules, **keys}).recipe()
    return without_spent_rules(chosen, shapes).resolve(shapes)


def labels(found, *names):
    return [found.schemes[name].label for name in names]


def test_named_tensors_get_their_form_and_the_others_the_built_in_one():
    found = resolved(
        [
            {"match": f"{FIRST}.*.down_proj", "scheme": "int8 row"},
            {"match": ["*.v_proj", "lm_head.weight"], "scheme": "bf16"},
            {"match": f"{FIRST}.mlp.*", "scheme": "int8 g64"},
        ],
        base="int4",
        group_size=64,
        name="mine",
    )
    assert found.recipe.name == "mine"
    mlp = f"{FIRST}.mlp"
    assert labels(found, f"{mlp}.down_proj.weight", f"{mlp}.gate_proj.weight") == [
        "int8 row",
        "int8 g64",
    ]
    one = "model.layers.1"
    assert labels(
        found, f"{one}.mlp.down_proj.weight", f"{one}.self_attn.v_proj.weight", "lm_head.weight"
    ) == ["int4 g64", "bfloat16", "bfloat16"]
    assert labels(found, "model.embed_tokens.weight") == ["int8 row"]
    # One scale a row is rounded to nearest, groups are searched.
    assert found.methods[f"{mlp}.down_proj.weight"] == "nearest"
    assert found.methods[f"{mlp}.gate_proj.weight"] == "clip_search"
    # The first rule that matches wins; the record holds all of them.
    assert found.hits[:4] == (1, 2, 1, 2)
    assert QuantRecipe.from_json(found.recipe.to_json()) == found.recipe


def test_an_integer_form_passes_over_what_is_no_matrix():
    found = resolved([{"match": "model.layers.1.*", "scheme": "int8 row"}])
    assert labels(found, "model.layers.1.input_layernorm.weight") == ["bfloat16"]
    assert found.hits[0] == 7
    everywhere = resolved([{"match": "*", "scheme": "int4 g64"}])
    names = ("model.norm.weight", "lm_head.weight", f"{FIRST}.mlp.up_proj.weight")
    assert labels(everywhere, *names) == ["bfloat16", "int8 row", "int4 g64"]
    # The built-in rule of the linears has nothing left, and is not kept.
    assert everywhere.hits == (14, 2, 5)
    floats = resolved([{"match": "*", "scheme": "fp16"}])
    assert set(map(str, labels(floats, *names))) == {"float16"}


def test_a_quality_chooses_the_methods_of_all_but_int8_tables():
    rules = [
        {"match": ["model.embed_tokens", "lm_head.weight"], "scheme": "int4 g32"},
        {"match": "*.down_proj", "scheme": "int8 row"},
        {"match": "*.o_proj", "scheme": "fp16"},
    ]
    names = ["lm_head.weight", *(f"{FIRST}.mlp.{kind}_proj.weight" for kind in ("down", "up"))]
    shapes = expected_shapes(UNTIED)
    written = written_recipe({"rules": rules})
    for quality, method, of_rows in (
        (None, "clip_search", "nearest"),
        ("fast", "clip_search", "nearest"),
        ("best", "curvature_descent", "curvature_descent"),
    ):
        methods = without_spent_rules(written.recipe(quality), shapes).resolve(shapes).methods
        assert [methods[name] for name in names] == [method, of_rows, method]
        assert f"{FIRST}.self_attn.o_proj.weight" not in methods
    rows = written_recipe({"rules": [{"match": "lm_head", "scheme": "int8 row"}]})
    assert rows.recipe("best").rules[0].method == "nearest"
    # A base without codes has no quality, and a rule in it has.
    floats = written_recipe({"base": "fp16", "rules": rules[1:2]}).recipe("good")
    assert [rule.method for rule in floats.rules] == ["gptq_descent", "clip_search"]


def test_a_star_is_the_only_letter_that_means_others():
    shapes = {"model.layers.1.mlp.up_proj.weight": (8, 32), "model.norm.weight": (8,)}
    for match in ("model.layers.?.mlp.up_proj", "model-layers.1.mlp.up_proj", "model.layers.1"):
        with pytest.raises(QuantizationError, match="no tensor matches the pattern") as caught:
            resolved([{"match": match, "scheme": "int8 row"}], shapes)
        assert repr(match) in caught.value.message


def test_a_rule_that_another_one_leaves_nothing_is_refused():
    rules = [
        {"match": "*_proj", "scheme": "int8 row"},
        {"match": f"{FIRST}.mlp.up_proj", "scheme": "int4 g32"},
    ]
    with pytest.raises(QuantizationError, match=r"no tensor matches .*layers\.0\.mlp\.up_proj"):
        resolved(rules)
    assert resolved(rules[::-1]).hits[:2] == (1, 13)


def test_a_group_that_does_not_divide_names_the_tensor():
    with pytest.raises(QuantizationError, match=f"{FIRST}.mlp.up_proj.weight: rows of 128") as no:
        resolved([{"match": f"{FIRST}.mlp.up_proj", "scheme": "int4 g256"}])
    assert no.value.hint == "choose a group size of 32 or 64 or 128"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"rule": []}, "unknown key 'rule'"),
        ({"name": ""}, "name: expected"),
        ({"name": "/etc/passwd"}, "no path"),
        ({"name": 3}, "name: expected a text"),
        ({"base": "int3"}, "unknown recipe 'int3'"),
        ({"base": "bf16", "group_size": 32}, "bf16 has no groups"),
        ({"group_size": 48}, "group size 48"),
        ({"table": "int3"}, "unknown table 'int3'"),
        ({"table": None}, "table: expected a text"),
        ({"base": "bf16", "table": "int4"}, "keeps its tables as floats"),
        ({"group_size": True}, "group_size: expected a whole number"),
        ({"group_size": 32.0}, "group_size: expected a whole number"),
        ({"rules": {"match": "*"}}, "rules: expected a list"),
        ({"rules": ["*"]}, "rule 1: expected match and scheme"),
        ({"rules": [{"match": "*"}]}, "rule 1: expected match and scheme"),
        ({"rules": [{"match": [], "scheme": "bf16"}]}, "rule 1: expected match and scheme"),
        ({"rules": [{"match": "*", "scheme": "bf16", "to": 1}]}, "rule 1: expected match"),
        (
            {"rules": [{"match": "a", "scheme": "bf16"}, {"match": "b", "scheme": "int4 g16"}]},
            "rule 2: unknown scheme 'int4 g16'",
        ),
        ({"rules": [{"match": ["a", 3], "scheme": "bf16"}]}, "rule 1: expected names to match"),
        ({"rules": [{"match": "", "scheme": "bf16"}]}, "rule 1: expected names to match"),
        ({"rules": [{"match": "a" * 301, "scheme": "bf16"}]}, "rule 1: expected names"),
        ({"rules": [{"match": "*a" * 5, "scheme": "bf16"}]}, "more than 4 stars"),
        ({"rules": [{"match": ["x"] * 901, "scheme": "bf16"}]}, "901 names to match"),
    ],
    ids=str,
)
def test_what_no_recipe_says_is_refused(data, words):
    with pytest.raises(QuantizationError, match=words):
        written_recipe(data)


def test_a_file_is_read_written_and_named(tmp_path):
    path = tmp_path / "careful ends.json"
    rules = [
        {"match": f"{FIRST}.*.down_proj", "scheme": "int8 row"},
        {"match": ["*.v_proj", "*.o_proj"], "scheme": "int4 g256"},
    ]
    path.write_text(
        json.dumps({"rules": rules, "group_size": 64, "table": "int4", "note": 'a "note"'})
    )
    found = read_recipe(path)
    assert found.recipe().rules[-2].scheme == GroupedInt(4, 32)
    assert (found.name, found.base, found.group_size) == ("careful ends", "int4", 64)
    assert found.rules[1].scheme == GroupedInt(4, 256)
    path.write_text(found.to_text())
    assert read_recipe(path) == found
    assert json.loads(found.to_text())["rules"] == rules


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "is not valid JSON"),
        (b"[]", "expected a JSON object, found list"),
        (b'{"base": "int4", "base": "int8"}', "the key 'base' is given twice"),
        (b'{"note": "' + b"x" * (1 << 20) + b'"}', "longer than 1048576 bytes"),
        (b'{"base": "int5"}', "unknown recipe 'int5'"),
    ],
)
def test_a_file_that_is_no_recipe_names_itself(tmp_path, content, words):
    path = tmp_path / "mix.json"
    path.write_bytes(content)
    with pytest.raises(QuantizationError, match=words) as caught:
        read_recipe(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for place in (tmp_path / "none.json", tmp_path):
        with pytest.raises(QuantizationError, match="cannot be read") as caught:
            read_recipe(place)
        assert str(place) in caught.value.message
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(QuantizationError, match="a device or a pipe"):
            read_recipe(tmp_path / "pipe")
