"""`generate` with a schema, an expression or a grammar: what is printed, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from artifacts.demo_bundle import demo_bundle

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytest.importorskip("llguidance", reason="needs the structured extra")
pytestmark = pytest.mark.onnx
__all__ = ["demo_bundle"]

PAGE = (Path(__file__).parents[2] / "docs" / "structured-output.md").read_text(encoding="utf-8")
SCHEMA = json.dumps({"type": "object", "properties": {"a": {"enum": [1, 22]}}, "required": ["a"]})
CLOSED = json.dumps({**json.loads(SCHEMA), "additionalProperties": False})


def test_json_alone_is_printed(command, demo_bundle, tmp_path):
    (tmp_path / "schema.json").write_text(CLOSED)
    for given in (CLOSED, tmp_path / "schema.json"):
        code, out, err = command(
            "generate", demo_bundle, "-p", "The king", "--json-schema", given, "--seed", 1
        )
        assert (code, json.loads(out)["a"] in (1, 22)) == (0, True)
        assert "stopped: complete" in err
        assert "note:" not in err


def test_an_expression_and_rules(command, demo_bundle, tmp_path):
    code, out, _ = command("generate", demo_bundle, "-p", "The king", "--regex", "yes|no")
    assert code == 0
    assert out in ("yes\n", "no\n")
    rules = tmp_path / "rules.gbnf"
    rules.write_text('root ::= "a" digit digit\ndigit ::= [0-9]\n')
    code, out, _ = command("generate", demo_bundle, "-p", "The king", "--grammar", rules, "--json")
    assert re.fullmatch("a[0-9]{2}", json.loads(out)["text"])


def test_a_text_that_is_cut_is_noted(command, demo_bundle):
    code, out, err = command(
        "generate", demo_bundle, "-p", "The king", "--json-schema", CLOSED, "-n", 2
    )
    assert code == 0
    assert "the text was cut at --max-tokens, so the JSON schema is not obeyed" in err.replace(
        "\n", " "
    )
    with pytest.raises(json.JSONDecodeError):
        json.loads(out)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--regex", "a", "--json-schema", "{}"), 2, "--json-schema and --regex"),
        (("--regex", "(a"), 2, "unclosed group"),
        (("--json-schema", '{"a":1,}'), 2, "--json-schema is not valid JSON"),
        (("--json-schema", '{"not": {}}'), 2, "Unimplemented keys"),
        (("--json-schema", "missing.json"), 15, "missing.json cannot be read"),
        (("--grammar", "missing.lark"), 15, "missing.lark cannot be read"),
    ],
)
def test_a_wrong_one_is_refused_before_the_bundle_is_opened(command, tmp_path, options, code, said):
    found, out, err = command("generate", tmp_path / "no-bundle", "-p", "The king", *options)
    assert (found, out) == (code, "")
    assert said in err


def test_the_examples_of_the_page_run(demo_bundle, tmp_path, monkeypatch, capsys):
    (tmp_path / "demo-out").mkdir()
    (tmp_path / "demo-out" / "onnx").symlink_to(demo_bundle)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    for block in blocks:
        exec(compile(block, "docs/structured-output.md", "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert len(blocks) == 2
    assert [line.startswith("{'name': ") for line in lines[:2]] == [True, True]
    assert lines[2] in ("yes", "no")
    assert re.fullmatch(r"The (king|queen) is [0-9]{1,2}\.", lines[3])
    schema = re.findall(r"^```json\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)[0]
    assert json.loads(schema) == names["cat"]
