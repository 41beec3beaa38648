"""The two vocabulary files: written, read back, and refused where they would give other ids."""

from __future__ import annotations

import hashlib
import json

import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

from llama_export.errors import TokenizerError
from llama_export.tokenizer.files import tokenizer_model_bytes
from llama_export.tokenizer.special_tokens import END_OF_TURN, LLAMA30_SPECIAL_TOKENS
from llama_export.tokenizer.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def small_document(small_folder):
    """The text of the small vocabulary's tokenizer.json."""
    return (small_folder / "tokenizer.json").read_text(encoding="utf-8")


def test_the_real_file_comes_back_bit_for_bit(llama3_file, llama3_from_json):
    data = llama3_file.read_bytes()
    assert hashlib.sha256(data).hexdigest().startswith("82e9d319")
    assert llama3_from_json.files()["tokenizer.model"] == data


def test_the_real_json_is_what_transformers_converts_to(llama3_file, llama3_folder):
    document = json.loads((llama3_folder / "tokenizer.json").read_text(encoding="utf-8"))
    converter = TikTokenConverter(str(llama3_file))
    vocabulary, merges = converter.extract_vocab_merges_from_model(str(llama3_file))
    assert document["model"]["vocab"] == vocabulary
    assert document["model"]["merges"] == [" ".join(merge) for merge in merges]
    # As many as in the file that is shipped with Llama 3.
    assert len(merges) == 280147


def test_json_is_the_same_bytes_every_time(small, small_document, tmp_path):
    again = load_tokenizer(write(tmp_path / "tokenizer.json", small_document))
    assert again.vocabulary == small.vocabulary
    assert again.files()["tokenizer.json"].decode() == small_document


def test_a_file_that_transformers_saved_is_read(small, small_document, tmp_path):
    saved = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(small_document), eos_token=END_OF_TURN
    )
    saved.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).vocabulary == small.vocabulary


def test_the_name_of_a_file_says_nothing(small, small_tokenizer_model, small_document, tmp_path):
    write(tmp_path / "tokenizer.model", small_document)
    assert load_tokenizer(tmp_path).vocabulary == small.vocabulary
    ranks = small_tokenizer_model.read_text(encoding="ascii")
    write(tmp_path / "tokenizer.json", ranks)
    assert load_tokenizer(tmp_path).vocabulary == small.vocabulary


def test_a_folder_with_meta_files_below(small, small_tokenizer_model, tmp_path):
    (tmp_path / "original").mkdir()
    ranks = small_tokenizer_model.read_text(encoding="ascii")
    write(tmp_path / "original" / "tokenizer.model", ranks)
    assert load_tokenizer(tmp_path).vocabulary == small.vocabulary


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02", "a SentencePiece model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"", "an empty file"),
        (b"GGUF\x03\x00\x00\x00", "a file that begins with b'GGUF"),
        (b"IQ== 0\n", "255 of the 256 single bytes have no token"),
        (b"IQ== 0\nIg== x\n", r"line 2: expected `base64 rank`, found b'Ig== x'"),
        (b"IQ== 0\nI!== 1\n", "line 2"),
        (b"IQ== 0\n\nIg== 1\n", "line 2"),
        (b"IQ== 0\nIQ== 1\n", "line 2: the token b'!' stands there twice"),
        (b'{"version": "1.0", ', "not valid JSON"),
        (b'{"a":' * 100_000, "not valid JSON"),
        (b'{"\xff": 1}', "not valid JSON"),
        (b'{"version": "1.0"}', "not built like the tokenizer.json of a Llama 3"),
    ],
)
def test_what_is_no_vocabulary_is_named(tmp_path, data, message):
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(TokenizerError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert caught.value.hint
    assert caught.value.exit_code == 14


def test_ranks_with_a_gap_are_refused(small_tokenizer_model, tmp_path):
    text = small_tokenizer_model.read_text(encoding="ascii").replace(" 286\n", " 999\n")
    with pytest.raises(TokenizerError, match="not 0 to 286"):
        load_tokenizer(write(tmp_path / "tokenizer.model", text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TokenizerError, match="holds no tokenizer: expected tokenizer"):
        load_tokenizer(tmp_path)
    with pytest.raises(TokenizerError, match="gone cannot be read: No such file"):
        load_tokenizer(tmp_path / "gone")


def split_step(document):
    return document["pre_tokenizer"]["pretokenizers"][0]


REFUSED = {
    "normalizer": (lambda d: d.update(normalizer={"type": "NFC"}), "a normalizer"),
    "pattern": (lambda d: split_step(d).update(pattern={"Regex": r"\s+"}), "split pattern"),
    "behavior": (lambda d: split_step(d).update(behavior="Removed"), "split pattern"),
    "invert": (lambda d: split_step(d).update(invert=True), "split pattern"),
    "no split": (lambda d: d.update(pre_tokenizer=None), "split pattern"),
    "third step": (
        lambda d: d["pre_tokenizer"]["pretokenizers"].append({"type": "Digits"}),
        "split pattern",
    ),
    "prefix space": (
        lambda d: d["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True),
        "split pattern",
    ),
    "decoder": (lambda d: d.update(decoder={"type": "Metaspace"}), "decoder is 'Metaspace'"),
    "model": (lambda d: d["model"].update(type="Unigram"), "model.type is 'Unigram'"),
    "ignore_merges": (lambda d: d["model"].pop("ignore_merges"), "ignore_merges is None"),
    "dropout": (lambda d: d["model"].update(dropout=0.1), "dropout is 0.1"),
    "suffix": (lambda d: d["model"].update(end_of_word_suffix="</w>"), "'</w>'"),
    "merge missing": (lambda d: d["model"]["merges"].pop(3), "0 merges too many and 1 too few"),
    "merge added": (lambda d: d["model"]["merges"].append("x y"), "1 merges too many and 0"),
    "merges turned": (lambda d: d["model"]["merges"].reverse(), "order of the ids"),
    "added word": (
        lambda d: d["added_tokens"].append({"id": 543, "content": "fox", "special": False}),
        r"1 added tokens are not special \('fox'\)",
    ),
    "gap in the special ids": (lambda d: d["added_tokens"].pop(100), "256 or more ids in a row"),
    "too few": (lambda d: d["added_tokens"].pop(), "256 or more ids in a row from 287"),
    "eot renamed": (
        lambda d: d["added_tokens"][9].update(content="<|im_end|>"),
        r"<\|eot_id\|> has id None, not 296",
    ),
    "rank not a number": (
        lambda d: d["model"]["vocab"].update({"!": "0"}),
        "must be a whole number",
    ),
    "other alphabet": (lambda d: d["model"]["vocab"].update({"▁the": 287}), "not built like"),
    "byte missing": (lambda d: d["model"]["vocab"].pop("!"), "single bytes have no token: 33"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_json_that_tokenises_differently_is_refused(small_document, tmp_path, name):
    change, message = REFUSED[name]
    document = json.loads(small_document)
    change(document)
    path = write(tmp_path / "tokenizer.json", json.dumps(document))
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(path)


ACCEPTED = {
    "merges as pairs": lambda d: d["model"].update(
        merges=[merge.split(" ") for merge in d["model"]["merges"]]
    ),
    "special tokens among the others": lambda d: d["model"]["vocab"].update(
        {token["content"]: token["id"] for token in d["added_tokens"]}
    ),
    "another post-processor": lambda d: d.update(post_processor=None),
    "indices in any order": lambda d: d["added_tokens"].reverse(),
    "empty prefix": lambda d: d["model"].update(continuing_subword_prefix=""),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_json_that_tokenises_alike_is_read(small, small_document, tmp_path, name):
    document = json.loads(small_document)
    ACCEPTED[name](document)
    path = write(tmp_path / "tokenizer.json", json.dumps(document))
    assert load_tokenizer(path).vocabulary == small.vocabulary


def test_a_fine_tune_keeps_its_own_special_tokens(small, small_document, tmp_path):
    document = json.loads(small_document)
    document["added_tokens"][20]["content"] = "<|im_start|>"
    document["added_tokens"].append({"id": 543, "content": "<tool>", "special": True})
    tuned = load_tokenizer(write(tmp_path / "tokenizer.json", json.dumps(document)))
    assert tuned.vocab_size == small.vocab_size + 1
    assert tuned.special_tokens["<|im_start|>"] == 307
    assert tuned.decode([543]) == "<tool>"
    assert max(tuned.encode("<tool><|im_start|>")) < tuned.bos_token_id
    contents = tuned.files()
    (tmp_path / "again.json").write_bytes(contents["tokenizer.json"])
    assert load_tokenizer(tmp_path / "again.json").vocabulary == tuned.vocabulary
    with pytest.raises(TokenizerError, match=r"cannot hold .*'<\|im_start\|>', '<tool>'"):
        tokenizer_model_bytes(tuned.vocabulary)
    assert list(contents) == ["tokenizer.json"]


def test_the_names_of_llama_30_are_known(small_tokenizer_model, small_document, tmp_path):
    assert LLAMA30_SPECIAL_TOKENS[4] == "<|reserved_special_token_2|>"
    assert LLAMA30_SPECIAL_TOKENS[8:11] == (
        "<|reserved_special_token_4|>",
        "<|eot_id|>",
        "<|reserved_special_token_5|>",
    )
    assert LLAMA30_SPECIAL_TOKENS[255] == "<|reserved_special_token_250|>"
    document = json.loads(small_document)
    for token, name in zip(document["added_tokens"], LLAMA30_SPECIAL_TOKENS, strict=True):
        token["content"] = name
    old = load_tokenizer(write(tmp_path / "tokenizer.json", json.dumps(document)))
    assert old.files()["tokenizer.model"] == small_tokenizer_model.read_bytes()


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path
