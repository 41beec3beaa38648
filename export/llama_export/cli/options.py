"""Options that several commands share, and what every command begins with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

BundleArgument = Annotated[
    Path, typer.Argument(help="A bundle: a folder with a manifest.json.", show_default=False)
]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Let the libraries' own messages through.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, max=os.cpu_count(), help="Threads of the runtime.", show_default="one a core"
    ),
]


def open_console(verbose: bool) -> Console:
    """Return the console for messages, on stderr; the libraries are silent unless verbose."""
    from rich.console import Console

    from llama_export.cli.terminal import quieten, show_notices

    if not verbose:
        quieten()
    console = Console(stderr=True)
    show_notices(console)
    return console
