"""The model card: what the hub reads of it, and what it says of every bundle that is there."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import yaml
from artifacts.sample_bundle import DRAFT

from llama_export.bundle.model_info import AdapterInfo
from llama_export.exporting.publishing.card import CardFacts, render_card
from llama_export.sources.terms import Terms, terms_of

LLAMA = terms_of({"LICENSE": b"LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\n"})
NOTICES = {"NOTICE": b"Whose it is", "LICENSE.txt": b"text"}


def manifest(target: str = "onnx", **model: object):
    said = {"name": "tiny", "hub_id": "maker/tiny", "revision": "0" * 40, **model}
    return replace(DRAFT, target=target, model=replace(DRAFT.model, **said))


def rendered(*manifests, terms=LLAMA, notices=NOTICES, **facts) -> tuple[dict[str, object], str]:
    card = render_card(manifests or (manifest(),), CardFacts(notices, terms, **facts)).decode()
    _, header, text = card.split("---\n", 2)
    return yaml.safe_load(header), text


def test_the_hub_reads_base_licence_and_tags():
    header, _ = rendered(manifest(), manifest("coreml"), languages=("en",))
    assert header == {
        "base_model": "maker/tiny",
        "base_model_relation": "quantized",
        "language": ["en"],
        "library_name": "transformers.js",
        "license": "llama3.2",
        "pipeline_tag": "text-generation",
        "tags": ["llama-export", "onnx", "coreml", DRAFT.quantization["recipe"], "llama"],
    }


@pytest.mark.parametrize("hub_id", [None, "tiny"])
def test_a_local_model_has_no_base(hub_id):
    header, text = rendered(manifest(hub_id=hub_id))
    assert "base_model" not in header
    assert "base_model_relation" not in header
    assert "huggingface.co/" not in text


def test_the_base_of_a_merged_adapter_is_the_adapter():
    adapters = (AdapterInfo("mine", "me/mine", "1" * 40),)
    assert rendered(manifest(adapters=adapters))[0]["base_model"] == "me/mine"
    local = (AdapterInfo("mine"),)
    assert "base_model" not in rendered(manifest(adapters=local))[0]


def test_an_unknown_licence_is_said_to_be_unknown():
    header, text = rendered(terms=None, notices={})
    assert "license" not in header
    assert "Not known" in text
    header, _ = rendered(terms=Terms("other"))
    assert (header["license"], header["license_link"]) == ("other", "LICENSE.txt")


def test_each_bundle_has_its_line_and_its_client():
    only_onnx, both = rendered()[1], rendered(manifest(), manifest("executorch"))[1]
    assert "transformers.js" in only_onnx
    assert "TextLLMRunner" not in only_onnx
    assert "TextLLMRunner" in both
    assert [line.split("|")[1].strip() for line in both.splitlines() if line.startswith("| `")] == [
        "`onnx/`",
        "`executorch/`",
    ]


def test_what_llamas_licence_wants_displayed_is_displayed():
    assert "**Built with Llama**" in rendered()[1]
    assert "Built with" not in rendered(terms=Terms("mit"))[1]


def test_the_calibration_is_told():
    """By the word that a user typed for it, with the method behind."""
    for method, name in (
        ("gptq_descent", "good (gptq\\_descent)"),
        ("curvature_descent", "best (curvature\\_descent)"),
        ("own", "own"),
    ):
        said = {"method": method, "tokens": 32768, "ids_sha256": "ab" * 32}
        calibrated = replace(manifest(), quantization={**DRAFT.quantization, "calibration": said})
        text = rendered(calibrated)[1]
        assert f"Quality {name}: codes were fitted" in text
        assert "on 32768 tokens of calibration text" in text
    assert "calibration" not in rendered()[1]


def test_no_figure_ranks_a_calibrated_model_below_a_worse_one():
    """A calibration gives signal to noise of the weights away for a smaller KL."""
    assert "SQNR" not in rendered()[1]
    assert " dB" not in rendered()[1]


def test_a_name_of_anybodys_is_no_markup():
    """A name from a GGUF file can be anything visible."""
    text = rendered(manifest(name="<img src=x> [a](b) |", hub_id=None))[1]
    assert r"# \<img src=x\> \[a\](b) \| for ONNX" in text
    header, _ = rendered(manifest(name="a: b\u2028---"))
    assert header["license"] == "llama3.2"


EVIL = "int4 | <img src=x> | [x](https://evil.example) &lt; ![y](z) a@evil.example \u2028---"
PATH = 'x"); import os; os.system("id") #`'


def outside_code(text: str) -> str:
    return re.sub(r"(?<!\\)`[^`]*`", "", text)


@pytest.mark.parametrize("field", ["name", "notes", "recipe", "method", "notice"])
def test_no_field_of_a_strangers_is_markup(field):
    one, notices = manifest(), NOTICES
    if field in ("name", "notes"):
        one = manifest(hub_id=None, **{field: EVIL if field == "name" else (EVIL,)})
    elif field == "recipe":
        one = replace(one, quantization={**one.quantization, "recipe": EVIL})
    elif field == "method":
        said = {"method": EVIL, "tokens": 1, "ids_sha256": "ab" * 32}
        one = replace(one, quantization={**one.quantization, "calibration": said})
    else:
        notices = {"NOTICE": EVIL.encode()}
    header, text = rendered(one, notices=notices)
    assert header["license"] == "llama3.2"
    (line, *_) = (line for line in text.splitlines() if "src=x" in line)
    bare = outside_code(line)
    bare = bare.replace("\\<", "")  # an escaped one opens nothing
    for mark in ("<", " [x]", "https://", "@", " &lt;", " ![", "\u2028"):
        assert mark not in bare, line


@pytest.mark.parametrize("field", ["artifact", "tokenizer"])
def test_a_path_that_is_no_plain_name_is_never_put_into_code(field):
    one = manifest("executorch")
    if field == "artifact":
        one = replace(one, artifact=PATH)
    else:
        one = replace(one, tokenizer={**one.tokenizer, "file": PATH})
    text = rendered(one)[1]
    assert "TextLLMRunner" not in text
    assert "no plain name of a file" in text
    assert f"`{PATH}" not in text
    assert PATH not in text


def test_the_same_bundles_have_the_same_card():
    manifests = [manifest(), manifest("coreml")]
    facts = CardFacts(NOTICES, LLAMA)
    assert render_card(manifests, facts) == render_card(manifests, facts)


@pytest.mark.parametrize("line", ["===", "---", "  ==", "- - -", "-", "+ x", "1. x", "2) x"])
def test_no_line_of_a_notice_makes_a_heading_or_a_list(line):
    """Underlined, the line before it would be one of the page."""
    text = rendered(notices={"NOTICE": f"Read me\n{line}\n".encode()})[1]
    (shown,) = (each for each in text.splitlines()[-1:] if each.startswith("> "))
    assert re.match(r"> \s*\d*\\[-+=.)]", shown)
    assert shown.replace("\\", "") == f"> {line}"
    assert "> 3.2-1B is" in rendered(notices={"NOTICE": b"3.2-1B is"})[1]


def genai_lines(*manifests) -> str:
    snippets = re.findall(r"```python\n(.*?)```", rendered(*manifests)[1], re.DOTALL)
    (found,) = (each for each in snippets if "onnxruntime_genai" in each)
    compile(found, "card", "exec")
    return found


def test_genais_lines_are_whole_and_print_an_answer():
    """A text begins with the model's own token, which genai puts there in a chat alone."""
    tale = genai_lines(manifest())
    assert '[*[128000], *tokenizer.encode("Once upon a time")]' in tale
    chatty = genai_lines(replace(manifest(), chat={"turns": {"user": ["", ""]}, "reason": None}))
    assert "apply_chat_template" in chatty
    assert chatty.splitlines()[-1] == tale.splitlines()[-1]
    assert tale.splitlines()[-1].startswith("print(tokenizer.decode(")


def test_a_notice_of_another_encoding_is_shown_as_far_as_it_can_be():
    notice = "Copyright © 2009 M\xfcller\n".encode() + "M\xfcller\n".encode("latin-1")
    text = rendered(notices={"NOTICE": notice})[1]
    assert "> Copyright © 2009 Müller\n> M\ufffdller\n" in text
