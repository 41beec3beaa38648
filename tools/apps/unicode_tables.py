"""Write what the tokenizers' engine takes for a letter, a number and a blank, for the apps.

    .venv/bin/python tools/apps/unicode_tables.py [FILE]

A phone's own tables are older or newer than the engine's, and would split text otherwise than the
model was trained with. The engines themselves are asked about every character; nothing is taken
from a table of Python's. A test compares the file with what this tool makes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

FILE = Path(__file__).resolve().parents[2] / "apps" / "shared" / "tables" / "unicode.json"
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


def unicode_tables() -> dict[str, object]:
    """Ask the engine, and return the tables."""
    tables = {
        name: gaps_and_lengths(matches(pattern, every_character()))
        for name, pattern in CLASSES.items()
    }
    tables["digits"] = gaps_and_lengths(split_digits(every_character()))
    letters = "".join(map(chr, matches(f"(?i:[{ENDING_LETTERS}])", every_character())))
    endings = {letter: matches(f"(?i:{letter})", letters) for letter in ENDING_LETTERS}
    return {"format_version": FORMAT_VERSION, **tables, "endings": endings}


def render(tables: dict[str, object]) -> bytes:
    """Return the tables as ASCII JSON, one a line."""
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in tables.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode("ascii")


def main(arguments: Sequence[str]) -> int:
    """Write the named file, or the repository's own."""
    if len(arguments) > 1:
        print("usage: python tools/apps/unicode_tables.py [FILE]", file=sys.stderr)
        return 2
    file = Path(arguments[0]) if arguments else FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(render(unicode_tables()))
    print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
