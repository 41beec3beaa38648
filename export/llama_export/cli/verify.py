"""`llama-export verify`: compare a bundle with the eager model."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import click

from llama_export.checkpoints.checkpoint import ReadOptions
from llama_export.cli.completion import complete_model
from llama_export.cli.options import BUNDLE, JSON, PATH, THREADS, VERBOSE, open_console
from llama_export.cli.proving import how_to_prove
from llama_export.cli.reading_options import ADAPTER, BASE
from llama_export.cli.tokens import command_line
from llama_export.cli.verb import Section, Verb
from llama_export.errors import NOT_PROVED_EXIT_CODE, UsageError

# By the verdict of a report.
_EXIT_CODES = {"passed": 0, "failed": 1, "not proved": NOT_PROVED_EXIT_CODE}


def verify(
    *,
    bundle: Path,
    checkpoint: str | None,
    revision: str | None,
    token: str | None,
    base: str | None,
    adapter: tuple[str, ...],
    weights: Path | None,
    text: Path | None,
    quick: bool,
    strict: bool,
    html: Path | None,
    device_report: Path | None,
    threads: int | None,
    as_json: bool,
    verbose: bool,
) -> None:
    """Compare a bundle with the eager model; exit code 0 only when all of it is proved."""
    console = open_console(verbose)
    if device_report is not None:
        others = {
            "--checkpoint": checkpoint,
            "--revision": revision,
            "--token": token,
            "--weights": weights,
            "--text": text,
            "--quick": quick,
            "--strict": strict,
            "--base": base,
            "--adapter": adapter,
            "--threads": threads,
        }
        _refuse_beside_a_phone([name for name, given in others.items() if given])
        _judge_a_phone(bundle, device_report, html, as_json=as_json, verbose=verbose)
    from llama_export.bundle.bundle import Bundle
    from llama_export.cli.terminal import TerminalProgress, show_note, show_report
    from llama_export.sources.references import reference_for
    from llama_export.targets.registry import require_runs_here
    from llama_export.verification.report.html import check_html, write_html
    from llama_export.verification.rows import NOT_PROVED
    from llama_export.verification.samples import read_text

    if html is not None:
        check_html(html)  # before minutes of work, not after them
    own_text = None if text is None else read_text(text)
    progress = TerminalProgress(console)
    with progress.step(f"Opening {bundle}"):
        opened = Bundle.open(bundle)
        require_runs_here(opened)
        reading = ReadOptions(base=base, adapters=adapter)
        reference = reference_for(
            opened, checkpoint, weights, revision=revision, token=token, reading=reading
        )
    with progress.step("Starting PyTorch"):
        from llama_export.verification.verify import VerifySettings, verify_bundle
    with progress.step("Checking against the eager model") as advance:
        report = verify_bundle(
            opened,
            weights=reference.weights,
            checkpoint=reference.checkpoint,
            settings=VerifySettings(own_text, quick, strict, threads, command_line()),
            progress=advance,
        )
    if html is not None:
        with progress.step(f"Writing {html}"):
            write_html(report, html)
    show_report(report, as_json=as_json, every_row=verbose)
    if report.verdict == NOT_PROVED:
        folder = None if reference.weights is None else reference.weights.folder
        show_note(
            console,
            how_to_prove(
                opened, report.missing, weights=folder, checkpoint=checkpoint, reading=reading
            ),
        )
    raise click.exceptions.Exit(_EXIT_CODES[report.verdict])


def _refuse_beside_a_phone(given: list[str]) -> None:
    if given:
        message = f"--device-report judges what a phone measured: it has no use for {given[0]}"
        raise UsageError(message, f"leave {' and '.join(given)} out")


def _judge_a_phone(
    bundle: Path, path: Path, html: Path | None, *, as_json: bool, verbose: bool
) -> NoReturn:
    """Hold what a phone measured against the bundle's golden data; nothing runs here."""
    from llama_export.bundle.bundle import Bundle
    from llama_export.cli.terminal import show_report
    from llama_export.verification.golden.compare import judge_report
    from llama_export.verification.golden.device_report import read_device_report
    from llama_export.verification.golden.golden import read_golden
    from llama_export.verification.identity import identify
    from llama_export.verification.report.html import check_html, write_html

    if html is not None:
        check_html(html)
    opened = Bundle.open(bundle)
    golden = read_golden(opened)
    device = read_device_report(path, opened)
    identity = identify(opened.manifest, command=command_line())
    report = judge_report(golden, device, opened.manifest.model.name, identity)
    if html is not None:
        write_html(report, html)
    show_report(report, as_json=as_json, every_row=verbose)
    raise click.exceptions.Exit(_EXIT_CODES[report.verdict])


VERIFY = Verb(
    "verify",
    verify,
    (
        Section(
            "Compare with",
            (
                click.Option(
                    ["--checkpoint"],
                    metavar="MODEL",
                    help="The model it was made from.",
                    shell_complete=complete_model,
                    show_default="demo for the demo",
                ),
                click.Option(
                    ["--revision"],
                    help="Branch, tag or commit of the checkpoint.",
                    show_default="the bundle's own",
                ),
                click.Option(
                    ["--token"], help="Hub token.", show_default="HF_TOKEN, or the saved login"
                ),
                BASE,
                ADAPTER,
                click.Option(
                    ["--weights"],
                    type=PATH,
                    metavar="FOLDER",
                    help="The quantised weights.",
                    show_default="BUNDLE/../weights",
                ),
                click.Option(
                    ["--text"],
                    type=PATH,
                    metavar="FILE",
                    help="A UTF-8 text to read.",
                    show_default="two that come with the program",
                ),
                click.Option(
                    ["--device-report"],
                    type=PATH,
                    metavar="FILE",
                    help="What a phone measured of the bundle; judged alone, and nothing is run.",
                ),
            ),
        ),
        Section(
            "Checks",
            (
                click.Option(
                    ["--quick"], is_flag=True, help="A few positions, and a sample of the ids."
                ),
                click.Option(
                    ["--strict"],
                    is_flag=True,
                    help="Fail what cannot be checked or judged at all.",
                ),
            ),
        ),
        Section(
            "Run",
            (
                THREADS,
                click.Option(
                    ["--html"], type=PATH, metavar="FILE", help="Write the report as a page."
                ),
                JSON,
                click.Option(
                    ["--verbose"],
                    is_flag=True,
                    help=f"List every check. {VERBOSE.help}",
                ),
            ),
        ),
    ),
    positionals=(BUNDLE,),
    examples=(
        "llama-export verify 3.2-1B/onnx --checkpoint 3.2-1B",
        "llama-export verify 3.2-1B/onnx --quick --html report.html",
    ),
)
