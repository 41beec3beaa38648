"""Tools that the command line offers a model: their definitions in a file, and its calls shown.

It runs no tool. How a call looks in a reply is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from llama_export.cli.output import StreamedText, write_json, write_text
from llama_export.cli.prompt_source import read_text
from llama_export.errors import PromptError, UsageError
from llama_export.generation.text_stream import TextStream
from llama_export.generation.tools import Tools
from llama_export.tokenizer.chat.call_reader import CallReader, Delta, TextDelta
from llama_quantize.strict_json import JsonFault, parse_json


def read_definitions(path: Path | None, *, chat: bool) -> list[dict[str, object]]:
    """Return the definitions of tools in a file; none where there is no file.

    Args:
        path: a JSON file with a list of them; `-` is all of stdin.
        chat: whether the prompt is a message, without which no tool is described.

    Raises:
        UsageError: there is a file, and the prompt is no message.
        PromptError: the file cannot be read, or holds something else.
    """
    if path is None:
        return []
    if not chat:
        message = "--tools describes functions in a dialog, and the prompt is none"
        raise UsageError(message, "give --chat too")
    hint = "give a JSON list of definitions; docs/tools.md has one"
    try:
        found = parse_json(read_text(path))
    except JsonFault as fault:
        message = f"{path} is no JSON: {fault}"
        raise PromptError(message, hint) from None
    if not isinstance(found, list) or not found or not all(isinstance(x, dict) for x in found):
        message = f"{path}: expected a list of definitions of tools, found {found!r:.80}"
        raise PromptError(message, hint)
    return found


def write_reply(stream: TextStream, begin: str, offered: Tools | None) -> None:
    """Write a text to stdout while it comes, and then each call of a tool as a line of JSON.

    Args:
        stream: the text.
        begin: what is written before it.
        offered: tools that may be called; None: none, so that everything is text.
    """
    reader = None if offered is None else offered.reader()
    shown = StreamedText()
    shown.write(begin)
    wrote = bool(begin)
    try:
        for piece in stream if reader is None else _texts(stream, reader):
            shown.write(piece)
            wrote = True
    finally:
        shown.end()
        if wrote or reader is None or not reader.calls:  # calls alone begin their own line
            write_text("\n")
    calls = [] if reader is None else reader.calls
    for call in calls:
        write_json(call.to_json(), indent=None)


def _texts(stream: TextStream, reader: CallReader) -> Iterator[str]:
    """Yield what is text of a reply, as soon as it is certain."""
    for piece in stream:
        yield from _text_in(reader.push(piece))
    yield from _text_in(reader.finish())


def _text_in(deltas: list[Delta]) -> Iterator[str]:
    return (delta.text for delta in deltas if isinstance(delta, TextDelta))
