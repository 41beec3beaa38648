"""Write what the tokenizers' engine takes for a letter, a number and a blank, for the apps.

    .venv/bin/python tools/apps/unicode_tables.py [FOLDER]

A phone's own tables are older or newer than the engine's, and would split text otherwise than the
model was trained with. The engines themselves are asked about every character; nothing is taken
from a table of Python's. The tables are written as JSON, which the Android app packages, and as
Swift, because a Swift package that reads a resource needs Foundation's bundles for it. A test
compares the files with what this tool makes.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

APPS = Path(__file__).resolve().parents[2] / "apps"
FILE = APPS / "shared" / "tables" / "unicode.json"
SWIFT_FILE = APPS / "ios/LlamaKit/Sources/LlamaKit/Tokenizer/UnicodeTable.swift"
SWIFT_COLUMNS = 110
FORMAT_VERSION = 1
CLASSES = {"letters": r"\p{L}", "numbers": r"\p{N}", "blanks": r"\s"}
# Of the endings 's 't 're 've 'm 'll 'd, which are found in any case.
ENDING_LETTERS = "delmrstv"
_SURROGATES = range(0xD800, 0xE000)


@cache
def every_character() -> str:
    """Return all that Unicode has or may get, in order."""
    return "".join(chr(code) for code in range(sys.maxunicode + 1) if code not in _SURROGATES)


def matches(pattern: str, text: str) -> list[int]:
    """Return the code points of a text's characters that a pattern of one character matches."""
    import tiktoken

    single_bytes = {bytes([byte]): byte for byte in range(256)}
    engine = tiktoken.Encoding(
        "probe", pat_str=pattern, mergeable_ranks=single_bytes, special_tokens={}
    )
    # What does not match is left out, and each byte that does is its own id.
    return [ord(character) for character in bytes(engine.encode_ordinary(text)).decode("utf-8")]


def split_digits(text: str) -> list[int]:
    """Return the code points that a tokenizer.json's step `Digits` splits off.

    It asks no regular expression but Rust's own tables, which are of another age.
    """
    from tokenizers import pre_tokenizers

    digits = pre_tokenizers.Digits(individual_digits=True)
    # The letter keeps characters apart, so that one that is no digit stands never alone.
    pieces = digits.pre_tokenize_str("".join(f"a{character}" for character in text))
    return [ord(piece) for piece, _ in pieces if piece[0] != "a"]


def gaps_and_lengths(codes: Iterable[int]) -> list[int]:
    """Write ascending code points as runs: how many are left out before it, and its length."""
    runs: list[int] = []
    after = 0
    for code in codes:
        if code == after and runs:
            runs[-1] += 1
        else:
            runs += [code - after, 1]
        after = code + 1
    return runs


def unicode_tables() -> tuple[Mapping[str, Sequence[int]], Mapping[str, Sequence[int]]]:
    """Ask the engines, and return runs of characters by class, and code points by ending letter."""
    runs = {
        name: gaps_and_lengths(matches(pattern, every_character()))
        for name, pattern in CLASSES.items()
    }
    runs["digits"] = gaps_and_lengths(split_digits(every_character()))
    letters = "".join(map(chr, matches(f"(?i:[{ENDING_LETTERS}])", every_character())))
    return runs, {letter: matches(f"(?i:{letter})", letters) for letter in ENDING_LETTERS}


def render(runs: Mapping[str, Sequence[int]], endings: Mapping[str, Sequence[int]]) -> bytes:
    """Return the tables as ASCII JSON, one a line."""
    tables = {"format_version": FORMAT_VERSION, **runs, "endings": endings}
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in tables.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode("ascii")


def render_swift(runs: Mapping[str, Sequence[int]], endings: Mapping[str, Sequence[int]]) -> bytes:
    """Return the tables as Swift source, formatted as `swift format` does."""
    lines = [
        "// Written by tools/apps/unicode_tables.py, which asks the engines of tokenizers.",
        "",
        "/// What the patterns of tokenizers take each character for.",
        "///",
        "/// Runs of characters in a row: how many are left out before each, and its length.",
        "enum UnicodeTable {",
    ]
    for name, values in runs.items():
        text = textwrap.wrap(
            ", ".join(map(str, values)) + ",",
            SWIFT_COLUMNS,
            initial_indent=" " * 8,
            subsequent_indent=" " * 8,
        )
        lines += [f"    static let {name}: [UInt32] = [", *text, "    ]", ""]
    lines += [
        "    /// Letters of endings like `'s`, each with the characters that are it in any case.",
        "    static let endings: [(letter: UInt8, codePoints: [UInt32])] = [",
        *(
            f'        (UInt8(ascii: "{letter}"), [{", ".join(map(str, codes))}]),'
            for letter, codes in endings.items()
        ),
        "    ]",
        "}",
    ]
    return ("\n".join(lines) + "\n").encode("ascii")


def main(arguments: Sequence[str]) -> int:
    """Write the repository's own files, or files of their names into a folder."""
    if len(arguments) > 1:
        print("usage: python tools/apps/unicode_tables.py [FOLDER]", file=sys.stderr)
        return 2
    files = [FILE, SWIFT_FILE]
    if arguments:
        files = [Path(arguments[0]) / file.name for file in files]
    tables = unicode_tables()
    for file, content in zip(files, (render(*tables), render_swift(*tables)), strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
