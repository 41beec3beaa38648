"""The apps' test vectors: the files are current, and an independent tokenizer gives the same."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import tokenizers

from llama_export.errors import TokenizerError
from llama_export.sources.resolve import DEMO_FOLDER
from llama_export.tokenizer.tokenizer import load_tokenizer
from make_vectors import FILES, FOLDER, main, render


def committed(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


@pytest.fixture(scope="module")
def vectors():
    return json.loads(committed("tokenizer.json"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """The demo's tokenizer files, as an export writes them into a bundle."""
    folder = tmp_path_factory.mktemp("tokenizer")
    for name, content in load_tokenizer(DEMO_FOLDER).files().items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def oracle(exported):
    """Hugging Face's tokenizer, told that a special token in a text is text."""
    loaded = tokenizers.Tokenizer.from_file(str(exported / "tokenizer.json"))
    loaded.encode_special_tokens = True
    return loaded


def wrong_ids(tokenizer, cases) -> list[str]:
    """Name the texts to which a tokenizer gives other ids."""
    return [
        case["name"]
        for case in cases
        if tokenizer.encode(case["text"], add_special_tokens=False).ids != case["ids"]
    ]


def test_the_folder_holds_what_the_tool_writes(tmp_path, capsys):
    assert main([str(tmp_path / "new")]) == 0
    written = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    assert set(written) == {path.name for path in FOLDER.glob("*.json")}
    for name, data in written.items():
        assert data == committed(name), f"run python tools/make_vectors.py: {name} is old"
    assert len(capsys.readouterr().out.splitlines()) == len(FILES)


def test_a_file_is_ascii_json_with_a_version_and_unique_names():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name in FILES:
        document = json.loads(committed(name).decode("ascii"))
        assert f"## `{name}`, format {document['format_version']}" in readme
        for key, value in document.items():
            assert key == "format_version" or f"`{key}" in readme, key
            if isinstance(value, list) and isinstance(value[0], dict):
                names = [entry["name"] for entry in value]
                assert len(set(names)) == len(names) > 0


def test_rendering_changes_nothing():
    document = {"one": 1, "list": [{"name": "é", "ids": []}, {"name": "\n"}], "empty": [], "n": [1]}
    text = render(document).decode("ascii")
    assert json.loads(text) == document
    assert len(text.splitlines()) == 9


def test_two_folders_are_a_usage_error(capsys):
    assert main(["one", "two"]) == 2
    assert "usage" in capsys.readouterr().err


def test_the_vectors_name_the_files_of_the_bundle(vectors, exported):
    assert vectors["tokenizer"]["sha256"] == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in exported.iterdir()
    }


def test_an_independent_tokenizer_gives_the_same_ids(vectors, oracle):
    assert wrong_ids(oracle, vectors["encode"]) == []


def test_the_ids_give_the_text_back(vectors, oracle):
    for case in vectors["encode"]:
        assert oracle.decode(case["ids"], skip_special_tokens=False) == case["text"]


def test_an_independent_tokenizer_decodes_the_same(vectors, oracle):
    for case in vectors["decode"]:
        assert oracle.decode(case["ids"], skip_special_tokens=False) == case["text"], case["name"]


def test_the_pieces_are_the_text(vectors):
    for case in vectors["decode"]:
        assert len(case["pieces"]) == len(case["ids"])
        assert "".join(case["pieces"]) + case["rest"] == case["text"]


def test_special_tokens_that_are_typed_make_a_difference(vectors, exported):
    """The comparisons above can fail: this is Hugging Face's default."""
    default = tokenizers.Tokenizer.from_file(str(exported / "tokenizer.json"))
    assert wrong_ids(default, vectors["encode"]) == [
        "special tokens are text",
        "a typed header is text",
    ]


@pytest.mark.parametrize(
    ("rule", "instead", "found"),
    [
        (r"\p{L}", "[\\p{L}&&[^\U00013460]]", "letter, Unicode 16"),
        (r"\p{L}", "[\\p{L}&&[^\U0001e4d0]]", "letter, Unicode 15"),
        (r"\p{N}", "[\\p{N}&&[^\U00010d40]]", "number, Unicode 16"),
        (r"\s\p{L}", "\\s\x1c\\p{L}", "no blank: file separator"),
        (r"\s\p{L}", "[\\s&&[^\x85]]\\p{L}", "blank: next line"),
        (r"(?i:'s|", r"(?:'s|", "contractions in capitals, and what follows"),
        (r"|\s+(?!\S)", "", "the last blank goes with the word"),
        (r"[\r\n]*|", "|", "code"),
    ],
)
def test_a_scanner_that_is_wrong_is_caught(vectors, exported, rule, instead, found):
    document = json.loads((exported / "tokenizer.json").read_text(encoding="utf-8"))
    split = document["pre_tokenizer"]["pretokenizers"][0]["pattern"]
    assert rule in split["Regex"]
    split["Regex"] = split["Regex"].replace(rule, instead)
    wrong = tokenizers.Tokenizer.from_str(json.dumps(document))
    wrong.encode_special_tokens = True
    assert found in wrong_ids(wrong, vectors["encode"])


@pytest.mark.parametrize("first", [0, 100, 300, 1000])
def test_merges_in_another_order_are_caught(vectors, exported, first):
    document = json.loads((exported / "tokenizer.json").read_text(encoding="utf-8"))
    part = slice(first, 3 * first + 100)
    document["model"]["merges"][part] = reversed(document["model"]["merges"][part])
    wrong = tokenizers.Tokenizer.from_str(json.dumps(document))
    assert any(name.startswith("merges ") for name in wrong_ids(wrong, vectors["encode"]))


def test_what_is_refused_is_refused(vectors):
    tokenizer = load_tokenizer(DEMO_FOLDER)
    for case in vectors["refused_texts"]:
        units = b"".join(unit.to_bytes(2, "little") for unit in case["utf16"])
        with pytest.raises(TokenizerError, match="lone surrogate"):
            tokenizer.encode(units.decode("utf-16-le", errors="surrogatepass"))
    for token_id in vectors["refused_ids"]:
        with pytest.raises(TokenizerError, match="outside the vocabulary"):
            tokenizer.decode([token_id])
