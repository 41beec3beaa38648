"""Any tokenizer.json against the library `tokenizers`, and its prefix against transformers."""

from __future__ import annotations

import json
import time
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import tokenizers
from artifacts.json_tokenizers import CONTROL, KINDS, json_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from llama_export.errors import TokenizerError
from llama_export.tokenizer.json_tokenizer import JsonTokenizer
from llama_export.tokenizer.tokenizer import load_tokenizer
from llama_export.tokenizer.torture import TORTURE

TEXT = st.one_of(st.text(), st.text(alphabet=" aethgkin12é中<think>|s\n", max_size=40))
BYTE_LEVEL = ("smollm2", "llama3", "distilled", "gap", "no flag")


@cache
def ours(kind: str) -> JsonTokenizer:
    return JsonTokenizer.from_bytes(json_bytes(kind))


@cache
def theirs(kind: str, *, as_text: bool = True) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer.from_str(json_bytes(kind).decode())
    made.encode_special_tokens = as_text
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_the_librarys(kind):
    for text in TORTURE:
        expected = theirs(kind).encode(text, add_special_tokens=False).ids
        assert ours(kind).encode(text) == expected
        rendered = theirs(kind, as_text=False).encode(text, add_special_tokens=False).ids
        assert ours(kind).encode_rendered(text) == rendered


@pytest.mark.parametrize("kind", KINDS)
@given(TEXT)
@settings(max_examples=60, deadline=None)
def test_any_text_has_the_librarys_ids_and_comes_back_as_theirs(kind, text):
    ids = ours(kind).encode(text)
    assert ids == theirs(kind).encode(text, add_special_tokens=False).ids
    assert ours(kind).decode(ids) == theirs(kind).decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(st.integers(0, 600), max_size=20))
@settings(max_examples=60, deadline=None)
def test_the_stream_gives_what_decode_gives(kind, ids):
    known = [each for each in ids if each < ours(kind).vocab_size]
    stream = ours(kind).stream_decoder()
    text = "".join([stream.push(each) for each in known]) + stream.flush()
    assert text == ours(kind).decode(known)
    if kind in (*BYTE_LEVEL, "unigram", "word level"):
        assert text == theirs(kind).decode(known, skip_special_tokens=False)


@pytest.mark.parametrize("kind", ["smollm2", "llama3", "distilled", "converted"])
def test_typed_control_tokens_stay_text(kind):
    found = ours(kind)
    for name, token_id in found.special_tokens.items():
        assert token_id not in found.encode(f"a{name}b")
        assert token_id in found.encode_rendered(f"a{name}b")
        assert found.decode([token_id]) == name
        assert found.token_name(token_id) == name


def test_added_tokens_that_are_no_control_tokens_are_found_in_text():
    found = ours("distilled")
    think = found.encode("<think>")
    assert [found.token_name(each) for each in think] == ["<think>"]
    assert "<think>" not in found.special_tokens


def test_an_added_token_without_its_kind_is_refused_by_name():
    document = KINDS["llama3"]()
    del document["added_tokens"][0]["special"]
    with pytest.raises(TokenizerError, match="missing field `special`"):
        JsonTokenizer.from_bytes(json.dumps(document).encode())


def test_ids_in_a_gap_mean_nothing():
    found = ours("gap")
    assert found.vocab_size == 512
    assert found.decode([500, 511]) == "<|pad|>"
    with pytest.raises(TokenizerError, match="outside the vocabulary of 512"):
        found.decode([512])


def test_an_id_that_the_library_gives_anew_is_named():
    document = KINDS["llama3"]()
    size = ours("llama3").vocab_size
    document["added_tokens"].append(
        {**document["added_tokens"][0], "id": size + 9, "content": "<|pad|>"}
    )
    found = JsonTokenizer.from_bytes(json.dumps(document).encode())
    assert found.special_tokens["<|pad|>"] == size
    assert f"'<|pad|>' is {size}, not {size + 9}" in found.notes[0]
    assert ours("llama3").notes == ours("converted").notes == ()
    assert "ExecuTorch's runner does not read" in ours("metaspace").notes[0]


def test_a_merge_that_makes_a_control_token_of_text_is_left_out():
    document = KINDS["llama3"]()
    vocabulary, size = document["model"]["vocab"], ours("llama3").vocab_size
    vocabulary |= {"<s": size, "<s>": size + 1}
    document["model"]["merges"] += [["<", "s"], ["<s", ">"]]
    document["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"String": "never"}
    document["added_tokens"].append(
        {**document["added_tokens"][0], "id": size + 1, "content": "<s>"}
    )
    data = json.dumps(document).encode()
    library = tokenizers.Tokenizer.from_str(data.decode())
    library.encode_special_tokens = True
    assert library.encode("<s>", add_special_tokens=False).ids == [size + 1]
    found = JsonTokenizer.from_bytes(data)
    assert size + 1 not in found.encode("<s>")
    assert found.encode_rendered("<s>") == [size + 1]
    assert found.files() == {"tokenizer.json": data}


def test_a_control_token_that_only_the_settings_name_is_not_merged_of_text_either():
    document = KINDS["llama3"]()
    vocabulary, size = document["model"]["vocab"], ours("llama3").vocab_size
    vocabulary |= {"#q": size, "#qx": size + 1}
    document["model"]["merges"] += [["#", "q"], ["#q", "x"]]
    data = json.dumps(document).encode()
    assert JsonTokenizer.from_bytes(data).encode("#qx") == [size + 1]
    added = {"added_tokens_decoder": {str(size + 1): {"content": "#qx", "special": True}}}
    found = JsonTokenizer.from_bytes(data, added)
    assert found.special_tokens["#qx"] == size + 1
    assert size + 1 not in found.encode("#qx")


# What the files beside say

BOS = {
    "text": CONTROL[0],
    "object": {"__type": "AddedToken", "content": CONTROL[0], "special": True},
    "null": None,
}


@pytest.mark.parametrize(
    ("kind", "bos", "adds"),
    [*product(["smollm2", "llama3"], [*BOS, "absent"], [True, False, None])],
)
def test_what_comes_before_a_text_is_what_transformers_puts_there(tmp_path, kind, bos, adds):
    keys = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": CONTROL[2]}
    keys |= {} if bos == "absent" else {"bos_token": BOS[bos]}
    keys |= {} if adds is None else {"add_bos_token": adds}
    folder = write(tmp_path, json_bytes(kind), keys)
    auto = AutoTokenizer.from_pretrained(folder)
    found = load_tokenizer(folder)
    assert [*found.prefix_ids, *found.encode("the king")] == auto("the king")["input_ids"]
    assert found.eos_token_id == auto.eos_token_id
    if bos != "absent":
        assert found.bos_token_id == auto.bos_token_id
    assert len(auto) == found.vocab_size


def test_names_come_from_the_map_and_ids_from_the_config(tmp_path):
    folder = write(tmp_path, json_bytes("smollm2"), None)
    (folder / "config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": [2, 0]}))
    found = load_tokenizer(folder)
    assert (found.bos_token_id, found.eos_token_id) == (1, 2)
    named = {"bos_token": CONTROL[0], "eos_token": {"content": CONTROL[1]}}
    (folder / "special_tokens_map.json").write_text(json.dumps(named))
    found = load_tokenizer(folder)
    assert (found.bos_token_id, found.eos_token_id) == (0, 1)
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": CONTROL[2]}))
    found = load_tokenizer(folder)
    assert (found.bos_token_id, found.eos_token_id) == (0, 2)
    assert load_tokenizer(folder / "tokenizer.json").eos_token_id == 2


def test_tokens_that_only_the_config_has_are_added_as_transformers_does(tmp_path):
    size = ours("smollm2").vocab_size
    keys = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "[PAD]",
        "additional_special_tokens": ["<turn>"],
        "added_tokens_decoder": {
            str(size): {"content": "<tool>", "special": False, "normalized": False}
        },
    }
    folder = write(tmp_path, json_bytes("smollm2"), keys)
    auto, found = AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)
    text = "a<tool>b<turn>c[PAD]"
    assert found.encode_rendered(text) == auto(text, add_special_tokens=False)["input_ids"]
    assert found.vocab_size == len(auto) == size + 3
    assert found.special_tokens["<turn>"] not in found.encode(text)
    again = write(tmp_path / "bundle", found.files()["tokenizer.json"], found.config_keys())
    assert load_tokenizer(again).encode_rendered(text) == found.encode_rendered(text)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"bos_token": 5}, "bos_token: a special token's name must be"),
        ({"eos_token": "n" * 10_000}, "must be 1 to 256 characters"),
        ({"eos_token": "\ud800"}, "must be"),
        ({"additional_special_tokens": [{"content": ["a"]}]}, "must be"),
        ({"added_tokens_decoder": {"-1": {"content": "a"}}}, "whole number"),
        ({"added_tokens_decoder": {"9" * 5000: {"content": "a"}}}, "whole number"),
        ({"added_tokens_decoder": {"5": {"content": None}}}, "must be"),
        ({"added_tokens_decoder": ["a"]}, "added_tokens_decoder: expected an object"),
        ({"added_tokens_decoder": {"0": {"content": "a", "special": "0"}}}, "special: expected"),
        ({"added_tokens_decoder": {"0": {"content": "a", "lstrip": 1.5}}}, "lstrip: expected true"),
        ({"additional_special_tokens": 5}, "expected a list or an object, found 5"),
        ({"add_bos_token": "false"}, "add_bos_token: expected true or false, found 'false'"),
        ("no JSON", "cannot be read"),
    ],
)
def test_settings_that_none_can_have_are_named(tmp_path, keys, match):
    folder = write(tmp_path, json_bytes("smollm2"), keys)
    with pytest.raises(TokenizerError, match=match) as caught:
        load_tokenizer(folder)
    assert len(caught.value.message) < 700


def write(folder: Path, data: bytes, keys: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_bytes(data)
    if keys is not None:
        text = keys if isinstance(keys, str) else json.dumps(keys)
        (folder / "tokenizer_config.json").write_text(text)
    return folder


# Files that are none


def put(**parts: object) -> bytes:
    return json.dumps(KINDS["llama3"]() | parts).encode()


def regex(pattern: str) -> dict[str, object]:
    step = {"pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Split", **step}


BAD = {
    "no model": (put(model=None), "not built like a tokenizer.json"),
    "another model": (put(model={"type": "Banana", "vocab": {}}), "no tokenizer that the library"),
    "a merge of no tokens": (
        put(model={"type": "BPE", "vocab": {"a": 0}, "merges": ["x y"]}),
        "no tokenizer that the library",
    ),
    "two tokens of one id": (
        put(model={"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 0}, "merges": []}),
        "the tokens a and c have one id",
    ),
    "a pattern that does not parse": (put(pre_tokenizer=regex("(a")), "Oniguruma error"),
    "a pattern of 100 kB": (put(pre_tokenizer=regex("a" * 100_000)), "a pattern of 100000"),
    "a table that panics": (
        put(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        "Cannot parse precompiled_charsmap",
    ),
    "a recursion": (b'{"model":' + b"[" * 100_000, "not valid JSON"),
    "levels": (put(normalizer=json.loads("[" * 80 + "]" * 80)), "deeper than"),
    "a number for a name": (put(added_tokens=[{"id": 1, "content": 5}]), "name must be"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_no_tokenizer_are_named(name):
    data, match = BAD[name]
    begun = time.process_time()
    with pytest.raises(TokenizerError, match=match) as caught:
        JsonTokenizer.from_bytes(data, where="t/tokenizer.json")
    assert time.process_time() - begun < 2
    assert caught.value.message.startswith("t/tokenizer.json")
    assert len(caught.value.message) < 700
    assert caught.value.hint


def test_a_pattern_that_does_not_end_is_given_up():
    found = JsonTokenizer.from_bytes(put(pre_tokenizer=regex("(a+)+$")))
    assert found.encode("the king")
    begun = time.process_time()
    with pytest.raises(TokenizerError, match="retry-limit-in-match over"):
        found.encode("a" * 40 + "b")
    assert time.process_time() - begun < 20


def test_truncation_and_padding_in_the_file_are_not_ours():
    padding = {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None}
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": CONTROL[0]}
    cut = {"max_length": 2, "strategy": "LongestFirst", "direction": "Right", "stride": 0}
    found = JsonTokenizer.from_bytes(put(padding=padding, truncation=cut))
    assert found.encode("Once upon a time there was") == ours("llama3").encode(
        "Once upon a time there was"
    )
    assert found.prefix_ids == (0,)
