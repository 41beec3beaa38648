"""Find and read a tokenizer's file, and Meta's `tokenizer.model` in either direction.

What a file is shows in its first bytes, never in its name. Nothing is encoded here.
"""

from __future__ import annotations

import base64
import re
from enum import Enum
from pathlib import Path

from llama_export.errors import TokenizerError
from llama_export.tokenizer.special_tokens import SPECIAL_TOKENS
from llama_export.tokenizer.vocabulary import (
    GET_ANOTHER,
    MOST_TOKENS,
    NOT_LLAMA3,
    Vocabulary,
    check_ranks,
    some,
)

# Where a checkpoint keeps its tokenizer. tokenizer.json comes first: a fine-tune that changes
# tokens changes them there, and leaves a stale tokenizer.model beside it.
JSON_FILE, MODEL_FILE = "tokenizer.json", "tokenizer.model"
TOKENIZER_FILES = (JSON_FILE, MODEL_FILE, f"original/{MODEL_FILE}")
# What tokenizers of other kinds are kept in.
_OTHER_FILES = ("vocab.json", "merges.txt", "vocab.txt", "spiece.model", "tokenizer.model.v3")
# Llama 3's tokenizer.json takes 9 to 17 MB, by how it is written; one of 256,000 tokens 33 MB.
MOST_BYTES = 64 * 2**20
_RANK_LINE = re.compile(rb"([A-Za-z0-9+/]+={0,2}) (\d{1,9})")


class Kind(Enum):
    """What a tokenizer's file is."""

    JSON = "tokenizer.json"
    RANKS = "base64 rank lines"
    PIECES = "a SentencePiece model"


def find_tokenizer(path: Path) -> Path:
    """Return a tokenizer's file, which a path names itself or as the folder that holds it.

    Raises:
        TokenizerError: the folder holds none.
    """
    if not path.is_dir():
        return path
    for name in TOKENIZER_FILES:
        if (path / name).is_file():
            return path / name
    message = f"{path} holds no tokenizer: expected {' or '.join(TOKENIZER_FILES[:2])}"
    others = [name for name in _OTHER_FILES if (path / name).is_file()]
    if not others:
        raise TokenizerError(message, f"{GET_ANOTHER}, and put it there")
    message += f", found {', '.join(others)}"
    hint = "load it with AutoTokenizer of transformers, and save it with save_pretrained: that "
    raise TokenizerError(message, f"{hint}writes {JSON_FILE}")


def read_file(path: Path) -> tuple[Kind, bytes]:
    """Read a tokenizer's file, and no more of it than any tokenizer has.

    Raises:
        TokenizerError: there is no such file, or it is no tokenizer's.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        message = f"{path} is a device or a pipe; expected a file"  # opening a pipe waits
        raise TokenizerError(message, GET_ANOTHER)
    try:
        with path.open("rb") as file:
            head = file.read(256)
            kind = _kind(head, str(path))
            data = head + file.read(MOST_BYTES)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise TokenizerError(message, GET_ANOTHER) from None
    if len(data) > MOST_BYTES:
        message = f"{path} is too large for a tokenizer: it is longer than {MOST_BYTES} bytes"
        raise TokenizerError(message, GET_ANOTHER)
    return kind, data


def tokenizer_model_bytes(vocabulary: Vocabulary) -> bytes:
    """Render `tokenizer.model`: one line `base64(token) rank` per token, and nothing else."""
    lines = (
        b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(vocabulary.tokens)
    )
    return b"".join(lines)


def parse_ranks(data: bytes, where: str) -> Vocabulary:
    """Parse the bytes of Meta's `tokenizer.model`.

    Raises:
        TokenizerError: it is damaged, or no vocabulary of a Llama 3.
    """
    if len(data) > MOST_BYTES or data.count(b"\n") > MOST_TOKENS:
        message = (
            f"{where} is too large for a vocabulary: expected at most {MOST_TOKENS} lines and "
            f"{MOST_BYTES} bytes"
        )
        raise TokenizerError(message, NOT_LLAMA3)
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        match = _RANK_LINE.fullmatch(line)
        try:
            if match is None:
                raise ValueError
            token, value = base64.b64decode(match[1], validate=True), int(match[2])
        except ValueError:
            message = f"{where}, line {number}: expected `base64 rank`, found {line[:40]!r}"
            raise TokenizerError(message, GET_ANOTHER) from None
        if token in ranks:
            message = f"{where}, line {number}: the token {some([token])} stands there twice"
            raise TokenizerError(message, GET_ANOTHER)
        ranks[token] = value
    check_ranks(ranks, where)
    names = enumerate(SPECIAL_TOKENS, start=len(ranks))
    return Vocabulary(ranks, {name: token_id for token_id, name in names})


def _kind(head: bytes, where: str) -> Kind:
    """Return what a file is, by its first bytes.

    Raises:
        TokenizerError: it is none of the kinds; what it may be is named.
    """
    if head.lstrip().startswith(b"{"):
        return Kind.JSON
    if re.match(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n", head):
        return Kind.RANKS
    # A protobuf: field 1 (the pieces), its length, and in it field 1 (the piece's text).
    if re.match(rb"\n[\x03-\x7f]\n[\x01-\x7f]", head):
        return Kind.PIECES
    if head.startswith(b"version https://git-lfs"):
        found, hint = "a Git LFS pointer instead of the file", "run `git lfs pull`"
    elif not head.strip():
        found, hint = "an empty file", GET_ANOTHER
    else:
        found, hint = f"a file that begins with {head[:12]!r}", GET_ANOTHER
    kinds = ", ".join(kind.value for kind in Kind)
    message = f"{where}: expected a tokenizer ({kinds}), found {found}"
    raise TokenizerError(message, hint)
