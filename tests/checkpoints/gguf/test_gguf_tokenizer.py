"""The tokenizer and the small settings of a GGUF file, in the forms that their libraries read."""

from __future__ import annotations

import json

import pytest
from artifacts.gguf_files import CONTROLS, TEMPLATE, byte_letters, write_gguf

from llama_export.checkpoints.gguf.files import read_model
from llama_export.checkpoints.gguf.format import GgufFormat
from llama_export.checkpoints.gguf.metadata import Metadata
from llama_export.checkpoints.gguf.sentencepiece import tokenizer_model
from llama_export.checkpoints.gguf.splits import SPLITS
from llama_export.checkpoints.gguf.tokenizer import tokenizer_json
from llama_export.errors import ConfigError, LlamaExportError, TokenizerError

TEXT = "abab 12 don't  <|im_start|> \u00e9\u00df \n\n ab"
PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a", "b"]
SPM = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.pre": "default",
    "tokenizer.ggml.tokens": [*PIECES, "ab", "\u2581ab", "<|im_start|>"],
    "tokenizer.ggml.scores": [0.0] * 259 + [-1e6, -10.0, -11.0, -1.0, -2.0, -1000.0],
    "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * 5 + [4],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.padding_token_id": None,
    "tokenizer.ggml.add_bos_token": None,
    "tokenizer.ggml.merges": None,
    "llama.vocab_size": None,
}


def metadata_of(tmp_path, keys=None):
    model = read_model(write_gguf(tmp_path / "m.gguf", keys=keys, state={}))
    return Metadata(model.path, model.metadata)


def engine(tmp_path, keys=None):
    import tokenizers

    return tokenizers.Tokenizer.from_buffer(tokenizer_json(metadata_of(tmp_path, keys)))


def test_a_byte_level_tokenizer_becomes_a_tokenizer_json(tmp_path):
    found = engine(tmp_path)
    ids = found.encode(TEXT).ids
    assert ids[0] == 256, "the first token is added"
    assert found.decode(ids, skip_special_tokens=False) == "<|begin|>" + TEXT
    assert [found.id_to_token(each) for each in range(256, 261)] == [*CONTROLS, "ab"]
    assert ids[1:3] == [260, 260]
    assert 258 in ids
    assert found.id_to_token(261) is None, "an unused id stands for no token"


def test_digits_are_split_where_the_name_says_so(tmp_path):
    letters = byte_letters()
    keys = {
        "tokenizer.ggml.tokens": [*letters, *CONTROLS, "12", "[PAD261]"],
        "tokenizer.ggml.merges": ["1 2"],
    }
    one, two = (letters.index(each) for each in "12")
    apart = engine(tmp_path, {**keys, "tokenizer.ggml.pre": "smollm"})
    assert apart.encode("12", add_special_tokens=False).ids == [one, two]
    joined = engine(tmp_path, {**keys, "tokenizer.ggml.pre": "llama-bpe"})
    assert joined.encode("12", add_special_tokens=False).ids == [260]


@pytest.mark.parametrize("name", SPLITS)
def test_every_known_split_is_one_that_the_library_reads(tmp_path, name):
    found = engine(tmp_path, {"tokenizer.ggml.pre": name})
    assert found.decode(found.encode(TEXT, add_special_tokens=False).ids) == TEXT.replace(
        "<|im_start|>", ""
    )


@pytest.mark.parametrize(
    ("keys", "adds"),
    [
        ({"tokenizer.ggml.add_bos_token": False}, False),
        ({"tokenizer.ggml.add_bos_token": None}, False),
        ({"tokenizer.ggml.add_bos_token": None, "tokenizer.ggml.pre": "llama-bpe"}, True),
        ({"tokenizer.ggml.bos_token_id": None}, False),
    ],
)
def test_the_first_token_is_added_where_the_file_or_its_kind_says_so(tmp_path, keys, adds):
    ids = engine(tmp_path, keys).encode("a").ids
    assert (len(ids) == 2) is adds


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tokenizer.ggml.pre": "no-such"}, "splits text in a way unknown: .*'no-such'"),
        ({"tokenizer.ggml.pre": None}, "does not say how text is split"),
        ({"tokenizer.ggml.model": "bert"}, "a tokenizer of the kind 'bert'"),
        ({"tokenizer.ggml.model": None}, "has no tokenizer"),
        ({"tokenizer.ggml.tokens": None}, "tokens is missing or empty"),
        ({"tokenizer.ggml.tokens": ["a"]}, "256, of 1 tokens"),
        ({"tokenizer.ggml.tokens": ["a"] * 262}, "has a token twice"),
        ({"tokenizer.ggml.token_type": [1]}, "1 entries for 262 tokens"),
        ({"tokenizer.ggml.token_type": [1] * 261 + [0]}, "says 0 of token 261, expected 1 to 6"),
        ({"tokenizer.ggml.token_type": [7] + [1] * 261}, "says 7 of token 0"),
        ({"tokenizer.ggml.merges": None}, "has no tokenizer.ggml.merges"),
        ({"tokenizer.ggml.merges": ["a c"]}, "the merge 'a c' joins"),
        ({"tokenizer.ggml.merges": ["ab"]}, "the merge 'ab' joins"),
        ({"tokenizer.ggml.bos_token_id": 999}, "its bos token is 999"),
    ],
)
def test_a_tokenizer_that_is_missing_or_damaged_is_refused(tmp_path, keys, message):
    path = write_gguf(tmp_path / "m.gguf", keys=keys, state={})
    with pytest.raises(TokenizerError, match=message):
        GgufFormat().read_tokenizer(path)


@pytest.mark.parametrize("key", ["tokenizer.ggml.tokens", "tokenizer.chat_template"])
def test_a_key_of_another_kind_is_refused(tmp_path, key):
    path = write_gguf(tmp_path / "m.gguf", keys={key: 7}, state={})
    with pytest.raises(ConfigError, match=f"{key} must be a "):
        GgufFormat().read_companions(path)


def sentencepiece_of(tmp_path, keys=None):
    import sentencepiece

    content = tokenizer_model(metadata_of(tmp_path, {**SPM, **(keys or {})}))
    return sentencepiece.SentencePieceProcessor(model_proto=content)


def test_a_sentencepiece_tokenizer_becomes_its_model_again(tmp_path):
    found = sentencepiece_of(tmp_path)
    assert found.encode("ab ab", out_type=str) == ["\u2581ab", "\u2581ab"]
    assert found.encode("\u00e9") == [259, 3 + 0xC3, 3 + 0xA9]
    assert found.encode("a  b", out_type=str) == ["\u2581", "a", "\u2581", "\u2581", "b"]
    assert (found.unk_id(), found.bos_id(), found.eos_id(), found.pad_id()) == (0, 1, 2, -1)
    assert found.encode("<|im_start|>ab") == [259, 264, 262]
    assert found.decode([263, 263]) == "ab ab"
    bare = sentencepiece_of(tmp_path, {"tokenizer.ggml.add_space_prefix": False})
    assert bare.encode("ab", out_type=str) == ["ab"]


def test_the_first_openllama_is_known_by_its_blank(tmp_path):
    """The converter drops its flag: without it two blanks would be two tokens."""
    words = [f"w{number}" for number in range(31822 - 259)]
    tokens = [*PIECES[:259], *words, "\u2581", "a", "b"]
    keys = {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [-float(number) for number in range(len(tokens))],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * (len(tokens) - 259),
    }
    assert sentencepiece_of(tmp_path, keys).encode("a  b", out_type=str) == [
        "\u2581",
        "a",
        "\u2581",
        "b",
    ]
    keys["tokenizer.ggml.remove_extra_whitespaces"] = False
    assert len(sentencepiece_of(tmp_path, keys).encode("a  b")) == 5


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tokenizer.ggml.scores": None}, "need as many scores, found none"),
        ({"tokenizer.ggml.scores": [0.0]}, "need as many scores, found 1"),
        ({"tokenizer.ggml.scores": [0.0] * 264 + [float("nan")]}, "has nan for piece 264"),
        ({"tokenizer.ggml.scores": [float("inf")] + [0.0] * 264}, "has inf for piece 0"),
        ({"tokenizer.ggml.precompiled_charsmap": [1, 2]}, "precompiled_charsmap is not read"),
    ],
)
def test_pieces_that_do_not_fit_together_are_refused(tmp_path, keys, message):
    with pytest.raises(LlamaExportError, match=message):
        sentencepiece_of(tmp_path, keys)


def test_the_companions_are_what_transformers_would_have(tmp_path):
    keys = {
        "tokenizer.chat_template.tool_use": "tools",
        "tokenizer.ggml.eot_token_id": 259,
        "general.sampling.temp": 0.25,
        "general.sampling.top_k": 40,
    }
    path = write_gguf(tmp_path / "m.gguf", keys=keys, state={})
    found = GgufFormat().read_companions(path)
    assert found.chat_templates == {"default": TEMPLATE, "tool_use": "tools"}
    assert found.tokenizer_config == {
        "bos_token": "<|begin|>",
        "eos_token": "<|end|>",
        "pad_token": "<|end|>",
        "add_bos_token": True,
    }
    assert found.generation_config == {
        "bos_token_id": 256,
        "eos_token_id": [257, 259],
        "pad_token_id": 257,
        "do_sample": True,
        "temperature": 0.25,
        "top_k": 40,
    }
    assert json.dumps(found.generation_config)


def test_llama_3_ends_by_three_tokens_and_names_one(tmp_path):
    letters = byte_letters()
    ends = ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"]
    keys = {"tokenizer.ggml.tokens": [*letters, "<|begin_of_text|>", *ends, "ab", "[PAD261]"]}
    path = write_gguf(tmp_path / "m.gguf", keys={**keys, "tokenizer.ggml.eos_token_id": 259})
    assert GgufFormat().read_config(path).eos_token_id == (259, 257, 258)
