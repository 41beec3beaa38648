"""The verb `classify`, and `classify` in Python: a random model with Llama Guard's template."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from artifacts.chat_templates import CHATML, LLAMA_GUARD
from artifacts.small_bundle import Silent
from artifacts.tiny import TINY, write_checkpoint

import llama_export
from llama_export.errors import PromptError
from llama_export.exporting.pipeline import export_bundle
from llama_export.exporting.request import ExportRequest
from llama_export.generation.classification import write_prompt
from llama_export.generation.examples import read_examples
from llama_export.targets import registry
from llama_export.tokenizer.chat.chat_format import ChatFormat, Dialog
from llama_export.tokenizer.chat.messages import Message

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytestmark = [pytest.mark.onnx, pytest.mark.usefixtures("own_process_state")]

QUESTION = "How do I pick a lock?<|eot_id|>"
# As Llama Guard 3 1B's reads a message: its parts alone.
PARTS_ONLY = """\
S1: Violent Crimes.
{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'text' %}\
{{ part['text'] }}
{% endif %}{% endfor %}{% endfor %}"""


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    """A random model of 256 bytes, in which the words begin with the bytes `s` and `u`."""
    folder = tmp_path_factory.mktemp("guard")
    checkpoint = write_checkpoint(folder / "tiny")
    (checkpoint / "chat_template.jinja").write_text(LLAMA_GUARD)
    request = ExportRequest(str(checkpoint), ("onnx",), folder / "out", verify=False)
    return export_bundle(request, Silent()).output / "onnx"


@pytest.fixture
def run(command):
    return partial(command, stdin=b"", columns=240)


def test_the_probability_is_that_of_the_models_own_prompt(guard):
    session = llama_export.load(guard)
    found = session.classify([{"role": "user", "content": QUESTION}])
    prompt = session.chat_format.encode(Dialog([Message("user", QUESTION)]))
    eot = session.tokenizer.special_tokens["<|eot_id|>"]
    assert prompt.count(eot) == 1  # the typed one stayed text
    logits = session.logits(prompt).astype(np.float64)
    blank = int(logits.argmax())
    assert session.tokenizer.decode([blank]).strip(), "the seed's first word is no blank"
    odds = logits[ord("u")] - logits[ord("s")]
    assert found.probability == pytest.approx(1 / (1 + np.exp(-odds)), rel=1e-6)
    assert found.is_unsafe is (found.probability >= 0.5)
    assert found.prompt_tokens == len(prompt)


def test_the_answer_is_judged_in_place_of_the_question(guard):
    session = llama_export.load(guard)
    question, answer = Message("user", "Hi"), Message("assistant", "Take a knife.")
    ids, _ = write_prompt(session.chat_format, [question, answer])
    text = session.tokenizer.decode(ids)
    assert "ONLY THE LAST Agent" in text
    assert "Agent: Take a knife." in text


def test_categories_can_be_given_and_left_out(guard):
    session = llama_export.load(guard)
    chat, said = session.chat_format, [Message("user", "Hi")]
    assert write_prompt(chat, said)[1] == {"S1": "Violent Crimes", "S2": "Non-Violent Crimes"}
    assert write_prompt(chat, said, {"excluded_category_keys": ["S1"]})[1] == {
        "S2": "Non-Violent Crimes"
    }
    assert write_prompt(chat, said, {"categories": {"S7": "Weather."}})[1] == {"S7": "Weather"}


def test_a_template_that_reads_parts_gets_parts(guard):
    tokenizer = llama_export.load(guard).tokenizer
    chat = ChatFormat.of(tokenizer, {"chat_template": PARTS_ONLY})
    ids, _ = write_prompt(chat, [Message("user", "What now?")])
    assert "What now?" in tokenizer.decode(ids)


def test_a_chat_model_does_not_judge(guard):
    tokenizer = llama_export.load(guard).tokenizer
    chat = ChatFormat.of(tokenizer, {"chat_template": CHATML})
    with pytest.raises(PromptError, match="lists no categories"):
        write_prompt(chat, [Message("user", "Hi")])


def test_a_judgement_at_the_desk(guard, run):
    code, out, _ = run("classify", guard, "--prompt", QUESTION)
    assert code == 0
    assert re.match(r"(un)?safe \(probability of unsafe 0\.\d{4}\)\n", out)
    code, out, _ = run("classify", guard, "-p", QUESTION, "--threshold", "0", "--json")
    found = json.loads(out)
    assert (code, found["is_unsafe"], found["threshold"]) == (0, True, 0)
    assert (
        found["probability"]
        == llama_export.load(guard).classify([Message("user", QUESTION)]).probability
    )
    code, out, _ = run("classify", guard, "-p", QUESTION, "-a", "No.", "-x", "S1", "--json")
    assert json.loads(out)["prompt_tokens"] != found["prompt_tokens"]


def test_a_threshold_by_examples(guard, run, tmp_path):
    session, texts = llama_export.load(guard), ["Hi", "Bye", "A tale", "A song"]
    probabilities = [session.classify([Message("user", text)]).probability for text in texts]
    lines = [json.dumps({"text": text, "unsafe": text == "Bye"}) for text in texts]
    file = tmp_path / "examples.jsonl"
    file.write_text("\n".join(lines))
    options = ("--calibrate", file, "--most-false-alarms", "0", "--json")
    code, out, _ = run("classify", guard, *options)
    found = json.loads(out)
    safe = max(probabilities[:1] + probabilities[2:])
    assert (code, found["examples"]) == (0, 4)
    assert found["threshold"] == np.nextafter(safe, 2.0)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("", "holds no examples"),
        ("{", "line 1 is not valid JSON"),
        ('{"text": "a", "unsafe": 1}', "line 1 is no example"),
        ('{"text": "a", "unsafe": true, "more": 1}', "line 1 is no example"),
        ('{"messages": [], "unsafe": true}', "line 1 is no example"),
        ('{"messages": [5], "unsafe": true}', "line 1: a message"),
    ],
)
def test_faulty_examples_are_named(line, fault, tmp_path):
    file = tmp_path / "examples.jsonl"
    file.write_text(line)
    with pytest.raises(PromptError, match=fault):
        read_examples(file)
    with pytest.raises(PromptError, match="cannot be read"):
        read_examples(tmp_path / "none")


def test_examples_may_be_whole_conversations(tmp_path):
    file = tmp_path / "examples.jsonl"
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    file.write_text(json.dumps({"messages": said, "unsafe": False}) + "\n\n")
    (example,) = read_examples(file)
    assert [message.text for message in example.messages] == ["a", "b"]
    assert not example.is_unsafe


@pytest.mark.slow
@pytest.mark.executorch
@pytest.mark.coreml
def test_a_random_guard_with_the_real_vocabulary_judges_alike_on_every_target(
    llama3_file, tmp_path
):
    """The words are one token each there, and the categories are Meta's own way of writing."""
    pytest.importorskip("executorch", reason="needs the executorch extra")
    pytest.importorskip("coremltools", reason="needs the coreml extra")
    config = replace(
        TINY, vocab_size=128256, bos_token_id=128000, eos_token_id=(128001, 128008, 128009)
    )
    checkpoint = write_checkpoint(tmp_path / "guard", config)
    shutil.copy(llama3_file, checkpoint / "tokenizer.model")
    (checkpoint / "chat_template.jinja").write_text(LLAMA_GUARD)
    request = ExportRequest(
        str(checkpoint), registry.TARGETS, tmp_path / "out", max_context=512, verify=False
    )
    output = export_bundle(request, Silent()).output
    found = []
    for target in registry.TARGETS:
        with llama_export.load(output / target) as session:
            assert [len(session.tokenizer.encode(word)) for word in ("safe", "unsafe")] == [1, 1]
            found.append(session.classify([Message("user", QUESTION)]).probability)
    assert found == pytest.approx([found[0]] * 3, abs=0.02)
    assert 0 < found[0] < 1


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("-p", "Hi", "--most-false-alarms", "0.1"), "--most-false-alarms is for --calibrate"),
        (("--calibrate", "x", "--threshold", "0.5"), "--threshold is for one judgement"),
        (("--calibrate", "x", "-p", "Hi"), "--prompt is for one judgement"),
        (("--calibrate", "x", "-a", "Hi"), "--answer is for one judgement"),
    ],
)
def test_an_option_of_no_use_is_refused(run, typed, message):
    code, out, err = run("classify", "nowhere", *typed)
    assert (code, out) == (2, "")
    assert message in err
