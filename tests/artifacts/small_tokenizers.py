"""The small tokenizers of apps/shared/vectors, as the makers of the tests make them.

PYTHONPATH=export:quantize:tests .venv/bin/python tests/artifacts/small_tokenizers.py FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artifacts.json_tokenizers import CONTROL, KINDS
from artifacts.sentencepieces import trained

from llama_export.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer

FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "special": False}
# Without tokens of several digits nothing shows how digits are split.
DIGITS = (("1", "2"), ("12", "3"), ("123", "4"), ("4", "5"), ("\u0120", "1"), ("\u0120", "12"))


def made() -> Mapping[str, Mapping[str, bytes]]:
    """Return the content of each tokenizer's files."""
    blanks_removed = SentencePieceTokenizer.from_bytes(trained(removes_blanks=True)).files()
    return {
        "smollm2": _files(
            _with_digits(KINDS["smollm2"]()), bos_token=CONTROL[1], eos_token=CONTROL[2]
        ),
        "llama3": _files(_with_digits(KINDS["no flag"]()), eos_token=CONTROL[2]),
        "distilled": _distilled(),
        "gap": _files(KINDS["gap"]()),
        "llama2": _files(KINDS["converted"](), bos_token="<s>", eos_token="</s>"),
        "metaspace": _files(_with_tools(KINDS["metaspace"]())),
        "tinyllama": _tinyllama(),
        "openllama": _files(json.loads(blanks_removed["tokenizer.json"])),
        "llama2-with-tools": _files(_with_tools(KINDS["converted"]())),
        "llama2-without-bytes": _files(_without_bytes(KINDS["converted"]())),
    }


def _files(document: Mapping[str, Any], **config: object) -> Mapping[str, bytes]:
    keys = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    return {
        "tokenizer.json": json.dumps(document, separators=(",", ":")).encode("ascii") + b"\n",
        "tokenizer_config.json": json.dumps(keys, indent=1).encode("ascii") + b"\n",
    }


def _tinyllama() -> Mapping[str, bytes]:
    """A blank stands before a text at the very beginning, and not behind a token."""
    size = SentencePieceTokenizer.from_bytes(trained()).vocab_size
    tool = {"content": "<tool>", **FLAGS, "normalized": False}
    keys = {"legacy": False, "added_tokens_decoder": {str(size): tool}}
    tokenizer = SentencePieceTokenizer.from_bytes(trained(), keys)
    config = json.dumps(tokenizer.config_keys(), indent=1).encode("ascii") + b"\n"
    return {**tokenizer.files(), "tokenizer_config.json": config}


def _with_digits(document: dict[str, Any]) -> dict[str, Any]:
    vocabulary, merges = document["model"]["vocab"], document["model"]["merges"]
    for left, right in DIGITS:
        if left + right not in vocabulary:
            vocabulary[left + right] = max(vocabulary.values()) + 1
            merges.append([left, right] if isinstance(merges[0], list) else f"{left} {right}")
    return document


def _distilled() -> Mapping[str, bytes]:
    document = KINDS["distilled"]()
    size = max(token["id"] for token in document["added_tokens"]) + 1
    added = {
        str(size): {"content": "<tool>", "special": False, "normalized": False, "rstrip": True},
        str(size + 1): {"content": "[ARGS]", "special": False, "normalized": True},
        str(size + 2): {"content": "<tool>s", "special": False, "normalized": False},
    }
    return _files(
        document,
        pad_token="[PAD]",
        additional_special_tokens=["<turn>"],
        added_tokens_decoder=added,
    )


def _with_tools(document: dict[str, Any]) -> dict[str, Any]:
    size = max(document["model"]["vocab"].values()) + 1
    document["added_tokens"] += [
        {"id": size, "content": "<tool>", **FLAGS, "normalized": True},
        {"id": size + 1, "content": "[ARGS]", **FLAGS, "normalized": False},
    ]
    return document


def _without_bytes(document: dict[str, Any]) -> dict[str, Any]:
    model = {**document["model"], "byte_fallback": False, "fuse_unk": False}
    return {**document, "model": model}


def write(folder: Path) -> None:
    """Write the files of every tokenizer into a folder of its own."""
    for name, files in made().items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            (folder / name / file).write_bytes(content)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
