"""The vectors of small tokenizers against the library `tokenizers`, and what the real ones get."""

from __future__ import annotations

import hashlib
import json
import struct

import pytest
import tokenizers
from artifacts.small_tokenizers import made

from llama_export.tokenizer.tokenizer import load_tokenizer
from make_vectors import FOLDER
from small_tokenizer_vectors import FOLDER as TOKENIZERS
from tokenizer_fixtures import main, texts, write

VECTORS = json.loads((FOLDER / "small_tokenizers.json").read_text(encoding="ascii"))
NAMES = [each["name"] for each in VECTORS["tokenizers"]]
# Tokens that only tokenizer_config.json names are not in the library's file.
# With "legacy": false the library's file puts a blank behind a token too; a reader must not.
WHOLE = [name for name in NAMES if name not in ("distilled", "tinyllama")]


def oracle(name: str) -> tokenizers.Tokenizer:
    loaded = tokenizers.Tokenizer.from_file(str(TOKENIZERS / name / "tokenizer.json"))
    loaded.encode_special_tokens = True
    return loaded


def split(document):
    return document["pre_tokenizer"]["pretokenizers"][0]["pattern"]


def test_the_tokenizers_are_what_the_makers_make():
    kept = {
        folder.name: {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in TOKENIZERS.iterdir()
    }
    assert kept == made(), "see tests/artifacts/small_tokenizers.py, then tools/make_vectors.py"
    assert sorted(NAMES) == sorted(kept)


@pytest.mark.parametrize("name", WHOLE)
def test_the_library_gives_the_same_ids(name):
    (found,) = [each["ids"] for each in VECTORS["ids"] if each["name"] == name]
    library = oracle(name)
    for text, ids in zip(VECTORS["texts"], found, strict=True):
        assert library.encode(text["text"], add_special_tokens=False).ids == ids, text["name"]


def without_first_blank(name: str) -> tokenizers.Tokenizer:
    """The library without the step that puts a blank before a text."""
    document = json.loads((TOKENIZERS / name / "tokenizer.json").read_text(encoding="utf-8"))
    if name == "metaspace":
        document["pre_tokenizer"]["prepend_scheme"] = "never"
    else:
        assert document["normalizer"]["normalizers"].pop(0)["type"] == "Prepend"
    loaded = tokenizers.Tokenizer.from_str(json.dumps(document))
    loaded.encode_special_tokens = True
    return loaded


@pytest.mark.parametrize("name", ["metaspace", "tinyllama"])
def test_text_that_continues_has_no_blank_before_it(name):
    (found,) = [each["ids"] for each in VECTORS["continued"] if each["name"] == name]
    library = without_first_blank(name)
    for text, ids in zip(VECTORS["texts"], found, strict=True):
        assert library.encode(text["text"], add_special_tokens=False).ids == ids, text["name"]


def test_text_alone_begins_with_a_blank_in_its_first_part_only():
    """Between added tokens there is none, which the library's file cannot say."""
    (found,) = [each["ids"] for each in VECTORS["ids"] if each["name"] == "tinyllama"]
    library, without = oracle("tinyllama"), without_first_blank("tinyllama")
    for text, ids in zip(VECTORS["texts"], found, strict=True):
        first, tool, rest = text["text"].partition("<tool>")
        expected = [
            *library.encode(first, add_special_tokens=False).ids,
            *without.encode(tool + rest, add_special_tokens=False).ids,
        ]
        assert ids == expected, text["name"]


@pytest.mark.parametrize("name", ["smollm2", "llama3", "gap"])
def test_the_library_decodes_bytes_alike(name):
    library = oracle(name)
    for case in VECTORS["decode"]:
        if case["tokenizer"] == name:
            assert library.decode(case["ids"], skip_special_tokens=False) == case["text"]


def test_the_pieces_are_the_text():
    for case in VECTORS["decode"]:
        assert "".join(case["pieces"]) + case["rest"] == case["text"], case["name"]


def test_the_texts_tell_apart_what_scanners_mix_up():
    """Each change of a file, which an implementation may make by mistake, gives other ids."""
    changes = {
        "smollm2": lambda d: d["pre_tokenizer"]["pretokenizers"].pop(0),
        "llama3": lambda d: split(d).update(Regex=split(d)["Regex"].replace("{1,3}", "+")),
        "llama2": lambda d: d["normalizer"]["normalizers"].pop(0),
        "llama2-with-tools": lambda d: d["added_tokens"].pop(),
        "openllama": lambda d: d["normalizer"]["normalizers"].pop(0),
    }
    found = {each["name"]: each["ids"] for each in VECTORS["ids"]}
    for name, change in changes.items():
        document = json.loads((TOKENIZERS / name / "tokenizer.json").read_text(encoding="ascii"))
        change(document)
        wrong = tokenizers.Tokenizer.from_str(json.dumps(document))
        wrong.encode_special_tokens = True
        ids = [
            wrong.encode(each["text"], add_special_tokens=False).ids for each in VECTORS["texts"]
        ]
        assert ids != found[name], name


def test_fixtures_of_whole_vocabularies_are_what_the_tokenizers_give(tmp_path, capsys):
    """Without the data beside the repository there is less of them, made in the same way."""
    none = tmp_path / "none"
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "gone.json").write_text("{}")
    write(tmp_path / "made", none)
    assert not (tmp_path / "made" / "gone.json").exists()
    parts = json.loads((tmp_path / "made" / "texts.json").read_text(encoding="ascii"))["texts"]
    assert parts == list(texts(none))
    made = [line.split()[-1] for line in capsys.readouterr().out.splitlines()]
    assert made[0] == "demo"
    for name in made:
        tokenizer = load_tokenizer(tmp_path / "made" / name)
        said = json.loads((tmp_path / "made" / f"{name}.json").read_text(encoding="ascii"))
        assert said["vocab_size"] == tokenizer.vocab_size
        for index, digest in list(enumerate(said["ids_sha256"]))[::9]:
            ids = tokenizer.encode(parts[index])
            assert hashlib.sha256(struct.pack(f"<{len(ids)}i", *ids)).hexdigest() == digest
            assert tokenizer.decode(ids) == said["changed"].get(str(index), parts[index])


def test_no_folder_is_a_usage_error(capsys):
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
