from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llama_quantize import (
    RECIPES,
    Float,
    GroupedInt,
    QuantizationError,
    QuantRecipe,
    QuantRule,
    recipe,
    scheme_from_json,
)

LINEARS = ("q", "k", "v", "o", "gate", "up", "down")


def llama_shapes(tied: bool = True, layers: int = 2) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (500, 64)}
    for layer in range(layers):
        root = f"model.layers.{layer}"
        shapes |= {f"{root}.self_attn.{name}_proj.weight": (64, 64) for name in LINEARS[:4]}
        shapes |= {f"{root}.mlp.{name}_proj.weight": (128, 64) for name in LINEARS[4:6]}
        shapes[f"{root}.mlp.down_proj.weight"] = (64, 128)
        shapes[f"{root}.input_layernorm.weight"] = (64,)
        shapes[f"{root}.post_attention_layernorm.weight"] = (64,)
    shapes["model.norm.weight"] = (64,)
    if not tied:
        shapes["lm_head.weight"] = (500, 64)
    return shapes


@pytest.mark.parametrize(("tied", "tables"), [(True, 1), (False, 2)])
@pytest.mark.parametrize(("name", "bits"), [("int4", 4), ("int8", 8)])
def test_integer_recipes_name_every_tensor(name, bits, tied, tables):
    resolved = recipe(name).resolve(llama_shapes(tied))
    assert resolved.hits == (14, tables, 5)
    assert resolved.schemes["model.layers.1.mlp.down_proj.weight"] == GroupedInt(bits, 32)
    assert resolved.schemes["model.embed_tokens.weight"].label == "int8 row"
    assert resolved.schemes["model.norm.weight"] == Float("bfloat16")
    assert resolved.methods["model.layers.1.mlp.down_proj.weight"] == "clip_search"
    assert resolved.methods["model.embed_tokens.weight"] == "nearest"
    assert "model.norm.weight" not in resolved.methods
    assert list(resolved.schemes) == list(llama_shapes(tied))


@pytest.mark.parametrize(("name", "dtype"), [("bf16", "bfloat16"), ("fp16", "float16")])
def test_float_recipes(name, dtype):
    resolved = recipe(name).resolve(llama_shapes())
    assert set(resolved.schemes.values()) == {Float(dtype)}
    assert resolved.hits == (20,)
    with pytest.raises(QuantizationError, match="no groups"):
        recipe(name, 32)


@pytest.mark.parametrize("name", ["int4", "int8"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_tables_are_int4_in_groups_of_32_where_that_is_asked_for(name, tied):
    resolved = recipe(name, 64, table="int4").resolve(llama_shapes(tied))
    tables = {"model.embed_tokens.weight", "lm_head.weight"} & set(resolved.schemes)
    assert len(tables) == (1 if tied else 2)
    for table in tables:
        assert resolved.schemes[table] == GroupedInt(4, 32)
        assert resolved.methods[table] == "clip_search"
    others = recipe(name, 64).resolve(llama_shapes(tied)).schemes
    assert {key for key in others if others[key] != resolved.schemes[key]} == tables


def test_a_table_is_judged_like_a_group_size():
    assert recipe("int4", table="int8") == recipe("int4")
    with pytest.raises(QuantizationError, match="unknown table 'int3': expected one of int8, int4"):
        recipe("int4", table="int3")
    for name in ("bf16", "fp16"):
        with pytest.raises(QuantizationError, match="keeps its tables as floats, but int8"):
            recipe(name, table="int8")


def test_group_size_is_used_and_checked():
    resolved = recipe("int4", 64).resolve(llama_shapes())
    assert resolved.schemes["model.layers.0.self_attn.q_proj.weight"].label == "int4 g64"
    for size in (0, 16, 48, 512):
        with pytest.raises(QuantizationError, match="32, 64, 128, 256"):
            recipe("int4", size)
    with pytest.raises(QuantizationError, match="int4, int8, bf16, fp16"):
        recipe("int3")


def test_group_that_does_not_divide_names_tensor_length_group_and_remedy():
    with pytest.raises(QuantizationError) as caught:
        recipe("int4", 128).resolve(llama_shapes())
    for text in ("model.layers.0.self_attn.q_proj.weight", "rows of 64", "groups of 128"):
        assert text in caught.value.message
    assert caught.value.hint == "choose a group size of 32 or 64"


def test_group_that_nothing_divides_still_says_what_to_do():
    rules = (QuantRule(".*", GroupedInt(4, 32)),)
    with pytest.raises(QuantizationError, match="rows of 33") as caught:
        QuantRecipe("own", rules).resolve({"a": (2, 33)})
    assert caught.value.hint


def test_vector_cannot_be_grouped():
    rules = (QuantRule(".*", GroupedInt(4, 32)),)
    with pytest.raises(QuantizationError, match=r"norm\.weight: .*no matrix"):
        QuantRecipe("own", rules).resolve({"norm.weight": (64,)})


def test_tensor_without_a_rule_is_refused():
    shapes = llama_shapes() | {"model.layers.0.self_attn.q_proj.bias": (64,)}
    with pytest.raises(QuantizationError, match=r"no rule for .*q_proj\.bias"):
        recipe("int4").resolve(shapes)


def test_rule_without_a_tensor_is_refused():
    rules = (QuantRule(r"model\.typo", Float("bfloat16")), QuantRule(".*", Float("bfloat16")))
    with pytest.raises(QuantizationError, match="typo"):
        QuantRecipe("own", rules).resolve({"a": (2, 2)})
    # An earlier rule takes everything: the later one is idle, which is a mistake as well.
    with pytest.raises(QuantizationError, match="no tensor matches"):
        QuantRecipe("own", rules[::-1]).resolve({"model.typo": (2, 2)})


def test_first_match_wins_and_the_whole_name_must_match():
    first, second = GroupedInt(8, 32), GroupedInt(4, 32)
    own = QuantRecipe("own", (QuantRule(r"a\.b", first), QuantRule(r".*b.*", second)))
    resolved = own.resolve({"a.b": (2, 32), "a.b.c": (2, 32), "xa.b": (2, 32)})
    assert list(resolved.schemes.values()) == [first, second, second]
    assert resolved.hits == (1, 2)


def test_pattern_that_is_no_expression_is_refused():
    with pytest.raises(QuantizationError, match="regular expression"):
        QuantRule("(", Float("bfloat16"))


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_data(name):
    own = recipe(name)
    assert QuantRecipe.from_json(json.loads(json.dumps(own.to_json()))) == own


@pytest.mark.parametrize(
    "data",
    [
        None,
        {"type": "float", "dtype": "float8"},
        {"type": "float", "dtype": "bfloat16", "more": 1},
        {"type": "grouped_int", "bits": 4},
        {"type": "grouped_int", "bits": 4, "group_size": 32, "clip_search": True},
        {"type": "grouped_int", "bits": 3, "group_size": 32},
        {"type": "grouped_int", "bits": 4, "group_size": -1},
        {"type": "codebook"},
    ],
)
def test_unknown_schemes_are_refused(data):
    with pytest.raises(QuantizationError):
        scheme_from_json(data)


FLOAT = {"type": "float", "dtype": "bfloat16"}
CODES = {"type": "grouped_int", "bits": 4, "group_size": 32}


@pytest.mark.parametrize(
    "rule",
    [
        {"pattern": 1},
        {"pattern": "a", "scheme": CODES},
        {"pattern": "a", "scheme": CODES, "method": 1},
        {"pattern": "a", "scheme": CODES, "method": "nearest", "more": 1},
        {"pattern": "a", "scheme": FLOAT, "more": 1},
    ],
)
def test_damaged_rules_are_refused(rule):
    with pytest.raises(QuantizationError, match="not a rule"):
        QuantRecipe.from_json({"name": "a", "rules": [rule]})


@pytest.mark.parametrize("data", [[], {"name": "a"}, {"name": "a", "rules": [{"pattern": 1}]}])
def test_damaged_recipes_are_refused(data):
    with pytest.raises(QuantizationError, match="not a"):
        QuantRecipe.from_json(data)


def test_sizes_count_the_scales():
    weights = 3 * 2048
    assert GroupedInt(4, 32).size_bytes((3, 2048)) == weights * 4.5 / 8
    assert GroupedInt(4, 128).size_bytes((3, 2048)) == weights * 4.125 / 8
    assert GroupedInt(8, None).size_bytes((3, 2048)) == weights + 3 * 2
    assert Float("float16").size_bytes((7,)) == 14


def test_a_method_belongs_to_codes():
    with pytest.raises(QuantizationError, match="needs no method"):
        QuantRule(".*", Float("bfloat16"), "nearest")
    # A record may name a method that this version does not have: it is origin, not storage.
    rule = QuantRule("a", GroupedInt(4, 32), "of-tomorrow")
    own = QuantRecipe("own", (rule,))
    assert QuantRecipe.from_json(json.loads(json.dumps(own.to_json()))) == own
    assert (own.method_of("a"), own.method_of("b")) == ("of-tomorrow", None)


WITHOUT_TORCH = """
import sys
import llama_quantize
from llama_quantize import recipe
from llama_quantize.checkpoint.files import is_quantized
recipe("int4", 32).resolve(dict.fromkeys(sys.argv[1:4], (2, 64)) | {sys.argv[4]: (64,)})
try:
    recipe("int4", 48)
except llama_quantize.QuantizationError:
    print("torch" in sys.modules, "quantize_to" in dir(llama_quantize))
"""


def test_a_recipe_is_judged_without_torch():
    names = ["model.embed_tokens.weight", "lm_head.weight"]
    names += ["model.layers.0.mlp.up_proj.weight", "model.norm.weight"]
    root = Path(__file__).parents[2] / "quantize"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *names],
        env={**os.environ, "PYTHONPATH": str(root)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["False", "True"]
