"""The apps' Unicode tables: the files are current, and both regular-expression engines agree."""

from __future__ import annotations

import json

import pytest
import tokenizers
from tokenizers import pre_tokenizers

from unicode_tables import (
    CLASSES,
    ENDING_LETTERS,
    FILE,
    SWIFT_FILE,
    every_character,
    gaps_and_lengths,
    main,
)

# No character of a later plane is a letter, a number or a blank yet.
ASSIGNED = "".join(character for character in every_character() if character < "\U00040000")


@pytest.fixture(scope="module")
def tables():
    return json.loads(FILE.read_bytes().decode("ascii"))


def characters(runs: list[int]) -> str:
    found, at = [], 0
    for gap, length in zip(runs[::2], runs[1::2], strict=True):
        found += range(at + gap, at + gap + length)
        at += gap + length
    return "".join(map(chr, found))


def test_the_files_are_what_the_tool_writes(tmp_path, capsys):
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for file in (FILE, SWIFT_FILE):
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), (
            "run python tools/apps/unicode_tables.py"
        )
        assert file.name in printed


def test_the_swift_source_has_the_same_numbers(tables):
    source = SWIFT_FILE.read_text(encoding="ascii")
    for name in ("letters", "numbers", "blanks", "digits"):
        found = source.split(f"static let {name}: [UInt32] = [")[1].split("]")[0]
        assert [int(value) for value in found.replace("\n", " ").split(",")[:-1]] == tables[name]
    for letter, codes in tables["endings"].items():
        assert f'(UInt8(ascii: "{letter}"), [{", ".join(map(str, codes))}]),' in source


def test_two_folders_are_a_usage_error(capsys):
    assert main(["one", "two"]) == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize("codes", [[], [0], [0, 1, 2], [3, 4, 9, 0x10FFFF]])
def test_runs_come_back_as_they_were(codes):
    assert characters(gaps_and_lengths(codes)) == "".join(map(chr, codes))


@pytest.mark.parametrize("name", CLASSES)
def test_the_engine_of_tokenizer_json_has_the_same_classes(tables, name):
    pattern = tokenizers.Regex(CLASSES[name] + "+")
    keeping = pre_tokenizers.Split(pattern, behavior="removed", invert=True)
    kept = "".join(piece for piece, _ in keeping.pre_tokenize_str(ASSIGNED))
    assert kept == characters(tables[name])


def test_a_step_that_splits_digits_knows_more_of_them(tables):
    """The vectors hold one of Unicode 17, which the patterns take for no number."""
    numbers, digits = set(characters(tables["numbers"])), set(characters(tables["digits"]))
    assert numbers < digits
    assert "\U00011de0" in digits - numbers


def test_endings_are_found_in_any_case_and_with_the_long_s(tables):
    found = {letter: "".join(map(chr, codes)) for letter, codes in tables["endings"].items()}
    assert list(found) == list(ENDING_LETTERS)
    assert found.pop("s") == "Ss\u017f"
    assert all(text == letter.upper() + letter for letter, text in found.items())
