"""What a user types for an export, read as the plain form: `--target ... --model ...`.

`llama-export export ...`, `help` and a model without `--model` are what other programs take, and
they can mean nothing else here. The module knows words and which options are among them; it parses
none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from llama_export.cli.misspelt import EXPORT, is_of_another_program, meant_command
from llama_export.errors import UsageError
from llama_export.targets import registry

HELP = "help"


@dataclass(frozen=True)
class Typed:
    """A command line up to its first word that belongs to no option.

    Args:
        before: the words before it.
        rest: this word and all that follow; empty: there is none.
        options: names of the options in `before`.
    """

    before: list[str]
    rest: list[str]
    options: Collection[str]


def plain_form(
    words: list[str], read: Callable[[list[str]], Typed], verbs: Collection[str]
) -> list[str]:
    """Return a command line as click is to read it.

    Args:
        words: what was typed after the program's name.
        read: function that finds the first word without an option.
        verbs: names that begin another form.

    Raises:
        UsageError: there is a second model, or a word that is nearly a command, or is one of other
            programs.
    """
    while words[:1] == [HELP]:
        words = [*words[1:], "--help"]
    typed = read(words)
    written_out = typed.rest[:1] == [EXPORT]
    if written_out:
        words = [*typed.before, *typed.rest[1:]]
        typed = read(words)
    while typed.rest and (written_out or typed.rest[0] not in verbs):
        model, following = typed.rest[0], typed.rest[1:]
        after = read(following)
        options = {*typed.options, *after.options}
        if "--" in typed.before or not (written_out or "target" in options):
            break
        if is_of_another_program(model) and not Path(model).exists():
            raise _no_command(model, verbs)
        if "model" in options:
            if model in registry.TARGETS:
                message = f"{model} is a target, and stands where none is read"
                raise UsageError(message, "several stand behind one --target: onnx,coreml")
            if meant_command(model, verbs):
                raise _no_command(model, verbs)
            message = f"an export takes one model, and {model!r:.80} would be a second one"
            raise UsageError(message, "leave it out, or name it with --model in another export")
        words = [*typed.before, "--model", model, *following]
        typed = read(words)
    return words


def _no_command(word: str, verbs: Collection[str]) -> UsageError:
    """Return the error of a word beside the options of an export that may mean a command."""
    meant = meant_command(word, verbs)
    hint = "leave it out: an export needs none" if meant == EXPORT else f"did you mean {meant}?"
    return UsageError(f"no such command {word!r:.80}", hint if meant else "leave it out")
