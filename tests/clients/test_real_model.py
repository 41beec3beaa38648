"""A real chat model answers from every artifact, in our sessions and in the stock clients."""

from __future__ import annotations

import json

import pytest
from artifacts.real_model import QUESTION

import llama_export
from llama_export.generation.sampling import Sampling
from llama_export.targets import registry
from llama_export.tokenizer.chat.chat_format import Dialog
from llama_export.tokenizer.chat.messages import Message

pytestmark = [pytest.mark.coreml, pytest.mark.executorch, pytest.mark.onnx, pytest.mark.slow]
GREEDY = Sampling(temperature=0)
MESSAGES = [Message("user", QUESTION)]


@pytest.mark.parametrize("target", registry.TARGETS)
def test_every_artifact_knows_the_capital_of_france(real_bundles, target):
    with llama_export.load(real_bundles / target) as session:
        assert session.for_chat
        answer = session.chat(MESSAGES, max_tokens=16, sampling=GREEDY)
        assert "Paris" in answer.text
        assert answer.stats.prompt_tokens == len(session.chat_format.encode(Dialog(MESSAGES)))


def test_every_file_names_the_end_of_a_turn(real_bundles):
    for target in registry.TARGETS:
        manifest = json.loads((real_bundles / target / "manifest.json").read_text())
        # <|im_end|>, which the file, the tokenizer and the template name.
        assert manifest["tokenizer"]["stop_token_ids"] == [2]
    genai = json.loads((real_bundles / "onnx" / "genai_config.json").read_text())["model"]
    manifest = json.loads((real_bundles / "onnx" / "manifest.json").read_text())
    ends = genai["eos_token_id"]
    assert manifest["tokenizer"]["stop_token_ids"] == (ends if isinstance(ends, list) else [ends])


def test_executorchs_own_runner_reads_its_tokenizer(real_bundles):
    from executorch.extension.llm.runner import GenerationConfig, TextLLMRunner

    from llama_export.system.quiet import silenced

    bundle = real_bundles / "executorch"
    with llama_export.load(bundle) as session:
        text = session.chat_format.render(Dialog(MESSAGES))
        expected = session.chat(MESSAGES, max_tokens=16, sampling=GREEDY)
    said: list[str] = []
    config = GenerationConfig(echo=False, max_new_tokens=16, temperature=0.0, num_bos=0, num_eos=0)
    with silenced():
        runner = TextLLMRunner(str(bundle / "model.pte"), str(bundle / "tokenizer.json"))
        runner.generate(text, config, said.append, lambda stats: None)
    assert "".join(said).removesuffix("<|im_end|>") == expected.text
    assert "Paris" in expected.text
