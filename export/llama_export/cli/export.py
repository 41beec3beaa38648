"""The plain form of the command line: `llama-export --target onnx --model 3.2-1B`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llama_export.calibration.options import OWN_TEXT, CalibrationOptions
from llama_export.cli.calibration_options import CALIBRATION, CALIBRATION_TOKENS, QUALITY
from llama_export.cli.completion import SHELLS, complete_model, complete_targets, show_script
from llama_export.cli.options import JSON, PATH, REVISION, TOKEN, VERBOSE, open_console
from llama_export.cli.output import write_json, write_text
from llama_export.cli.program import NAME, refuse_options_before
from llama_export.cli.proving import NEVER_AGAIN, command_after
from llama_export.cli.push_options import (
    PUSH_SECTION,
    PreparedPush,
    chosen_push,
    prepare_push,
    push_output,
)
from llama_export.cli.reading_options import READING_SECTION, chosen_reading
from llama_export.cli.recipe_word import RecipeWord
from llama_export.cli.searched_recipe import (
    BUDGET_OPTIONS,
    chosen_budget,
    with_searched_recipe,
)
from llama_export.cli.target_options import (
    OWN_SECTIONS,
    SHARED_OPTIONS,
    chosen_options,
    per_target,
)
from llama_export.cli.verb import NeededOption, Section
from llama_export.errors import UsageError
from llama_export.system.memory_shortage import shortage_named
from llama_export.targets import registry
from llama_export.version import __version__
from llama_quantize.recipe import DEFAULT_GROUP_SIZE, GROUP_SIZES, RECIPES, TABLES

if TYPE_CHECKING:
    from rich.console import Console

    from llama_export.exporting.plan import ExportPlan
    from llama_export.exporting.result import ExportResult

_GROUP_SIZES = f"{', '.join(map(str, GROUP_SIZES[:-1]))} or {GROUP_SIZES[-1]}"


def _print_version(context: click.Context, _option: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        write_text(f"llama-export {__version__}\n")
        context.exit()


EXPORT_SECTIONS = (
    Section(
        "Model and output",
        (
            NeededOption(
                ["--target", "-t"],
                multiple=True,
                help=f"{', '.join(registry.TARGETS)} or all; repeat it, or use commas.",
                shell_complete=complete_targets,
            ),
            NeededOption(
                ["--model", "-m"],
                help="3.2-1B, a hub id, a folder, or demo.",
                shell_complete=complete_model,
            ),
            click.Option(
                ["--output", "-o"],
                type=PATH,
                metavar="FOLDER",
                help="Gets one bundle for each target.",
                show_default="./MODEL",
            ),
            REVISION,
            TOKEN,
            click.Option(["--force"], is_flag=True, help="Replace what an export wrote there."),
            click.Option(
                ["--keep-extra"],
                is_flag=True,
                help="Carry over other files that lie in what is replaced.",
                show_default="refused",
            ),
        ),
    ),
    READING_SECTION,
    Section(
        "Weights",
        (
            click.Option(
                ["--quantize"],
                type=RecipeWord(RECIPES),
                metavar="RECIPE",
                help="Recipe of the weights; one word may say all, such as int4:g64:best.",
                show_default=RECIPES[0],
            ),
            click.Option(
                ["--group-size"],
                type=int,
                metavar="N",
                help=f"Weights that share a scale: {_GROUP_SIZES}.",
                show_default=str(DEFAULT_GROUP_SIZE),
            ),
            QUALITY,
            CALIBRATION,
            CALIBRATION_TOKENS,
            click.Option(
                ["--recipe", "recipe_file"],
                type=PATH,
                metavar="FILE",
                help="Recipe in a JSON file, in place of --quantize, --group-size and --table.",
            ),
            *BUDGET_OPTIONS,
            click.Option(
                ["--table"],
                type=click.Choice(TABLES),
                help="Token table and output head: a scale a row, or groups of 32.",
                show_default=TABLES[0],
            ),
            click.Option(
                ["--keep-weights/--no-keep-weights"],
                default=True,
                help="Keep the quantised weights in OUTPUT/weights; verify needs them.",
            ),
        ),
    ),
    Section(
        "Artifact",
        (
            click.Option(
                ["--max-context"],
                type=int,
                metavar="N",
                help="Positions that a conversation may have.",
                show_default=per_target(
                    {
                        target: registry.get(target).default_max_context
                        for target in registry.TARGETS
                    }
                ),
            ),
            *SHARED_OPTIONS,
        ),
    ),
    *OWN_SECTIONS,
    PUSH_SECTION,
    Section(
        "Run",
        (
            click.Option(
                ["--verify/--no-verify"],
                default=True,
                help="Check the artifact before it is published.",
            ),
            click.Option(
                ["--dry-run"],
                is_flag=True,
                help="Only say what it would take: size, memory, time.",
            ),
            JSON,
            VERBOSE,
            click.Option(
                ["--show-completion"],
                type=click.Choice(SHELLS),
                is_eager=True,
                expose_value=False,
                callback=show_script,
                metavar="SHELL",
                help="Print the completion script of a shell.",
            ),
            click.Option(
                ["--version"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_print_version,
                help="Print the version.",
            ),
        ),
    ),
)


@click.pass_context
def export(
    context: click.Context,
    *,
    target: tuple[str, ...],
    model: str | None,
    output: Path | None,
    revision: str | None,
    token: str | None,
    force: bool,
    keep_extra: bool,
    quantize: str | None,
    group_size: int | None,
    quality: str | None,
    calibration: tuple[Path, ...],
    calibration_tokens: int | None,
    recipe_file: Path | None,
    budget_mb: float | None,
    max_kl: float | None,
    table: str | None,
    keep_weights: bool,
    max_context: int | None,
    target_options: Mapping[str, object],
    reading: Mapping[str, object],
    pushing: Mapping[str, object],
    verify: bool,
    dry_run: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Turn a Llama checkpoint into a small quantised model that runs elsewhere, and prove it."""
    if context.invoked_subcommand is not None:
        refuse_options_before(context)
        return
    if not target or model is None:
        message = "an export needs both --target and --model"
        words = [NAME, "--target", ",".join(target) or "onnx", "--model", model or "3.2-1B"]
        raise UsageError(message, shlex.join(words))
    console = open_console(verbose)
    from llama_export.bundle.interrupts import noted_in_place, notes_of
    from llama_export.cli.dry_run import long_calibration, show_plan
    from llama_export.cli.terminal import TerminalProgress, show_error, show_note, show_report
    from llama_export.exporting.plan import plan_export
    from llama_export.exporting.request import ExportRequest

    targets = registry.parse_targets(target)
    push = chosen_push(pushing, token)
    request = ExportRequest(
        model=model,
        targets=targets,
        output=output,
        recipe=quantize,
        group_size=group_size,
        quality=quality,
        calibration=CalibrationOptions(calibration_tokens or OWN_TEXT.tokens, calibration),
        recipe_file=recipe_file,
        table=table,
        max_context=max_context,
        options=chosen_options(target_options, targets),
        revision=revision,
        token=token,
        keep_weights=keep_weights,
        verify=verify,
        force=force,
        keep_extra=keep_extra,
        reading=chosen_reading(reading),
    )
    if (budget := chosen_budget(budget_mb, max_kl)) is not None:
        request = with_searched_recipe(request, budget, console, dry_run=dry_run, as_json=as_json)
    plan = plan_export(request, to_show=dry_run)
    prepared = prepare_push(push, plan, dry_run=dry_run)
    if dry_run:
        show_plan(plan, prepared, as_json=as_json)
        return
    if (line := long_calibration(plan.estimate)) is not None:
        show_note(console, line)
    progress = TerminalProgress(console)
    with progress.step("Starting PyTorch"):
        from llama_export.exporting.pipeline import run_export
        from llama_export.verification.rows import VerificationFailedError
    try:
        with shortage_named(plan.estimate.memory_bytes):
            result = run_export(plan, progress)
    except VerificationFailedError as failed:
        show_report(failed.report, as_json=as_json)
        said = "; ".join([f"{failed}", "nothing was published", *notes_of(failed)])
        show_error(console, said, "--no-verify publishes it unchecked")
        raise click.exceptions.Exit(1) from None
    with noted_in_place():
        _finish(plan, result, prepared, console, as_json=as_json)


def _finish(
    plan: ExportPlan,
    result: ExportResult,
    prepared: PreparedPush | None,
    console: Console,
    *,
    as_json: bool,
) -> None:
    """Print what was made and what can follow, and push it where that was asked for."""
    from llama_export.cli.console import results
    from llama_export.cli.export_table import show_export
    from llama_export.cli.next_steps import show_next_steps
    from llama_export.cli.terminal import show_note

    bundles = [exported.bundle for exported in result.bundles]
    proofs = [
        (bundle, command_after(plan, bundle) if bundle.manifest.runs_here else None)
        for bundle in bundles
    ]
    if not as_json:
        show_export(results(), result)
        for note in result.notes:
            show_note(console, note)
        show_next_steps(console, proofs)
    if any(bundle.manifest.runs_here and command is None for bundle, command in proofs):
        show_note(console, NEVER_AGAIN)
    sent = None
    try:
        sent = push_output(console, prepared, result.output)
    finally:  # the export stands, whatever becomes of its push
        if as_json:
            pushed = {} if prepared is None else {"push": prepared.to_json(sent)}
            write_json({**result.to_json(), **pushed})
