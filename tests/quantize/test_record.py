"""quantization.json: the method and the calibration as origin, and the form that version 1 had."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from fakes.source import FakeSource

from llama_quantize import (
    Float,
    GroupedInt,
    QuantizationError,
    QuantizedWeights,
    QuantRecipe,
    QuantRule,
    quantize_to,
    recipe,
)

# As version 1 wrote it, for the tensors and the recipe below.
VERSION_1 = Path(__file__).with_name("record-of-version-1.json")
WEIGHT = torch.zeros(1, 32)
WEIGHT[0, :4] = torch.tensor([-1.0, 0.25, -0.25, 0.5])
TENSORS = {"w": WEIGHT, "t": torch.tensor([[1.0, -2.0]]), "n": torch.tensor([1.0, -2.0])}
RULES = (
    QuantRule("w", GroupedInt(4, 32)),
    QuantRule("t", GroupedInt(8, None), "nearest"),
    QuantRule("n", Float("float16")),
)
OWN = QuantRecipe("own", RULES)


@pytest.fixture
def written(tmp_path) -> Path:
    quantize_to(tmp_path, FakeSource(TENSORS, {"h": "t"}), OWN, metadata={"name": "tiny"})
    return tmp_path


def record(folder: Path) -> dict:
    return json.loads((folder / "quantization.json").read_text(encoding="utf-8"))


def as_version_1(data: dict) -> str:
    """Rewrite a record in the form of version 1, byte for byte."""
    data = {**data, "format_version": 1}
    assert data.pop("calibration") is None
    rules = []
    for rule in data["recipe"]["rules"]:
        method = rule.pop("method", None)
        flag = {} if method is None else {"clip_search": method == "clip_search"}
        rules.append({**rule, "scheme": {**rule["scheme"], **flag}})
    data["recipe"] = {**data["recipe"], "rules": rules}
    for tensor in data["tensors"]:
        del tensor["method"]
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def test_the_method_stands_beside_the_storage_form(written):
    found = record(written)
    assert found["format_version"] == 2
    first, second, third = found["recipe"]["rules"]
    scheme = {"type": "grouped_int", "bits": 4, "group_size": 32}
    assert first == {"pattern": "w", "scheme": scheme, "method": "clip_search"}
    assert second["method"] == "nearest"
    assert "method" not in third
    assert [each["method"] for each in found["tensors"]] == ["clip_search", "nearest", None]
    assert found["calibration"] is None
    weights = QuantizedWeights.open(written)
    assert weights.recipe == OWN
    assert [stats.method for stats in weights.stats] == ["clip_search", "nearest", None]
    assert weights.calibration is None


def test_a_record_of_version_1_is_read(written):
    expected = QuantizedWeights.open(written)
    assert as_version_1(record(written)) == VERSION_1.read_text(encoding="utf-8")
    shutil.copy(VERSION_1, written / "quantization.json")
    # The weights have the bytes, and so the hash, that version 1 gave them.
    found = QuantizedWeights.open(written)
    assert found.recipe == expected.recipe == OWN
    assert found.stats == expected.stats
    assert (found.tied, found.metadata) == ({"h": "t"}, {"name": "tiny"})
    assert found.calibration is None
    for name in TENSORS:
        assert torch.equal(found.dequantized(name), expected.dequantized(name))


@pytest.mark.parametrize("name", ["int4", "int8", "bf16", "fp16"])
def test_the_built_in_recipes_of_version_1_are_read(tmp_path, name):
    tensors = {
        "model.embed_tokens.weight": torch.ones(3, 64),
        "model.layers.0.mlp.up_proj.weight": torch.ones(2, 64),
        "model.norm.weight": torch.ones(64),
    }
    quantize_to(tmp_path, FakeSource(tensors), recipe(name))
    expected = QuantizedWeights.open(tmp_path)
    (tmp_path / "quantization.json").write_text(as_version_1(record(tmp_path)))
    found = QuantizedWeights.open(tmp_path)
    assert found.recipe == expected.recipe == recipe(name)
    assert found.stats == expected.stats


def damaged(**changes) -> str:
    return json.dumps(json.loads(VERSION_1.read_text(encoding="utf-8")) | changes)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (damaged(format_version=2), "wrong type"),
        (damaged(format_version=2, calibration=None), "not a rule"),
        (damaged(recipe={"name": "own", "rules": [{"pattern": "w"}]}), "not a rule"),
        (damaged(recipe={"name": "own", "rules": [1]}), "not a rule"),
        (damaged(recipe=1), "not a recipe"),
        (damaged(tensors=[1]), "not the figures"),
        (damaged(tensors=1), "wrong type"),
        (damaged(hits=[1, 2, 0]), "no rule is left for n, float16"),
        (damaged(hits=[1, 1]), r"the 3 rules take \[1, 1\] of 3 tensors"),
        (VERSION_1.read_text(encoding="utf-8").replace("true", "1"), "not a rule"),
    ],
)
def test_damaged_records_of_version_1_are_refused(written, text, match):
    (written / "quantization.json").write_text(text, encoding="utf-8")
    with pytest.raises(QuantizationError, match=match):
        QuantizedWeights.open(written)


def test_a_method_that_is_not_known_here_is_only_origin(written):
    text = (written / "quantization.json").read_text(encoding="utf-8")
    (written / "quantization.json").write_text(text.replace("clip_search", "of-tomorrow"))
    weights = QuantizedWeights.open(written)
    assert weights.stats[0].method == "of-tomorrow"
    assert torch.equal(weights.dequantized("w"), WEIGHT)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("pattern", ["(.*)*x", "none of them"])
def test_no_pattern_of_a_record_is_tried(written, tmp_path, version, pattern):
    """The first of these needs for ever; the second says that none was tried at all."""
    path = written / "quantization.json"
    data = record(written)
    for rule in data["recipe"]["rules"]:
        rule["pattern"] = pattern
    path.write_text(as_version_1(data) if version == 1 else json.dumps(data))
    weights = QuantizedWeights.open(written)
    assert [weights.scheme(name) for name in "wtn"] == [rule.scheme for rule in RULES]
    assert weights.stats[1].method == "nearest"
    resolved = weights.recipe.resolve({each.name: each.shape for each in weights.stats})
    assert resolved.hits == (1, 1, 1)
    with pytest.raises(QuantizationError, match="no rule for another"):
        weights.recipe.resolve({"another": (2, 2)})


def test_two_rules_of_one_form_keep_their_numbers_of_tensors(tmp_path):
    tensors = {"a": WEIGHT, "b": WEIGHT, "c": WEIGHT, "n": torch.ones(2)}
    same, other = GroupedInt(4, 32), Float("float16")
    rules = (QuantRule("b", same), QuantRule("a|c", same), QuantRule("n", other))
    summary = quantize_to(tmp_path, FakeSource(tensors), QuantRecipe("own", rules))
    weights = QuantizedWeights.open(tmp_path)
    assert weights.summary.hits == summary.hits == (1, 2, 1)
    shapes = {each.name: each.shape for each in weights.stats}
    assert weights.recipe.resolve(shapes).hits == (1, 2, 1)


@pytest.mark.parametrize(
    ("key", "value"), [("label", "int8 g32"), ("label", "float16"), ("method", "nearest")]
)
def test_a_tensor_that_no_rule_makes_is_refused(written, key, value):
    data = record(written)
    data["tensors"][0][key] = value
    (written / "quantization.json").write_text(json.dumps(data))
    with pytest.raises(QuantizationError, match="damaged: no rule is left for"):
        QuantizedWeights.open(written)


# Whatever JSON can say, in the place of what belongs there.
VALUES = (
    None,
    True,
    0,
    -1,
    5.5,
    1e300,
    10**39,
    "",
    "\x1b[31m",
    "n" * 100_000,
    [],
    [1],
    {},
    {"a": 1},
)


def spots(node: object, path: tuple = ()) -> list[tuple]:
    """List where values stand in a record."""
    inner = node.items() if isinstance(node, dict) else enumerate(node)
    found = []
    for key, value in inner:
        found.append((*path, key))
        if isinstance(value, (dict, list)):
            found += spots(value, (*path, key))
    return found


def test_any_value_in_any_place_is_read_or_named(written):
    path = written / "quantization.json"
    text = path.read_text(encoding="utf-8")
    draw, messages = random.Random(3), []
    places = spots(json.loads(text))
    for spot in places:
        for value in draw.sample(VALUES, 4):
            data = json.loads(text)
            place = data
            for key in spot[:-1]:
                place = place[key]
            place[spot[-1]] = value
            path.write_text(json.dumps(data))
            try:
                QuantizedWeights.open(written, check_hash=False)
            except QuantizationError as error:
                messages.append(error.message)
    assert len(messages) > 2 * len(places)
    assert max(map(len, messages)) < 1500
    assert not any("\x1b" in message for message in messages)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda text: text.replace('"hits"', '"format": "x", "hits"'), "'format' is given twice"),
        (lambda text: text.replace('"hits"', '"x": NaN, "hits"'), "NaN is not a JSON number"),
        (lambda text: text.replace('"hits": [', '"hits": [1e999,'), "too large for a number"),
        (lambda text: text.replace('"hits": [', '"hits": [true,'), "wrong type"),
        (lambda text: text.replace('"hits"', '"x": ' + "[" * 100_000), "nested"),
        (lambda text: text.replace('"name": "n"', '"name": "w"'), "w stands in it twice"),
        (lambda text: text.replace('"pattern": "w"', '"pattern": "%s"' % ("(" * 900)), "not a reg"),
        (lambda text: text.replace('"pattern": "w"', '"pattern": "w{9999999999}"'), "not a reg"),
        (lambda text: text.replace('"pattern": "w"', '"pattern": "%s"' % ("w|" * 900)), "at most"),
        (lambda text: text + " " * 2**23, "longer than"),
    ],
)
def test_a_record_that_readers_disagree_about_is_refused(written, change, match):
    path = written / "quantization.json"
    text = path.read_text(encoding="utf-8")
    assert change(text) != text
    path.write_text(change(text), encoding="utf-8")
    with pytest.raises(QuantizationError, match=match):
        QuantizedWeights.open(written)
