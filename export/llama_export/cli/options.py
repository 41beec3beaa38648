"""Options that several verbs share, and what every verb begins with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llama_export.cli.misspelt import no_bundle
from llama_export.cli.verb import Positional
from llama_export.system.memory_shortage import require_address_space

if TYPE_CHECKING:
    from rich.console import Console

PATH = click.Path(path_type=Path)

BUNDLE = Positional(
    click.Argument(["bundle"], type=PATH), "A bundle: a folder with a manifest.json.", no_bundle
)
THREADS = click.Option(
    ["--threads"],
    type=click.IntRange(min=1, max=os.cpu_count()),
    metavar="N",
    help="Threads of the runtime.",
    show_default="one per core",
)
JSON = click.Option(["--json", "as_json"], is_flag=True, help="Print the result as JSON.")
REVISION = click.Option(["--revision"], help="Branch, tag or commit of a hub repository.")
TOKEN = click.Option(["--token"], help="Hub token.", show_default="HF_TOKEN, or the saved login")
NO_HASH = click.Option(
    ["--no-hash"], is_flag=True, help="Load the files without comparing their hashes."
)
VERBOSE = click.Option(
    ["--verbose"],
    is_flag=True,
    help="Show the libraries' own messages, and where a fault of the program happened.",
)


def open_console(verbose: bool) -> Console:
    """Return the console for messages, on stderr; the libraries are silent unless verbose."""
    from llama_export.cli.console import messages
    from llama_export.cli.terminal import quieten, show_notices

    require_address_space()
    if not verbose:
        quieten()
    console = messages()
    show_notices(console)
    return console
