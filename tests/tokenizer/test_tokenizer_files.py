"""The two vocabulary files: written, read back, and refused where they would give other ids."""

from __future__ import annotations

import hashlib
import json

import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

from llama_export.errors import TokenizerError
from llama_export.tokenizer.special_tokens import END_OF_TURN
from llama_export.tokenizer.tokenizer import load_tokenizer

TEXT = "The king said: Hello  world, 123 \u4e2d\U0001f600\n\n<|eot_id|>"


@pytest.fixture(scope="module")
def small_document(small_folder):
    """The text of the small vocabulary's tokenizer.json."""
    return (small_folder / "tokenizer.json").read_text(encoding="utf-8")


def test_the_real_file_comes_back_bit_for_bit(llama3_file):
    data = llama3_file.read_bytes()
    assert hashlib.sha256(data).hexdigest().startswith("82e9d319")
    assert load_tokenizer(llama3_file).files()["tokenizer.model"] == data


def test_the_real_json_is_what_transformers_converts_to(llama3_file, llama3_folder):
    document = json.loads((llama3_folder / "tokenizer.json").read_text(encoding="utf-8"))
    converter = TikTokenConverter(str(llama3_file))
    vocabulary, merges = converter.extract_vocab_merges_from_model(str(llama3_file))
    assert document["model"]["vocab"] == vocabulary
    assert document["model"]["merges"] == [" ".join(merge) for merge in merges]
    # As many as in the file that is shipped with Llama 3.
    assert len(merges) == 280147


def test_a_tokenizer_json_is_kept_as_it_came(small, small_document, tmp_path):
    indented = json.dumps(json.loads(small_document), indent=2)
    again = load_tokenizer(write(tmp_path / "tokenizer.json", indented))
    assert again.files() == {"tokenizer.json": indented.encode()}
    assert again.file == "tokenizer.json"
    assert again.encode(TEXT) == small.encode(TEXT)


def test_what_was_written_for_a_vocabulary_is_read_as_that_vocabulary(small, tmp_path):
    """An export goes on from its own weights with the same files."""
    for name, content in small.files().items():
        (tmp_path / name).write_bytes(content)
    assert load_tokenizer(tmp_path).files() == small.files()
    changed = small.files()["tokenizer.json"].replace(b'"special":true', b'"special":false', 1)
    (tmp_path / "tokenizer.json").write_bytes(changed)
    assert load_tokenizer(tmp_path).files() == {"tokenizer.json": changed}


def test_a_file_that_transformers_saved_is_read(small, small_document, tmp_path):
    saved = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(small_document), eos_token=END_OF_TURN
    )
    saved.save_pretrained(tmp_path)
    found = load_tokenizer(tmp_path)
    assert found.encode(TEXT) == small.encode(TEXT)
    assert (found.bos_token_id, found.eos_token_id) == (small.bos_token_id, small.eos_token_id)
    assert (found.prefix_ids, found.special_tokens) == (small.prefix_ids, small.special_tokens)


def test_the_name_of_a_file_says_nothing(small, small_tokenizer_model, small_document, tmp_path):
    write(tmp_path / "tokenizer.model", small_document)
    assert load_tokenizer(tmp_path).file == "tokenizer.json"
    ranks = small_tokenizer_model.read_text(encoding="ascii")
    (tmp_path / "tokenizer.model").unlink()
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
        (b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02\x0a\x7f", "ends in the middle of a field"),
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
        (b'{"version": "1.0"}', "not built like a tokenizer.json"),
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


def test_what_stands_in_place_of_a_tokenizer_is_named(tmp_path):
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(TokenizerError, match=r"found vocab\.json, merges\.txt\n") as caught:
        load_tokenizer(tmp_path)
    assert "save_pretrained: that writes tokenizer.json" in caught.value.hint


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path
