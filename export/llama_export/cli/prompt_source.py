"""Where a verb's text comes from: the command line, a file, or all of stdin."""

from __future__ import annotations

from pathlib import Path

import click

from llama_export.cli.streams import read_bounded, require_utf8, stdin_bytes, stdin_is_fed
from llama_export.cli.verb import Positional
from llama_export.errors import PromptError
from llama_quantize.printable import shown_name

PROMPT = Positional(
    click.Argument(["words"], required=False, metavar="[PROMPT]"), "The text, in place of --prompt."
)


def the_prompt(words: str | None, prompt: str | None) -> str | None:
    """Return the prompt that was typed behind the bundle or as an option; None: neither was.

    Raises:
        PromptError: both were.
    """
    if words is not None and prompt is not None:
        message = (
            f"there are two prompts: --prompt, and {shown_name(repr(words))} behind the bundle"
        )
        raise PromptError(message, "give one of them; a text of several words stands in quotes")
    return prompt if words is None else words


def read_text(path: Path) -> str:
    """Return a file's text; `-` is all of stdin.

    Raises:
        PromptError: the file cannot be read, is too long, or is not UTF-8.
    """
    if str(path) == "-":
        return read_bounded(stdin_bytes().read, "stdin")
    try:
        with path.open("rb") as file:
            return read_bounded(file.read, str(path))
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}"
        raise PromptError(message, "give a text file, or '-' for stdin") from None


def read_prompt(prompt: str | None, file: Path | None) -> str:
    """Return the prompt of --prompt or --file, or all of stdin.

    Raises:
        PromptError: no prompt or two, an empty one, or one that is not UTF-8.
    """
    refuse_both(prompt, file)
    if file is not None:
        text = read_text(file)
    elif prompt is not None and prompt != "-":
        text = require_utf8(prompt, "--prompt")
    elif prompt is None and not stdin_is_fed():
        message = "there is no prompt"
        raise PromptError(message, 'give --prompt "Once upon a time", or pipe a text in')
    else:
        text = read_text(Path("-"))
    if not text:
        message = "the prompt is empty"
        raise PromptError(message, 'give a text, such as --prompt "Once upon a time"')
    return text


def refuse_both(prompt: str | None, file: Path | None) -> None:
    """Refuse two prompts.

    Raises:
        PromptError: both `prompt` and `file` are given.
    """
    if prompt is not None and file is not None:
        message = "there are two prompts: --prompt and --file"
        raise PromptError(message, "give one of them")
