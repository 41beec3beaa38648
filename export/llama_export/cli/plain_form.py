"""What a user types for an export, read as the plain form: `--target ... --model ...`.

`llama-export export ...` and a model without `--model` are what other programs take, and they can
mean nothing else here. The module knows words and which options are among them; it parses none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from llama_export.errors import LlamaExportError, UsageError
from llama_export.targets import registry

EXPORT = "export"


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
        UsageError: there is a second model, or a word that is nearly a command.
    """
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
        if "model" in options:
            if model in registry.TARGETS:
                message = f"{model} is a target, and stands where none is read"
                raise UsageError(message, "several stand behind one --target: onnx,coreml")
            if near := _near(model, verbs):
                message = f"no such command {model!r:.80}"
                raise UsageError(message, f"did you mean {near}?")
            message = f"an export takes one model, and {model!r:.80} would be a second one"
            raise UsageError(message, "leave it out, or name it with --model in another export")
        words = [*typed.before, "--model", model, *following]
        typed = read(words)
    return words


def unknown_command(name: str, program: str, verbs: Collection[str]) -> UsageError:
    """Return the error of a word that is no verb; a model's name lacks its target only.

    Args:
        name: the word.
        program: name of the program.
        verbs: what would have been one.
    """
    if _is_model(name):
        message = f"{name!r:.80} is a model, and an export needs a target too"
        return UsageError(message, f"{program} --target onnx --model {name:.80}")
    near = _near(name, verbs)
    guess = f"did you mean {near}? " if near else ""
    return UsageError(f"no such command {name!r:.80}", f"{guess}{program} --help shows them all")


def _near(name: str, verbs: Collection[str]) -> str:
    """Return the command that a word is nearly; empty: none."""
    import difflib

    return "".join(difflib.get_close_matches(name, [*verbs, EXPORT], n=1))


def _is_model(name: str) -> bool:
    """Whether a word names a model; nothing is fetched."""
    from llama_export.sources.resolve import name_model

    try:
        name_model(name)
    except (LlamaExportError, OSError):
        return False
    return True
