"""`llama-export pack`: one zip of a bundle, for an app to import."""

from __future__ import annotations

from pathlib import Path

import click

from llama_export.cli.options import BUNDLE, JSON, PATH, VERBOSE, open_console
from llama_export.cli.output import write_json
from llama_export.cli.verb import Section, Verb


def pack(*, bundle: Path, output: Path | None, force: bool, as_json: bool, verbose: bool) -> None:
    """Pack a bundle into one zip that an app imports; every file's hash is compared."""
    console = open_console(verbose)
    from llama_export.bundle.bundle import Bundle
    from llama_export.bundle.pack import default_place
    from llama_export.bundle.pack import pack as write_zip
    from llama_export.cli.console import results
    from llama_export.cli.terminal import TerminalProgress
    from llama_export.system.byte_sizes import format_bytes

    opened = Bundle.open(bundle)
    place = default_place(opened.folder) if output is None else output
    done = 0
    with TerminalProgress(console).step(f"Packing {bundle}") as advance:

        def count(size_bytes: int) -> None:
            nonlocal done
            done += size_bytes
            advance(done, opened.size_bytes)

        write_zip(opened, place, force=force, progress=count)
    size_bytes = place.stat().st_size
    if as_json:
        files = len(opened.manifest.files) + 1
        write_json({"zip": str(place), "size_bytes": size_bytes, "files": files})
        return
    results().print(f"{place}, {format_bytes(size_bytes)}", soft_wrap=True)


PACK = Verb(
    "pack",
    pack,
    (
        Section(
            "Options",
            (
                click.Option(
                    ["--output"],
                    type=PATH,
                    metavar="FILE",
                    help="The zip.",
                    show_default="BUNDLE.zip",
                ),
                click.Option(["--force"], is_flag=True, help="Replace a file of that name."),
                JSON,
                VERBOSE,
            ),
        ),
    ),
    positionals=(BUNDLE,),
    examples=("llama-export pack 3.2-1B/onnx --output llama.zip",),
)
