"""Read the documents of a text that a perplexity is measured on: plain files, or lines of JSON.

It knows files; it tokenizes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_export.errors import PromptError
from llama_quantize.strict_json import JsonFault, parse_object

_LINES = (".jsonl", ".ndjson")
_HINT = 'give plain text in UTF-8, or a .jsonl file whose lines are {"text": "..."}'


@dataclass(frozen=True)
class Documents:
    """Documents of one or more files.

    Args:
        names: names of the files.
        texts: documents, in their order.
        sha256: hash over the files' bytes, one file after the other.
    """

    names: tuple[str, ...]
    texts: tuple[str, ...]
    sha256: str


def read_documents(paths: Sequence[Path]) -> Documents:
    """Read files; each is a document, or in a `.jsonl` file each line.

    Raises:
        PromptError: a file is not there, is not UTF-8, has another form, or holds no text.
    """
    texts: list[str] = []
    digest = hashlib.sha256()
    for path in dict.fromkeys(paths):
        content = _read(path)
        digest.update(content)
        texts += _lines(path, content) if path.suffix in _LINES else [_decoded(path, content)]
    found = tuple(text for text in texts if text.strip())
    if not found:
        message = f"--text: {', '.join(map(str, paths))} holds no text"
        raise PromptError(message, _HINT)
    return Documents(tuple(path.name for path in dict.fromkeys(paths)), found, digest.hexdigest())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        message = f"--text: {path} cannot be read: {error.strerror or error}"
        raise PromptError(message, "give the name of a text file") from None


def _decoded(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"--text: {path} is not UTF-8: byte {error.start} does not fit"
        raise PromptError(message, "convert the text to UTF-8 first") from None


def _lines(path: Path, content: bytes) -> Iterator[str]:
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found = parse_object(line).get("text")
        except JsonFault as fault:
            message = f"--text: {path}, line {number}: {fault}"
            raise PromptError(message, _HINT) from None
        if not isinstance(found, str):
            message = f'--text: {path}, line {number}: expected a key "text" with a text'
            raise PromptError(message, _HINT)
        yield found
