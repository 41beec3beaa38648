"""A bundle's answers to lm-eval are those of transformers on the same weights, in float noise."""

from __future__ import annotations

import pytest
from artifacts.lm_eval_tasks import lm_eval_checkpoint, request
from artifacts.small_bundle import export_small
from artifacts.tiny import UNTIED

from llama_export.generation.opening import open_session

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytest.importorskip("lm_eval", reason="needs the extra evaluate")
pytestmark = pytest.mark.onnx

CONTEXT = 48
PAIRS = [
    ("The capital of France is", " Paris"),
    ("The capital of France is", " Rome"),
    ("The capital of France is ", "Rome, or not"),
    ("", "A text without a context"),
    ("<|begin_of_text|>It begins", " by itself"),
    ("Names<|eot_id|> of tokens", " are tokens<|eot_id|>"),
    ("A context that is longer than what fits into this model, so it is cut", " off"),
    ("x", "y"),
]
TEXTS = ["Short.", "A text of more than one window. " * 4, "é and 日本"]
# float32 against float32: sums of some dozens of logarithms, which are about -10 each.
NOISE = 2e-3


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Return the bundle and the checkpoint as lm-eval's models."""
    from llama_export.evaluation.harness import BundleLM

    folder = tmp_path_factory.mktemp("evaluated")
    out = export_small(folder, UNTIED, recipe="bf16", max_context=CONTEXT)
    session = open_session(out / "onnx")
    theirs = lm_eval_checkpoint(folder / "tiny", out / "onnx", CONTEXT)
    with session:
        yield BundleLM(session, lambda done, total: None), theirs


def test_log_likelihoods(both):
    ours, theirs = both
    requests = [request("loglikelihood", *pair) for pair in PAIRS]
    found, wanted = ours.loglikelihood(requests), theirs.loglikelihood(requests)
    assert [each[0] for each in found] == pytest.approx([each[0] for each in wanted], abs=NOISE)
    assert [each[1] for each in found] == [each[1] for each in wanted]
    assert len({round(each[0], 2) for each in found}) == len(PAIRS)
    assert ours.shortened == 1


def test_a_greedy_continuation_is_known_by_both(both):
    ours, theirs = both
    ids = context = ours.tok_encode("Once upon")
    for _ in range(3):
        ids = [*ids, int(ours._session.logits(ids).argmax())]
    requests = [(("", ""), context, ids[len(context) :])]
    assert ours._loglikelihood_tokens(requests)[0][1] is True
    assert theirs._loglikelihood_tokens(requests)[0][1] is True


def test_whole_texts(both):
    ours, theirs = both
    requests = [request("loglikelihood_rolling", text) for text in TEXTS]
    wanted = theirs.loglikelihood_rolling(requests)
    assert ours.loglikelihood_rolling(requests) == pytest.approx(wanted, abs=NOISE)


@pytest.mark.parametrize(
    "wanted",
    [
        {"until": ["\n"], "max_gen_toks": 12},
        {"until": "e", "max_gen_toks": 12, "do_sample": False, "temperature": 0.0},
        {"max_new_tokens": 5, "num_beams": 1},
    ],
)
def test_what_is_written(both, wanted):
    ours, theirs = both
    requests = [request("generate_until", text, dict(wanted)) for text in (*TEXTS, "Once upon a")]
    found = ours.generate_until(requests)
    assert found == theirs.generate_until(requests)
    assert any(found)


def test_the_order_of_requests_changes_nothing(both):
    ours, _ = both
    requests = [request("loglikelihood", *pair) for pair in PAIRS]
    found = [each[0] for each in ours.loglikelihood(requests)]
    again = [each[0] for each in ours.loglikelihood(requests[::-1])]
    assert again[::-1] == pytest.approx(found, abs=1e-4)
