"""The embedded demo model, exported for real: its figures, its text, and a stock client."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from artifacts.opened import session_of

from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.exporting.publishing.card import CardFacts, render_card
from llama_export.generation.decoding import Generation
from llama_export.generation.sampling import Sampling
from llama_export.llama.streamed import reference_logits
from llama_export.sources.resolve import DEMO_FOLDER
from llama_export.tokenizer.tokenizer import load_tokenizer
from llama_export.verification.measure.metrics import compare_logits
from llama_export.verification.samples import built_in_text
from llama_export.verification.verify import verify_bundle
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.recipe import QuantRecipe, recipe
from llama_quantize.scheme import GroupedInt

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytestmark = pytest.mark.onnx


class Silent:
    @contextmanager
    def step(self, label):
        yield lambda done, total: None


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    request = ExportRequest("demo", ("onnx",), tmp_path_factory.mktemp("demo"), verify=False)
    return export_bundle(request, Silent()).bundles[0].bundle


@pytest.fixture(scope="module")
def checkpoint():
    return HfCheckpoint.open(DEMO_FOLDER)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(DEMO_FOLDER)


def write(session, tokenizer, prompt, sampling, max_tokens=160):
    stops = [tokenizer.special_tokens[name] for name in ("<|end_of_text|>", "<|eot_id|>")]
    ids = [tokenizer.bos_token_id, *tokenizer.encode(prompt)]
    generation = Generation(
        session, ids, sampling=sampling, stop_token_ids=stops, max_tokens=max_tokens
    )
    return prompt + tokenizer.decode(list(generation))


def test_the_shape_is_a_small_llama_32(checkpoint):
    config = checkpoint.config
    assert config.tie_word_embeddings
    assert config.rope_scaling is not None
    assert config.rope_scaling.factor == 32
    assert config.num_attention_heads == 2 * config.num_key_value_heads
    assert config.head_dim == 64
    assert sum((DEMO_FOLDER / name).stat().st_size for name in ("model.safetensors",)) < 13e6


@pytest.mark.slow
def test_the_figures_of_the_verification(exported, checkpoint):
    weights = QuantizedWeights.open(exported.folder.parent / "weights")
    report = verify_bundle(exported, weights=weights, checkpoint=checkpoint)
    assert report.passed, report.failures
    assert report.row("kl_exact").value <= 1e-5
    assert report.row("kl_shipped").value <= 2e-3
    assert report.row("kl_shipped").value <= report.row("kl_quantisation").value / 3
    assert report.row("kl_quantisation").value < 0.02


@pytest.mark.slow
def test_the_scale_search_beats_rounding_to_nearest(checkpoint, tokenizer, tmp_path):
    """The same text through both; docs/performance.md has the figures over 12,000 positions."""
    searched = recipe("int4")
    rules = tuple(
        replace(rule, method="nearest") if isinstance(rule.scheme, GroupedInt) else rule
        for rule in searched.rules
    )
    ids = torch.tensor([list(built_in_text(tokenizer).take(1000))])
    reference = reference_logits(checkpoint.config, checkpoint.tensor, ids)[0].numpy()
    kl = []
    for index, chosen in enumerate((searched, QuantRecipe("nearest", rules))):
        folder = tmp_path / str(index)
        quantize_to(folder, checkpoint, chosen)
        weights = QuantizedWeights.open(folder)
        found = reference_logits(checkpoint.config, weights.get, ids)[0].numpy()
        kl.append(compare_logits(reference, found).kl_mean)
    assert kl[0] < 0.9 * kl[1]


def test_the_exported_model_writes_fairy_tales(exported, tokenizer, shared_data):
    """Whole words of the training corpus, sentences, dialogue in quotes, kings and daughters."""
    corpus = (shared_data / "corpus" / "fairy-tales-train.txt").read_text().lower()
    known = set(re.findall(r"[a-z]+", corpus))
    session = session_of(exported)
    texts = []
    for seed in range(4):
        session.rewind(0)
        texts.append(write(session, tokenizer, "Once upon a time", Sampling(0.7, 0.95, 0, seed)))
    joined = " ".join(texts).lower()
    words = re.findall(r"[a-z]+", joined)
    assert len(words) > 300
    assert sum(word in known for word in words) > 0.97 * len(words)
    assert len(set(words)) > 0.2 * len(words)
    assert re.search(r"\b(king|queen|prince|princess|daughter|castle)", joined)
    assert re.search(r"['\"][a-z]", joined)
    sentences = [s for s in re.split(r"[.!?]", joined) if s.strip()]
    assert 4 < len(words) / len(sentences) < 60


def test_greedy_text_is_that_of_onnxruntime_genai_on_the_bundle_as_it_is(exported, tokenizer):
    genai = pytest.importorskip("onnxruntime_genai", reason="needs onnxruntime-genai")
    prompt = "There was once a king who had three daughters."
    model = genai.Model(str(exported.folder))
    their_tokenizer = genai.Tokenizer(model)
    ids = [tokenizer.bos_token_id, *tokenizer.encode(prompt)]
    assert [int(i) for i in their_tokenizer.encode(prompt)][-len(ids) + 1 :] == ids[1:]
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=len(ids) + 40, do_sample=False)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(np.array([ids], dtype=np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    theirs = their_tokenizer.decode(generator.get_sequence(0)[len(ids) :])
    ours = write(session_of(exported), tokenizer, prompt, Sampling(0), 40)
    assert ours == prompt + theirs


def test_genais_lines_in_the_model_card_run_as_they_are(exported, monkeypatch, capfd):
    pytest.importorskip("onnxruntime_genai", reason="needs onnxruntime-genai")
    card = render_card([exported.manifest], CardFacts({})).decode()
    snippets = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    (lines,) = (each for each in snippets if "onnxruntime_genai" in each)
    # What the hub would have fetched is here.
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda _: str(exported.folder.parent))
    exec(compile(lines, "card", "exec"), {})
    assert len(capfd.readouterr().out.split()) > 20


def test_the_card_has_the_figures_of_the_run():
    card = (DEMO_FOLDER / "README.md").read_text()
    run = json.loads((DEMO_FOLDER / "training.json").read_text())
    assert f"{run['validation_nats_per_token']:.3f}" in card
    assert f"{run['steps']:,}" in card
    assert run["validation_nats_per_token"] < 3.5


def test_the_demo_carries_its_own_files_only():
    assert {path.name for path in Path(DEMO_FOLDER).iterdir()} == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "tokenizer.model",
        "training.json",
    }
