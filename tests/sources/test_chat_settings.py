"""Which template a bundle gets, and at which tokens its model stops: what any of its files says."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from artifacts.chat_templates import CHATML, HERMES_TOOLS, LLAMA_3, WEATHER
from artifacts.gguf_files import write_gguf
from artifacts.hostile_templates import ENDLESS, FORBIDDEN
from artifacts.json_tokenizers import CONTROL, KINDS, json_bytes
from artifacts.tiny import TINY, write_checkpoint
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llama_export.checkpoints.checkpoint import Companions
from llama_export.errors import ChatTemplateError, ConfigError
from llama_export.llama.config import LlamaConfig
from llama_export.sources.chat_settings import (
    chat_settings,
    completed,
    generation_settings,
    template_notes,
)
from llama_export.sources.manifest_fields import describe_tokenizer
from llama_export.sources.source import describe
from llama_export.targets import registry
from llama_export.tokenizer.chat.chat_format import ChatFormat, Dialog
from llama_export.tokenizer.chat.messages import Message
from llama_export.tokenizer.json_tokenizer import JsonTokenizer


@pytest.fixture
def config(small) -> LlamaConfig:
    return replace(
        TINY,
        vocab_size=small.vocab_size,
        bos_token_id=small.bos_token_id,
        eos_token_id=(small.special_tokens["<|end_of_text|>"],),
    )


def ids(small, *names: str) -> set[int]:
    return {small.special_tokens[name] for name in names}


LLAMA_3_ENDS = ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")
RESERVED = [f"<|reserved_special_token_{index}|>" for index in range(9)]


def test_the_ends_are_what_any_file_names(small, config):
    template = CHATML.replace("im_end", "reserved_special_token_5")
    companions = Companions(
        None, {"eos_token_id": [small.special_tokens[RESERVED[4]], 10**6]}, {"default": template}
    )
    found = completed(config, small, companions)
    assert set(found.eos_token_id) == ids(small, *LLAMA_3_ENDS, RESERVED[4], RESERVED[5])
    # What clients pad with stays the first.
    assert found.eos_token_id[0] == config.eos_token_id[0]
    written = generation_settings(found, companions)["eos_token_id"]
    genai = registry.get("onnx").client_settings(found, 64, {}).files["genai_config.json"]
    said = describe_tokenizer(small, found)["stop_token_ids"]
    assert set(written) == set(genai["model"]["eos_token_id"]) == set(said)
    assert completed(found, small, companions) == found


def test_a_turn_may_end_with_an_added_token_that_is_no_control_token(config):
    document = KINDS["llama3"]()
    size = max(document["model"]["vocab"].values()) + 1
    plain = {**document["added_tokens"][0], "special": False}
    document["added_tokens"].append({**plain, "id": size, "content": "<end_of_turn>"})
    tokenizer = JsonTokenizer.from_bytes(json.dumps(document).encode())
    template = CHATML.replace("<|im_end|>", "<end_of_turn>")
    config = replace(config, vocab_size=size + 1, bos_token_id=0, eos_token_id=(2,))
    found = completed(config, tokenizer, Companions(None, None, {"default": template}))
    assert found.eos_token_id == (2, size)
    # Text after an answer ends no turn, though it is tokens too.
    plain_text = Companions(None, None, {"default": CHATML.replace("<|im_end|>", "the king")})
    assert completed(config, tokenizer, plain_text).eos_token_id == (2,)


@pytest.mark.parametrize(
    "keys", [{"extra_special_tokens": {"turn_token": CONTROL[1]}}, {"turn_token": CONTROL[1]}]
)
def test_a_template_is_told_of_tokens_of_one_models_own(tmp_path, keys):
    folder = write_checkpoint(tmp_path / "model", replace(TINY, vocab_size=512, eos_token_id=(2,)))
    (folder / "tokenizer.model").unlink()
    (folder / "tokenizer.json").write_bytes(json_bytes("smollm2"))
    (folder / "tokenizer_config.json").write_text(json.dumps(keys))
    (folder / "chat_template.jinja").write_text("{{ turn_token }}{{ messages[0].content }}")
    read = describe(folder)
    settings = chat_settings(read.tokenizer, read.companions)
    (tmp_path / "tokenizer.json").write_bytes(json_bytes("smollm2"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    said = [{"role": "user", "content": "Hi"}]
    dialog = Dialog([Message("user", "Hi")])
    for place in (folder, tmp_path):
        theirs = PreTrainedTokenizerFast.from_pretrained(place)
        rendered = theirs.apply_chat_template(said, tokenize=False)
        assert rendered == f"{CONTROL[1]}Hi"
        assert ChatFormat.of(read.tokenizer, settings).render(dialog) == rendered


def test_a_generation_config_that_says_it_all_is_kept_as_it_is(small, config):
    ends = sorted(ids(small, *LLAMA_3_ENDS), reverse=True)
    companions = Companions(None, {"eos_token_id": ends, "temperature": 0.3})
    found = completed(config, small, companions)
    assert generation_settings(found, companions) == {"eos_token_id": ends, "temperature": 0.3}


class Nameless:
    """A tokenizer that names no token."""

    vocab_size = 300
    special_tokens: dict[str, int] = {}  # noqa: RUF012 - a stand-in
    bos_token_id = eos_token_id = None

    def config_keys(self) -> dict[str, object]:
        return {}


def test_a_model_that_never_ends_is_named(config):
    with pytest.raises(ConfigError, match="no file of the model names a token that ends a text"):
        completed(replace(config, eos_token_id=()), Nameless(), Companions())


def test_a_template_that_is_none_is_refused_before_the_work(tmp_path):
    folder = write_checkpoint(tmp_path / "tuned")
    (folder / "chat_template.jinja").write_text("{% for m in messages %}")
    with pytest.raises(ChatTemplateError, match="the chat template, line 1"):
        describe(folder)


@pytest.mark.parametrize("tools", [False, True])
@pytest.mark.parametrize("place", ["file", "key", "list", "gguf"])
@pytest.mark.parametrize("name", ["a long range", "a class"])
def test_a_template_that_is_stopped_is_refused_before_the_work(tmp_path, place, name, tools):
    """Other programs would run it with fewer limits."""
    template = {**ENDLESS, **FORBIDDEN}[name]
    if tools:
        template = "{% if tools %}" + template + "{% endif %}"
    folder = tmp_path / "tuned"
    if place == "gguf":
        write_gguf(folder / "m.gguf", keys={"tokenizer.chat_template": template})
    else:
        write_checkpoint(folder)
    if place == "file":
        (folder / "chat_template.jinja").write_text(template)
    if place in ("key", "list"):
        several = [{"name": "default", "template": template}]
        several += [{"name": "tool_use", "template": template}]
        key = template if place == "key" else several
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": key}))
    with pytest.raises(ChatTemplateError, match="was stopped"):
        describe(folder)


@pytest.mark.parametrize(
    ("name", "generation", "is_metas"),
    [
        ("Llama-3.2-1B-Instruct", None, True),
        ("Llama3.2-3B-Instruct-int4-spinquant-eo8", None, True),
        ("llama_3.2_instruct", None, True),
        ("my-tune", ["<|end_of_text|>", "<|eot_id|>"], True),
        ("Llama-3.2-1B", None, False),
        ("Llama-3.2-1B", ["<|end_of_text|>"], False),
        ("instructional-base", None, False),
    ],
)
def test_metas_instruct_models_get_metas_template_and_no_base_model_does(
    small, name, generation, is_metas
):
    ends = {"eos_token_id": [small.special_tokens[each] for each in generation or ()]}
    companions = Companions(None, ends if generation else None)
    assert ("chat_template" in chat_settings(small, companions, name)) is is_metas
    own = replace(companions, chat_templates={"default": LLAMA_3})
    assert chat_settings(small, own, name)["chat_template"] == LLAMA_3


def test_metas_template_is_rendered_as_transformers_renders_it(small, small_folder):
    settings = chat_settings(small, Companions(), "Llama-3.2-1B-Instruct")
    fast = PreTrainedTokenizerFast.from_pretrained(small_folder)
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    form = ChatFormat.of(small, settings)
    for messages in ([("user", "Hi")], [("system", "Be brief."), ("user", "Hi")]):
        for given in ([], tools):
            dialog = Dialog([Message(*each) for each in messages], tools=given)
            expected = fast.apply_chat_template(
                [message.to_json() for message in dialog.messages],
                tools=given or None,
                chat_template=settings["chat_template"],
                add_generation_prompt=True,
                tokenize=False,
            )
            assert form.render(dialog) == expected
            assert form.encode(dialog) == fast(expected, add_special_tokens=False)["input_ids"]
    assert "Today Date: " in expected


def test_a_bundle_keeps_the_templates_that_clients_choose(small, tmp_path, small_folder):
    templates = {"default": CHATML, "tool_use": HERMES_TOOLS, "rag": LLAMA_3}
    settings = chat_settings(small, Companions(None, None, templates))
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name, content in small.files().items():
        (folder / name).write_bytes(content)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    fast = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "What is the weather?"}]
    for tools, chosen in (None, CHATML), ([WEATHER], HERMES_TOOLS):
        expected = fast.apply_chat_template(
            messages, tools=tools, chat_template=chosen, tokenize=False
        )
        assert fast.apply_chat_template(messages, tools=tools, tokenize=False) == expected
    assert template_notes(templates) == (
        "the bundle keeps the chat templates that clients choose, and not rag",
    )
    assert template_notes({"default": CHATML, "tool_use": LLAMA_3}) == ()


def test_templates_that_are_sound_together_alone_are_refused(small, config):
    halves = {"default": "a{% endif %}{% if 1 %}b", "tool_use": "a"}
    with pytest.raises(ChatTemplateError, match="endif"):
        completed(config, small, Companions(None, None, halves))
