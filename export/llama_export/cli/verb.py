"""What a verb of the command line is: options under headings, a help page, and its examples.

It knows click and the screen, and no verb. A page is plain text: headings and options are coloured
on a terminal, and 40 columns are enough.
"""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from llama_export.cli.misspelt import unknown_option

_LEAST_COLUMNS, _MOST_COLUMNS = 40, 100
_TERM_COLUMNS = 26
# On a narrower screen a text stands below its term, and not in a column of a few words.
_BESIDE_COLUMNS = 64
_GAP = "  "
_BELOW = " " * 8
# A word of a command line, with the blanks inside its quotes.
_SHELL_WORD = re.compile(r"""(?:"[^"]*"|'[^']*'|\S)+""")


class NeededOption(click.Option):
    """An option that is needed, and is asked for by the callback: a verb may stand in its place."""


@dataclass(frozen=True)
class Section:
    """Options that stand under one heading of a help page.

    Args:
        title: heading.
        options: options in the order of the page.
    """

    title: str
    options: tuple[click.Option, ...]


@dataclass(frozen=True)
class Positional:
    """An argument that has no option's name.

    Args:
        argument: the argument.
        help: what the page says of it.
        fault: function that returns the error of a value that cannot be meant, from the value and
            the command with the name of its program; None: there is none to look for.
    """

    argument: click.Argument
    help: str
    fault: Callable[[Any, str], Exception | None] | None = None


class Verb(click.Command):
    """A command with a help page in sections.

    Args:
        name: what a user types.
        callback: what runs; the first paragraph of its docstring stands on the page.
        sections: all its options, from the top of the page down.
        positionals: what stands on the command line without an option's name.
        gathered: options whose values reach the callback as one mapping: what was typed of them,
            by name. The key is the callback's argument.
        examples: whole command lines.
    """

    def __init__(
        self,
        name: str,
        callback: Callable[..., None],
        sections: tuple[Section, ...],
        *,
        positionals: tuple[Positional, ...] = (),
        gathered: Mapping[str, tuple[click.Option, ...]] | None = None,
        examples: tuple[str, ...],
    ) -> None:
        options = [option for section in sections for option in section.options]
        super().__init__(
            name,
            callback=callback,
            params=[*(positional.argument for positional in positionals), *options],
            help=(callback.__doc__ or "").split("\n\n")[0],
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        self.sections = sections
        self.positionals = positionals
        self.gathered = gathered or {}
        self.examples = examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and gather the options that travel together.

        Raises:
            UsageError: there is no such option.
        """
        typed = list(args)  # click takes its words away
        try:
            rest = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise unknown_option(error, typed) from None
        for argument, options in self.gathered.items():
            values = {str(option.name): ctx.params.pop(str(option.name)) for option in options}
            ctx.params[argument] = {
                name: value for name, value in values.items() if value is not None
            }
        return rest

    def invoke(self, ctx: click.Context) -> object:
        """Run the callback, unless an argument cannot be meant."""
        for each in self.positionals:
            value = ctx.params[str(each.argument.name)]
            if each.fault is not None and (error := each.fault(value, ctx.command_path)):
                raise error
        return super().invoke(ctx)

    def get_help(self, ctx: click.Context) -> str:
        """Return the page for this terminal; click's own is never narrower than 50 columns."""
        columns = shutil.get_terminal_size().columns
        formatter = click.HelpFormatter(width=max(_LEAST_COLUMNS, min(columns, _MOST_COLUMNS)))
        self.format_help(ctx, formatter)
        return formatter.getvalue().rstrip("\n")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the arguments, and the options under their headings."""
        if self.positionals:
            rows = [(each.argument.human_readable_name, each.help, "") for each in self.positionals]
            write_rows(formatter, "Arguments", rows)
        last = self.sections[-1]
        for section in self.sections:
            rows = [(_term(option), str(option.help), _note(option)) for option in section.options]
            asked = self.get_help_option(ctx) if section is last else None
            if asked is not None:
                rows.append((_term(asked), "Show this page.", ""))
            write_rows(formatter, section.title, rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        write_heading(formatter, "Example" if len(self.examples) == 1 else "Examples")
        for example in self.examples:
            for line in _command_lines(example, formatter.width):
                formatter.write(f"{line}\n")


def write_heading(formatter: click.HelpFormatter, title: str) -> None:
    """Begin a section of a page."""
    formatter.write(f"\n{_styled(f'{title}:', bold=True)}\n")


def write_rows(
    formatter: click.HelpFormatter, title: str, rows: Iterable[tuple[str, str, str]]
) -> None:
    """Write a section of terms, what they are for, and notes; all sections have the same columns.

    Args:
        formatter: what the page is written to.
        title: heading of the section.
        rows: term, text and note; a note is kept on a line of its own where it does not fit.
    """
    write_heading(formatter, title)
    beside = formatter.width >= _BESIDE_COLUMNS
    indent = " " * (len(_GAP) + _TERM_COLUMNS + len(_GAP)) if beside else _BELOW
    for term, text, note in rows:
        lines = _wrapped(text, note, formatter.width - len(indent))
        shown = _GAP + _styled(term, fg="cyan")
        if not beside or len(term) > _TERM_COLUMNS:
            formatter.write(f"{shown}\n")
        else:
            padding = " " * (_TERM_COLUMNS - len(term))
            formatter.write(f"{shown}{padding}{_GAP}{lines.pop(0)}\n")
        for line in lines:
            formatter.write(f"{indent}{line}\n")


def _wrapped(text: str, note: str, width: int) -> list[str]:
    # A word with a hyphen, such as an option, stays whole.
    lines = textwrap.wrap(text, width, break_on_hyphens=False)
    if note and len(lines[-1]) + len(note) < width:
        return [*lines[:-1], f"{lines[-1]} {note}"]
    return lines + textwrap.wrap(note, width, break_on_hyphens=False)


def _command_lines(command: str, width: int) -> list[str]:
    """Break a command line between words, so that a shell reads the lines as one."""
    lines = [""]
    for word in _SHELL_WORD.findall(command):
        if lines[-1] and len(_GAP) + len(lines[-1]) + len(f" {word} \\") > width:
            lines[-1] += " \\"
            lines.append(f"{_GAP}{word}")
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return [_GAP + line for line in lines]


def _styled(text: str, *, fg: str | None = None, bold: bool | None = None) -> str:
    # Where the output is no terminal, click takes the colour away again.
    return text if os.environ.get("NO_COLOR") else click.style(text, fg=fg, bold=bold)


def _term(option: click.Option) -> str:
    """Write an option as a user types it, its longest name last: `-t, --target TARGET`."""
    name = spelling(option)
    others = [f"{each}, " for each in option.opts if each != name]
    short = "".join(others) if others and others[0][:2] != "--" else " " * 4 + "".join(others)
    if option.secondary_opts:
        name = f"--[no-]{name.removeprefix('--')}"
    value = "" if option.is_flag else f" {option.metavar or name.split('-')[-1].upper()}"
    return f"{short}{name}{value}"


def spelling(option: click.Parameter) -> str:
    """Return an option's long name."""
    return max(option.opts, key=len)


def _note(option: click.Option) -> str:
    """Write whether an option is needed, which values it takes, and which one it has by default."""
    needed = "required" if option.required or isinstance(option, NeededOption) else ""
    notes = [note for note in (needed, _values(option.type), _default(option)) if note]
    return f"[{'; '.join(notes)}]" if notes else ""


def _values(kind: click.ParamType[Any]) -> str:
    if isinstance(kind, click.Choice):
        return ", ".join(map(str, kind.choices))
    if isinstance(kind, click.IntRange) and kind.max is not None:
        return f"{kind.min} to {kind.max}"
    if isinstance(kind, click.IntRange):
        return f"at least {kind.min}"
    return ""


def _default(option: click.Option) -> str:
    if isinstance(option.show_default, str):
        return f"default: {option.show_default}"
    if option.secondary_opts:
        return f"default: {'on' if option.default else 'off'}"
    if option.is_flag or not isinstance(option.default, (int, float, str)):
        return ""
    return f"default: {option.default}"
