"""Words that users type and that are none here, and the one that each of them most likely means.

The words of other programs are known one by one; what is left is compared by its letters. The
module knows words: it parses none, and runs nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import click

from llama_export.errors import BundleError, LlamaExportError, UsageError
from llama_quantize.printable import shown_name

EXPORT = "export"
# What ollama, llama.cpp, optimum and the tools of the hub call what a command does here.
_COMMANDS: Mapping[str, str] = {
    "run": "chat",
    "models": "list",
    "ls": "list",
    "convert": EXPORT,
    "quantize": EXPORT,
    "quantise": EXPORT,
    "build": EXPORT,
    "benchmark": "bench",
    "show": "inspect",
    "info": "inspect",
    "test": "verify",
    "zip": "pack",
    "upload": "push",
}
# And what they call an option.
_OPTIONS: Mapping[str, str] = {
    "--backend": "--target",
    "--format": "--target",
    "--precision": "--quantize",
    "--bits": "--quantize",
    "--dtype": "--quantize",
    "--outtype": "--quantize",
    "--outfile": "--output",
    "--ctx-size": "--max-context",
    "--context-length": "--max-context",
    "--n-predict": "--max-tokens",
    "--max-new-tokens": "--max-tokens",
    "--repeat-penalty": "--repetition-penalty",
}
_MODEL = ("--model", "-m")
_EXAMPLE = "3.2-1B"


def meant_command(word: str, verbs: Collection[str]) -> str:
    """Return the command that a word may mean; empty: there is no guess.

    Args:
        word: what was typed.
        verbs: the commands that there are.
    """
    meant = _COMMANDS.get(word.lower(), "")
    known = (*verbs, EXPORT)
    return meant if meant in known else _near(word, known)


def is_of_another_program(word: str) -> bool:
    """Whether a word is a command of other programs."""
    return word.lower() in _COMMANDS


def unknown_command(
    name: str, following: Sequence[str], program: str, verbs: Collection[str]
) -> UsageError:
    """Return the error of a word that is no verb; a model's name lacks its target only.

    Args:
        name: the word.
        following: words after it.
        program: name of the program.
        verbs: what would have been one.
    """
    if not is_of_another_program(name) and model_called(name) is not None:
        message = f"{name!r:.80} is a model, and an export needs a target too"
        return UsageError(message, f"{program} --target onnx --model {shlex.quote(name):.80}")
    message = f"no such command {name!r:.80}"
    meant = meant_command(name, verbs)
    named = next((word for word in following if not word.startswith("-")), "")
    if meant == EXPORT and is_of_another_program(name):
        model = shlex.quote(named) if named and model_called(named) is not None else _EXAMPLE
        return UsageError(message, f"an export does that: {program} --target onnx --model {model}")
    guess = f"did you mean {meant}? " if meant else ""
    if name == "run" and meant:
        guess += f"{program} {meant} BUNDLE talks, generate BUNDLE goes on with a text; "
    return UsageError(message, f"{guess}{program} --help shows them all")


def unknown_option(error: click.NoSuchOption, typed: Sequence[str]) -> UsageError:
    """Return the error of an option that is none, with one guess.

    Args:
        error: error of click, which knows the command.
        typed: words of the command line, from the command's own on.
    """
    option, context = error.option_name, error.ctx
    if context is None:
        return UsageError(f"no such option {option!r:.80}")
    path = context.command_path
    takes_a_bundle = any(each.name == "bundle" for each in context.command.params)
    if option in _MODEL and takes_a_bundle:
        return _needless_option(option, _value_of(_MODEL, typed), path)
    known = {name for each in context.command.params for name in each.opts if name[:2] == "--"}
    meant = _OPTIONS.get(option, "")
    guess = meant if meant in known else _near(option, sorted(known))
    hint = f"{path} --help shows how it is used"
    return UsageError(
        f"no such option {option!r:.80}", f"did you mean {guess}? {hint}" if guess else hint
    )


def _needless_option(option: str, value: str, command: str) -> UsageError:
    """Return the error of `--model` before what is a bundle, or where a bundle is due."""
    if not value or model_called(value) is None or _is_bundle(Path(value)):
        hint = f"a bundle stands without an option: {command} {shlex.quote(value or 'BUNDLE'):.200}"
        return UsageError(f"{command.partition(' ')[2]} has no option {option!r:.80}", hint)
    return needs_a_bundle(value, command)


def needs_a_bundle(model: str, command: str) -> UsageError:
    """Return the error of a model where a bundle is due, with the commands that make and use one.

    Args:
        model: the model, as it was typed.
        command: the command with the name of its program.
    """
    program, _, verb = command.partition(" ")
    shown = shlex.quote(model)
    folder = shlex.quote(f"{model_called(model)}/onnx")
    message = f"{verb} takes a bundle, which an export makes, and {shown_name(model)} names a model"
    hint = f"{program} --target onnx --model {shown:.200}, and then {command} {folder:.200}"
    return UsageError(message, hint)


def no_bundle(path: Path, command: str) -> LlamaExportError | None:
    """Return the error of a path where a bundle is due and a model is named; None: none is.

    Args:
        path: what was typed.
        command: the command with the name of its program.
    """
    from llama_export.bundle.nearby import nearby_bundles
    from llama_export.checkpoints.formats import is_checkpoint
    from llama_export.sources.resolve import name_model
    from llama_export.targets.registry import TARGETS
    from llama_quantize.checkpoint.files import RECORD_FILE

    try:
        if _is_bundle(path) or (path / RECORD_FILE).is_file():  # weights of an export
            return None
        if path.name in TARGETS and not path.exists():
            return _not_made(path, command)
        named = name_model(str(path))
        if named.path is not None and not is_checkpoint(named.path):
            return None
        # An output may be called as its model is.
        if nearby_bundles(path) and (path.exists() or not named.is_alias):
            return None
    except (LlamaExportError, OSError):
        return None
    return needs_a_bundle(str(path), command)


def _not_made(path: Path, command: str) -> BundleError | None:
    """Return the error of `MODEL/TARGET`, where an export of that model would write; None: none."""
    from llama_export.sources.resolve import ALIASES, DEMO

    model = str(path.parent)
    if path.parent.exists() or model not in (DEMO, *ALIASES):
        return None
    program = command.partition(" ")[0]
    hint = f"{program} --target {path.name} --model {model} makes it"
    return BundleError(f"there is no bundle {path} yet", hint)


def _is_bundle(path: Path) -> bool:
    from llama_export.bundle.bundle import bundle_folder
    from llama_export.bundle.manifest import MANIFEST_NAME

    return (bundle_folder(path) / MANIFEST_NAME).exists()


def model_called(word: str) -> str | None:
    """Return the name of the model that a word means; None: it means none. Nothing is fetched."""
    from llama_export.sources.resolve import name_model

    try:
        return name_model(word).name
    except (LlamaExportError, OSError):
        return None


def _value_of(options: Collection[str], typed: Sequence[str]) -> str:
    for place, word in enumerate(typed):
        name, _, value = word.partition("=")
        if name in options:
            return value or (typed[place + 1] if place + 1 < len(typed) else "")
    return ""


def _near(word: str, known: Sequence[str]) -> str:
    """Return the word of those that there are whose letters are nearly the same; empty: none."""
    import difflib

    return "".join(difflib.get_close_matches(word, known, n=1))
