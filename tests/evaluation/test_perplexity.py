"""Perplexity of documents, and its error over documents or blocks drawn with replacement."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from artifacts.demo_bundle import demo_bundle

from llama_export.errors import PromptError
from llama_export.evaluation.documents import read_documents
from llama_export.evaluation.perplexity import bootstrap, measure_perplexity
from llama_export.generation.opening import open_session

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytestmark = pytest.mark.onnx
__all__ = ["demo_bundle"]

TALE = "Once upon a time there was a king who had three sons. "


@pytest.fixture(scope="module")
def session(demo_bundle):
    with open_session(demo_bundle, max_context=32) as opened:
        yield opened


def by_hand(session, text: str) -> np.ndarray:
    """Losses of a short text, each from logits that are asked for by themselves."""
    ids = session.tokenizer.encode(text)
    before = [session.tokenizer.bos_token_id]
    found = []
    for token in ids:
        logits = session.logits(before).astype(np.float64)
        found.append(np.log(np.exp(logits - logits.max()).sum()) - (logits[token] - logits.max()))
        before.append(token)
    return np.array(found)


def test_it_is_the_exponential_of_the_mean_loss(session):
    seen = []
    found = measure_perplexity(session, [TALE], lambda done, total: seen.append((done, total)))
    nats = by_hand(session, TALE)
    assert found.perplexity.value == pytest.approx(math.exp(nats.mean()), rel=1e-3)
    bits = nats.sum() / math.log(2) / len(TALE.encode())
    assert found.bits_per_byte.value == pytest.approx(bits, rel=1e-3)
    assert (found.documents, found.tokens, found.windows) == (1, len(nats), 1)
    assert seen == [(len(nats), len(nats))]
    assert found.unit == "block of 32 tokens"


def test_a_text_it_was_trained_on_is_foretold_better(session):
    tale = measure_perplexity(session, [TALE], lambda done, total: None)
    noise = measure_perplexity(session, ["zq xv 9 jj kq vv 00 wq zx"], lambda done, total: None)
    assert noise.perplexity.value > 10 * tale.perplexity.value


def test_documents_are_read_each_from_its_beginning(session):
    one = measure_perplexity(session, [TALE], lambda done, total: None)
    eight = measure_perplexity(session, [TALE] * 8, lambda done, total: None)
    assert eight.perplexity.value == pytest.approx(one.perplexity.value, rel=1e-5)
    assert (eight.unit, eight.units, eight.documents) == ("document", 8, 8)
    assert eight.perplexity.error == pytest.approx(0, abs=1e-9)  # they are all alike
    mixed = [TALE * 2, "The king was old.", "zq xv jj", TALE] * 2
    assert measure_perplexity(session, mixed, lambda done, total: None).perplexity.error > 0.1


def test_a_long_document_is_read_in_windows(session):
    found = measure_perplexity(session, [TALE * 8], lambda done, total: None)
    assert found.windows == math.ceil(found.tokens / 32)
    assert found.units == found.tokens // 32


def test_the_bootstrap_knows_the_error_of_a_mean():
    values = np.random.default_rng(1).normal(size=200)
    found = bootstrap(lambda count: count @ values / count.sum(), 200)
    assert found.value == pytest.approx(values.mean())
    assert found.error == pytest.approx(values.std(ddof=1) / math.sqrt(200), rel=0.1)
    again = bootstrap(lambda count: count @ values / count.sum(), 200)
    assert again == found
    assert math.isnan(bootstrap(lambda count: 1.0, 1).error)


def test_lines_of_json_are_documents(tmp_path):
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"text": "one\\u2028still one"}\n\n{"text": "two", "id": 3}\n{"text": " "}\n')
    plain = tmp_path / "plain.txt"
    plain.write_bytes("\ufeffthree\n\nparagraphs".encode())
    found = read_documents([lines, plain, lines])
    assert found.texts == ("one\u2028still one", "two", "three\n\nparagraphs")
    assert found.names == ("lines.jsonl", "plain.txt")
    assert len(found.sha256) == 64


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"txt": "b"}', 'line 2: expected a key "text"'),
        ("a.jsonl", b'{"text": "a"', "line 1"),
        ("a.jsonl", json.dumps(["a"]).encode(), "line 1"),
        ("a.txt", b"\xff", "not UTF-8: byte 0"),
        ("a.txt", b" \n", "holds no text"),
        ("b/c.txt", None, "cannot be read"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PromptError, match=said):
        read_documents([path])


def test_one_token_is_no_text(session):
    with pytest.raises(PromptError, match="at least two tokens, found 1"):
        measure_perplexity(session, ["a"], lambda done, total: None)
