"""`llama-export verify`: compare a bundle with the eager model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llama_export.commands.options import BundleArgument, Json, Verbose, open_console


def verify(
    bundle: BundleArgument,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="The model it was made from.", show_default="demo for the demo"),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="The quantised weights.", show_default="BUNDLE/../weights"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few positions only.")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Compare a bundle with the eager model; exit code 1 when it fails."""
    console = open_console(verbose)
    from llama_export.bundle import Bundle
    from llama_export.terminal import TerminalProgress, show_report

    progress = TerminalProgress(console)
    with progress.step("Starting PyTorch"):
        from llama_export.sources import reference_for
        from llama_export.verify import verify_bundle
    with progress.step(f"Opening {bundle}"):
        opened = Bundle.open(bundle)
        reference = reference_for(opened, checkpoint, weights)
    with progress.step("Checking against the eager model") as advance:
        report = verify_bundle(
            opened,
            weights=reference.weights,
            checkpoint=reference.checkpoint,
            quick=quick,
            progress=advance,
        )
    show_report(report, as_json=as_json)
    raise typer.Exit(0 if report.passed else 1)
