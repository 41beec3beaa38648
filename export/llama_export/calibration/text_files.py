"""Read the user's texts in pieces, from any place on: plain text, or lines of JSON.

A file may be larger than memory: nothing is read but what is asked for. The module knows files and
what a dialog is in them; it chooses no place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from llama_export.calibration.scripts import TEMPLATE_TIME
from llama_export.errors import ChatTemplateError, PromptError, TokenizerError
from llama_export.tokenizer.chat.chat_format import ChatFormat, Dialog
from llama_export.tokenizer.chat.messages import Message
from llama_quantize.printable import shown_name
from llama_quantize.strict_json import JsonFault, parse_object

_LINES = (".jsonl", ".ndjson")
# More than most windows of 512 tokens, so that few are encoded in two parts.
_PIECE_BYTES = 2**14
# Behind the line break that ends a paragraph.
_LINE_BREAK = re.compile(r".*\n(?=\S)", re.DOTALL)
_MOST_LINE_BYTES = 2**22
_CONTINUES = range(0x80, 0xC0)  # bytes of UTF-8 that begin no character
# What other programs call the roles.
_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
_LINE_HINT = (
    'each line is {"messages": [{"role": "user", "content": "..."}, ...]} or {"text": "..."}'
)


@dataclass(frozen=True)
class Piece:
    """A part of a text.

    Args:
        ids: its tokens.
        begins: whether a text begins with it.
        path: file that it is from.
        at: its first byte in the file.
    """

    ids: Sequence[int]
    begins: bool
    path: Path
    at: int

    @property
    def place(self) -> str:
        """Where it is, to be read in a message."""
        if is_lines(self.path):
            return f"{self.path}, line {_line_of(self.path, self.at)}"
        return f"{self.path}, at byte {self.at}"


def is_lines(path: Path) -> bool:
    """Whether a file holds lines of JSON, by its name."""
    return path.suffix.lower() in _LINES


def list_files(paths: Sequence[Path]) -> dict[Path, int]:
    """Return the files that are meant and their sizes, those of a folder in sorted order.

    Raises:
        PromptError: one is not there or cannot be read, is empty, or a folder holds none.
    """
    found: dict[Path, int] = {}
    for path in paths:
        try:
            files = [path]
            if path.is_dir():
                files = sorted(each for each in path.rglob("*") if _is_meant(each, path))
            found |= {each: _size(each) for each in files}
        except (OSError, ValueError) as error:
            message = f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
            raise PromptError(message, "name a text file, or a folder of them") from None
        if not any(found.get(each) for each in files):
            message = f"{path} is empty, and cannot be calibrated on"
            raise PromptError(message, "give some pages of the text that the model is for")
    return found


def _size(path: Path) -> int:
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size


def _is_meant(path: Path, folder: Path) -> bool:
    """Whether a path is a file, and none that is hidden."""
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.is_file()


def read_pieces(path: Path, at: int, form: ChatFormat) -> Iterator[Piece]:
    """Read a file from a place on; the first piece begins at the next line, or the next word.

    Args:
        path: file.
        at: byte from which on it is read.
        form: how dialogs are written, with the model's tokenizer.

    Raises:
        PromptError: it cannot be read, is not UTF-8, or a line is no dialog and no text.
    """
    read = _lines if is_lines(path) else _text
    try:
        with path.open("rb") as file:
            yield from read(file, path, at, form)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}"
        raise PromptError(message, "name a text file, or a folder of them") from None


def _text(file: BinaryIO, path: Path, at: int, form: ChatFormat) -> Iterator[Piece]:
    """Read plain text; each piece ends with a line, or else before a blank: no word is cut."""
    file.seek(at)
    left, begins = b"", True
    while True:
        read = file.read(_PIECE_BYTES)
        if begins and at:
            skipped = _to_a_beginning(read)
            read, at = read[skipped:], at + skipped
        data = left + read
        if not data:
            return
        text, left = _decoded(data, path, at, final=len(read) == 0)
        kept = len(text) if not read else _last_break(text)
        left = text[kept:].encode() + left
        if text[:kept]:
            shown = text[:kept].removeprefix("\ufeff") if at == 0 else text[:kept]
            yield Piece(_encoded(form, shown, path, continues=not begins), begins, path, at)
            begins = False
        at += len(data) - len(left)


def _to_a_beginning(data: bytes) -> int:
    """Return how many bytes to skip so that what follows begins a line, or else a word."""
    for blank in (b"\n", b" "):
        if (found := data.find(blank)) >= 0:
            return found + 1
    return next((at for at, byte in enumerate(data) if byte not in _CONTINUES), len(data))


def _last_break(text: str) -> int:
    """Return the length of a text up to its last line, or else its last blank, or else all."""
    if line := _LINE_BREAK.match(text):
        return line.end()
    found = max(text.rfind(" "), text.rfind("\n"))
    return found if found > 0 else len(text)


def _decoded(data: bytes, path: Path, at: int, *, final: bool) -> tuple[str, bytes]:
    """Decode bytes that begin a character, and return those of one that is cut."""
    try:
        return data.decode(), b""
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and not final:
            return data[: error.start].decode(), data[error.start :]
        message = f"{path} is not UTF-8: byte {at + error.start} does not fit"
        raise PromptError(message, "convert the text to UTF-8 first") from None


def _encoded(form: ChatFormat, text: str, path: Path, *, continues: bool = False) -> list[int]:
    try:
        return form.tokenizer.encode(text, continues=continues)
    except TokenizerError as error:
        message = f"{path}: {error.message}"
        raise PromptError(message, error.hint) from None


def _lines(file: BinaryIO, path: Path, at: int, form: ChatFormat) -> Iterator[Piece]:
    """Read lines of JSON, each a text of its own."""
    file.seek(max(at - 1, 0))
    if at:
        at += len(file.readline()) - 1
    while line := file.readline(_MOST_LINE_BYTES + 1):
        if line.strip():
            ids = _line_ids(line, path, at, form)
            if ids:
                yield Piece(ids, begins=True, path=path, at=at)
        at += len(line)


def _line_ids(line: bytes, path: Path, at: int, form: ChatFormat) -> list[int]:
    try:
        if len(line) > _MOST_LINE_BYTES:
            message = f"it is longer than {_MOST_LINE_BYTES} bytes"
            raise PromptError(message, _LINE_HINT)
        return _ids_of(_parsed(line), form)
    except (PromptError, ChatTemplateError, TokenizerError) as error:
        message = f"{path}, line {_line_of(path, at)}: {error.message}"
        raise PromptError(message, error.hint or _LINE_HINT) from None


def _parsed(line: bytes) -> Mapping[str, object]:
    try:
        return parse_object(line, most_bytes=_MOST_LINE_BYTES)
    except JsonFault as fault:
        message = f"it is not valid JSON: {fault}"
        raise PromptError(message, _LINE_HINT) from None


def _ids_of(raw: Mapping[str, object], form: ChatFormat) -> list[int]:
    """Return the tokens of a line.

    Raises:
        PromptError: it is no dialog and no text, or a dialog for a model without a template.
    """
    match raw:
        case {"messages": [_, *_] as told}:
            messages = [_message(each, "role", "content") for each in told]
        case {"conversations": [_, *_] as told}:
            messages = [_message(each, "from", "value") for each in told]
        case {"text": str(text)}:
            return form.tokenizer.encode(text)
        case _:
            message = f"it is no dialog and no text: {shown_name(repr(dict(raw)), 120)}"
            raise PromptError(message, _LINE_HINT)
    if not form.is_for_chat:
        message = "it is a dialog, and a base model has no chat template to write it with"
        raise PromptError(message, 'give plain text, or lines of {"text": "..."}')
    return form.encode(Dialog(messages, add_generation_prompt=False, now=TEMPLATE_TIME))


def _message(raw: object, role_key: str, content_key: str) -> Message:
    if isinstance(raw, Mapping):
        role, content = raw.get(role_key), raw.get(content_key)
        if isinstance(role, str) and isinstance(content, str):
            return Message(_ROLES.get(role, role), content)
    message = f"a message needs {role_key} and {content_key}: {shown_name(repr(raw), 120)}"
    raise PromptError(message, _LINE_HINT)


def _line_of(path: Path, at: int) -> int:
    """Count lines up to a byte; only a message asks for it."""
    count, left = 1, at
    with path.open("rb") as file:
        while left and (data := file.read(min(left, 2**20))):
            count += data.count(b"\n")
            left -= len(data)
    return count
