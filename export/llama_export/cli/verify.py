"""`llama-export verify`: compare a bundle with the eager model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llama_export.cli.options import BundleArgument, Json, Threads, open_console


def verify(
    bundle: BundleArgument,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="The model it was made from.", show_default="demo for the demo"),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(
            help="Branch, tag or commit of the checkpoint.", show_default="the bundle's own"
        ),
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="Access token of the hub.", show_default="$HF_TOKEN")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="The quantised weights.", show_default="BUNDLE/../weights"),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(help="A UTF-8 text to read.", show_default="two that come with the program"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few positions only.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail what could not be checked or judged.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write the report as a page.", show_default=False)
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", help="List every check, and let the libraries' own messages through."
        ),
    ] = False,
) -> None:
    """Compare a bundle with the eager model; exit code 1 when it fails."""
    console = open_console(verbose)
    from llama_export.bundle.bundle import Bundle
    from llama_export.cli.terminal import TerminalProgress, show_report

    progress = TerminalProgress(console)
    with progress.step("Starting PyTorch"):
        from llama_export.sources.references import reference_for
        from llama_export.verify import verify_bundle
        from llama_export.verify.report.html import check_html, write_html
    if html is not None:
        check_html(html)  # before minutes of work, not after them
    with progress.step(f"Opening {bundle}"):
        opened = Bundle.open(bundle)
        reference = reference_for(opened, checkpoint, weights, revision=revision, token=token)
    with progress.step("Checking against the eager model") as advance:
        report = verify_bundle(
            opened,
            weights=reference.weights,
            checkpoint=reference.checkpoint,
            text=text,
            quick=quick,
            strict=strict,
            threads=threads,
            progress=advance,
        )
    if html is not None:
        with progress.step(f"Writing {html}"):
            write_html(report, html)
    show_report(report, as_json=as_json, every_row=verbose)
    raise typer.Exit(0 if report.passed else 1)
