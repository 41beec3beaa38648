"""The options that say what a new text must obey: a JSON schema, an expression, or a grammar.

It reads what was typed, and refuses what cannot be followed. It knows no bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llama_export.cli.options import PATH
from llama_export.cli.prompt_source import read_text
from llama_export.cli.streams import require_utf8
from llama_export.cli.verb import Section
from llama_export.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from llama_export.generation.grammar import Grammar

# A verb takes them as one mapping.
FORM = Section(
    "Form",
    (
        click.Option(
            ["--json-schema"],
            metavar="FILE|JSON",
            help="Write JSON that obeys this schema, and nothing else.",
        ),
        click.Option(
            ["--regex"],
            metavar="PATTERN",
            help="Write a text that this expression matches as a whole.",
        ),
        click.Option(
            ["--grammar"],
            type=PATH,
            metavar="FILE",
            help="Write a text of this grammar, in Lark's syntax or as GBNF.",
        ),
    ),
)


def chosen_grammar(typed: Mapping[str, object]) -> Grammar | None:
    """Return what the new text has to obey; None: any text will do.

    Args:
        typed: the options that were typed, by name.

    Raises:
        UsageError: there are two, or it cannot be followed.
        PromptError: a file cannot be read.
        BackendUnavailableError: llguidance is not installed.
    """
    if not typed:
        return None
    if len(typed) > 1:
        first, second = (f"--{name.replace('_', '-')}" for name in list(typed)[:2])
        message = f"{first} and {second}: a text can obey one of them"
        raise UsageError(message, "give one of them; rules can hold a schema, as %json {...}")
    from llama_export.generation.grammar import Grammar
    from llama_export.generation.structured import check_grammar

    ((name, value),) = typed.items()
    if name == "json_schema":
        grammar = Grammar.schema(_read_schema(require_utf8(str(value), "--json-schema")))
    elif name == "regex":
        grammar = Grammar.regex(require_utf8(str(value), "--regex"))
    else:
        grammar = Grammar.rules(read_text(Path(str(value))))
    check_grammar(grammar)
    return grammar


def say_cut(console: Console, grammar: Grammar, stop_reason: str) -> None:
    """Print a note where a text ended before it obeyed its grammar."""
    from llama_export.cli.chat.wording import say

    if stop_reason in ("length", "context full", "stop text"):
        ending = {"length": "at --max-tokens", "stop text": "by --stop"}
        where = ending.get(stop_reason, "because the context is full")
        say(console, f"note: the text was cut {where}, so the {grammar.kind.value} is not obeyed.")


def _read_schema(typed: str) -> object:
    from llama_quantize.strict_json import JsonFault, parse_json

    is_json = typed.lstrip().startswith("{")
    where = "--json-schema" if is_json else typed
    try:
        return parse_json(typed if is_json else read_text(Path(typed)))
    except JsonFault as fault:
        message = f"{where} is not valid JSON: {fault}"
        raise UsageError(message, "give a file with a JSON schema, or the schema itself") from None
