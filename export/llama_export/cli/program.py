"""The program itself: a command of its own, and the verbs below it.

`llama-export --target ... --model ...` needs no verb, and what comes close to it is read as that
(`plain_form`). What is typed before a verb belongs to that form alone, so it is refused where a
verb follows; nothing typed is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import click
from click.core import ParameterSource

from llama_export.cli.misspelt import unknown_command, unknown_option
from llama_export.cli.plain_form import Typed, plain_form
from llama_export.cli.verb import Section, Verb, spelling, write_rows
from llama_export.errors import UsageError

NAME = "llama-export"
# Of a command line that does not make sense, as click has it.
USAGE_EXIT_CODE = 2
# The one option that means the same before a verb and after it.
_FOR_ALL = "--verbose"


class Program(Verb, click.Group):
    """The command without a verb, and its verbs.

    Args:
        callback: what runs without a verb; with one, it runs first.
        sections: options without a verb.
        verbs: the verbs in the order of the page.
        gathered: as of a `Verb`.
        examples: whole command lines.
    """

    def __init__(
        self,
        callback: Callable[..., None],
        sections: tuple[Section, ...],
        verbs: tuple[Verb, ...],
        *,
        gathered: Mapping[str, tuple[click.Option, ...]],
        examples: tuple[str, ...],
    ) -> None:
        super().__init__(NAME, callback, sections, gathered=gathered, examples=examples)
        self.invoke_without_command = True
        for verb in verbs:
            self.add_command(verb)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the plain form or a verb; without a single word, show the page.

        Raises:
            UsageError: an export has two models, or there is no such option.
        """
        try:
            words = plain_form(args, lambda words: self._read(ctx, words), self.commands)
        except click.NoSuchOption as error:
            raise unknown_option(error, args) from None
        if not words and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), color=ctx.color)
            ctx.exit(USAGE_EXIT_CODE)
        return super().parse_args(ctx, words)

    def _read(self, ctx: click.Context, words: list[str]) -> Typed:
        """Find the first word that belongs to no option."""
        found, rest, _ = self.make_parser(ctx).parse_args(list(words))
        return Typed(words[: len(words) - len(rest)], rest, found)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb.

        Raises:
            UsageError: there is none of that name.
        """
        if args[0] not in self.commands and not ctx.resilient_parsing:
            raise unknown_command(args[0], args[1:], NAME, self.commands)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the page."""
        return list(self.commands)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write both forms of a command line."""
        formatter.write_usage(NAME, "--target TARGET --model MODEL [OPTIONS]")
        formatter.write_usage(NAME, "COMMAND [OPTIONS] ...", prefix=" " * len("Usage: "))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then the verbs."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what each verb does."""
        rows = [(name, str(verb.help), "") for name, verb in self.commands.items()]
        write_rows(formatter, "Commands", rows)


def refuse_options_before(context: click.Context) -> None:
    """Refuse options that were typed before a verb, which would ignore them; pass --verbose on.

    Args:
        context: context of the program, whose verb is known.

    Raises:
        UsageError: names the options, and says which of them the verb has too.
    """
    verb = str(context.invoked_subcommand)
    typed = [_typed_spelling(each, context) for each in context.command.params]
    found = [name for name in typed if name and name != _FOR_ALL]
    if not found:
        if _FOR_ALL in typed:
            context.default_map = {verb: {_FOR_ALL.removeprefix("--"): True}}
        return
    applies = "applies" if len(found) == 1 else "apply"
    message = f"{_listed(found)} before {verb!r} {applies} to an export and would be ignored by "
    message += repr(verb)
    raise UsageError(message, _advice(found, verb, context))


def _advice(found: list[str], verb: str, context: click.Context) -> str:
    command = context.command
    own = command.commands[verb].params if isinstance(command, click.Group) else []
    known = {name for each in own for name in (*each.opts, *each.secondary_opts)}
    after = [name for name in found if name in known]
    out = [name for name in found if name not in known]
    advice = [f"write {_listed(after)} after {verb!r}"] if after else []
    if out:
        advice.append(f"leave {_listed(out)} out")
    return f"{', and '.join(advice)}; {NAME} {verb} --help lists what {verb!r} takes"


def _typed_spelling(parameter: click.Parameter, context: click.Context) -> str:
    """Return how an option was spelt on the command line, its long form; empty: it was not."""
    name = str(parameter.name)
    if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
        return ""
    if parameter.secondary_opts and context.params.get(name) is False:
        return parameter.secondary_opts[0]
    return spelling(parameter)


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
