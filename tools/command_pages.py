"""Write docs/commands.md: the page of help of each command, for readers of the site.

    .venv/bin/python tools/command_pages.py docs/commands.md

The words are the program's own; this script knows only how to put them on a page. A test says when
the page is old.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from llama_export.cli.app import app

COLUMNS = 80
INTRODUCTION = """\
# Every command

What `--help` prints, written by `tools/command_pages.py`. An export needs no command:
[options.md](options.md) says more of what it takes, and [exit-codes.md](exit-codes.md) how each of
them ends.
"""


def help_of(command: click.Command, parent: click.Context | None = None) -> str:
    """Return a command's page of help at 80 columns, without colours."""
    context = click.Context(
        command,
        parent,
        info_name=command.name,
        terminal_width=COLUMNS,
        color=False,
        **command.context_settings,
    )
    text = click.unstyle(command.get_help(context))
    # The one word of it that is the machine's.
    return text.replace(f"[1 to {os.cpu_count()};", "[1 to your cores;")


def page() -> str:
    """Return the whole page: the program, then its commands in the order of its own help."""
    program = click.Context(app, info_name=app.name, color=False)
    parts = [("An export", help_of(app))]
    parts += [(name, help_of(verb, program)) for name, verb in app.commands.items()]
    sections = [f"## {title}\n\n```text\n{text.rstrip()}\n```\n" for title, text in parts]
    return "\n".join([INTRODUCTION, *sections])


def main() -> int:
    """Write the page to the file that is named."""
    if len(sys.argv) != 2:
        print("usage: python tools/command_pages.py PAGE", file=sys.stderr)
        return 2
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
