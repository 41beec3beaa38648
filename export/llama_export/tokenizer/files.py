"""Find and read a Llama 3 vocabulary in either of its files; write Meta's `tokenizer.model`.

A file is recognised by its first bytes, never by its name. Hugging Face's form is read and written
in `tokenizer_json`. Nothing is encoded here.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

from llama_export.errors import TokenizerError
from llama_export.tokenizer.special_tokens import LLAMA30_SPECIAL_TOKENS, SPECIAL_TOKENS
from llama_export.tokenizer.tokenizer_json import MOST_BYTES, parse_tokenizer_json
from llama_export.tokenizer.vocabulary import (
    GET_ANOTHER,
    MOST_TOKENS,
    NOT_LLAMA3,
    Vocabulary,
    check_ranks,
    some,
)

# Where a checkpoint keeps its vocabulary. tokenizer.json comes first: a fine-tune that changes
# special tokens changes them there, and leaves a stale tokenizer.model beside it.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "original/tokenizer.model")
_RANK_LINE = re.compile(rb"([A-Za-z0-9+/]+={0,2}) (\d{1,9})")


def read_vocabulary(path: Path) -> Vocabulary:
    """Read a vocabulary.

    Args:
        path: `tokenizer.model`, `tokenizer.json`, or a folder that holds one of them.

    Raises:
        TokenizerError: there is no such file, it is damaged, or it is no Llama 3 vocabulary.
    """
    path = _find(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        message = f"{path} is a device or a pipe; expected a file"  # opening a pipe waits
        raise TokenizerError(message, GET_ANOTHER)
    try:
        with path.open("rb") as file:
            head = file.read(256)
            is_json = _is_json(head, str(path))
            data = head + file.read(MOST_BYTES)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise TokenizerError(message, GET_ANOTHER) from None
    return parse_tokenizer_json(data, str(path)) if is_json else _parse_ranks(data, str(path))


def has_metas_special_tokens(vocabulary: Vocabulary) -> bool:
    """Return whether `tokenizer.model`, which names no special tokens, can hold the vocabulary."""
    return tuple(vocabulary.special_tokens) in (SPECIAL_TOKENS, LLAMA30_SPECIAL_TOKENS)


def tokenizer_model_bytes(vocabulary: Vocabulary) -> bytes:
    """Render `tokenizer.model`: one line `base64(token) rank` per token, and nothing else.

    Raises:
        TokenizerError: the special tokens are not Meta's, so the file would lose them.
    """
    if not has_metas_special_tokens(vocabulary):
        own = [name for name in vocabulary.special_tokens if name not in SPECIAL_TOKENS]
        message = f"tokenizer.model cannot hold this model's own special tokens: {some(own)}"
        raise TokenizerError(message, "write tokenizer.json, which can")
    lines = (
        b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(vocabulary.tokens)
    )
    return b"".join(lines)


def _find(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in TOKENIZER_FILES:
        if (path / name).is_file():
            return path / name
    message = f"{path} holds no tokenizer: expected {' or '.join(TOKENIZER_FILES[:2])}"
    raise TokenizerError(message, GET_ANOTHER)


def _is_json(head: bytes, where: str) -> bool:
    """Return whether a file is JSON, not rank lines, and name what else it may be.

    Raises:
        TokenizerError: the file is neither of them.
    """
    if head.lstrip().startswith(b"{"):
        return True
    if re.match(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n", head):
        return False
    # A protobuf: field 1 (the pieces), its length, and in it field 1 (the piece's text).
    if re.match(rb"\n[\x03-\x7f]\n[\x01-\x7f]", head):
        found, hint = "a SentencePiece model, as Llama 1 and 2 use it", NOT_LLAMA3
    elif head.startswith(b"version https://git-lfs"):
        found, hint = "a Git LFS pointer instead of the file", "run `git lfs pull`"
    elif not head.strip():
        found, hint = "an empty file", GET_ANOTHER
    else:
        found, hint = f"a file that begins with {head[:12]!r}", GET_ANOTHER
    message = f"{where}: expected a Llama 3 vocabulary (base64 rank lines or JSON), found {found}"
    raise TokenizerError(message, hint)


def _parse_ranks(data: bytes, where: str) -> Vocabulary:
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
