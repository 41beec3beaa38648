"""Completion in a shell: the script that a shell loads, and the values that it is offered.

click completes verbs, options and choices by itself; here are names of models and of targets. It
asks no network and imports no toolkit, for a shell waits for each answer.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from llama_export.cli.output import write_text

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SHELLS = ("bash", "zsh", "fish")
# How the script asks: with the shell's name, and click's word for what it wants.
_VARIABLE = "_LLAMA_EXPORT_COMPLETE"
_PROGRAM = "llama-export"
# bash takes a word apart at colons, and would go on with `int4:g` as with a new word.
_BASH_WORDS = "COMP_WORDBREAKS=${COMP_WORDBREAKS//:}\n"


def complete_if_asked(program: click.Command) -> bool:
    """Answer a shell that asks what a command line may go on with.

    Args:
        program: the whole command line.

    Returns:
        Whether a shell asked, so that nothing else is to be done.
    """
    asked = os.environ.get(_VARIABLE, "")
    if not asked.endswith("_complete"):
        return False
    from click.shell_completion import shell_complete

    shell_complete(program, {}, _PROGRAM, _VARIABLE, asked)
    return True


def show_script(context: click.Context, _option: click.Parameter, shell: str | None) -> None:
    """Print the script that a shell loads, and end."""
    if shell is None or context.resilient_parsing:
        return
    from click.shell_completion import get_completion_class

    completer = get_completion_class(shell)
    if completer is None:  # an option offers the shells of click alone
        raise LookupError(shell)
    asks = completer(context.command, {}, _PROGRAM, _VARIABLE)
    # Not `source()`: for bash it runs one first, to judge a version that may be another's.
    script = completer.source_template % asks.source_vars()
    write_text(f"{_BASH_WORDS}{script}" if shell == "bash" else script)
    context.exit()


def complete_model(
    _context: click.Context, _option: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Offer the models that have a name, in the letters that were begun; files besides."""
    from click.shell_completion import CompletionItem

    from llama_export.sources.resolve import ALIASES, DEMO

    names = [name for name in (DEMO, *ALIASES) if name.lower().startswith(begun.lower())]
    return [CompletionItem(name) for name in names] or [CompletionItem(begun, type="file")]


def complete_targets(
    _context: click.Context, _option: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Offer the targets, each once in a list with commas."""
    from click.shell_completion import CompletionItem

    from llama_export.targets import registry

    before, comma, last = begun.rpartition(",")
    there = before.split(",")
    names = registry.TARGETS if comma else (*registry.TARGETS, "all")
    return [
        CompletionItem(f"{before}{comma}{name}")
        for name in names
        if name.startswith(last) and name not in there
    ]
